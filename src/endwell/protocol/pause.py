"""Why reading from the peer is paused."""

from __future__ import annotations

from enum import IntFlag

__all__ = ["Pause"]


class Pause(IntFlag):
    """The bits of :meth:`Connection.pauses`. The first two are set from outside, the others are computed or set by the core."""

    #: Server: the request is being answered. Frames that come before the 101 wait in the kernel.
    REQUEST = 1
    #: The application gets no more messages, because the connection is about to be closed.
    DELIVERY = 2
    #: The inbox is full.
    INBOX = 4
    #: The application has not asked for what follows the bytes that were read ahead.
    AHEAD = 8
    #: The peer has ended its side of TCP.
    EOF = 16
    #: A :class:`~endwell.limit.Limit` holds the peer back.
    RATE = 32

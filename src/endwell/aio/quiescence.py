"""When an application is idle: it waits for a message and there is none, or there never was one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from .stream import Stream
from .syscalls import monotonic

__all__ = ["Quiescence", "Receiver"]


class Receiver(Protocol):
    """Where an application waits for messages."""

    #: To be called by it when it is about to wait.
    quiescence: Quiescence | None

    def is_waiting(self) -> bool:
        """Whether it waits now."""
        ...


class Quiescence:
    """Calls ``callback`` once, as soon as the application is idle; see :func:`~endwell.aio.websocket.quiesce`.

    It is what a receiver calls that is about to wait: the answers to what it took are queued,
    and leave with what the callback queues.
    """

    def __init__(
        self, stream: Stream, receiver: Receiver, quiet: float, callback: Callable[[], object]
    ) -> None:
        self._stream = stream
        self._receiver = receiver
        self._quiet = quiet
        self._callback = callback
        self._timer: asyncio.TimerHandle | None = None
        # How many messages the application had taken when that was started, and when it was over.
        self._timed = self._quiet_since = -1
        # Whether _read() is going to be called: once in a turn of the loop, though a receiver is
        # about to wait after each message.
        self._reading = False
        #: Whether the peer is held back, until the connection closes.
        self.reading_stopped = False

    def begin(self) -> None:
        """Judge for the first time, in the middle of whatever the application does."""
        core = self._stream.core
        # So that the last answer does not leave before the callback is called: a peer would ask again.
        self._stream.delay_first_send = True
        if not (core.inbox or core.messages_consumed()):
            # An application that was never given a message owes no answer. But a client that has just
            # connected may have its first question on the way.
            self._quiet_since = 0
            young = core.opened + self._quiet - monotonic()
            if young > 0:
                self._timer = self._stream.loop.call_later(young, self._judge)
            else:
                self()
        elif self._receiver.is_waiting():
            self._wait()

    def stop(self) -> None:
        """Judge no more: it is judged, or the connection closes."""
        if self._receiver.quiescence is self:
            self._receiver.quiescence = None
        if self._timer is not None:
            # It keeps hold of all that belongs to the connection.
            self._timer.cancel()

    def stop_reading(self) -> None:
        """Read nothing more: a peer that always has the next message on the way leaves nobody idle.

        The application is idle when it has taken what came, and is given nothing after that.
        """
        if self._receiver.quiescence is self:
            # Of an open connection only: closing, it reads on, and drops what comes.
            self.reading_stopped = self._stream.core.stop_delivery = True
            self._stream.settle()
            if self._receiver.is_waiting():
                self()

    def __call__(self) -> None:
        """The inbox is empty, and somebody waits or is about to."""
        core = self._stream.core
        if not core.is_open:
            self.stop()
        elif self.reading_stopped or core.answering:  # nothing more comes from the peer
            self.stop()
            self._callback()
        elif self._stream.has_input():
            if not self._reading:
                # Not here: this may be within a read.
                self._reading = True
                self._stream.loop.call_soon(self._read)
        elif core.has_partial_message():
            pass
        elif core.has_sent() and not core.outbox.size and core.messages_consumed() != self._quiet_since:
            # The last answer has left before: the client may have asked again.
            self._wait()
        else:
            self.stop()
            self._callback()

    def _wait(self) -> None:
        """Judge when nothing has come for ``quiet`` seconds."""
        taken = self._stream.core.messages_consumed()
        if self._timer is None or taken != self._timed:
            if self._timer is not None:
                self._timer.cancel()
            self._timed = taken
            self._timer = self._stream.loop.call_later(self._quiet, self._still_waits)

    def _still_waits(self) -> None:
        self._timer = None
        if self._receiver.quiescence is self and self._receiver.is_waiting():
            self._quiet_since = self._stream.core.messages_consumed()
            self()

    def _judge(self) -> None:
        self._timer = None
        core = self._stream.core
        if self._receiver.quiescence is self and (
            self._receiver.is_waiting() or not (core.inbox or core.messages_consumed())
        ):
            self()

    def _read(self) -> None:
        self._reading = False
        if self._receiver.quiescence is self and not self.reading_stopped:
            self._stream.readable()
        core = self._stream.core
        # Perhaps it was no message.
        if self._receiver.quiescence is self and (
            self._receiver.is_waiting() or not (core.inbox or core.messages_consumed())
        ):
            self()

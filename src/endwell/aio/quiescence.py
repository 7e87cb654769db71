"""Detects a quiescent application: it waits for a message and there is none, or there never was one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..protocol.pause import Pause
from ..protocol.receiver import Receiver
from .driver import Driver
from .syscalls import monotonic

__all__ = ["Quiescence"]


class Quiescence:
    """Calls ``callback`` once, when the application is quiescent; see :func:`~endwell.aio.websocket.quiesce`.

    A receiver calls this object when the application is about to wait. The answers to the messages that it
    consumed are queued by then, and leave together with what the callback queues.
    """

    def __init__(
        self, stream: Driver, receiver: Receiver, quiet: float, callback: Callable[[], object]
    ) -> None:
        self._stream = stream
        self._receiver = receiver
        self._quiet = quiet
        self._callback = callback
        self._timer: asyncio.TimerHandle | None = None
        # Messages that the application had consumed when the timer was started, and when it expired.
        self._timed = self._quiet_since = -1
        # Whether a call of _read() is scheduled: at most one per turn of the loop, although a receiver is
        # about to wait after each message.
        self._reading = False
        #: Whether reading from the peer is stopped until the connection closes.
        self.reading_stopped = False

    def begin(self) -> None:
        """Check for the first time, whatever the application does at the moment."""
        core = self._stream.core
        # Keeps the last answer until the callback is called: a peer that gets it would ask again.
        self._stream.delay_first_send = True
        if not (core.inbox or core.messages_consumed()):
            # An application that has received no message owes no answer. But a client that has just connected
            # may have its first question on the way.
            self._quiet_since = 0
            young = core.opened + self._quiet - monotonic()
            if young > 0:
                self._timer = self._stream.loop.call_later(young, self._judge)
            else:
                self()
        elif self._receiver.is_waiting():
            self._wait()

    def stop(self) -> None:
        """Stop checking: the callback is called now, or the connection closes."""
        if self._receiver.quiescence is self:
            self._receiver.quiescence = None
        if self._timer is not None:
            # A pending timer would keep the objects of the connection alive.
            self._timer.cancel()

    def stop_reading(self) -> None:
        """Stop reading: with a peer that always has the next message on the way, nothing else ends the wait.

        The application is quiescent when it has consumed the messages that came; it gets no others.
        """
        if self._receiver.quiescence is self:
            # Only while open. A closing connection reads on and drops the messages.
            self.reading_stopped = True
            self._stream.core.pause(Pause.DELIVERY)
            self._stream.settle()
            if self._receiver.is_waiting():
                self()

    def __call__(self) -> None:
        """Check: the inbox is empty, and the application waits or is about to wait."""
        core = self._stream.core
        if not core.is_open:
            self.stop()
        elif self.reading_stopped or core.answering:  # the peer sends no more messages
            self.stop()
            self._callback()
        elif self._stream.has_input():
            if not core.wants_read():
                # A rate limit holds the input back. Trying to read in each turn of the loop would occupy it.
                self._wait()
            elif not self._reading:
                # Not now, because this may be called within a read.
                self._reading = True
                self._stream.loop.call_soon(self._read)
        elif core.has_partial_message():
            pass
        elif core.has_sent() and not core.outbox.size and core.messages_consumed() != self._quiet_since:
            # The last answer was sent earlier, so the client may have asked again.
            self._wait()
        else:
            self.stop()
            self._callback()

    def _wait(self) -> None:
        """Check again when nothing has come for ``quiet`` seconds."""
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
        # The input may have contained no message.
        if self._receiver.quiescence is self and (
            self._receiver.is_waiting() or not (core.inbox or core.messages_consumed())
        ):
            self()

"""One connection between its event loop and any number of threads.

The connection belongs to the loop's thread; only that thread touches the core. Three things cross:

- Messages to a thread: the core delivers them to a :class:`ThreadInbox`, and the bridge wakes one waiting
  thread for each.
- Messages from a thread: they are *staged* under a small lock, and the bridge is posted to the loop, which
  moves them to the core's outbox. Before the core leaves OPEN, for any reason, it calls
  ``last_call``: the staged messages are queued before the Close, and nothing is staged afterwards. So no
  message that ``send()`` has accepted is lost between staging and sending.
- The end of the connection, to all waiting threads.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from datetime import datetime
from functools import partial
from typing import TypeAlias

from ..aio.callbacks import call_back
from ..aio.syscalls import monotonic
from ..aio.websocket import WebSocket, deliver_to
from ..codes import CloseCode
from ..ending import Cause, Close, Ending
from ..errors import ConnectionClosed
from ..protocol.connection import AHEAD
from ..protocol.receiver import Receiver
from .inbox import ThreadInbox
from .portal import MAX_LOOP_WAIT, Portal
from .waiting import Waiting, acquired_lock, remaining

__all__ = ["Bridge"]

#: Seconds that waiting threads wait for ``on_close`` callbacks before they get the ending anyway.
CALLBACK_TIME = 1.0
#: While the application's quiescence is awaited: seconds for which a staged answer waits for its thread to
#: come back for the next message.
GATHERING_TIME = 0.01


_Callback: TypeAlias = tuple[Callable[[Ending], object], Context]


class Bridge(Receiver):
    """The receiver of the blocking face; see the module. Created in the loop's thread."""

    def __init__(self, ws: WebSocket, portal: Portal) -> None:
        self.ws = ws
        self.portal = portal
        self._core, self._stream = ws._core, ws._stream
        self._senders: deque[threading.Lock] = deque()  # gate
        self._inbox = ThreadInbox(self._core.options, portal, self._senders)
        self._init_receiver(self._inbox)
        self._queue = self._inbox.queue
        self._write_limit = self._core.options.write_limit
        self.takes_binary = self._core.takes_binary()
        # The attributes marked "gate" are changed only while this lock is held.
        self._gate = threading.Lock()
        self.is_open = self._core.is_open  # gate
        self._staged: list[str | bytes] = []  # gate
        self._staged_size = 0  # gate
        self._callbacks: list[_Callback] | None = []  # gate; None: called

        #: Whether the stream handles a read, after which it settles anyway.
        self._reading = False
        self._receivers = Waiting()
        # The threads that have consumed a message and have not come back for the next one.
        self._at_work: set[int] = set()
        self._answer_timer: asyncio.TimerHandle | None = None
        self._closers = Waiting()
        #: The ending of the connection; None while it is open.
        self.ending: Ending | None = None
        self._over = False
        self._callback_thread = 0

        portal.bridges.add(self)
        deliver_to(ws, self)
        ws.on_close(self._ended)

    # -- in the loop ----------------------------------------------------------

    def process_posted(self) -> None:
        """Process what a thread has posted."""
        if self.quiescence is None:
            self.queue_staged()
        elif self.is_waiting():
            self.queue_staged()
            self.quiescence()
        elif self._staged and self._answer_timer is None:
            # The thread may come back immediately. Then the answer leaves together with the quiescence's
            # Close.
            self._answer_timer = self._stream.loop.call_later(GATHERING_TIME, self._answer_timeout)
        self._want_message()
        if not self._reading:
            self._stream.settle()

    def queue_staged(self) -> None:
        """Move the staged messages to the outbox."""
        with self._gate:
            self._flush()

    def _want_message(self) -> None:
        if self._senders or (self._core.partial_size and self._receivers):
            self._core.want_message()

    def _answer_timeout(self) -> None:
        self._answer_timer = None
        self.queue_staged()
        self._stream.settle()

    def _flush(self) -> None:
        staged, core = self._staged, self._core
        if staged:
            now = monotonic()
            for message in staged:
                core.send(message, now)
            staged.clear()
            self._staged_size = 0

    def last_call(self) -> None:
        """Queue what threads have staged; nothing is staged afterwards."""
        with self._gate:
            self._flush()
            self.is_open = False

    def deliver(self, inline: bool) -> None:
        """Wake a thread for each message that has arrived, and the first sender if there is room."""
        inbox = self._inbox
        count, inbox.arrived = inbox.arrived, 0
        if count and self._receivers:
            self._reading = inline
            try:
                self.portal.hand_over(self._receivers, count)
            finally:
                self._reading = False
        if self._senders:
            with self._gate:
                self._admit()
        self._want_message()

    def _ended(self, ending: Ending) -> None:
        self.portal.bridges.discard(self)
        self._inbox.release()
        self.quiescence = None
        if self._answer_timer is not None:
            self._answer_timer.cancel()
        self.ending = ending
        with self._gate:
            callbacks, self._callbacks = self._callbacks, None
        if not callbacks:
            self._publish_end()
            return
        timer = self._stream.loop.call_later(CALLBACK_TIME, self._publish_end)
        job = partial(self._call_back, callbacks, ending, timer.cancel)
        self.portal.callbacks.submit_or_run(job)

    def _call_back(self, callbacks: list[_Callback], ending: Ending, cancel: Callable[[], object]) -> None:
        self._callback_thread = threading.get_ident()
        for callback, context in callbacks:
            call_back(callback, context, ending)
        self._callback_thread = 0
        self._publish_end()
        self.portal.tell(cancel)

    def _publish_end(self) -> None:
        """Make the end known to the waiting threads."""
        self._over = True
        self._receivers.wake_all()
        self._closers.wake_all()
        with self._gate:
            self._admit()

    def _admit(self) -> None:
        """Wake the first waiting sender if it can continue; ``gate`` is held."""
        if self._senders and (not self.is_open or self._room()) and self._senders[0].locked():
            self._senders[0].release()

    def close_now(self, cause: Cause, close: Close) -> None:
        """Begin to close."""
        self._core.close(close, monotonic(), cause)
        self._stream.settle()

    def is_waiting(self) -> bool:
        """Whether no message is queued, and every thread that consumed one has come back for the next."""
        # In this order: a thread is in _at_work before its message leaves the inbox.
        return not self._queue and not self._at_work

    # -- in any thread --------------------------------------------------------

    def _room(self) -> bool:
        return self._staged_size + self._core.outbox.size <= self._write_limit

    def messages_out(self) -> int:
        """The number of messages that :meth:`send` has accepted."""
        with self._gate:
            return self._core.messages_out + len(self._staged)

    def bytes_out(self) -> int:
        """The number of bytes sent. Not that of the ending, which only the loop's thread may compute."""
        return self._core.bytes_out

    def send(self, message: str | bytes) -> None:
        """Stage ``message`` when there is room."""
        with self._gate:
            if self.is_open and not self._senders and self._room():
                self._stage(message)
                return
        if not self.is_open or not self._send_in_turn(message):
            raise ConnectionClosed.of(self.wait_closed(None))

    def _stage(self, message: str | bytes) -> None:
        self._staged.append(message)
        self._staged_size += len(message)
        if len(self._staged) == 1:
            self.portal.post(self)

    def _send_in_turn(self, message: str | bytes) -> bool:
        """Stage ``message`` after those of earlier senders; False if the connection ended first."""
        self.portal.guard()
        lock = acquired_lock()
        try:
            with self._gate:
                self._senders.append(lock)
                self._admit()
            if self._inbox.paused or self._core.partial_size:
                self.portal.post(self)
            while True:
                if not lock.acquire(True, MAX_LOOP_WAIT):
                    self.portal.check_loop()
                    continue
                with self._gate:
                    if not self.is_open:
                        return False
                    if self._senders[0] is lock and self._room():
                        self._stage(message)
                        return True
        finally:
            with self._gate:
                self._senders.remove(lock)
                self._admit()

    def receive(self, timeout: float | None) -> str | bytes | None:
        """Return the next message, or None if there are no more. Raises TimeoutError."""
        deadline = None if timeout is None else monotonic() + timeout
        me = threading.get_ident()
        while True:
            over = self.over()
            self._at_work.add(me)
            try:
                message = self._queue.popleft()
            except IndexError:
                self._at_work.discard(me)
                if over:
                    self._guard_child()
                    return None
                if self.quiescence is not None:
                    self.portal.post(self)
            else:
                if self._inbox.paused and len(self._queue) <= self._inbox.low:
                    self.portal.post(self)
                return message
            self.portal.guard()
            if deadline is not None and monotonic() >= deadline:
                raise TimeoutError(f"no message within {timeout} s")
            self._receivers.wait(self._news, remaining(deadline, monotonic()))

    def _news(self) -> bool:
        if self._core.partial_size >= AHEAD:
            # Called after this thread was added to the receivers. So either the loop sees it there when it
            # has read that much, or this thread sees that the loop has.
            self.portal.post(self)
        return bool(self._queue) or self.over()

    def over(self) -> bool:
        """Whether this thread knows the end. A thread that runs an ``on_close`` callback knows it first."""
        return self._over or self._callback_thread == threading.get_ident()

    def wait_closed(self, timeout: float | None) -> Ending:
        """Wait for the end and return it. Raises TimeoutError."""
        deadline = None if timeout is None else monotonic() + timeout
        while not self.over():
            self.portal.guard()
            if deadline is not None and monotonic() >= deadline:
                raise TimeoutError(f"still open after {timeout} s")
            self._closers.wait(self.over, remaining(deadline, monotonic()))
        self._guard_child()
        assert self.ending is not None
        return self.ending

    def _guard_child(self) -> None:
        if self.ending is None:
            self.portal.guard()

    def close(self, cause: Cause, close: Close) -> Ending:
        """Close and wait for the end."""
        if not self.over():
            self.portal.guard()
            self.portal.soon(self.close_now, cause, close)
        while not self.over():
            self._closers.wait(self.over, MAX_LOOP_WAIT)
            if not self.over():
                self.portal.check_loop()
        return self.wait_closed(None)

    def abandon(self) -> None:
        """Close, because no reference is left. Takes no lock, because the garbage collector calls it."""
        if not self._over:
            self.portal.tell(self.close_now, Cause.APP_CLOSED, Close(CloseCode.NORMAL_CLOSURE))

    def abort(self) -> None:
        """Cut the connection."""
        self.portal.guard()
        self.portal.soon(self.ws.abort)

    def authorize(self, until: datetime | None, subject: str | None) -> None:
        """See :meth:`endwell.sync.WebSocket.authorize`."""
        self.portal.run(self._authorize, until, subject)

    async def _authorize(self, until: datetime | None, subject: str | None) -> None:
        self.ws.authorize(until=until, subject=subject)

    def ping(self, payload: bytes | None, timeout: float | None) -> float:
        """See :meth:`endwell.sync.WebSocket.ping`."""
        if self.over():
            self._core.ping(payload, monotonic())  # sends nothing now, but raises for an invalid payload
            raise ConnectionClosed.of(self.wait_closed(None))
        return self.portal.run(self._ping, payload, timeout=timeout)

    async def _ping(self, payload: bytes | None) -> float:
        self.queue_staged()
        return await self.ws.ping(payload)

    def on_close(self, callback: Callable[[Ending], object]) -> None:
        """See :meth:`endwell.sync.WebSocket.on_close`."""
        with self._gate:
            if self._callbacks is not None:
                self._callbacks.append((callback, copy_context()))
                return
        self._guard_child()
        assert self.ending is not None
        call_back(callback, copy_context(), self.ending)

    def forked(self) -> None:
        """Release the parent's connection in a forked child."""
        self._gate = threading.Lock()  # the parent's lock may never be released
        self.is_open, self._over = False, True
        self._queue.clear()
        self._callbacks = None
        self._stream.forked()

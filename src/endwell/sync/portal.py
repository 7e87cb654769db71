"""Calls between threads and an event loop."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from ..aio.syscalls import monotonic
from ..errors import ConcurrencyError
from .threads import Threads
from .waiting import Waiting

if TYPE_CHECKING:
    from .bridge import Bridge

__all__ = ["Portal"]

T = TypeVar("T")

#: In a hand-over, the loop's thread wakes a thread and yields the GIL to it. If the woken thread computes
#: instead of waiting again, the loop gets the GIL back only after Python's switch interval (5 ms by default).
#: A hand-over that takes longer than this number of seconds is a sign of that.
MAX_HANDOVER_TIME = 0.001
#: For this number of seconds after it, threads are woken without yielding to them.
HANDOVER_PAUSE = 0.1
#: Posted bridges that are processed in one turn of the loop. Without this limit, a thread that never stops
#: sending would starve the loop, and with it the close() of another thread.
MAX_POSTED_PER_TURN = 256
#: The message of the error when the loop ends during a call.
_LOOP_ENDED = (
    "this call was interrupted: its event loop has ended, because the server stopped or the interpreter exits"
)
#: Seconds after which a call raises ConcurrencyError if the loop has not begun it. asyncio has no such limit, but
#: the loop may be blocked by a callback that waits for the calling thread.
MAX_LOOP_WAIT = 30.0
#: Seconds between two checks whether the loop is closed. asyncio drops the callbacks that it has not called then.
LOOP_CHECK_INTERVAL = 1.0
_LOOP_BLOCKED = (
    "the event loop has not begun this call within %.0f s: it does not run, or a callback or async function in "
    "it blocks, and may wait for this thread"
)
#: Maximum number of threads that run ``on_close`` callbacks.
CALLBACKS = 8


class Portal:
    """What the blocking connections of one event loop share.

    The state of a connection belongs to the loop's thread. Other threads :meth:`post` a bridge, which
    wakes the loop once for any number of posts.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        #: Bytes that inboxes hold above their limits while sends are blocked (``inbox.DEADLOCK_ALLOWANCE``).
        self.surplus = 0
        #: The threads of ``on_close`` callbacks, which may block.
        self.callbacks = Threads(CALLBACKS, "endwell on_close")
        #: The threads of callbacks of ``reconnecting``. Without a bound, because each attempt waits for its
        #: callback: ``on_close`` callbacks that occupy all threads may wait for attempts.
        self.reconnecting_callbacks = Threads(sys.maxsize, "endwell reconnecting")
        self.bridges: WeakSet[Bridge] = WeakSet()
        self._inherited = False
        self._thread = threading.get_ident()
        self._posted: deque[Bridge] = deque()
        # Held while the posted bridges are going to be processed: by one pending callback of the loop, or by
        # the call that processes them now. So at most one callback is pending, however many threads post.
        self._wakeup_pending = threading.Lock()
        self._paused_until = 0.0
        _forkable.add(self)

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> Portal:
        """Return the portal of ``loop``. Call it in the thread of that loop."""
        portal = _portals.get(loop)
        if portal is None:
            portal = _portals[loop] = Portal(loop)
        return portal

    def post(self, bridge: Bridge) -> None:
        """Have the loop process ``bridge``. May be called in any thread; cheap if a wake-up is pending."""
        self._posted.append(bridge)
        # After the append: either the loop, which checks the queue again after it has released the lock, sees
        # this bridge, or this thread gets the lock and wakes the loop.
        if self._wakeup_pending.acquire(False):
            self.loop.call_soon_threadsafe(self._process_posted)

    def _process_posted(self) -> None:
        """Process the posted bridges, in several turns of the loop if they are many.

        The caller holds ``_wakeup_pending``. It is released when no posted bridge is left.
        """
        try:
            self._process_batch()
        finally:
            if self._keep_or_release_wakeup():
                self.loop.call_soon(self._process_posted)

    def _keep_or_release_wakeup(self) -> bool:
        """Return whether bridges are left; if not, ``_wakeup_pending`` is released."""
        if self._posted:
            return True
        self._wakeup_pending.release()
        return bool(self._posted) and self._wakeup_pending.acquire(False)

    def _process_batch(self) -> None:
        posted = self._posted
        for _ in range(MAX_POSTED_PER_TURN):
            if not posted:
                break
            posted.popleft().process_posted()

    def hand_over(self, waiting: Waiting, count: int) -> None:
        """Wake at most ``count`` threads and yield the GIL to them.

        What they send before they wait again is written in this turn of the loop.
        """
        now = monotonic()
        if now < self._paused_until:
            waiting.wake(count)
            return
        # Holding the lock saves the woken threads from waking the loop: their posts are processed below.
        mine = self._wakeup_pending.acquire(False)
        waiting.hand_over(count)
        if mine:
            self._process_posted()
        elif self._posted:
            self._process_batch()
        if monotonic() - now > MAX_HANDOVER_TIME:
            self._paused_until = now + HANDOVER_PAUSE

    def is_own_thread(self) -> bool:
        """Whether the caller runs in the thread of the loop."""
        return threading.get_ident() == self._thread

    def guard(self) -> None:
        """Raise ConcurrencyError where a blocking call could never return."""
        if self._inherited:
            raise ConcurrencyError(
                "this connection belongs to the process that opened it, not to a forked child"
            )
        if self.is_own_thread():
            raise ConcurrencyError(
                "this call would block the event loop, because it is made in the loop's thread"
            )

    def run(
        self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any, timeout: float | None = None
    ) -> T:
        """Run ``await function(*args)`` in the loop, wait for it in this thread, and return its result.

        Raises TimeoutError after ``timeout`` seconds, and ConcurrencyError if the loop ends first, or is
        blocked. After a time-out or Ctrl-C the coroutine is cancelled.
        """
        self.guard()
        begun = threading.Lock()
        coroutine = _begin(begun, function, args)
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError:  # the loop is closed
            coroutine.close()
            raise ConcurrencyError(_LOOP_ENDED) from None
        try:
            return self._wait(future, begun, timeout)
        except CancelledError:
            raise ConcurrencyError(_LOOP_ENDED) from None
        finally:
            future.cancel()
            if self.loop.is_closed() and begun.acquire(False):
                coroutine.close()

    def _wait(self, future: Future[T], begun: threading.Lock, timeout: float | None) -> T:
        start = monotonic()
        end = inf if timeout is None else start + timeout
        while not future.done():
            now = monotonic()
            if now >= end:
                raise TimeoutError
            if self.loop.is_closed():
                raise CancelledError
            # The thread that locks ``begun`` first decides: the loop begins the call, or this thread raises.
            if now - start >= MAX_LOOP_WAIT and begun.acquire(False):
                raise ConcurrencyError(_LOOP_BLOCKED % MAX_LOOP_WAIT)
            seconds = MAX_LOOP_WAIT if begun.locked() else min(LOOP_CHECK_INTERVAL, MAX_LOOP_WAIT)
            with suppress(TimeoutError):
                return future.result(min(seconds, end - now))
        return future.result()

    def check_loop(self) -> None:
        """Raise ConcurrencyError if the loop is blocked or has ended; returns as soon as the loop answers."""
        self.run(asyncio.sleep, 0)

    def soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function(*args)`` in the loop. May be called in any thread."""
        self.loop.call_soon_threadsafe(function, *args)

    def tell(self, function: Callable[..., object], *args: Any) -> None:
        """Like :meth:`soon`, but do nothing if the loop is closed."""
        try:
            self.soon(function, *args)
        except RuntimeError:
            pass

    def _forked(self) -> None:
        self._inherited = True
        _kept.append(self.loop)
        for bridge in list(self.bridges):
            bridge.forked()


async def _begin(
    begun: threading.Lock, function: Callable[..., Coroutine[Any, Any, T]], args: tuple[Any, ...]
) -> T:
    if not begun.acquire(False):
        raise asyncio.CancelledError  # the thread has given up
    return await function(*args)


_portals: WeakKeyDictionary[asyncio.AbstractEventLoop, Portal] = WeakKeyDictionary()
_forkable: WeakSet[Portal] = WeakSet()
#: In a child process: the parent's loops. Closing one would remove the parent's sockets from the epoll
#: instance, which both processes share.
_kept: list[asyncio.AbstractEventLoop] = []


def _in_child() -> None:
    for portal in list(_forkable):
        portal._forked()
    _portals.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)

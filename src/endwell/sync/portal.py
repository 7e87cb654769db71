"""The way from threads to an event loop, and back."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
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

#: Seconds after which whoever was let run first is taken to be computing, and seconds for which
#: nobody is let run first then: each time would cost Python's switch interval.
COMPUTING = 0.001
PAUSE = 0.1
#: Words that are attended to in one turn of the loop. The rest waits for the next turn: without this
#: limit, a thread that never stops sending would starve the loop, and with it the close() of another thread.
MAX_ATTENDED = 256
#: Why a call has no result.
_CUT_OFF = (
    "this call was cut off: its event loop has ended, because the server stopped or the interpreter exits"
)
#: Threads that run ``on_close`` callbacks, at most.
CALLBACKS = 8


class Portal:
    """What the blocking connections of one event loop share.

    Everything that a connection remembers belongs to its loop's thread. Other threads
    leave word (:meth:`post`), and the loop is woken once, however many have.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        #: Bytes that inboxes hold above their limits, so that sends may go on (see ``Bridge``).
        self.surplus = 0
        #: Where ``on_close`` callbacks run: they may block, which the loop may not.
        self.callbacks = Threads(CALLBACKS, "endwell on_close")
        self.bridges: WeakSet[Bridge] = WeakSet()
        self._inherited = False
        self._thread = threading.get_ident()
        self._posted: deque[Bridge] = deque()
        # Held while the loop is going to attend: by one pending callback, or by the call that attends now. So
        # there is never more than one callback, however many threads leave word.
        self._wakeup_pending = threading.Lock()
        self._paused_until = 0.0
        _forkable.add(self)

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> Portal:
        """That of ``loop``; to be called in its thread."""
        portal = _portals.get(loop)
        if portal is None:
            portal = _portals[loop] = Portal(loop)
        return portal

    def post(self, bridge: Bridge) -> None:
        """Have the loop attend to ``bridge``; from any thread, and cheap if the loop knows already."""
        self._posted.append(bridge)
        # After the append: either the loop, which looks again after it has released the lock, sees our
        # bridge, or we get the lock and wake the loop.
        if self._wakeup_pending.acquire(False):
            self.loop.call_soon_threadsafe(self._attend)

    def _attend(self) -> None:
        """Attend to what was posted; the caller holds ``_wakeup_pending``, which is released or passed on."""
        try:
            self._hear()
        finally:
            if self._more():
                self.loop.call_soon(self._attend)

    def _more(self) -> bool:
        """Whether there is more to attend to; if not, ``_wakeup_pending`` is released."""
        if self._posted:
            return True
        self._wakeup_pending.release()
        return bool(self._posted) and self._wakeup_pending.acquire(False)

    def _hear(self) -> None:
        posted = self._posted
        for _ in range(MAX_ATTENDED):
            if not posted:
                break
            posted.popleft().attend()

    def hand_over(self, waiting: Waiting, count: int) -> None:
        """Wake so many threads, and let them run first: what they answer at once leaves with this turn."""
        now = monotonic()
        if now < self._paused_until:
            waiting.wake(count)
            return
        # Meanwhile no thread needs to wake the loop: it attends below.
        mine = self._wakeup_pending.acquire(False)
        waiting.hand_over(count)
        if mine:
            self._attend()
        elif self._posted:
            self._hear()
        if monotonic() - now > COMPUTING:
            self._paused_until = now + PAUSE

    def guard(self) -> None:
        """Raise ConcurrencyError where waiting would wait for ever."""
        if self._inherited:
            raise ConcurrencyError("this connection belongs to the process that opened it, not to its fork")
        if threading.get_ident() == self._thread:
            raise ConcurrencyError("this call blocks, but it was made in the thread of the event loop")

    def run(
        self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any, timeout: float | None = None
    ) -> T:
        """The result of ``await function(*args)`` in the loop; waits for it, in any other thread.

        Raises TimeoutError, and ConcurrencyError if the loop ends first. Left early, by a
        time-out or by Ctrl-C, the coroutine is cancelled.
        """
        self.guard()
        coroutine = function(*args)
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        except RuntimeError:  # the loop is closed
            coroutine.close()
            raise ConcurrencyError(_CUT_OFF) from None
        try:
            return future.result(timeout)
        except CancelledError:
            raise ConcurrencyError(_CUT_OFF) from None
        finally:
            future.cancel()

    def soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call ``function(*args)`` in the loop."""
        self.loop.call_soon_threadsafe(function, *args)

    def tell(self, function: Callable[..., object], *args: Any) -> None:
        """The same, unless the loop is closed: then there is nobody to be told, and nothing to be done."""
        try:
            self.soon(function, *args)
        except RuntimeError:
            pass

    def _forked(self) -> None:
        self._inherited = True
        _kept.append(self.loop)
        for bridge in list(self.bridges):
            bridge.forked()


_portals: WeakKeyDictionary[asyncio.AbstractEventLoop, Portal] = WeakKeyDictionary()
_forkable: WeakSet[Portal] = WeakSet()
#: The parent's loops, in a child: closing one would take the parent's sockets off the
#: parent's watch, because both have the same epoll.
_kept: list[asyncio.AbstractEventLoop] = []


def _in_child() -> None:
    for portal in list(_forkable):
        portal._forked()
    _portals.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)

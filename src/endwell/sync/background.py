"""The event loop of the blocking clients: one thread for all of them."""

from __future__ import annotations

import _thread
import asyncio
import atexit
import os
import threading
from contextlib import suppress
from time import monotonic
from types import BuiltinFunctionType

from ..aio.loop import loop_factory
from ..aio.websocket import close_for
from ..codes import CloseCode
from ..ending import Cause
from .portal import Portal

__all__ = ["background", "exiting"]

#: Seconds for the closing handshakes of the open connections when the interpreter exits.
EXIT_TIME = 1.0


class _Background:
    """The thread that runs the event loop."""

    def __init__(self) -> None:
        self.portal: Portal | None = None
        self.exiting = False
        self._stopped: asyncio.Event | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="endwell", daemon=True)
        self._thread.start()
        self._started.wait()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        self._stopped = asyncio.Event()
        self.portal = Portal.of(asyncio.get_running_loop())
        self._started.set()
        await self._stopped.wait()

    def stop(self) -> None:
        """Close the open connections, and end the thread."""
        assert self.portal is not None and self._stopped is not None
        self.exiting = True
        # The time is up if the loop is blocked, or the process stood still.
        with suppress(TimeoutError):
            self.portal.run(self._close_all, timeout=2 * EXIT_TIME)
        with suppress(TimeoutError):
            self.portal.run(self._abort_all, timeout=EXIT_TIME)
        # The interpreter does not wait for the threads of callbacks, so wait for them here.
        deadline = monotonic() + EXIT_TIME
        for threads in (self.portal.callbacks, self.portal.reconnecting_callbacks):
            threads.finish(deadline - monotonic())
        self.portal.soon(self._stopped.set)
        self._thread.join(EXIT_TIME)

    async def _close_all(self) -> None:
        assert self.portal is not None
        closing = [
            asyncio.ensure_future(close_for(bridge.ws, Cause.APP_CLOSED, CloseCode.GOING_AWAY))
            for bridge in self.portal.bridges
        ]
        if closing:
            await asyncio.wait(closing, timeout=EXIT_TIME)

    async def _abort_all(self) -> None:
        """Cut the connections whose peer has not answered, so that their on_close callbacks are called too."""
        assert self.portal is not None
        for bridge in [*self.portal.bridges]:
            bridge.ws.abort()


_lock = threading.Lock()
_background: _Background | None = None


def background() -> Portal:
    """Return the portal of the shared event loop, which starts with the first connection.

    Raises RuntimeError if threads are monkey-patched.
    """
    if type(_thread.start_new_thread) is not BuiltinFunctionType:
        # gevent or eventlet. The loop would run in a greenlet, which cannot run while the caller waits.
        raise RuntimeError(
            "threads are monkey-patched here (gevent or eventlet), and endwell.sync needs real ones"
        )
    global _background  # noqa: PLW0603  (one for each process)
    with _lock:
        if _background is None:
            _background = _Background()
        assert _background.portal is not None
        return _background.portal


def exiting() -> bool:
    """Return whether the interpreter exits, so that the shared loop ends soon or has ended."""
    return _background is not None and _background.exiting


def _at_exit() -> None:
    # Python calls this after it has joined the non-daemon threads, which may use their connections until
    # then.
    if _background is not None:
        _background.stop()


def _in_child() -> None:
    global _background, _lock  # the child has none of the parent's threads
    _background, _lock = None, threading.Lock()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)

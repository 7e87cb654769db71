"""Handlers that block: each runs in a thread, and the event loop goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextvars import copy_context
from functools import partial
from typing import Any

from ..aio.admission import LimitLog
from ..aio.callbacks import check_returned
from ..aio.websocket import WebSocket
from ..errors import ServiceUnavailable
from ..sync.bridge import Bridge
from ..sync.draining import ThreadDrainEvent
from ..sync.portal import Portal
from ..sync.threads import Threads
from ..sync.websocket import WebSocket as BlockingWebSocket

__all__ = ["HandlerThreads"]

#: Threads that answer HTTP requests, at most; more requests wait. Apart from those of
#: WebSockets, which are busy for as long as a connection lasts.
PAGES = 32
#: The same for ``process_request``, so that no page keeps a WebSocket from being accepted.
HOOKS = 32
#: The same for files, so that no page keeps another page's scripts waiting.
FILES = 8


class HandlerThreads:
    """The threads of one server."""

    def __init__(self, max_threads: int) -> None:
        if isinstance(max_threads, bool) or not isinstance(max_threads, int):
            raise TypeError(f"max_threads must be a number of threads, not {max_threads!r}")
        if max_threads < 1:
            raise ValueError(f"max_threads must be positive, not {max_threads!r}")
        self._handlers = Threads(max_threads, "endwell handler")
        self._pages = Threads(PAGES, "endwell page")
        self._hooks = Threads(HOOKS, "endwell hook")
        self._files = Threads(FILES, "endwell file")
        #: What still runs. A thread cannot be cancelled, so this may outlive the task that waits for it.
        self.running: set[asyncio.Future[Any]] = set()
        #: What blocking handlers know of the server's stopping.
        self.draining = ThreadDrainEvent()
        self._reserved = 0
        #: Where ``on_close`` callbacks run, once there was a blocking handler.
        self._callbacks: Threads | None = None
        self._log = LimitLog("max_threads", max_threads)

    def begin(self) -> None:
        """The server serves, perhaps once more."""
        self.draining = ThreadDrainEvent()

    def blocking(self, ws: WebSocket) -> BlockingWebSocket:
        """The blocking face of ``ws``."""
        portal = Portal.of(asyncio.get_running_loop())
        if self._callbacks is None:
            # When the server stops, the system may have no thread to give.
            self._callbacks = portal.callbacks
            self._callbacks.keep()
        return BlockingWebSocket(Bridge(ws, portal), self.draining)

    def reserve(self) -> None:
        """Keep a thread for a connection, to be used by :meth:`handle`. Raises ServiceUnavailable."""
        if self._reserved >= self._handlers.bound:
            self._log.refused()
            raise ServiceUnavailable("all threads are busy")
        self._reserved += 1

    async def handle(
        self,
        handler: Callable[..., object],
        ws: BlockingWebSocket,
        params: Mapping[str, str],
        returned: Callable[[], object],
    ) -> None:
        """Run the handler of a connection, in the thread that was reserved for it.

        ``returned()`` is called in the loop when it has, whoever still waits for that here.
        """

        def after(done: object) -> None:
            self._reserved -= 1
            self._log.left(self._reserved)
            returned()

        await self._run(self._handlers, partial(_handle, handler, ws, params), after)

    async def page(self, handler: Callable[..., object], *args: object, **params: str) -> Any:
        """What the ``handler`` of a page returns."""
        return await self._run(self._pages, partial(handler, *args, **params))

    async def hook(self, hook: Callable[..., object], *args: object) -> Any:
        """What a ``process_request`` hook returns."""
        return await self._run(self._hooks, partial(hook, *args))

    async def file(self, read: Callable[..., object], *args: object) -> Any:
        """What ``read`` returns, which reads a file."""
        return await self._run(self._files, partial(read, *args))

    async def _run(
        self, threads: Threads, call: Callable[[], object], after: Callable[[object], None] | None = None
    ) -> Any:
        loop, context = asyncio.get_running_loop(), copy_context()
        done: asyncio.Future[tuple[object, BaseException | None]] = loop.create_future()

        def job() -> None:
            outcome: tuple[object, BaseException | None]
            try:
                outcome = context.run(call), None
            except BaseException as exc:
                outcome = None, exc
            try:
                loop.call_soon_threadsafe(done.set_result, outcome)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

        self.running.add(done)
        done.add_done_callback(self.running.discard)
        if after is not None:
            done.add_done_callback(after)
        try:
            threads.submit(job)
        except RuntimeError as refused:  # the system has no thread to give
            done.set_result((None, refused))
        # A thread cannot be cancelled: it is left, and a drain waits for it.
        returned, exc = await asyncio.shield(done)
        if isinstance(exc, Exception):
            raise exc
        if exc is not None:
            # sys.exit() ends what was called, and neither the loop nor the process.
            raise RuntimeError(f"{exc!r} in a thread of a handler") from exc
        return returned

    def dismiss(self) -> None:
        """The server has stopped: idle threads may go, and those that still work are left alone."""
        # And no more: a task that never began has given nothing back.
        self._reserved = len(self.running)
        self._log.left(self._reserved)
        self._handlers.dismiss()
        for threads in (self._pages, self._hooks, self._files):
            threads.dismiss()
        if self._callbacks is not None:
            self._callbacks.release()
            self._callbacks = None


def _handle(handler: Callable[..., object], ws: BlockingWebSocket, params: Mapping[str, str]) -> None:
    # It was given the blocking WebSocket already, so awaiting what it returned would help nobody.
    check_returned(handler(ws, **params), handler)

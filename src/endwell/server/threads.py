"""Threads for blocking handlers, so that they do not block the event loop."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextvars import Context, copy_context
from functools import partial
from threading import Lock
from typing import Any, TypeAlias

from ..aio.admission import LimitLog
from ..aio.callbacks import check_returned
from ..aio.loop import memory_of
from ..aio.websocket import WebSocket
from ..errors import ServiceUnavailable
from ..sync.bridge import Bridge
from ..sync.flag import ThreadFlag
from ..sync.portal import Portal
from ..sync.threads import Threads
from ..sync.websocket import WebSocket as BlockingWebSocket

__all__ = ["HandlerThreads", "Outcome", "result_of"]

logger = logging.getLogger("endwell.server")

#: Maximum threads for HTTP handlers; further requests wait. WebSocket handlers have their own threads,
#: because each of them runs as long as its connection.
PAGES = 32
#: Maximum threads for ``process_request`` hooks, so that slow HTTP handlers do not delay a WebSocket.
HOOKS = 32
#: Maximum threads that read files, so that slow HTTP handlers do not delay the scripts of a page.
FILES = 8
#: Maximum threads for the ``authorize`` function of the dashboard. Strangers cause its calls, so a database that does
#: not answer must delay nothing else.
OPERATORS = 8
#: Maximum threads for ``on_start``, ``on_drain`` and ``on_stop`` callbacks.
LIFESPAN = 32

#: What ends an iterable: an item may be anything, None included.
_END = object()

#: What a call has returned, and None; or None, and what it has raised.
Outcome: TypeAlias = tuple[object, BaseException | None]


class HandlerThreads:
    """The threads of one server: for handlers, hooks, files, ``authorize`` of the dashboard and lifespan callbacks."""

    def __init__(self, max_threads: int) -> None:
        if isinstance(max_threads, bool) or not isinstance(max_threads, int):
            raise TypeError(f"max_threads must be an integer, not {max_threads!r}")
        if max_threads < 1:
            raise ValueError(f"max_threads must be positive, not {max_threads!r}")
        self._handlers = Threads(max_threads, "endwell handler")
        self._pages = Threads(PAGES, "endwell page")
        self._hooks = Threads(HOOKS, "endwell hook")
        self._files = Threads(FILES, "endwell file")
        self._operators = Threads(OPERATORS, "endwell operator")
        self._lifespan = Threads(LIFESPAN, "endwell callback")
        #: A future for each call that still runs, and whether it is a WebSocket handler. A thread cannot be
        #: cancelled, so the call may outlive the task that waits for it.
        self.running: dict[asyncio.Future[Outcome], bool] = {}
        #: The ``draining`` event of the blocking WebSockets.
        self.draining = ThreadFlag()
        #: The class of the blocking WebSockets.
        self.websocket_type: type[BlockingWebSocket] = BlockingWebSocket
        self._reserved = 0
        #: The threads of ``on_close`` callbacks; None before the first connection of a blocking handler.
        self._callbacks: Threads | None = None
        self._log = LimitLog("max_threads", max_threads)

    def begin(self) -> None:
        """Reset the state when the server starts, which it may do several times."""
        self.draining = ThreadFlag()

    def blocking(self, ws: WebSocket) -> BlockingWebSocket:
        """Return the blocking WebSocket for ``ws``."""
        portal = Portal.of(asyncio.get_running_loop())
        if self._callbacks is None:
            # Keep a thread now, because the system may be unable to start one when the server stops.
            self._callbacks = portal.callbacks
            self._callbacks.keep()
        return self.websocket_type(Bridge(ws, portal), self.draining)

    def reserve(self) -> None:
        """Reserve a thread for the connection that is passed to :meth:`handle` next.

        Raises:
            ServiceUnavailable: All ``max_threads`` are reserved.
        """
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
        context: Context,
    ) -> None:
        """Run the handler of a connection in the reserved thread, in ``context``.

        ``returned()`` is called in the loop after the handler has returned, even if the caller of this
        method was cancelled before.
        """

        def after(done: object) -> None:
            self._reserved -= 1
            self._log.left(self._reserved)
            returned()

        await self._run(self._handlers, partial(_handle, handler, ws, params), after, context)

    async def page(self, handler: Callable[..., object], *args: object, **params: str) -> Any:
        """Call an HTTP ``handler`` in a thread; returns its return value."""
        return await self._run(self._pages, partial(handler, *args, **params))

    async def iterate(self, iterable: Iterable[bytes | str]) -> AsyncIterator[bytes | str]:
        """The items of ``iterable``, each produced in a thread; a generator is closed there, too."""
        source = _Source(await self._run(self._pages, partial(iter, iterable)))
        try:
            while (item := await self._run(self._pages, source.produce)) is not _END:
                yield item
        finally:
            await self._run(self._pages, source.close)

    async def hook(self, hook: Callable[..., object], *args: object) -> Any:
        """Call a ``process_request`` hook in a thread; returns its return value."""
        return await self._run(self._hooks, partial(hook, *args))

    async def file(self, read: Callable[..., object], *args: object) -> Any:
        """Call ``read``, which reads a file, in a thread; returns its return value."""
        return await self._run(self._files, partial(read, *args))

    async def operator(self, authorize: Callable[..., object], *args: object) -> Any:
        """Call ``authorize`` of the dashboard in a thread; returns its return value."""
        return await self._run(self._operators, partial(authorize, *args))

    def keep_lifespan_thread(self) -> None:
        """Start a thread for ``on_stop`` callbacks, because the system may be unable to start one later."""
        self._lifespan.keep()

    def release_lifespan_thread(self) -> None:
        """Undo one :meth:`keep_lifespan_thread`."""
        self._lifespan.release()

    def start(
        self, callback: Callable[..., object], *args: object, context: Context
    ) -> asyncio.Future[Outcome]:
        """Start a lifespan ``callback`` in a thread, in ``context``. :func:`result_of` waits for it."""
        return self._submit(self._lifespan, partial(callback, *args), context)

    async def _run(
        self,
        threads: Threads,
        call: Callable[[], object],
        after: Callable[[object], None] | None = None,
        context: Context | None = None,
    ) -> Any:
        # A thread cannot be cancelled. It goes on if this task is cancelled, and a drain waits for it.
        done = self._submit(threads, call, copy_context() if context is None else context, after)
        returned, exc = await asyncio.shield(done)
        if isinstance(exc, Exception):
            raise exc
        if exc is not None:
            # sys.exit() in a thread ends the call, and neither the loop nor the process.
            raise RuntimeError(f"{exc!r} in a thread of a handler") from exc
        return returned

    def _submit(
        self,
        threads: Threads,
        call: Callable[[], object],
        context: Context,
        after: Callable[[object], None] | None = None,
    ) -> asyncio.Future[Outcome]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Outcome] = loop.create_future()

        def job() -> None:
            outcome: Outcome
            try:
                outcome = context.run(call), None
            except BaseException as exc:
                outcome = None, exc
            try:
                loop.call_soon_threadsafe(done.set_result, outcome)
            except RuntimeError:
                pass  # the loop is closed, so no task waits for the outcome

        self.running[done] = threads is self._handlers
        done.add_done_callback(self.running.pop)
        if after is not None:
            done.add_done_callback(after)
        try:
            _hold_clock(loop, done, threads is self._handlers)
            threads.submit(job)
        except RuntimeError as refused:  # also if the system cannot start a thread
            done.set_result((None, refused))
        return done

    def dismiss(self) -> None:
        """End the idle threads when the server has stopped; busy threads end after their current call."""
        # Set instead of decremented, because a task that never started has not released its reservation.
        self._reserved = sum(self.running.values())
        self._log.left(self._reserved)
        self._handlers.dismiss()
        for threads in (self._pages, self._hooks, self._files, self._operators):
            threads.dismiss()
        if self._callbacks is not None:
            self._callbacks.release()
            self._callbacks = None


def _hold_clock(loop: asyncio.AbstractEventLoop, done: asyncio.Future[Outcome], of_handler: bool) -> None:
    """Have a virtual clock (``aio/virtual.py``) wait for a thread. A handler's thread itself waits for the clock."""
    if (memory := memory_of(loop)) is not None:
        if of_handler:
            raise RuntimeError(
                "a plain WebSocket handler cannot run on a virtual clock, which waits for no thread"
            )
        memory.loop.hold(done)


class _Source:
    """An iterator that threads use. It may be closed while an item is produced: then it is closed after that."""

    def __init__(self, iterator: Iterator[bytes | str]) -> None:
        self._iterator = iterator
        self._lock = Lock()
        self._produces = self._closed = False

    def produce(self) -> object:
        """The next item; ``_END`` if there is none, or if the iterator was closed meanwhile."""
        with self._lock:
            if self._closed:
                return _END
            self._produces = True
        try:
            return next(self._iterator, _END)
        finally:
            with self._lock:
                self._produces, closed = False, self._closed
            if closed:
                self._close_late()

    def close(self) -> None:
        """Close the iterator, now or after the item that is produced."""
        with self._lock:
            self._closed = True
            if self._produces:
                return
        self._close()

    def _close(self) -> None:
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()

    def _close_late(self) -> None:
        try:
            self._close()
        except Exception:  # the task that would report it has ended
            logger.exception("closing the iterable of a response failed")


async def result_of(done: asyncio.Future[Outcome]) -> object:
    """Wait for the end of a lifespan callback in a thread. Await its result if it is awaitable."""
    returned, exc = await asyncio.shield(done)
    if isinstance(exc, Exception | SystemExit):
        raise exc
    if exc is not None:
        raise RuntimeError(f"{exc!r} in a thread of a callback") from exc
    return await returned if inspect.isawaitable(returned) else returned


def _handle(handler: Callable[..., object], ws: BlockingWebSocket, params: Mapping[str, str]) -> None:
    # An awaitable result is an error: this handler has the blocking WebSocket, and runs outside the loop.
    check_returned(handler(ws, **params), handler)

"""The server: routes, handlers, running and stopping."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import signal
import ssl as tls
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import Context, copy_context
from typing import Any, TypeVar, Unpack

from ..aio.broadcast import Broadcast, Slow, broadcast
from ..aio.listen import Listener, Opening, bind
from ..aio.loop import loop_factory
from ..aio.websocket import WebSocket
from ..codes import CloseCode
from ..ending import Cause, Ending
from ..errors import ConnectionClosed, HandshakeError
from ..http import Request, Response
from ..options import OptionKeywords, Options
from ..protocol.handshake import wants_websocket
from ..protocol.opening import accept
from ..sync.websocket import WebSocket as BlockingWebSocket
from .respond import browser_module, complete, response_from, static
from .router import Route, Router, blocks
from .sessions import Sessions
from .threads import Workers, blocking

__all__ = ["Server"]

logger = logging.getLogger("endwell.server")

Function = TypeVar("Function", bound=Callable[..., Any])
Hook = Callable[[Request], Response | Awaitable[Response | None] | None]

#: Seconds that a cancelled handler has for its cleanup when the server stops.
CLEANUP_TIME = 5.0


class Server:
    """A WebSocket and HTTP server for one or more addresses.

    ``options`` holds for every connection; each of its fields can also be given as
    a keyword. Raises TypeError for an unknown one.

    Handlers are coroutine functions, or plain functions, which may block: those run in
    threads, at most ``max_threads`` for WebSockets at a time. One more connection for
    them is refused with 503; all others go on.
    """

    def __init__(
        self, options: Options | None = None, *, max_threads: int = 1000, **keywords: Unpack[OptionKeywords]
    ) -> None:
        self.options = (options or Options()).but(**keywords)
        #: The connections that are open or closing.
        self.connections: set[WebSocket] = set()
        #: ``host:port`` pairs, or Unix paths, that the server listens on.
        self.addresses: list[Any] = []
        #: The current connection of each user, device or tab, for handlers that say who they serve.
        self.sessions = Sessions()
        self._router = Router()
        self._hook: Hook | None = None
        self._watchers: list[Callable[[Any, Ending], object]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._forget = self._tasks.discard
        self._context = Context()
        self._workers = Workers(max_threads)
        self._stopping = False

    # -- routes ---------------------------------------------------------------

    def websocket(self, path: str, *, cancel_on_end: bool = False) -> Callable[[Function], Function]:
        """Decorate the ``handler(ws, **params)``, plain or async, of a path's connections.

        A plain function runs in a thread and gets the blocking :class:`endwell.sync.WebSocket`.
        A handler that returns closes with 1000; one that raises closes with 1011, and
        the exception is logged once. A handler is not cancelled when its connection
        ends, so that the code at its end always runs; ``cancel_on_end`` asks for it, of
        a coroutine function.

        Raises ValueError for a pattern that is malformed, taken, or whose parameters
        the handler does not accept.
        """

        def register(handler: Function) -> Function:
            self._router.add("websocket", path, handler, cancel_on_end=cancel_on_end)
            return handler

        return register

    def get(self, path: str) -> Callable[[Function], Function]:
        """Decorate the ``handler(request, **params)``, plain or async, of a path's GET and HEAD requests.

        It returns a :class:`Response`, ``str``, ``bytes``, or a dict or list for
        JSON, within ``open_timeout``. A plain function runs in a thread.
        """

        def register(handler: Function) -> Function:
            self._router.add("http", path, handler)
            return handler

        return register

    def static(self, path: str, folder: str | os.PathLike[str]) -> None:
        """Serve the files of ``folder`` below ``path``."""
        self._router.add("http", path.rstrip("/") + "/{path:path}", static(folder))

    def browser_module(self, path: str = "/endwell.js") -> None:
        """Serve ``endwell.js``, the WebSocket for pages, at ``path``.

        It is an ES module: ``import { ReconnectingWebSocket } from "/endwell.js"``.
        """
        self._router.add("http", path, browser_module)

    def process_request(self, hook: Function) -> Function:
        """Decorate the ``hook(request)``, plain or async, that sees every request first.

        It returns None to let the request pass, or a :class:`Response` that answers
        it: 401, 403, a redirect. Answer soon: a browser opens no second connection to
        this server while one handshake hangs. A plain function runs in a thread.
        """
        self._hook = hook
        return hook

    def on_close(self, callback: Callable[[Any, Ending], object]) -> Callable[[Any, Ending], object]:
        """Have ``callback(ws, ending)`` called once for each connection that ends.

        Of a plain handler it gets the blocking WebSocket, and may block too.
        """
        self._watchers.append(callback)
        return callback

    def broadcast(
        self,
        connections: Iterable[WebSocket],
        message: str | bytes | bytearray | memoryview,
        *,
        slow: Slow = "skip",
    ) -> Broadcast:
        """Send ``message`` on all of ``connections``, such as :attr:`connections`; waits for nobody.

        A text message (``str``) or a binary one is framed once for all, and compressed
        once for those that compress alike (without context takeover). It comes after
        what was sent before it, and the connections may be any mixture, of any server.

        A connection is slow while more than its ``write_limit`` bytes wait for the peer,
        or a ``send()`` does. What happens to those is ``slow``:

        - ``"skip"``: they miss this message, for streams in which the next one makes up for it;
        - ``"close"``: they end with SLOW_PEER, so that whoever is connected has missed nothing;
        - ``"queue"``: they get it late, and only ``write_timeout`` and keepalive bound the
          queue, so it is for rare messages and for peers that are trusted.

        The report counts the messages ``sent``, the connections already ``gone``, and names
        the ``slow`` ones, and the ``unsupported``: hixie-75 and -76 have no binary messages.
        No callback runs before it is returned. To be called in the event loop's thread.

        Raises TypeError or ValueError for what is no message, no iterable of
        WebSockets, or no policy; then nothing was sent.
        """
        return broadcast(connections, message, slow)

    # -- running --------------------------------------------------------------

    def run(
        self,
        host: str | Iterable[str] | None = "127.0.0.1",
        port: int = 8080,
        *,
        ssl: tls.SSLContext | None = None,
        unix_path: str | os.PathLike[str] | None = None,
        grace: float = 10.0,
    ) -> None:
        """Serve until SIGINT or SIGTERM, then stop as :meth:`serving` does; blocks.

        A second signal stops at once. uvloop is used where it is installed.
        """
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(self._run(host, port, ssl=ssl, unix_path=unix_path, grace=grace))

    @asynccontextmanager
    async def serving(
        self,
        host: str | Iterable[str] | None = "127.0.0.1",
        port: int = 0,
        *,
        ssl: tls.SSLContext | None = None,
        unix_path: str | os.PathLike[str] | None = None,
        grace: float = 10.0,
    ) -> AsyncIterator[Server]:
        """Serve while the block runs, in this event loop, without touching its signals.

        Port 0 lets the system choose; :attr:`port` tells. Leaving the block closes
        every connection with 1001 and waits at most ``grace`` seconds for the
        closing handshakes and the handlers; then what is left is cut, and handlers
        are cancelled and have 5 seconds for their cleanup.
        """
        listener = Listener(bind(host, port, unix_path), self.options, ssl, self._serve)
        self._stopping = False
        self._context = copy_context()
        self.addresses = [sock.getsockname() for sock in listener.socks]
        try:
            yield self
        finally:
            listener.close()
            try:
                await self._stop(grace)
            finally:
                self.sessions.close()
                for opening in list(listener.openings):
                    opening.abort()
                self.addresses = []

    @property
    def port(self) -> int:
        """The port of the first address."""
        port: int = self.addresses[0][1]
        return port

    async def _run(self, host: str | Iterable[str] | None, port: int, **keywords: Any) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        signalled = asyncio.Event()

        def stop() -> None:
            if signalled.is_set():
                task.cancel()
            signalled.set()

        # Python delivers signals to the main thread only.
        main = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGINT, signal.SIGTERM) if main else ()
        for number in signals:
            loop.add_signal_handler(number, stop)
        try:
            with suppress(asyncio.CancelledError):
                async with self.serving(host, port, **keywords):
                    for address in self.addresses:
                        logger.info("listening on %s", _shown(address))
                    await signalled.wait()
                    logger.info("stopping: %d connections", len(self.connections))
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    async def _stop(self, grace: float) -> None:
        self._stopping = True
        closing = [asyncio.ensure_future(self._dismiss(ws)) for ws in self.connections]
        waiting = {*closing, *self._tasks}
        try:
            if waiting:
                _, waiting = await asyncio.wait(waiting, timeout=grace)
        finally:
            for task in waiting:
                task.cancel()
            # Before the cleanup, not after it: a handler that is done waits for the end.
            for ws in list(self.connections):
                ws.abort()
            if waiting:
                await asyncio.wait(waiting, timeout=CLEANUP_TIME)
            if left := await self._workers.stop(CLEANUP_TIME):
                logger.warning("%d threads of handlers still run, and are left alone", left)

    async def _dismiss(self, ws: WebSocket) -> None:
        await ws.close_for(Cause.SERVER_DRAINED, CloseCode.GOING_AWAY, "server stopping")

    # -- one connection -------------------------------------------------------

    def _serve(self, opening: Opening, head: Request | HandshakeError) -> None:
        if isinstance(head, HandshakeError):
            self._answer(opening, None, head)
        elif self._hook is None and wants_websocket(head):
            self._respond(opening, head, None)
        else:
            self._start(self._ask(opening, head))

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        # In the context of the call that serves, which no callback of the loop has.
        task = self._context.run(asyncio.get_running_loop().create_task, coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._forget, context=self._context)

    async def _ask(self, opening: Opening, request: Request) -> None:
        answer: Response | HandshakeError | None
        try:
            answer = await self._page(request)
        except HandshakeError as exc:
            answer = exc
        except Exception as exc:
            answer = self._broken(request, exc)
        self._respond(opening, request, answer)

    def _respond(self, opening: Opening, request: Request, answer: Response | HandshakeError | None) -> None:
        if answer is None:
            try:
                self._converse(opening, request)
            except HandshakeError as exc:
                answer = exc
            except Exception as exc:
                answer = self._broken(request, exc)
            else:
                return
        self._answer(opening, request, answer)

    def _broken(self, request: Request, exc: Exception) -> Response:
        logger.error("answering %r failed", request.raw_path, exc_info=exc)
        return Response.text("internal error\n", 500)

    async def _page(self, request: Request) -> Response | None:
        """The HTTP answer to ``request``; None if it may become a WebSocket."""
        if self._hook is not None:
            returned = await self._call(self._hook, blocks(self._hook), request)
            if returned is not None:
                return response_from(returned, self._hook)
        if wants_websocket(request):
            return None
        route, params = self._router.match(request.raw_path, "http", request.method)
        request.params = params
        returned = await self._call(route.handler, route.blocking, request, **params)
        return response_from(returned, route.handler)

    async def _call(
        self, function: Callable[..., Any], blocking: bool, request: Request, **params: str
    ) -> Any:
        if blocking:
            returned = await self._workers.page(function, request, **params)
            return await returned if inspect.isawaitable(returned) else returned
        return await function(request, **params)

    def _answer(self, opening: Opening, request: Request | None, answer: Response | HandshakeError) -> None:
        broken = answer if isinstance(answer, HandshakeError) else None
        response = answer.response() if isinstance(answer, HandshakeError) else answer
        opening.answer(complete(response, request, time.time()), broken)

    def _converse(self, opening: Opening, request: Request) -> None:
        route, params = self._router.match(request.raw_path, "websocket")
        accepted = accept(request, self.options)
        if opening.gone:
            return
        if self._stopping:
            opening.abort()
            return
        if route.blocking:
            self._workers.reserve()
        request.params = params
        ws = opening.accept(request, accepted, self.connections)
        held = blocking(ws) if route.blocking else ws
        if self._watchers:
            self._context.run(held.on_close, lambda ending: self._ended(held, ending))
        self._start(self._handle(ws, held, route, params))

    def _ended(self, ws: WebSocket | BlockingWebSocket, ending: Ending) -> None:
        for watcher in self._watchers:
            try:
                watcher(ws, ending)
            except Exception:
                logger.exception("on_close callback %r failed", watcher)

    async def _handle(
        self, ws: WebSocket, held: WebSocket | BlockingWebSocket, route: Route, params: Mapping[str, str]
    ) -> None:
        """Run the handler; however it leaves, the connection is closed for that cause."""
        try:
            if isinstance(held, BlockingWebSocket):
                await self._workers.handle(route.handler, held, params)
            elif route.cancel_on_end:
                async with ws.alive():
                    await route.handler(ws, **params)
            else:
                await route.handler(ws, **params)
        except ConnectionClosed as exc:
            if exc.ending is not ws.ending:
                await self._failed(ws, route, exc)
        except asyncio.CancelledError:
            await ws.close_for(Cause.CANCELLED, CloseCode.GOING_AWAY)
            raise
        except Exception as exc:
            await self._failed(ws, route, exc)
        else:
            ws.begin_close(Cause.HANDLER_RETURNED, CloseCode.NORMAL_CLOSURE)
            await ws.wait_closed()

    async def _failed(self, ws: WebSocket, route: Route, exc: Exception) -> None:
        # The traceback stays here: a peer is told that, not why.
        logger.error("handler of %r failed", route.pattern, exc_info=exc)
        await ws.close_for(Cause.HANDLER_ERROR, CloseCode.INTERNAL_ERROR)


def _shown(address: Any) -> str:
    if isinstance(address, str):
        return address
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

"""The :class:`Server`: routes, handlers, running and stopping."""
# size: the public interface of a server is one class, and more than half of the file is its documentation

from __future__ import annotations

import _socket
import asyncio
import inspect
import logging
import os
import ssl as tls
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import Context, copy_context
from functools import partial
from typing import Any, TypeVar, Unpack

from ..aio.bind import bind, format_address, format_peer
from ..aio.broadcast import BroadcastReport, Slow
from ..aio.callbacks import check_callback, check_returned
from ..aio.flag import Flag
from ..aio.listen import Listener, Opening
from ..aio.websocket import WebSocket, begin_close, close_for
from ..codes import CloseCode
from ..ending import Cause, Ending
from ..errors import ConnectionClosed, MisdirectedRequest, RequestRefused, ServiceUnavailable
from ..http import Request, Response
from ..options import OptionKeywords, Options, check_keywords
from ..protocol.handshake import wants_websocket
from ..protocol.opening import accept
from ..protocol.responding import complete
from ..sync.portal import Portal
from ..sync.websocket import WebSocket as BlockingWebSocket
from ..wire.authority import is_among
from ..wire.codec import Buffer
from .broadcast import broadcast_from_anywhere
from .drain import DrainReport, DrainRun, call_on_drain
from .files import browser_module, slash, static
from .lifespan import start, stop
from .refusals import MAX_LOGGED, Refusals
from .respond import response_from
from .router import Route, Router, blocks
from .run import Listen, run
from .sessions import Sessions
from .threads import HandlerThreads
from .timetable import Drain, DrainKeywords

__all__ = ["Server"]

logger = logging.getLogger("endwell.server")

#: Minimum seconds for the ``on_stop`` callbacks, whatever the deadline.
STOP_TIME = 0.5

Function = TypeVar("Function", bound=Callable[..., Any])
Hook = Callable[[Request], Response | Awaitable[Response | None] | None]


class Server:
    """A WebSocket and HTTP server for one or more addresses.

    A handler is a coroutine function, or a plain function, which may block and runs in a thread.

    Args:
        options: The options of every connection. Default: ``Options()``.
        max_threads: Maximum number of WebSocket connections whose handler is a plain function. Further
            connections for such handlers are refused with 503. Default: 1000.
        **keywords: Fields of :class:`Options`, which override ``options``.

    Raises:
        TypeError: A keyword is not a field of ``Options``, or an argument has the wrong type.
        ValueError: A value is out of range.

    Example:
        ```python
        import asyncio
        import endwell

        server = endwell.Server(ping_interval=10)

        @server.websocket("/echo/{room}")
        async def echo(ws, room):
            async for message in ws:
                await ws.send(f"{room}: {message}")

        async def main():
            async with server.serving(port=0):
                async with endwell.connect(f"ws://127.0.0.1:{server.port}/echo/lobby") as ws:
                    await ws.send("hello")
                    print(await ws.recv())  # lobby: hello

        asyncio.run(main())
        ```
    """

    def __init__(
        self, options: Options | None = None, *, max_threads: int = 1000, **keywords: Unpack[OptionKeywords]
    ) -> None:
        if not isinstance(options, Options | None):
            raise TypeError(f"options must be an Options or None, not {options!r}")
        check_keywords("Server", keywords, {*OptionKeywords.__optional_keys__, "options", "max_threads"})
        #: The options of every connection.
        self.options: Options = (options or Options()).replace(**keywords)
        #: The connections that are open or closing.
        self.connections: set[WebSocket] = set()
        #: An event that is set when the server starts to drain; the same as :attr:`WebSocket.draining`.
        self.draining: Flag = Flag()
        #: The addresses on which the server listens: ``(host, port, ...)`` as from ``socket.getsockname()``,
        #: or the path of a Unix socket. Empty while the server does not listen.
        self.addresses: list[Any] = []
        #: The current connection of each user, device or tab, for handlers that call ``sessions.join()``.
        self.sessions: Sessions = Sessions()
        self._router = Router()
        self._hooks: list[Hook] = []
        self._close_callbacks: list[Callable[[Any, Ending], object]] = []
        # A dict, because the table of a set grows by a factor of four, and each idle connection pays for it.
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._forget = self._tasks.pop
        self._context = Context()
        self._threads = HandlerThreads(max_threads)
        # The connections whose handler runs, with their routes.
        self._handling: dict[WebSocket, Route] = {}
        self._drain_callbacks: list[Callable[[Drain], object]] = []
        self._start_callbacks: list[Callable[[], object]] = []
        self._stop_callbacks: list[Callable[[], object]] = []
        self._serves = False
        self._listener: Listener | None = None
        self._portal: Portal | None = None
        self._refusals = Refusals()
        #: The current or finished drain; None before it.
        self._drain_run: DrainRun | None = None

    # -- routes ---------------------------------------------------------------

    def websocket(self, path: str, *, cancel_on_end: bool = False) -> Callable[[Function], Function]:
        """Decorator for the ``handler(ws, **params)`` of the WebSocket connections of a path.

        A coroutine function gets a :class:`WebSocket`. A plain function runs in a thread, and gets the
        blocking :class:`endwell.sync.WebSocket`.

        When the handler returns, the connection is closed with 1000. When it raises, the connection is closed
        with 1011, and the exception is logged once. The handler is not cancelled when its connection ends, so
        that its cleanup code always runs.

        Args:
            path: The pattern of the path: literal segments, ``{name}`` for one segment that is not empty,
                and at the end ``{name:path}`` for the rest. Each name is a keyword argument of the handler.
            cancel_on_end: Cancel the handler when its connection ends. Only for coroutine functions.
                Default: False.

        Raises:
            ValueError: The pattern is malformed or in use, the handler does not accept the parameters, or
                ``cancel_on_end`` is given for a plain function.
        """

        def register(handler: Function) -> Function:
            self._router.add("websocket", path, handler, cancel_on_end=cancel_on_end)
            return handler

        return register

    def get(self, path: str, *, any_host: bool = False) -> Callable[[Function], Function]:
        """Decorator for the ``handler(request, **params)`` of the GET and HEAD requests of a path.

        The handler is a coroutine function, or a plain function, which runs in a thread. It returns a
        :class:`Response`, a ``str`` (plain text), ``bytes``, a dict or list (JSON), or None (204). It must
        return within ``open_timeout`` seconds of the request. After that, the client gets a 503, a WARNING is
        logged, and a coroutine function is cancelled.

        Args:
            path: The pattern of the path, as in :meth:`websocket`.
            any_host: Answer whatever the option ``allowed_hosts`` says. For the health check of a load
                balancer, whose Host is the address of the machine. Default: False. The hooks of
                :meth:`process_request` run for such a path, too; a hook that requires credentials must
                let it pass.

        Raises:
            ValueError: The pattern is malformed or in use, or the handler does not accept the parameters.
        """

        def register(handler: Function) -> Function:
            self._router.add("http", path, handler, any_host=any_host)
            return handler

        return register

    def static(self, path: str, folder: str | os.PathLike[str], *, follow_links: bool = False) -> None:
        """Serve the files of a folder. A request for a directory gets its ``index.html``.

        Names that begin with a dot are not served. Files are read in separate threads. Browsers check each
        time whether a file has changed (``Cache-Control: no-cache``). Requests for a single range are
        supported. A response has at most 16 MiB; use a proxy for larger files.

        Args:
            path: The path below which the files appear, without parameters.
            folder: The folder.
            follow_links: Follow symbolic links whose target is outside the folder. Links within the folder
                are always followed. Default: False.

        Raises:
            OSError: The folder does not exist.
            ValueError: The path is malformed or in use.
        """
        path = path.rstrip("/")
        self._router.add(
            "http", f"{path}/{{path:path}}", static(folder, self._threads.file, follow_links=follow_links)
        )
        if path:
            self._router.add("http", path, slash, default=True)

    def browser_module(self, path: str = "/endwell.js") -> None:
        """Serve ``endwell.js``, the reconnecting WebSocket for web pages, at ``path``.

        It is an ES module: ``import { ReconnectingWebSocket } from "/endwell.js"``.

        Raises:
            ValueError: The path is malformed or in use.
        """
        self._router.add("http", path, browser_module(self._threads.file))

    def process_request(self, hook: Function) -> Function:
        """Decorator for a ``hook(request)`` that runs before the routing of every request, WebSocket or HTTP.

        The hook is a coroutine function, or a plain function, which runs in a thread. It returns None to let
        the request pass, or a :class:`Response`, such as 401, 403 or a redirect, that is sent instead. Hooks
        run one after the other in the order of their registration, until one returns a Response.

        If a hook raises, the request is answered with 500, and the exception is logged. If the hooks take
        longer than ``open_timeout``, it is answered with 503. A browser opens only one WebSocket to a server at
        a time (RFC 6455 §4.1), so a slow hook also delays the other WebSockets of its client.

        Raises:
            TypeError: ``hook`` is not callable.
        """
        _check_function("process_request", hook)
        self._hooks.append(hook)
        return hook

    def on_start(self, callback: Function) -> Function:
        """Decorator for a ``callback()`` that runs before the server listens.

        Use it for connection pools and background tasks. The callback is a coroutine function, or a plain
        function, which may block and runs in a thread; to create a task, use a coroutine function. Callbacks
        run in the order of their registration, with ``run(workers=...)`` in each worker. If one raises, the
        server does not start, and the exception is raised. SIGTERM cancels a coroutine function, and abandons
        a thread. Handlers see the context variables that a callback sets.
        """
        _check_function("on_start", callback)
        self._start_callbacks.append(callback)
        return callback

    def on_stop(self, callback: Function) -> Function:
        """Decorator for a ``callback()`` that runs after the drain, when the server has stopped.

        The callback is a coroutine function, or a plain function, which may block and runs in a thread.
        Callbacks run in reverse order of registration, and only if every ``on_start`` callback returned.
        Together they have the rest of the drain's deadline, but at least 0.5 s; a callback that takes longer
        is cancelled, or abandoned if it runs in a thread. Exceptions are logged.
        """
        _check_function("on_stop", callback)
        self._stop_callbacks.insert(0, callback)
        return callback

    def on_close(self, callback: Callable[[Any, Ending], object]) -> Callable[[Any, Ending], object]:
        """Decorator for a plain function ``callback(ws, ending)`` that runs once when a connection ends.

        For a connection of a plain handler, ``ws`` is the blocking WebSocket, and the callback runs in a
        thread, so it may block. For other connections, it runs in the event loop, and must not block.
        Exceptions are logged.

        Raises:
            TypeError: ``callback`` is a coroutine function, or not callable.
        """
        check_callback(callback)
        self._close_callbacks.append(callback)
        return callback

    def on_refused(
        self, callback: Callable[[Request | None, int, str], object]
    ) -> Callable[[Request | None, int, str], object]:
        """Decorator for a plain function ``callback(request, status, reason)`` that runs for each refused request.

        A request is refused if the server itself answers it with an HTTP error: no route matches,
        :meth:`static` has no such file, the origin or host is not allowed, a limit is reached, or the server
        drains. It is also refused if a ``process_request`` hook returns a :class:`Response` with a status of
        400 or more, or if a hook or page fails, takes too long or raises :exc:`RequestRefused`. A Response
        that a page returns is not a refusal, whatever its status is: the page decides what it means.

        ``request`` is None if it could not be parsed. ``reason`` never contains text from the peer. A log
        line at INFO has the same information, and the values that were compared. The callback runs in the
        event loop, and must not block. Exceptions are logged.

        Raises:
            TypeError: ``callback`` is a coroutine function, or not callable.
        """
        self._refusals.add(callback)
        return callback

    def on_drain(self, callback: Function) -> Function:
        """Decorator for a ``callback(drain)`` that runs once when the server starts to drain.

        The callback is a coroutine function, or a plain function, which may block and runs in a thread. It
        starts before the first connection is closed, and gets the :class:`Drain`, which contains the
        deadline. The drain waits for it until the deadline. Exceptions are logged.
        """
        _check_function("on_drain", callback)
        self._drain_callbacks.append(callback)
        return callback

    def broadcast(
        self,
        connections: Iterable[WebSocket | BlockingWebSocket],
        message: str | Buffer,
        *,
        slow: Slow = "skip",
    ) -> BroadcastReport:
        """Send a message on many connections, without waiting for slow peers.

        The message is framed once for all connections, and compressed once for all connections with the same
        compression parameters (without context takeover). Each connection receives it after the messages that
        were sent before. In the server's event loop the call does not block; in another thread, such as that
        of a plain handler, it waits for the event loop.

        A connection is slow while more than ``write_limit`` bytes wait to be sent, or a ``send()`` waits.

        Args:
            connections: The WebSockets, such as :attr:`connections`; asyncio and blocking ones, of any server
                in this event loop.
            message: ``str`` for a text message, a bytes-like object for a binary message.
            slow: What happens to slow connections. ``"skip"`` (default): they do not get this message; for
                streams in which the next message replaces it. ``"close"``: they end with SLOW_PEER, so that
                no open connection has missed a message. ``"queue"``: the message is queued; only
                ``write_timeout`` and keepalive limit the queue, so use it for rare messages and trusted
                peers.

        Returns:
            A report. It counts the messages that were ``sent`` and the connections that were already
            ``gone``, and lists the ``slow`` and the ``unsupported`` connections (hixie-75 and hixie-76 have
            no binary messages). No callback runs before it is returned.

        Raises:
            TypeError: ``message`` or ``connections`` has the wrong type. Nothing was sent.
            ValueError: ``slow`` is not a policy. Nothing was sent.
            ConcurrencyError: The call is made in another event loop; or it is made in a thread, and the server
                does not serve, or the event loop has been blocked for 30 s. Nothing was sent.
        """
        return broadcast_from_anywhere(connections, message, slow, lambda: self._portal)

    # -- running --------------------------------------------------------------

    def run(  # size: where it listens, and how it runs: all of it keywords
        self,
        host: str | Iterable[str] | None = "127.0.0.1",
        port: int = 8080,
        *,
        ssl: tls.SSLContext | None = None,
        unix_path: str | os.PathLike[str] | None = None,
        unix_mode: int | None = None,
        drain: Drain | None = None,
        workers: int | None = None,
    ) -> None:
        """Serve until SIGINT, SIGTERM or SIGHUP, then :meth:`drain`; blocks.

        A second SIGINT or SIGTERM ends the drain: connections are cut, and handlers that still run are
        cancelled, with 1 s for their cleanup. The call also returns after a drain that the application
        started. It uses uvloop if that is installed. It logs the address, or prints it if the program has not
        configured logging. On a terminal, a line shows the progress of the drain. If systemd passes sockets,
        they replace ``host``, ``port`` and ``unix_path``; systemd is notified of READY and STOPPING.
        ``sys.exit()`` in a task of the application starts the drain; SystemExit is raised after it.

        Args:
            host: As in :meth:`serving`.
            port: As in :meth:`serving`. Default: 8080.
            ssl: As in :meth:`serving`.
            unix_path: As in :meth:`serving`.
            unix_mode: As in :meth:`serving`.
            drain: How to stop. Default: ``Drain()``, whose deadline is 25 s.
            workers: Number of worker processes. Each one runs this program again, and this process supervises
                them: it replaces workers that crash, and SIGHUP replaces all of them without downtime. See
                ``docs/howto/deploy.md``. Default: None, serve in this process.

        Raises:
            SystemExit: The server cannot listen (in the main thread; OSError in any other), or a worker exits
                before all workers listen.
            RuntimeError: An event loop runs in this thread; use :meth:`serving` there.
            ValueError: ``workers`` is given, but the program is neither a file nor a module, or this is not
                the main thread.
            NotImplementedError: The system is Windows.
        """
        run(self, partial(bind, host, port, unix_path, unix_mode), ssl, drain or Drain(), workers)

    def serving(  # size: most of it is documentation
        self,
        host: str | Iterable[str] | None = "127.0.0.1",
        port: int = 0,
        *,
        ssl: tls.SSLContext | None = None,
        unix_path: str | os.PathLike[str] | None = None,
        unix_mode: int | None = None,
        grace: float = 10.0,
    ) -> AbstractAsyncContextManager[Server]:
        """Return an async context manager that serves in the running event loop, without signal handlers.

        The end of the block drains the server, unless :meth:`drain` was called before.

        Args:
            host: Address or host name, or several of them; None for all interfaces. Default: ``"127.0.0.1"``.
            port: TCP port; 0 selects a free port, which :attr:`port` returns. Default: 0.
            ssl: Context for wss and https. Default: None, no TLS.
            unix_path: Listen on this Unix socket instead of TCP. A name that begins with a null byte is an
                abstract socket. The file of a process that no longer runs is replaced. Default: None.
            unix_mode: Permission bits of the socket's file, such as ``0o660``. Default: None, from the umask.
            grace: Deadline in seconds of the drain at the end of the block. Default: 10.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument is out of range.
            OSError: The server cannot listen. With EADDRINUSE, another process may listen on ``unix_path``.
            NotImplementedError: When the block is entered, on Windows.
            RuntimeError: This server already serves. It serves from its first ``on_start`` callback until its
                last ``on_stop`` callback has returned.

        Example:
            ```python
            import asyncio
            from endwell import Server

            async def main():
                async with Server().serving(port=0) as server:
                    print(server.port)

            asyncio.run(main())
            ```
        """
        return self._serve_on(partial(bind, host, port, unix_path, unix_mode), ssl, grace)

    @asynccontextmanager
    async def _serve_on(
        self,
        listen: Listen,
        ssl: tls.SSLContext | None,
        grace: float = 0,
        should_defer: Callable[[int], bool] | None = None,
    ) -> AsyncIterator[Server]:
        """Serve as :meth:`serving`, on the sockets that ``listen()`` returns.

        If other processes accept from the same sockets, ``should_defer(connections)`` is called with the
        number of this server's connections. It returns whether to leave the next connection to the other
        processes.
        """
        if not isinstance(ssl, tls.SSLContext | None):
            raise TypeError(f"ssl must be an ssl.SSLContext or None, not {ssl!r}")
        try:
            plan = Drain(deadline=grace, listen=False)
        except (TypeError, ValueError) as error:
            raise type(error)(f"grace is the deadline of the drain: {error}") from None
        if self._serves:
            raise RuntimeError(
                "this Server already serves; to listen on several addresses, pass a list of hosts; for a second "
                "port, or for TLS beside plain TCP, create a second Server"
            )
        # Set before the first await, because on_start and on_stop callbacks are part of serving.
        self._serves = True
        callbacks: list[Callable[..., object]] = [
            *self._start_callbacks,
            *self._drain_callbacks,
            *self._stop_callbacks,
        ]
        blocking = any(blocks(callback) for callback in callbacks)
        if blocking:
            self._threads.keep_lifespan_thread()
        try:
            self._drain_run = None
            await start(self._start_callbacks, self._threads)
            try:
                async with self._listening(listen, ssl, plan, should_defer):
                    yield self
            finally:
                await stop(
                    self._stop_callbacks,
                    STOP_TIME if self._drain_run is None else self._drain_run.seconds_left(STOP_TIME),
                    self._threads,
                )
        finally:
            self._serves = False
            if blocking:
                self._threads.release_lifespan_thread()

    @asynccontextmanager
    async def _listening(
        self,
        listen: Listen,
        ssl: tls.SSLContext | None,
        plan: Drain,
        should_defer: Callable[[int], bool] | None,
    ) -> AsyncIterator[None]:
        self.draining = Flag()
        defer = should_defer and (lambda openings: should_defer(openings + len(self.connections)))
        listener = Listener(listen(), self.options, ssl, self._serve, self.draining, defer)
        self._listener = listener
        self._portal = Portal.of(listener.loop)
        self._threads.begin()
        self._context = copy_context()
        self.addresses = [_address_of(sock) for sock in listener.socks]
        try:
            yield
        finally:
            try:
                await self.drain(plan)
            finally:
                self._threads.dismiss()
                self._listener = self._portal = None
                listener.close()
                for opening in list(listener.openings):
                    opening.abort()
                for stream in list(listener.lingering):
                    stream.abort()
                self.addresses = []
                await self.sessions.aclose()

    async def drain(self, drain: Drain | None = None, **keywords: Unpack[DrainKeywords]) -> DrainReport:
        """Close all connections in order, without losing messages, and wait until the server has stopped.

        New connections are refused immediately, and handlers are notified (:attr:`WebSocket.draining`,
        :meth:`on_drain`). Over a window of time, each connection is closed as soon as its handler waits for a
        message and none has arrived, so that all received messages are answered. A connection whose handler
        stays busy for 1/5 of the deadline is closed, too. Handlers are cancelled at 4/5 of the deadline, and
        the remaining connections are aborted before it.

        A second call waits for the first one. If the call is cancelled, the drain skips to its end: handlers
        are cancelled and connections aborted. A handler must not await this method, because the drain waits
        for the handler.

        Args:
            drain: How to stop. Default: ``Drain()``.
            **keywords: Fields of :class:`Drain`, which override ``drain``.

        Returns:
            A report, which is also logged.

        Raises:
            ValueError: The server does not serve, or a value is out of range.
            TypeError: A keyword is not a field of ``Drain``, or an argument has the wrong type.
        """
        if not isinstance(drain, Drain | None):
            raise TypeError(f"drain must be a Drain or None, not {drain!r}")
        check_keywords("drain", keywords, {*DrainKeywords.__optional_keys__, "drain"})
        plan = (drain or Drain()).replace(**keywords)
        if self._listener is None:
            raise ValueError("drain() while the server does not serve")
        if self._drain_run is not None:
            return await self._drain_run.finished()
        if not plan.listen:
            self._listener.close()
        self.draining.set()
        self._threads.draining.set()
        for callback in self._drain_callbacks:
            self._start(call_on_drain(callback, plan, self._threads))
        self._drain_run = DrainRun(
            plan, self.connections, self._tasks, self._threads, self._listener.openings, self._handling
        )
        return await self._drain_run.run()

    async def _hand_over(self, seconds: float) -> None:
        """Stop listening, and wait at most ``seconds`` for the opening handshakes in progress."""
        if self._listener is not None:
            self._listener.close()
            await self._listener.settled(seconds)

    @property
    def port(self) -> int:
        """The first TCP port on which the server listens.

        Raises:
            ValueError: The server does not listen, or only on Unix sockets.
        """
        for address in self.addresses:
            if isinstance(address, tuple):
                port: int = address[1]
                return port
        raise ValueError(
            f"the server has no port: it listens on {', '.join(map(format_address, self.addresses))}"
            if self.addresses
            else "the server has no port: it does not listen"
        )

    # -- one connection -------------------------------------------------------

    def _serve(self, opening: Opening, head: Request | RequestRefused) -> None:
        if isinstance(head, RequestRefused):
            self._answer(opening, opening.request, head)
        elif self._drain_run is not None:
            self._answer(opening, head, self._drain_run.refuse())
        elif not self._answers_to(head):
            host = f"it is for {(head.headers.get('Host') or '')[:MAX_LOGGED]!r}"
            error = MisdirectedRequest("the host of the request is not allowed here", detail=host)
            self._answer(opening, head, error)
        elif not self._hooks and wants_websocket(head):
            self._respond(opening, head, None)
        else:
            self._start_answering(opening, head)

    def _answers_to(self, request: Request) -> bool:
        """Whether ``allowed_hosts`` contains the host of ``request``, or its route accepts any host."""
        names = self.options.allowed_hosts
        host = request.headers.get("Host")  # optional in HTTP/1.0
        if names is None or (host is not None and is_among(host, names)):
            return True
        try:
            route, _ = self._router.match(request.raw_path, "http", request.method)
        except RequestRefused:
            return False
        return route.any_host and not wants_websocket(request)

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Use the context of the call that serves; callbacks of the loop run in other contexts.
        task = self._context.run(asyncio.get_running_loop().create_task, coroutine)
        self._tasks[task] = None
        task.add_done_callback(self._forget, context=self._context)
        return task

    def _start_answering(self, opening: Opening, request: Request) -> None:
        self._start(self._answer_http(_PendingAnswer(opening, request)))
        opening.wait_for_answer()

    async def _answer_http(self, pending: _PendingAnswer) -> None:
        answer: Response | RequestRefused | None
        limit, task = self.options.open_timeout, asyncio.current_task()
        if limit is not None and task is not None:
            # The time begins with the first step of the task. uvloop runs overdue timers before new tasks: after
            # a stall, a hook or handler would be cancelled before it has begun.
            timer = asyncio.get_running_loop().call_later(limit, self._time_out, pending, task)
            task.add_done_callback(lambda _: timer.cancel())
        try:
            answer = await self._page(pending)
        except RequestRefused as exc:
            answer = exc
        except asyncio.CancelledError as exc:
            # The cause is open_timeout, after which a response was sent; or a stop of the server; or the
            # handler awaited something that was cancelled.
            if not pending.opening.answered:
                self._respond(pending.opening, pending.request, self._cancelled(pending.request, exc))
            raise
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            answer = self._internal_error(pending.request, exc)
        if not pending.opening.answered:
            self._respond(pending.opening, pending.request, answer)

    def _time_out(self, pending: _PendingAnswer, task: asyncio.Task[None]) -> None:
        if task.done() or pending.opening.gone:
            return
        limit = self.options.open_timeout
        logger.warning("%s took longer than open_timeout (%s s): the answer is 503", pending.work, limit)
        answer = ServiceUnavailable("the answer took too long").response()
        self._refusals.notify(pending.request, answer.status, "the answer took too long")
        # Answer before the cancellation, because a coroutine may suppress it.
        self._answer(pending.opening, pending.request, answer)
        task.cancel()

    def _respond(self, opening: Opening, request: Request, answer: Response | RequestRefused | None) -> None:
        if answer is None:
            try:
                self._accept(opening, request)
            except RequestRefused as exc:
                answer = exc
            except KeyboardInterrupt:
                raise
            except BaseException as exc:
                answer = self._internal_error(request, exc)
            else:
                return
        self._answer(opening, request, answer)

    def _cancelled(self, request: Request, exc: BaseException) -> Response | RequestRefused:
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            return self._internal_error(request, exc)
        if self._drain_run is None:
            return ServiceUnavailable("the server is stopping")
        return self._drain_run.refuse()

    def _internal_error(self, request: Request, exc: BaseException) -> Response:
        logger.error(
            "answering %r for %s failed", request.raw_path, format_peer(request.remote_address), exc_info=exc
        )
        self._refusals.notify(request, 500, "internal error")
        return Response.text("internal error\n", 500)

    async def _page(self, pending: _PendingAnswer) -> Response | None:
        """Run the hooks and the HTTP handler. Returns the response; None if the request may become a WebSocket."""
        request = pending.request
        for hook in self._hooks:
            pending.begin(f"the process_request hook {getattr(hook, '__qualname__', hook)!r}")
            returned = await self._call(self._threads.hook, hook, blocks(hook), request)
            if returned is not None:
                response = response_from(returned, hook)
                if response.status >= 400:
                    reason = f"answered by {pending.work}"
                    self._refusals.log(request, request.remote_address, response.status, reason)
                    self._refusals.notify(request, response.status, reason)
                return response
        if wants_websocket(request):
            return None
        route, params = self._router.match(request.raw_path, "http", request.method)
        request.params = params
        pending.begin(f"the page {route.pattern!r} ({route.name})")
        returned = await self._call(self._threads.page, route.handler, route.blocking, request, **params)
        return response_from(returned, route.handler)

    async def _call(
        self,
        in_thread: Callable[..., Awaitable[Any]],
        function: Callable[..., Any],
        blocking: bool,
        request: Request,
        **params: str,
    ) -> Any:
        if blocking:
            returned = await in_thread(function, request, **params)
        else:
            returned = function(request, **params)
        return await returned if inspect.isawaitable(returned) else returned

    def _answer(self, opening: Opening, request: Request | None, answer: Response | RequestRefused) -> None:
        refusal = answer if isinstance(answer, RequestRefused) else None
        response = answer.response() if isinstance(answer, RequestRefused) else answer
        if refusal is not None:
            detail = f" ({refusal.detail})" if refusal.detail else ""
            self._refusals.log(request, opening.remote_address, refusal.status, f"{refusal}{detail}")
            self._refusals.notify(request, refusal.status, str(refusal))
        opening.answer(complete(response, request, time.time()), refusal)

    def _accept(self, opening: Opening, request: Request) -> None:
        route, params = self._router.match(request.raw_path, "websocket")
        accepted = accept(request, self.options)
        if opening.gone:
            return
        if self._drain_run is not None:
            raise self._drain_run.refuse()
        if route.blocking:
            self._threads.reserve()
        request.params = params
        ws = opening.accept(request, accepted, self.connections)
        handler_ws = self._threads.blocking(ws) if route.blocking else ws
        if self._close_callbacks:
            self._context.run(handler_ws.on_close, lambda ending: self._ended(handler_ws, ending))
        self._start(self._handle(ws, handler_ws, route, params))

    def _ended(self, ws: WebSocket | BlockingWebSocket, ending: Ending) -> None:
        for callback in self._close_callbacks:
            try:
                check_returned(callback(ws, ending), callback)
            except KeyboardInterrupt:
                raise
            except BaseException:
                logger.exception("on_close callback %r failed", callback)

    async def _handle(
        self,
        ws: WebSocket,
        handler_ws: WebSocket | BlockingWebSocket,
        route: Route,
        params: Mapping[str, str],
    ) -> None:
        """Run the handler, then close the connection with the cause that follows from the handler's outcome."""
        self._handling[ws] = route
        try:
            try:
                if isinstance(handler_ws, BlockingWebSocket):
                    await self._threads.handle(route.handler, handler_ws, params, partial(self._returned, ws))
                elif route.cancel_on_end:
                    async with ws.alive():
                        await _run(route, ws, params)
                else:
                    await _run(route, ws, params)
            finally:
                if not route.blocking:
                    self._returned(ws)
        except asyncio.CancelledError:
            await close_for(ws, Cause.CANCELLED, CloseCode.GOING_AWAY)
            raise
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            if not _is_end_of(exc, ws):
                await self._failed(ws, route, exc)
        else:
            if self._drain_run is not None:
                self._drain_run.close(ws)
            begin_close(ws, Cause.HANDLER_RETURNED, CloseCode.NORMAL_CLOSURE)
            await ws.wait_closed()

    def _returned(self, ws: WebSocket) -> None:
        if self._drain_run is not None:
            self._drain_run.returned(ws)
        del self._handling[ws]

    async def _failed(self, ws: WebSocket, route: Route, exc: BaseException) -> None:
        # The traceback is logged; the peer only gets the code 1011.
        request = ws.request
        logger.error(
            "handler %s of %r for %s failed",
            route.name,
            request.path,
            format_peer(request.remote_address),
            exc_info=exc,
        )
        await close_for(ws, Cause.HANDLER_ERROR, CloseCode.INTERNAL_ERROR)


async def _run(route: Route, ws: WebSocket, params: Mapping[str, str]) -> None:
    # A wrapper that is not a coroutine function may return None instead of a coroutine.
    if (coroutine := route.handler(ws, **params)) is not None:
        await coroutine


def _check_function(decorator: str, function: object) -> None:
    if not callable(function):
        raise TypeError(f"{decorator} takes a function, not {function!r}")


def _is_end_of(exc: BaseException, ws: WebSocket) -> bool:
    """Whether ``exc`` is the ConnectionClosed of ``ws``, or a group of only such exceptions (from a TaskGroup)."""
    if isinstance(exc, BaseExceptionGroup):
        return all(_is_end_of(each, ws) for each in exc.exceptions)
    return isinstance(exc, ConnectionClosed) and exc.ending is ws.ending


class _PendingAnswer:
    """A request for which a hook or an HTTP handler runs."""

    __slots__ = ("opening", "request", "work")

    def __init__(self, opening: Opening, request: Request) -> None:
        self.opening = opening
        self.request = request
        #: The hook or handler that runs, for log lines.
        self.work = ""

    def begin(self, work: str) -> None:
        """Record that ``work``, a hook or handler, starts in the current task."""
        self.work = work
        if (task := asyncio.current_task()) is not None:
            task.set_name(work)  # for the log line about tasks that still run after the server has stopped


def _address_of(sock: _socket.socket) -> Any:
    address = sock.getsockname()
    # The name of an abstract Unix socket is bytes; decode it to the text that the caller passed.
    return os.fsdecode(address) if isinstance(address, bytes) else address

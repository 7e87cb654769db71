"""The :class:`Server`: routes, handlers, running and stopping."""
# size: the public interface of a server is one class, and more than half of the file is its documentation

from __future__ import annotations

import _socket
import os
import ssl as tls
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from typing import Any, TypeVar, Unpack

from ..aio.bind import bind, check_port, format_address
from ..aio.broadcast import BroadcastReport, Slow
from ..aio.callbacks import check_arguments
from ..aio.exchange import Exchange
from ..aio.flag import Flag
from ..aio.limiting import OpeningKey, opening_limit
from ..aio.listen import Listener
from ..aio.websocket import WebSocket
from ..asgi.application import as_asgi
from ..asgi.lifespan import Lifespan, LifespanMode
from ..ending import Ending
from ..http import Request, Response
from ..matching import check_proxies
from ..metrics.meter import Meter
from ..metrics.page import THIS_MACHINE
from ..options import OptionKeywords, Options, check_keywords
from ..rooms.rooms import Rooms, choose_bus, end_graces, registry_of
from ..sync.portal import Portal
from ..sync.websocket import WebSocket as BlockingWebSocket
from ..wire.codec import Buffer
from .blocking import BlockingServer
from .broadcast import broadcast_from_anywhere
from .dashboard.access import Authorize
from .dashboard.dashboard import Dashboard
from .dispatch import Dispatcher
from .drain.callbacks import call_on_drain
from .drain.report import DrainReport
from .drain.run import DrainRun
from .drain.shed import ShedRun, check_shed
from .drain.timetable import Drain, DrainKeywords
from .files import browser_module, slash, static
from .lifespan import start, stop
from .metering import Metering
from .mounts import Mount, check_max_body, check_prefix
from .observers import Observers
from .process.control import ProcessControl
from .process.options import ProcessOptions
from .router import AcceptFunction, RouteKeywords, RouteOptions, Router, blocks, check_methods
from .run import Listen, run
from .sessions import Sessions, connected, shared_places

__all__ = ["Server"]

#: Minimum seconds for the ``on_stop`` callbacks, whatever the deadline.
STOP_TIME = 0.5
#: Maximum seconds for opening handshakes in progress when the server stops listening, and other processes may take over
#: the sockets: a few round trips.
HANDSHAKE_TIME = 2.0

Function = TypeVar("Function", bound=Callable[..., Any])


class Server:
    """A WebSocket and HTTP server for one or more addresses.

    A handler is a coroutine function, or a plain function, which may block and runs in a thread.

    The attribute ``connections`` is the set of connections that are open or closing. ``sessions`` has the
    current connection of each user, see :class:`Sessions`. ``rooms`` has the groups of connections that get the
    same messages, see :class:`endwell.rooms.Rooms`. ``addresses`` lists where the server listens.

    Args:
        options: The options of every connection. Default: ``Options()``.
        max_threads: Maximum number of WebSocket connections whose handler is a plain function. Further
            connections for such handlers are refused with 503. Default: 1000.
        rooms: The rooms of the server, if their limits are to differ. Default: ``Rooms()``.
        bus: What connects the rooms, the sessions and ``max_connections`` of several machines: the URL of a
            Redis, Valkey or NATS server, such as ``"redis://host:6379/0?prefix=chat:"``. The schemes are
            ``redis``, ``rediss`` and ``valkeys`` (TLS), ``valkey``, ``unix``, ``redis+sentinel``,
            ``rediss+sentinel``, ``redis+cluster``, ``rediss+cluster``, ``nats`` and ``tls`` (NATS); see
            docs/howto/rooms.md. Default: the environment variable ``ENDWELL_BUS``. Without a URL, the
            supervisor connects its workers, and nothing else is connected.
        **keywords: Fields of :class:`Options`, which override ``options``.

    Raises:
        TypeError: A keyword is not a field of ``Options``, or an argument has the wrong type.
        ValueError: A value is out of range, or the URL is wrong.
        ImportError: The package of the bus is not installed: the extra ``redis`` or ``nats``.

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

    def __init__(  # size: one line for each part of a server
        self,
        options: Options | None = None,
        *,
        max_threads: int = 1000,
        rooms: Rooms | None = None,
        bus: str | None = None,
        **keywords: Unpack[OptionKeywords],
    ) -> None:
        if not isinstance(options, Options | None):
            raise TypeError(f"options must be an Options or None, not {options!r}")
        if not isinstance(rooms, Rooms | None):
            raise TypeError(f"rooms must be an endwell.rooms.Rooms or None, not {rooms!r}")
        known = {*OptionKeywords.__optional_keys__, "options", "max_threads", "rooms", "bus"}
        check_keywords("Server", keywords, known)
        #: An event that is set when the server starts to drain; the same as :attr:`WebSocket.draining`.
        self.draining: Flag = Flag()
        #: The addresses on which the server listens: ``(host, port, ...)`` as from ``socket.getsockname()``,
        #: or the path of a Unix socket. Empty while the server does not listen.
        self.addresses: list[Any] = []
        #: The current connection of each user, device or tab, for handlers that call ``sessions.join()``.
        self.sessions: Sessions = Sessions()
        #: Groups of connections that get the same messages.
        self.rooms: Rooms = rooms or Rooms()
        if url := bus if bus is not None else os.environ.get("ENDWELL_BUS"):
            choose_bus(self.rooms, url)
        self._router = Router()
        meter = Meter()
        self._observers = Observers(meter)
        self._dispatcher = Dispatcher(
            (options or Options()).replace(**keywords), self._router, self._observers, max_threads
        )
        #: The connections that are open or closing.
        self.connections: set[WebSocket] = self._dispatcher.connections
        self._metering = Metering(
            meter, self.connections, self.rooms, lambda: self._drain_run, lambda: self._portal
        )
        #: The servers of the pages that have their own port, and its address.
        self._pages: list[tuple[Server, str, int]] = []
        #: Whether it serves such a page.
        self._is_page = False
        #: Opens their listening sockets. A program ends with one line if that fails.
        self._open_page: Callable[[str, int], list[_socket.socket]] = lambda host, port: bind(
            host, port, None
        )
        self._drain_callbacks: list[Callable[[Drain], object]] = []
        self._shed_run: ShedRun | None = None
        self._revocations = self._dispatcher.revocations
        self._start_callbacks: list[Callable[[], object]] = []
        self._stop_callbacks: list[Callable[[], object]] = []
        #: Called in the event loop with each exchange that is answered, and the status. They must not raise.
        self._answer_callbacks: list[Callable[[Exchange, int], object]] = []
        self._serves = False
        self._listener: Listener | None = None
        self._portal: Portal | None = None
        self._dashboard: Dashboard | None = None
        #: The control of this process; None if :meth:`run` does not run.
        self._control: ProcessControl | None = None

    @property
    def options(self) -> Options:
        """The options of every connection.

        A change while the server serves applies to the WebSockets that open later. The limits of a request's
        head, the limits of the number of connections, and ``proxy_protocol`` stay as they were at the start.
        """
        return self._dispatcher.options

    @options.setter
    def options(self, options: Options) -> None:
        self._dispatcher.options = options

    # -- routes ---------------------------------------------------------------

    def websocket(
        self,
        path: str,
        *,
        accept: AcceptFunction | None = None,
        cancel_on_end: bool = False,
        **options: Unpack[RouteKeywords],
    ) -> Callable[[Function], Function]:
        """Decorator for the ``handler(ws, **params)`` of the WebSocket connections of a path.

        A coroutine function gets a :class:`WebSocket`. A plain function runs in a thread, and gets the
        blocking :class:`endwell.sync.WebSocket`.

        When the handler returns, the connection is closed with 1000. When it raises, the connection is closed
        with 1011, and the exception is logged once. The handler is not cancelled when its connection ends, so
        that its cleanup code always runs.

        Args:
            path: The pattern of the path: literal segments, ``{name}`` for one segment that is not empty,
                and at the end ``{name:path}`` for the rest. Each name is a keyword argument of the handler.
            accept: A function ``accept(request)`` that decides about each connection, after the hooks ran and
                the handshake and the origin are checked. It is a coroutine function, or a plain function,
                which runs in a thread; both get a :class:`Request`. It returns None to accept, an
                :class:`Accept`, which adds header fields, cookies, a subprotocol or state, or a
                :class:`Response` to refuse. If it raises :exc:`RequestRefused`, the client gets its status;
                after another exception it gets 500. It also decides about each new token that a client sends
                (:attr:`Request.bearer`). Its time is limited like that of a :meth:`process_request` hook.
            cancel_on_end: Cancel the handler when its connection ends. Only for coroutine functions.
                Default: False.
            **options: ``max_size``, ``subprotocols``, ``compression``, ``origins``, ``limits`` or ``recorder`` of
                :class:`Options`, for this route. All others are those of the server, also after a change.

        Raises:
            TypeError: A keyword is not an option of a route, or has the wrong type, or ``accept`` does not take
                one argument.
            ValueError: The pattern is malformed or in use, the handler does not accept the parameters,
                ``cancel_on_end`` is given for a plain function, or an option is out of range.
        """
        if accept is not None:
            _check_function("accept", accept, "request")
        names = {"accept", "cancel_on_end", *RouteKeywords.__optional_keys__}
        check_keywords("websocket", options, names)
        own = RouteOptions(options, self.options) if options else None

        def register(handler: Function) -> Function:
            how = {"accept": accept, "cancel_on_end": cancel_on_end, "options": own}
            self._router.add("websocket", path, handler, **how)
            return handler

        return register

    def route(  # size: most of it is documentation
        self, path: str, *, methods: Iterable[str] = ("GET",), any_host: bool = False
    ) -> Callable[[Function], Function]:
        """Decorator for the ``handler(request, **params)`` of the HTTP requests of a path.

        A coroutine function gets a :class:`Request`, whose body it reads with ``await request.body()``,
        ``await request.json()`` or ``await request.form()``. A plain function runs in a thread, and gets an
        :class:`endwell.sync.Request`, whose body has arrived. The body has at most ``max_body`` bytes, and
        must arrive within ``body_timeout`` seconds.

        The handler returns what a handler of :meth:`get` returns, within ``open_timeout`` seconds of the end
        of the request, including the body that it reads. A :meth:`Response.stream` must begin in that time.
        It may return a generator or an async generator, which is streamed in the same way.

        Several handlers can have the same path, if their methods differ. A request with another method is
        answered with 405 and the field Allow.

        Args:
            path: The pattern of the path, as in :meth:`websocket`.
            methods: GET, which includes HEAD, POST, PUT, PATCH, DELETE or OPTIONS. Default: ``["GET"]``.
                A request with GET or HEAD must not have a body.
            any_host: As in :meth:`get`.

        Raises:
            TypeError: ``methods`` is not a list of strings.
            ValueError: The pattern is malformed or in use with one of the methods, a method is unknown, or
                the handler does not accept the parameters.

        Example:
            ```python
            from endwell import Response, Server

            server = Server()

            @server.route("/login", methods=["POST"])
            async def login(request):
                form = await request.form()
                if form.get("password") != "secret":
                    return Response.text("wrong password", 401)
                response = Response.redirect("/", 303)
                response.set_cookie("session", "abc", httponly=True, secure=True)
                return response
            ```
        """
        allowed = check_methods(methods)

        def register(handler: Function) -> Function:
            self._router.add("http", path, handler, methods=allowed, any_host=any_host)
            return handler

        return register

    def rate_limit(
        self,
        connections: int,
        *,
        per: float = 1.0,
        burst: int | None = None,
        key: OpeningKey = "address",
    ) -> None:
        """Limit how fast WebSockets open: above it, a request gets 429 with ``Retry-After``.

        Several limits apply together. Each worker process counts for itself. :class:`Limit` limits what open
        connections send. On uvicorn, `endwell.uvicorn.Protocol` has the same method.

        Args:
            connections: Number of WebSockets in each ``per`` seconds.
            per: Seconds. Default: 1.0.
            burst: Number that may open at once after a pause. Default: the same as ``connections``.
            key: What is limited: ``"address"``, each IPv4 address or IPv6 /64; ``"server"``, all together; or
                a function ``key(request)``, as for :class:`Limit`. It is called before the hooks. Default:
                ``"address"``.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: A value is out of range.

        Example:
            ```python
            import endwell

            server = endwell.Server()
            server.rate_limit(5, burst=20)
            server.rate_limit(1000, key="server")
            ```
        """
        self._dispatcher.opening_limits.append(opening_limit(connections, per, burst, key))

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
            "http",
            f"{path}/{{path:path}}",
            static(folder, self._dispatcher.threads.file, follow_links=follow_links),
        )
        if path:
            self._router.add("http", path, slash, default=True)

    def browser_module(self, path: str = "/endwell.js") -> None:
        """Serve ``endwell.js``, the reconnecting WebSocket for web pages, at ``path``.

        It is an ES module: ``import { ReconnectingWebSocket } from "/endwell.js"``.

        Raises:
            ValueError: The path is malformed or in use.
        """
        self._router.add("http", path, browser_module(self._dispatcher.threads.file))

    def health(self, path: str = "/healthz") -> None:
        """Serve a page for load balancers and readiness probes: 200 if :attr:`is_ready`, otherwise 503.

        It answers whatever the option ``allowed_hosts`` says, because a probe names the address of the machine.
        The hooks of :meth:`process_request` run for it, too. Do not use it as a liveness probe: a process that
        is restarted because the bus is away loses its connections, and the bus is still away.

        Args:
            path: The path. Default: ``/healthz``, as in Kubernetes.

        Raises:
            ValueError: The path is malformed or in use.

        Example:
            ```python
            from endwell import Server

            server = Server()
            server.health()
            ```
        """

        async def answer(request: Request) -> Response:
            if self.is_ready:
                return Response(200, body=b"ready")
            return Response(503, body=b"not ready: the bus of the rooms is not connected")

        self._router.add("http", path, answer, any_host=True)

    @property
    def metrics(self) -> dict[str, list[dict[str, object]]]:
        """The counts of :meth:`metrics_page`, of all workers: for each name, rows with ``labels`` and ``value``.

        Threads may read it, too: the event loop adds up for them.
        """
        return self._metering.snapshot()

    def metrics_page(  # size: most of it is documentation
        self,
        path: str = "/metrics",
        *,
        allow: Sequence[str] | None = THIS_MACHINE,
        host: str = "127.0.0.1",
        port: int | None = None,
    ) -> None:
        """Serve a page for Prometheus: connections, endings by cause, messages, durations and more.

        The page has the counts of all workers, also of those that have exited. A scraper that asks for
        OpenMetrics gets it. The values of the labels are bounded, whatever peers send. What open connections of
        other workers have sent and received is at most 2 s old. Hooks of :meth:`process_request` run for the page
        unless it has its own port.

        Args:
            path: The path. Default: ``/metrics``.
            allow: Addresses and networks of the peers that get the page, and ``"unix"`` for those of a Unix
                socket; others get 403. It is the address of the connection: behind a proxy on the same
                machine, that of the proxy, unless ``proxy_headers`` names the proxy. Default: this machine.
                None: all.
            host: The address of the page's own port. Default: ``"127.0.0.1"``.
            port: Serve the page on this TCP port, in plain HTTP, and not on the addresses of the server. It answers
                during a drain, too. Workers share the port. Default: None.

        Raises:
            ValueError: The path is malformed or in use, ``allow`` has something that is no network, or ``port`` is
                not between 1 and 65535.
            TypeError: ``allow`` is no sequence of strings, or ``port`` no number.

        Example:
            ```python
            from endwell import Server

            server = Server()
            server.metrics_page(allow=["127.0.0.1", "10.0.0.0/8"])
            ```
        """
        networks = None if allow is None else check_proxies(allow, "allow")

        async def answer(request: Request) -> Response:
            return self._metering.page(request, networks)

        if port is None:
            self._router.add("http", path, answer, any_host=True)
            return
        check_port(port, 1)
        # Without a bus, because it has no rooms: not even that of the environment.
        page = Server(compression=None, bus="")
        page._is_page = True
        page._router.add("http", path, answer, any_host=True)
        self._pages.append((page, host, port))

    @asynccontextmanager
    async def _serving_pages(self) -> AsyncIterator[None]:
        """Serve the pages that have their own port, while the block runs."""
        async with AsyncExitStack() as stack:
            for page, host, port in self._pages:
                await stack.enter_async_context(page._serve_on(partial(self._open_page, host, port), None))
            try:
                yield
            finally:
                # The requests whose connections a page has accepted are answered.
                left = 0.0 if self._drain_run is None else self._drain_run.seconds_left(0.0)
                for page, *_ in self._pages:
                    await page._hand_over(left)

    def dashboard(  # size: most of it is documentation
        self, path: str = "/_endwell", *, authorize: Authorize | None = None, actions: bool = True
    ) -> None:
        """Serve a page for operators: the connections, how the last ones ended, the workers and the drain.

        The page is at ``path`` and a slash. ``endwell top`` shows the same in a terminal. An operator can search the
        connections, close one, and with ``workers`` drain a worker or restart all of them. With ``workers`` or a
        ``bus``, the page shows all processes. The page shows who is connected from where, so it must not be public.
        While it is not open, it costs a record for each ending: the last 1,000 are kept.

        Args:
            path: The path of the page. Default: ``/_endwell``.
            authorize: A function ``authorize(request)`` that returns True for a client that may see the page, and
                act. It is a coroutine function, or a plain function, which runs in a thread. It is called for each
                file of the page, for each feed of the page, before each action, and every 30 s while a feed is
                open. If it raises :exc:`RequestRefused`, the client gets its status, such as 401; after another
                exception, and False, it gets 403. Default: None, only programs on this machine: the address and
                the Host of the request must be loopback ones, and no proxy may have added a field. The hooks of
                :meth:`process_request` run before.
            actions: Whether the page can close connections, drain workers and restart them. Default: True.

        Raises:
            TypeError: An argument has the wrong type, or ``authorize`` does not take one argument.
            ValueError: The path is malformed or in use, there is a dashboard already, or the server serves.

        Example:
            ```python
            from endwell import Server

            server = Server()

            def is_operator(request):
                return request.bearer == "secret"

            server.dashboard("/_endwell", authorize=is_operator)
            ```
        """
        if authorize is not None:
            _check_function("authorize", authorize, "request")
        if not isinstance(actions, bool):
            raise TypeError(f"actions must be True or False, not {actions!r}")
        if self._dashboard is not None:
            raise ValueError(f"this server has a dashboard already, at {self._dashboard.path!r}")
        if self._serves:
            raise ValueError("dashboard() while the server serves: it would not know the open connections")
        dashboard = Dashboard(
            check_prefix(path, "path"),
            self,
            registry=lambda: registry_of(self.rooms),
            metering=self._metering,
            control=lambda: self._control,
            authorize=authorize,
            actions=actions,
            threads=self._dispatcher.threads,
            options=lambda: self.options,
        )
        dashboard.add_routes(self._router)
        self._observers.of_endings += (dashboard.endings,)
        self._dashboard = dashboard

    def mount(  # size: most of it is documentation
        self,
        prefix: str,
        app: Any,
        *,
        lifespan: LifespanMode = "auto",
        max_body: int | None = None,
        root_path: str = "/",
        **options: Unpack[RouteKeywords],
    ) -> None:
        r"""Serve an ASGI application below a prefix: its HTTP requests, its WebSockets and its lifespan.

        The routes of this server win over the application, and a longer prefix over a shorter one. The
        application runs in the event loop. Its ``root_path`` is the prefix, and ``path`` contains it, as the
        specification asks. HTTP requests in progress are completed during a drain.

        Args:
            prefix: The path below which the application is served, such as ``"/"`` or ``"/api"``.
            app: An ASGI 3 or ASGI 2 application, such as a FastAPI object. Or a WSGI application, which needs the
                package a2wsgi.
            lifespan: Whether the application gets the events of the lifespan protocol: ``"on"``, ``"off"``, or
                ``"auto"`` (default), which continues if the application raises at the first event.
            max_body: Maximum size of a request's body in bytes. Default: None, no limit: the body is read only as
                fast as the application asks for it.
            root_path: A prefix that a proxy has removed from the paths, such as ``"/site"``. It precedes ``prefix``
                in the application's ``root_path``. Default: ``"/"``, none.
            **options: ``max_size``, ``subprotocols``, ``compression``, ``origins``, ``limits`` or ``recorder`` of
                :class:`Options`, for the WebSockets of the application.

        Raises:
            TypeError: ``app`` is no application, or an argument has the wrong type.
            ValueError: The prefix is malformed or in use, or an option is out of range.
            ImportError: ``app`` is a WSGI application, and a2wsgi is not installed.

        Example:
            ```python
            import asyncio
            from endwell import Server

            server = Server()

            async def app(scope, receive, send):
                if scope["type"] != "http":
                    raise NotImplementedError
                await send({"type": "http.response.start", "status": 200})
                await send({"type": "http.response.body", "body": b"hello"})

            server.mount("/", app)

            @server.websocket("/echo")
            async def echo(ws):
                async for message in ws:
                    await ws.send(message)

            async def main():
                async with server.serving(port=0):
                    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                    writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    print((await reader.read()).decode())
                    writer.close()

            asyncio.run(main())
            ```
        """
        check_keywords(
            "mount", options, {"lifespan", "max_body", "root_path", *RouteKeywords.__optional_keys__}
        )
        own = RouteOptions(options, self.options) if options else None
        if self._serves:
            raise ValueError(
                "mount() while the server serves: the lifespan of the application would not begin"
            )
        application, version = as_asgi(app)
        events = Lifespan(application, "off" if version == "wsgi" else lifespan, version)
        outer = check_prefix(root_path, "root_path")
        limit = check_max_body(max_body)
        mount = Mount(check_prefix(prefix), application, version, events, limit, outer, own)
        self._dispatcher.mounts.add(mount)
        self._start_callbacks.append(events.startup)
        self._stop_callbacks.insert(0, events.shutdown)

    def process_request(self, hook: Function) -> Function:
        """Decorator for a ``hook(request)`` that runs before the routing of every request, WebSocket or HTTP.

        The hook is a coroutine function, or a plain function, which runs in a thread. It returns None to let
        the request pass, or a :class:`Response`, such as 401, 403 or a redirect, that is sent instead. Hooks
        run one after the other in the order of their registration, until one returns a Response.

        If a hook raises, the request is answered with 500, and the exception is logged. If the hooks take
        longer than ``open_timeout``, it is answered with 503. A browser opens only one WebSocket to a server at
        a time (RFC 6455 §4.1), so a slow hook also delays the other WebSockets of its client.

        Raises:
            TypeError: ``hook`` is not callable, or does not take one argument.
        """
        _check_function("process_request", hook, "request")
        self._dispatcher.hooks.append(hook)
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

    def on_open(self, callback: Callable[[Any], object]) -> Callable[[Any], object]:
        """Decorator for a plain function ``callback(ws)`` that runs once when a connection opens.

        It runs before the handler, and before any :meth:`on_close` callback of the connection. For a
        connection of a plain handler, ``ws`` is the blocking WebSocket, and the callback runs in the
        handler's thread, so it may block. For other connections, it runs in the event loop, and must not
        block. The handler and the :meth:`on_close` callbacks of the connection see the context variables that
        it sets. Exceptions are logged. Refused requests are reported to :meth:`on_refused` instead.

        Raises:
            TypeError: ``callback`` is a coroutine function, not callable, or does not take these arguments.

        Example:
            ```python
            import asyncio
            from endwell import Server, connect

            server = Server()

            @server.on_open
            def opened(ws):
                print("opened", ws.request.path)

            @server.websocket("/")
            async def handler(ws):
                await ws.closed

            async def main():
                async with server.serving(port=0), connect(f"ws://127.0.0.1:{server.port}/"):
                    pass

            asyncio.run(main())
            ```
        """
        self._observers.add_open(callback)
        return callback

    def on_close(self, callback: Callable[[Any, Ending], object]) -> Callable[[Any, Ending], object]:
        """Decorator for a plain function ``callback(ws, ending)`` that runs once when a connection ends.

        It runs for the connections that :meth:`on_open` reports; a refused request has no ending.
        For a connection of a plain handler, ``ws`` is the blocking WebSocket, and the callback runs in a
        thread, so it may block. For other connections, it runs in the event loop, and must not block.
        Exceptions are logged.

        Raises:
            TypeError: ``callback`` is a coroutine function, not callable, or does not take these arguments.
        """
        self._observers.add_close(callback)
        return callback

    def on_refused(
        self, callback: Callable[[Request | None, int, str], object]
    ) -> Callable[[Request | None, int, str], object]:
        """Decorator for a plain function ``callback(request, status, reason)`` that runs for each refused request.

        A request is refused if the server itself answers it with an HTTP error: no route matches,
        :meth:`static` has no such file or no such range of it, the origin or host is not allowed, a limit is
        reached, or the server drains. It is also refused if a ``process_request`` hook or an ``accept``
        function returns a :class:`Response` with a status of 400 or more, or if one of them or a page fails,
        takes too long or raises :exc:`RequestRefused`. A Response that a page returns is not a refusal,
        whatever its status is: the page decides what it means.

        ``request`` is None if it could not be parsed. ``reason`` never contains text from the peer. A log
        line at INFO has the same information, and the values that were compared. The callback runs in the
        event loop, and must not block. Exceptions are logged.

        Raises:
            TypeError: ``callback`` is a coroutine function, not callable, or does not take these arguments.
        """
        self._observers.add_refused(callback)
        return callback

    def on_drain(self, callback: Function) -> Function:
        """Decorator for a ``callback(drain)`` that runs once when the server starts to drain.

        The callback is a coroutine function, or a plain function, which may block and runs in a thread. It
        starts before the first connection is closed, and gets the :class:`Drain`, which contains the
        deadline. The drain waits for it until the deadline. Exceptions are logged.
        """
        _check_function("on_drain", callback, "drain")
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
                before all workers listen. With the status 3: an application of :meth:`mount` cannot start (in
                any other thread: StartupFailed).
            RuntimeError: An event loop runs in this thread; use :meth:`serving` there.
            ValueError: ``workers`` is given, but the program is neither a file nor a module, or this is not
                the main thread.
            NotImplementedError: The system is Windows.
        """
        options = ProcessOptions(drain=drain or Drain(), workers=workers)
        run(self, partial(bind, host, port, unix_path, unix_mode), ssl, options)

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
        own = self._start_callbacks, self._drain_callbacks, self._stop_callbacks
        blocking = any(blocks(callback) for callbacks in own for callback in callbacks)
        if blocking:
            self._dispatcher.threads.keep_lifespan_thread()
        try:
            self._dispatcher.drain_run = None
            # The tasks that on_start creates, and on_stop ends, may publish.
            async with self._connected():
                await start(self._start_callbacks, self._dispatcher.threads)
                try:
                    async with self._serving_pages(), self._listening(listen, ssl, plan, should_defer):
                        yield self
                finally:
                    await stop(
                        self._stop_callbacks,
                        STOP_TIME if self._drain_run is None else self._drain_run.seconds_left(STOP_TIME),
                        self._dispatcher.threads,
                    )
        finally:
            for mount in self._dispatcher.mounts:
                mount.lifespan.abandon()
            self._serves = False
            if blocking:
                self._dispatcher.threads.release_lifespan_thread()

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[None]:
        """Connect with other processes by the bus of the rooms, while the block runs."""
        rooms = self.rooms
        dashboard = nullcontext() if self._dashboard is None else self._dashboard.connected(rooms)
        async with connected(self.sessions, rooms), self._revocations.connected(rooms), dashboard:
            yield

    @asynccontextmanager
    async def _listening(
        self,
        listen: Listen,
        ssl: tls.SSLContext | None,
        plan: Drain,
        should_defer: Callable[[int], bool] | None,
    ) -> AsyncIterator[None]:
        defer = should_defer and (lambda openings: should_defer(openings + len(self.connections)))
        listener = Listener(listen(), self.options, ssl, self._dispatcher, self.connections, defer)
        listener.refused = self._observers.no_preamble
        listener.answered = _one_of(self._answer_callbacks)
        if (tracing := self._dispatcher.tracing) is not None:
            listener.gone = tracing.gone
            listener.websocket_type = self._dispatcher.websocket_type
        places = shared_places(self.sessions, self.options.max_connections)
        if places is not None:
            listener.share(places)
        self._listener = listener
        self._metering.begin(listener)
        self.draining = listener.stopping
        self._portal = Portal.of(listener.loop)
        self._dispatcher.begin()
        self.addresses = [_address_of(sock) for sock in listener.socks]
        try:
            yield
        finally:
            try:
                await self.drain(plan)
            finally:
                self._metering.end()
                self._dispatcher.threads.dismiss()
                self._listener = self._portal = None
                listener.close()
                for exchange in list(listener.openings):
                    exchange.abort()
                for stream in list(listener.lingering):
                    stream.abort()
                self.addresses = []
                if places is not None:
                    places.stop()
                await self.sessions.aclose()
                await end_graces(self.rooms)

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
        self._announce_drain(self._listener, plan)
        dispatcher = self._dispatcher
        for callback in self._drain_callbacks:
            dispatcher.start(call_on_drain(callback, plan, dispatcher.threads))
        dispatcher.drain_run = DrainRun(
            plan,
            self.connections,
            dispatcher.tasks,
            dispatcher.threads,
            self._listener.openings,
            dispatcher.handling,
        )
        dispatcher.drain_run.is_logged = not self._is_page
        dispatcher.mounts.refuse_undecided()
        return await dispatcher.drain_run.run()

    def _announce_drain(self, listener: Listener, plan: Drain) -> None:
        if not plan.listen:
            listener.close()
        listener.end_keep_alive()
        self.draining.set()
        self._dispatcher.threads.draining.set()
        if self._shed_run is not None:
            self._shed_run.stop()

    @property
    def blocking(self) -> BlockingServer:
        """:meth:`revoke` and :meth:`shed` for threads, such as those of plain handlers: without ``await``."""
        return BlockingServer(self, lambda: self._portal)

    async def revoke(self, subject: str) -> int:
        """Close all connections of a subject, such as those of a user whose account is blocked.

        They are the connections for which :meth:`WebSocket.authorize` has named this subject. They get 3003
        (``CloseCode.FORBIDDEN``), which tells their clients not to return, and their Ending has the cause
        AUTH_REVOKED. Messages that arrive after the call are dropped. New connections of the subject are for the
        application to refuse; if an ``accept`` function has begun before the call and then accepts the subject,
        the client gets 403. In a thread, such as that of a plain handler, call ``server.blocking.revoke()``.

        With ``workers`` or a ``bus``, the connections of all processes are closed. A process that cannot hear
        the bus closes them when it does again, if that takes less than an hour.

        Args:
            subject: The user or account.

        Returns:
            The number of connections of this process that were closed.

        Raises:
            TypeError: ``subject`` is not a str.
            ValueError: ``subject`` is empty.
            BusUnavailable: The connections of this process were closed, but other processes may not have been
                told. Call it again.
        """
        return await self._revocations.revoke(subject)

    async def shed(  # size: most of it is documentation
        self, fraction: float = 0.25, over: float = 60.0
    ) -> int:
        """Close a share of the connections, so that a load balancer gives them to other servers.

        Use it after a new server has been added behind the load balancer: WebSockets are long-lived, so the
        new server gets its share only when clients reconnect. The connections on which no message has come or
        gone for the longest time are closed first. Each is closed like in a drain, as soon as its handler
        waits for a message and none has arrived, so that no message is lost. It gets 1012
        (``CloseCode.SERVICE_RESTART``) with the advice to return at once, and its Ending has the cause SHED.
        The server accepts new connections meanwhile. A drain ends the call.

        With :meth:`run`, SIGUSR1 does the same with the default arguments, unless the application handles this
        signal. With workers, send it to the supervisor. In a thread, call ``server.blocking.shed()``.

        Args:
            fraction: The share of the open connections, above 0 and at most 1. Default: 0.25.
            over: Seconds over which the closings are spread, so that the clients do not all reconnect at the
                same time. Default: 60.

        Returns:
            The number of connections that were closed, when all of them have ended.

        Raises:
            TypeError: An argument is not a number.
            ValueError: An argument is out of range, or the server does not serve.
            RuntimeError: Another call is still running.

        Example:
            ```python
            import asyncio
            from endwell import Server, connect

            server = Server()

            @server.websocket("/")
            async def handler(ws):
                await ws.wait_closed()

            async def main():
                async with server.serving(port=0), connect(f"ws://127.0.0.1:{server.port}/") as ws:
                    print(await server.shed(1, over=0), (await ws.closed).code)  # 1 1012

            asyncio.run(main())
            ```
        """
        check_shed(fraction, over)
        if self._listener is None:
            raise ValueError("shed() while the server does not serve")
        if self._shed_run is not None:
            raise RuntimeError("shed() while another call of shed() is still running")
        if self._drain_run is not None:
            return 0
        self._shed_run = ShedRun(self.connections, fraction, over)
        try:
            return await self._shed_run.run()
        finally:
            self._shed_run = None

    @property
    def is_ready(self) -> bool:
        """Whether new clients should come to this process.

        False while the server does not serve, while it drains, and while the bus of :attr:`rooms` is not
        connected: members of this process may miss publications then. :meth:`health` shows it.
        """
        return self._listener is not None and self._drain_run is None and self.rooms.is_connected

    @property
    def _drain_run(self) -> DrainRun | None:
        """The current or finished drain; None before it."""
        return self._dispatcher.drain_run

    async def _hand_over(self, seconds: float) -> None:
        """Stop listening, and wait for the opening handshakes in progress, at most ``seconds``."""
        if self._listener is not None:
            self._listener.close()
            await self._listener.settled(min(HANDSHAKE_TIME, seconds))

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


def _one_of(callbacks: list[Callable[[Exchange, int], object]]) -> Callable[[Exchange, int], object] | None:
    if len(callbacks) < 2:
        return callbacks[0] if callbacks else None

    def call(exchange: Exchange, status: int) -> None:
        for callback in callbacks:
            callback(exchange, status)

    return call


def _check_function(decorator: str, function: object, *arguments: str) -> None:
    if not callable(function):
        raise TypeError(f"{decorator} takes a function, not {function!r}")
    check_arguments(function, *arguments)


def _address_of(sock: _socket.socket) -> Any:
    address = sock.getsockname()
    # The name of an abstract Unix socket is bytes; decode it to the text that the caller passed.
    return os.fsdecode(address) if isinstance(address, bytes) else address

"""ASGI applications below a prefix of a server's paths."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context
from typing import Any, Protocol
from urllib.parse import unquote

from ..aio.bind import format_peer
from ..aio.exchange import Exchange
from ..aio.flag import Flag
from ..aio.websocket import WebSocket
from ..asgi.application import Application
from ..asgi.coroutines import run
from ..asgi.http import HttpCall
from ..asgi.lifespan import Lifespan
from ..asgi.scope import Kind, scope_of, tls_extension
from ..asgi.websocket import WebSocketCall
from ..errors import RequestRefused
from ..http.headers import is_plain
from ..http.request import Request
from ..http.response import Response
from ..options import Options
from ..protocol.negotiation import Accepted
from ..protocol.opening import accept
from .drain.run import DrainRun
from .router import Route, RouteOptions, Router

__all__ = ["Mount", "Mounts", "check_max_body", "check_prefix"]

logger = logging.getLogger("endwell.server")


class Dispatcher(Protocol):
    """What answers the requests of the server: see ``dispatch.py``."""

    options: Options
    router: Router
    drain_run: DrainRun | None
    handling: dict[WebSocket, Route]

    def refuse(self, exchange: Exchange, refusal: RequestRefused) -> None:
        """Answer with the response of ``refusal``."""

    def failed(self, request: Request) -> None:
        """Call the callbacks of the server for a request that gets 500."""

    def refused_by_application(self, status: int) -> None:
        """Count the response of an application to a request for a WebSocket."""

    def observe(self, ws: WebSocket, context: Context | None) -> None:
        """Count an open connection, and call the callbacks of the server for it."""


class Mount:
    """An application, and the prefix of its paths, which is empty or begins with "/"."""

    def __init__(  # size: all of it is about one application
        self,
        prefix: str,
        application: Application,
        version: str,
        lifespan: Lifespan,
        max_body: int | None,
        root_path: str,
        options: RouteOptions | None,
    ) -> None:
        self.prefix = prefix
        # What a proxy has removed from the paths.
        self._root_path = root_path
        self.segments = prefix.split("/")
        self.size = len(self.segments)
        self.application = application
        self.lifespan = lifespan
        self.max_body = max_body
        #: The options of its WebSockets; None for those of the server.
        self.options = options
        self._version = version
        #: The handler of its WebSockets, as a drain names it.
        self.route = Route("websocket", f"{prefix}/{{path:path}}", application, ())

    def scope(self, exchange: Exchange, request: Request, kind: Kind) -> dict[str, Any]:
        """The scope of a request, without the extensions."""
        client, server = _pair(request.remote_address), _pair(exchange.local_address)
        scope = scope_of(request, kind, client, server, self._root_path, self._version)
        scope["root_path"] = self._root_path + self.prefix
        scope["state"] = self.lifespan.state.copy()
        return scope


class _Extension(dict[str, Any]):
    """The extension of an HTTP request: a dict without items, because applications write their scope as JSON."""

    # Without __init__(), whose call costs as much as the rest of the object.
    __slots__ = ("draining",)

    draining: Flag

    def __missing__(self, key: str) -> Flag:
        if key != "draining":
            raise KeyError(key)
        return self.draining


class Mounts:
    """The mounted applications of a server, and their calls."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._mounts: list[Mount] = []
        #: Whether there are any.
        self.exist = False
        # The only application, if it has no prefix.
        self._everything: Mount | None = None
        # The requests for a WebSocket that an application has not answered.
        self._undecided: set[_WebSocketHost] = set()
        self._http = _HttpHost(dispatcher)

    def __iter__(self) -> Iterator[Mount]:
        return iter(self._mounts)

    def add(self, mount: Mount) -> None:
        """Add an application. Raises ValueError if its prefix is in use."""
        if any(other.prefix == mount.prefix for other in self._mounts):
            raise ValueError(f"an application is already mounted at {mount.prefix or '/'!r}")
        self.exist = True
        # The longest prefix wins.
        self._mounts = sorted([*self._mounts, mount], key=lambda each: -each.size)
        if not mount.prefix and len(self._mounts) == 1:
            self._everything = mount
        else:
            self._everything = None

    def find(self, request: Request, upgrade: bool) -> Mount | None:
        """The application of a request; None if a route of the server has its path, or there is none."""
        router = self._dispatcher.router
        if self._everything is not None and not router.has_any("websocket" if upgrade else "http"):
            return self._everything
        path = request.raw_path
        segments = [unquote(segment) for segment in path.split("/")] if "%" in path else path.split("/")
        if router.has(segments, "websocket" if upgrade else "http"):
            return None
        for mount in self._mounts:
            if segments[: mount.size] == mount.segments:
                return mount
        return None

    def call(self, mount: Mount, exchange: Exchange, request: Request, upgrade: bool) -> Any:
        """Return the coroutine that answers the request; None if it is answered already."""
        exchange.wait_for_answer()
        request.route = mount.route.pattern
        if upgrade:
            return self._websocket(mount, exchange, request)
        scope = mount.scope(exchange, request, "http")
        # An object for each request: an application may write into its scope.
        extension = _Extension()
        extension.draining = exchange.stopping
        scope["extensions"] = extensions = {"http.response.pathsend": {}, "endwell": extension}
        if request.version != "1.0":
            extensions["http.response.early_hint"] = {}
            # RFC 9110 §6.5.1: trailers are for a client that says it keeps them.
            if not is_plain(request.headers) and "trailers" in map(str.lower, request.headers.list_of("TE")):
                extensions["http.response.trailers"] = {}
        if request.secure and (tls := request.tls) is not None:
            extensions["tls"] = tls_extension(tls)
        return run(HttpCall(exchange, scope, self._http, mount.max_body), mount.application)

    def _websocket(self, mount: Mount, exchange: Exchange, request: Request) -> Any:
        options = self._dispatcher.options
        if mount.options is not None:
            options = mount.options.over(options)
        try:
            accepted = accept(request, options)
        except RequestRefused as exc:
            self._dispatcher.refuse(exchange, exc)
            return None
        scope = mount.scope(exchange, request, "websocket")
        host = _WebSocketHost(self._dispatcher, self._undecided, mount, exchange, options)
        host.call = call = WebSocketCall(exchange, accepted, scope, host)
        if (tls := request.tls) is not None:
            scope["extensions"]["tls"] = tls_extension(tls)
        self._undecided.add(host)
        exchange.watch(host.changed, half_close=False)
        return call.run(mount.application)

    def refuse_undecided(self) -> None:
        """The server stops: refuse the WebSockets that the applications have not accepted."""
        for host in list(self._undecided):
            host.refuse()


class _HttpHost:
    """What the calls for HTTP requests need of the server."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.logger = logger

    def refused(self, exchange: Exchange, refusal: RequestRefused) -> None:
        """Answer with the response of ``refusal``."""
        self._dispatcher.refuse(exchange, refusal)

    def failed(self, request: Request, exc: BaseException | None, answered: bool) -> Response:
        """Log that the application has failed; return the answer."""
        if exc is not None:
            peer = format_peer(request.remote_address)
            extra = {"route": request.route}
            logger.error("answering %r for %s failed", request.raw_path, peer, exc_info=exc, extra=extra)
        if not answered:
            self._dispatcher.failed(request)
        return Response.text("internal error\n", 500)

    def stopping(self) -> Callable[[], RequestRefused] | None:
        """A function that makes the answer to a request whose task is cancelled by a stop, and counts it.

        None if no stop has cancelled it.
        """
        run = self._dispatcher.drain_run
        return run.refuse if run is not None and run.has_cancelled else None


class _WebSocketHost:
    """What the call for one WebSocket needs of the server."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        undecided: set[_WebSocketHost],
        mount: Mount,
        exchange: Exchange,
        options: Options,
    ) -> None:
        self._dispatcher = dispatcher
        self._undecided = undecided
        self._mount = mount
        self._exchange = exchange
        self._options = options
        self.call: WebSocketCall | None = None
        self.logger = logger

    @property
    def draining(self) -> Flag:
        """Set when the server begins to stop."""
        return self._exchange.stopping

    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        """Return the fields that the server adds to each response: none, because the responses have them."""
        return ()

    def log(self, outcome: str) -> None:
        """Do nothing: the server has observers instead of an access log."""

    def accept(self, accepted: Accepted) -> WebSocket:
        """Send the 101 and return the WebSocket."""
        self._undecided.discard(self)
        dispatcher = self._dispatcher
        ws = self._exchange.switch(accepted, self._options, keep=True)
        dispatcher.handling[ws] = self._mount.route
        dispatcher.observe(ws, self._exchange.context)
        return ws

    def refused(self, status: int) -> None:
        """Count the response."""
        self._dispatcher.refused_by_application(status)

    def returned(self, ws: WebSocket | None) -> None:
        """The application has returned or raised."""
        self._undecided.discard(self)
        if ws is not None:
            dispatcher = self._dispatcher
            if dispatcher.drain_run is not None:
                dispatcher.drain_run.returned(ws)
                dispatcher.drain_run.close(ws)
            del dispatcher.handling[ws]

    def refuse(self) -> None:
        """Answer with 503, because the server stops."""
        self._undecided.discard(self)
        run = self._dispatcher.drain_run
        if run is not None and self.call is not None and not self._exchange.answered:
            self._dispatcher.refuse(self._exchange, run.refuse())
            self.call.gone()

    def changed(self) -> None:
        """The client has disconnected, perhaps."""
        if self._exchange.gone and self.call is not None:
            self._undecided.discard(self)
            self.call.gone()
            self.call.over()


def _pair(address: object) -> Any:
    """An address as ASGI has it: host and port, or the path of a Unix socket and None; None if it is unknown."""
    if isinstance(address, tuple):
        return address[:2]
    if isinstance(address, bytes):
        address = address.decode(errors="surrogateescape")
    return (address, None) if address else None


def check_prefix(prefix: object, name: str = "prefix") -> str:
    """The prefix of paths, without a slash at its end. Raises TypeError or ValueError."""
    if not isinstance(prefix, str):
        raise TypeError(f"{name} must be a str, not {prefix!r}")
    checked = prefix.rstrip("/")
    if not prefix.startswith("/") or "//" in checked or any(char in checked for char in "?#%{}"):
        raise ValueError(f"{name} {prefix!r} must be a path such as '/api', without parameters and encoding")
    return checked


def check_max_body(size: object) -> int | None:
    """The limit of a request's body. Raises TypeError or ValueError."""
    if size is not None and (isinstance(size, bool) or not isinstance(size, int)):
        raise TypeError(f"max_body must be a number of bytes or None, not {size!r}")
    if size is not None and size <= 0:
        raise ValueError(f"max_body must be positive, not {size!r}")
    return size

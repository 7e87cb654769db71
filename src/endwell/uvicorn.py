"""WebSockets of uvicorn: ``uvicorn app:app --ws endwell.uvicorn:Protocol``."""

# size: what uvicorn calls, and what the connections of one uvicorn share, are one interface.
from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast
from weakref import WeakKeyDictionary

from uvicorn.protocols.utils import (
    get_client_addr,
    get_local_addr,
    get_path_with_query_string,
    get_remote_addr,
    is_ssl,
)

from .aio.ending_log import is_written
from .aio.flag import Flag
from .aio.handover import Handover
from .aio.limiting import OpeningKey, opening_limit, over_opening_limit
from .aio.opening import ConnectionSets
from .aio.reactor import Reactor, reactor_of
from .aio.websocket import WebSocket
from .asgi.metrics_page import MetricsPage
from .asgi.scope import route_of, scope_of
from .asgi.websocket import WebSocketCall
from .ending import Ending
from .errors import BadRequest, RequestRefused
from .http import Headers, Request, Response
from .limit import Limit
from .matching import check_proxies
from .metrics.meter import Meter
from .metrics.page import THIS_MACHINE
from .metrics.table import Block
from .options import Deflate, Options
from .protocol.negotiation import Accepted
from .protocol.opening import accept
from .server.drain.run import DrainRun
from .server.drain.timetable import Drain
from .server.threads import HandlerThreads
from .wire.head import RequestReader

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

__all__ = ["DEFAULTS", "Protocol", "metrics_page"]

#: The names of the environment variables with options, as JSON.
OPTIONS_VARIABLE, DRAIN_VARIABLE = "ENDWELL_OPTIONS", "ENDWELL_DRAIN"

#: The default options. They differ from those of :class:`Server` where uvicorn has a default of its own, and in
#: the origins: uvicorn does not check them, and a framework may.
DEFAULTS = Options(max_size=16 * 2**20, max_queue=32, origins=["*"], max_head=2**16, max_line=2**16)

#: The defaults of uvicorn's own settings. A setting with another value replaces the option.
_UVICORN = {
    "ws_max_size": 16 * 2**20,
    "ws_max_queue": 32,
    "ws_ping_interval": 20.0,
    "ws_ping_timeout": 20.0,
    "ws_per_message_deflate": True,
}


class Protocol(asyncio.Protocol):
    """The WebSocket class for uvicorn.

    uvicorn makes an object of it for each connection. Applications only make subclasses, which change the options.

    Example:
        ```python
        from endwell import Drain
        from endwell.uvicorn import DEFAULTS, Protocol


        class MyProtocol(Protocol):  # uvicorn app:app --ws mymodule:MyProtocol
            options = DEFAULTS.replace(idle_timeout=60)
            drain = Drain(deadline=10)
        ```
    """

    #: The options of the connections. The environment variable ENDWELL_OPTIONS (JSON) replaces some of them, and
    #: uvicorn's ``ws_*`` settings do, if they are not uvicorn's defaults. Default: :data:`DEFAULTS`.
    options: ClassVar[Options] = DEFAULTS
    #: How the connections are closed when uvicorn stops; ENDWELL_DRAIN (JSON) replaces some of it. Its ``deadline``
    #: is at most uvicorn's ``timeout_graceful_shutdown``. Default: ``Drain()``.
    drain: ClassVar[Drain] = Drain()
    #: Whether the application's task is cancelled when the connection ends while the task does something else than
    #: wait in ``receive()``. Default: False.
    cancel_on_end: ClassVar[bool] = False
    _opening_limits: ClassVar[tuple[Limit, ...]] = ()

    __slots__ = ("_app_state", "_config", "_connection", "_driver", "_state", "_transport")

    def __init_subclass__(cls) -> None:
        # uvicorn makes the first object for the first connection, and would start with the mistake.
        for name, kind in (("options", Options), ("drain", Drain)):
            if not isinstance(value := getattr(cls, name), kind):
                raise TypeError(f"{cls.__name__}.{name} must be {kind.__name__}, not {type(value).__name__}")

    @classmethod
    def rate_limit(
        cls, connections: int, *, per: float = 1.0, burst: int | None = None, key: OpeningKey = "address"
    ) -> None:
        """Limit how fast WebSockets open on the servers with this class: see :meth:`Server.rate_limit`.

        ``"address"`` is the address of the TCP peer, which may be a proxy: `--proxy-headers` of uvicorn has no effect
        on it.

        Args:
            connections: Number of WebSockets in each ``per`` seconds.
            per: Seconds. Default: 1.0.
            burst: Number that may open at once after a pause. Default: the same as ``connections``.
            key: ``"address"``, ``"server"``, or a function ``key(request)``. Default: ``"address"``.

        Raises:
            TypeError: A value has the wrong type.
            ValueError: A value is out of range.

        Example:
            ```python
            from endwell.uvicorn import Protocol


            class MyProtocol(Protocol):  # uvicorn app:app --ws mymodule:MyProtocol
                pass


            MyProtocol.rate_limit(5, burst=20)
            ```
        """
        cls._opening_limits = (*cls._opening_limits, opening_limit(connections, per, burst, key))

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self._config = config
        self._state = server_state
        self._app_state = app_state
        self._transport: asyncio.Transport | None = None
        self._connection: _Connection | None = None
        # The new protocol of the transport; None if the connection has left the transport.
        self._driver: asyncio.Protocol | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called first."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is not a subclass
        self._state.connections.add(self)  # type: ignore[arg-type]  # the set's type names uvicorn's own classes

    def data_received(self, data: bytes) -> None:
        """Called first with the head of the request."""
        transport, self._transport = self._transport, None
        if transport is None:
            if self._driver is not None:
                self._driver.data_received(data)
            return
        try:
            site = _site_of(self._state, type(self), self._config)
        except Exception:
            # A setting of uvicorn that cannot be an option. uvicorn waits without a limit for what is in its sets.
            self._state.connections.discard(self)
            transport.abort()
            raise
        connection = self._connection = _Connection(site, self._state, self)
        try:
            connection.open(transport, data, self._config, self._app_state)
        except Exception:
            # Without a descriptor, for example. uvicorn waits without a limit for what is in its sets.
            connection.closed()
            transport.abort()
            raise
        self._driver = connection.driver
        if self._driver is not None:
            # After this call, uvicorn makes this object the protocol of the transport. Until the next turn of the
            # loop, this object passes on what it is called with.
            asyncio.get_running_loop().call_soon(transport.set_protocol, self._driver)

    def eof_received(self) -> bool | None:
        """Called at the end of the client's sending."""
        return None if self._driver is None else self._driver.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called at the end of the transport. The connection may have left it."""
        if self._driver is not None:
            self._driver.connection_lost(exc)

    def resume_writing(self) -> None:
        """Called when the transport has written its data."""
        if self._driver is not None:
            self._driver.resume_writing()

    def shutdown(self) -> None:
        """Called when uvicorn stops, for each connection in ``server_state.connections``."""
        _site_of(self._state, type(self), self._config).shutdown(self._state)


class _Connection:
    """One connection: the host of its application's call."""

    __slots__ = ("_call", "_exchange", "_protocol", "_site", "_state", "_task", "logger")

    #: The drain closes all connections of uvicorn alike.
    closes_last = False

    def __init__(self, site: _Site, state: ServerState, protocol: Protocol) -> None:
        self._site = site
        self._state = state
        self._protocol = protocol
        self._exchange: Handover | None = None
        self._call: WebSocketCall | None = None
        self._task: asyncio.Task[None] | None = None
        self.logger = logging.getLogger("uvicorn.error")

    def open(
        self, transport: asyncio.Transport, head: bytes, config: Config, app_state: dict[str, Any]
    ) -> None:
        """Take over the connection and call the application, unless the request is refused."""
        options, client = self._site.options, get_remote_addr(transport)
        secure = is_ssl(transport)
        request = Request("GET", "/", Headers(), remote_address=client)
        refusal: RequestRefused | None = None
        accepted: Accepted | None = None
        try:
            read = RequestReader(options, client, secure).receive(head)
            if read is None:
                raise BadRequest("the head of the request is incomplete")
            request = read
            accepted = accept(request, options)
        except RequestRefused as exc:
            refusal = exc
        exchange = self._exchange = Handover(self._site, transport, request, options, self._gone, self.closed)
        if refusal is not None or accepted is None:
            assert refusal is not None
            self.logger.warning("Invalid WebSocket request: %s", refusal)
            self._refuse(exchange, refusal)
            return
        self._site.openings.add(exchange)
        scope = scope_of(
            request, "websocket", client, get_local_addr(transport), config.root_path, config.asgi_version
        )
        scope["state"] = app_state.copy()
        self._call = call = WebSocketCall(exchange, accepted, scope, self)
        if self._site.run is not None:
            self.refuse_stopping()
            return
        if self._protocol._opening_limits and self._refuse_above_limit(exchange, request):
            call.gone()
            return
        self._task = task = asyncio.get_running_loop().create_task(call.run(config.loaded_app))
        self._state.tasks.add(task)
        self._site.tasks[task] = None
        task.add_done_callback(self._done)
        exchange.begin()

    def _refuse_above_limit(self, exchange: Handover, request: Request) -> bool:
        """Answer the request if it comes too soon after others. Returns whether it was answered."""
        try:
            refusal = over_opening_limit(self._protocol._opening_limits, request, request.remote_address)
        except Exception:  # of an application's key function
            self.logger.exception("Exception in the key function of a rate limit")
            self.log("500")
            _meter.refused(500)
            exchange.answer(Response(500, Headers({"Content-Type": "text/plain"}), b"Internal Server Error"))
            return True
        if refusal is None:
            return False
        self.log("429")
        self._refuse(exchange, refusal)
        return True

    def _refuse(self, exchange: Handover, refusal: RequestRefused) -> None:
        _meter.refused(refusal.status)
        exchange.answer(refusal.response(), refusal)

    @property
    def driver(self) -> asyncio.Protocol | None:
        """The protocol of the transport; None if the connection has left the transport."""
        return None if self._exchange is None else self._exchange.protocol

    # -- what the call needs ----------------------------------------------------------

    @property
    def draining(self) -> Flag:
        """Set when uvicorn begins to stop."""
        return self._site.stopping

    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        """Return uvicorn's default headers."""
        return self._state.default_headers

    def log(self, outcome: str) -> None:
        """Write the line that uvicorn's own classes write."""
        if self.logger.isEnabledFor(logging.INFO) and self._call is not None:
            client = get_client_addr(self._call.scope)  # type: ignore[arg-type]
            self.logger.info('%s - "WebSocket %s" %s', client, self.name, outcome)

    def accept(self, accepted: Accepted) -> WebSocket:
        """Send the 101 and return the WebSocket."""
        exchange, site = self._exchange, self._site
        assert exchange is not None and exchange.request is not None and self._call is not None
        exchange.request.route = route_of(self._call.scope)
        ws = exchange.switch(accepted, exchange.options)
        _meter.opened(ws, ws.request.route)
        self._exchange = None
        site.handling[ws] = self
        if self.logger.isEnabledFor(logging.INFO):
            ws.on_close(self._log_ending)
        if self._protocol.cancel_on_end:
            ws.on_close(self._cancel)
        return ws

    def refused(self, status: int) -> None:
        """Count the response of the application, if it is an error."""
        if status >= 400:
            _meter.refused(status)

    def returned(self, ws: WebSocket | None) -> None:
        """The application has returned or raised."""
        site = self._site
        if ws is not None:
            if site.run is not None:
                site.run.returned(ws)
                site.run.close(ws)
            del site.handling[ws]

    @property
    def name(self) -> str:
        """The path and the query, percent-encoded: the name in the report of the drain."""
        return "" if self._call is None else get_path_with_query_string(self._call.scope)  # type: ignore[arg-type]

    @property
    def blocking(self) -> bool:
        """An ASGI application runs in the event loop."""
        return False

    # -- events -------------------------------------------------------------------------

    def refuse_stopping(self) -> None:
        """Answer a request that the application has not answered with 503, because the server stops."""
        exchange, call, run = self._exchange, self._call, self._site.run
        if exchange is not None and call is not None and run is not None and not exchange.answered:
            self._refuse(exchange, run.refuse())
            call.gone()

    def closed(self) -> None:
        """TCP has ended."""
        self._state.connections.discard(self._protocol)
        if self._exchange is not None:
            self._site.openings.discard(self._exchange)
            if self._call is not None:
                self._call.over()

    def _gone(self) -> None:
        if self._call is not None:
            self._call.gone()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._state.tasks.discard(task)
        self._site.tasks.pop(task, None)
        self._task = None

    def _cancel(self, ending: Ending) -> None:
        ws = None if self._call is None else self._call.ws
        if self._task is not None and ws is not None and not ws._slot.is_waiting():
            self._task.cancel()

    def _log_ending(self, ending: Ending) -> None:
        if not is_written(ending):
            self.log(f"[{ending}]")


class _Site(ConnectionSets):
    """What the connections of one server share."""

    def __init__(self, options: Options, drain: Drain) -> None:
        super().__init__(set())
        self.options = options
        self.drain = drain
        self.handling: dict[WebSocket, Any] = {}
        self.tasks: dict[asyncio.Task[None], None] = {}
        self.run: DrainRun | None = None
        # Held: between two connections, nothing else may hold it, and it has counted the stalls.
        self.reactor = reactor_of(asyncio.get_running_loop())

    def shutdown(self, state: ServerState) -> None:
        """Begin to drain, unless that has begun."""
        if self.run is not None:
            return
        self.stopping.set()
        self.run = DrainRun(
            self.drain, self.connections, self.tasks, HandlerThreads(1), self.openings, self.handling
        )
        for connection in list(state.connections):
            if isinstance(connection, Protocol) and connection._connection is not None:
                connection._connection.refuse_stopping()
        task = asyncio.get_running_loop().create_task(self._drain(self.run, state))
        # uvicorn waits for the task, and cancels it after timeout_graceful_shutdown.
        state.tasks.add(task)
        task.add_done_callback(state.tasks.discard)

    async def _drain(self, run: DrainRun, state: ServerState) -> None:
        try:
            await run.run()
        finally:
            _stalls.add(self.reactor)
            # uvicorn waits without a limit for what is in its sets.
            for opening in list(self.openings):
                opening.abort()
            for stream in list(self.lingering):
                stream.abort()
            for connection in list(state.connections):
                if isinstance(connection, Protocol):
                    state.connections.discard(connection)
            for task in list(self.tasks):
                state.tasks.discard(task)


_sites: WeakKeyDictionary[ServerState, _Site] = WeakKeyDictionary()
#: Of the process: a page belongs to an application, which may not know by which server it is called.
_meter = Meter()


class _Stalls:
    """The seconds for which event loops of this process were stalled, also those of servers that have ended."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._counted: WeakKeyDictionary[Reactor, float] = WeakKeyDictionary()

    def add(self, reactor: Reactor) -> None:
        """Add what is new since the last call for this loop."""
        self.seconds += reactor.seconds_stalled - self._counted.get(reactor, 0.0)
        self._counted[reactor] = reactor.seconds_stalled


_stalls = _Stalls()


def metrics_page(*, allow: Sequence[str] | None = THIS_MACHINE) -> MetricsPage:
    """Return an ASGI application: the page of :meth:`Server.metrics_page`, for the WebSockets of this process.

    Each worker of ``uvicorn --workers`` counts for itself, and its page has its own counts. On another server,
    also on endwell's own, the page counts no connection.

    Args:
        allow: Addresses and networks of the peers that get the page, and ``"unix"`` for those of a Unix socket;
            others get 403. It is the ``client`` of the scope, which uvicorn's ``--proxy-headers`` replaces: with
            ``--forwarded-allow-ips '*'``, by what a client can write.
            Default: this machine. None: all.

    Raises:
        ValueError: ``allow`` has something that is no network.
        TypeError: ``allow`` is no sequence of strings.

    Example:
        ```python
        from endwell.uvicorn import metrics_page
        from fastapi import FastAPI

        app = FastAPI()  # uvicorn app:app --ws endwell.uvicorn:Protocol
        app.add_route("/metrics", metrics_page())
        ```
    """
    return MetricsPage(None if allow is None else check_proxies(allow, "allow"), _count)


def _count() -> list[Block]:
    """What the servers of this process have counted."""
    sites = list(_sites.values())
    runs = [site.run for site in sites if site.run is not None]
    _meter.refresh(
        [ws for site in sites for ws in site.connections], sum(len(site.lingering) for site in sites)
    )
    for site in sites:
        _stalls.add(site.reactor)
    _meter.set_process(
        _stalls.seconds,
        serving=not runs,
        draining=bool(runs),
        remaining=max((run.seconds_left(0.0) for run in runs), default=0.0),
    )
    return _meter.table.blocks()


def _site_of(state: ServerState, protocol: type[Protocol], config: Config) -> _Site:
    site = _sites.get(state)
    if site is None:
        site = _sites[state] = _Site(_options(protocol, config), _drain(protocol, config))
    return site


def _options(protocol: type[Protocol], config: Config) -> Options:
    """The options of a class, with those of the environment and uvicorn's settings in front of them."""
    options = protocol.options.replace(**_ENVIRONMENT_OPTIONS)
    changes: dict[str, Any] = {}
    for name in ("max_size", "max_queue", "ping_interval", "ping_timeout"):
        value = getattr(config, f"ws_{name}")
        if value != _UVICORN[f"ws_{name}"]:
            changes[name] = value or None  # for uvicorn, an interval of 0 means none, too
    if not config.ws_per_message_deflate:
        changes["compression"] = None
    return options.replace(**changes)


def _drain(protocol: type[Protocol], config: Config) -> Drain:
    drain = protocol.drain.replace(**_ENVIRONMENT_DRAIN)
    limit = config.timeout_graceful_shutdown
    # uvicorn closes its listening socket, so the next server may have the address at once.
    return drain.replace(
        listen=False, deadline=drain.deadline if limit is None else min(limit, drain.deadline)
    )


def _read(
    variable: str, base: Options | Drain, environment: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """The JSON object of an environment variable, with fields of ``base``; empty if it is not set.

    Raises ValueError, whose message names the variable.
    """
    text = environment.get(variable, "").strip()
    try:
        values = json.loads(text) if text else {}
    except ValueError as error:
        raise ValueError(f"{variable} must be a JSON object: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(  # noqa: TRY004  (the type is right)
            f"{variable} must be a JSON object, not {text[:80]!r}"
        )
    try:
        if isinstance(values.get("compression"), dict):
            values["compression"] = Deflate(**values["compression"])
        base.replace(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{variable}: {error}") from None
    return values


# Read at the import, so that a mistake stops uvicorn's start and not its first connection.
_ENVIRONMENT_OPTIONS: Any = _read(OPTIONS_VARIABLE, DEFAULTS)
_ENVIRONMENT_DRAIN: Any = _read(DRAIN_VARIABLE, Drain())

"""The instrumentation of a server."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Any

from opentelemetry._logs import LoggerProvider
from opentelemetry.metrics import MeterProvider
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import (
    Span,
    TracerProvider,
    get_current_span,
    set_span_in_context,
)

from ..aio.exchange import Exchange
from ..aio.websocket import WebSocket
from ..ending import Ending
from ..http import Headers, Request
from ..rooms.membership import engine_of
from ..server.app import Server
from .attributes import request_attributes
from .messages import MessageSpans, TracedBlockingWebSocket, TracedWebSocket
from .metrics import ServerMetrics
from .telemetry import Telemetry, end_handshake, enter, guarded, legible, linked_context

__all__ = ["instrument"]


def instrument(  # size: most of it is documentation
    server: Server,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
    messages: float | Callable[[Any], bool] = 0.0,
    public: bool = False,
) -> None:
    """Tell OpenTelemetry of the connections of a server. Call it once, before the server serves.

    - Each opening handshake of a WebSocket is a span of the kind SERVER, a child of the client's if its request
      has a trace context. It ends with the answer: no span lasts as long as a connection. Hooks, the ``accept``
      function and the handler run in its context, with the baggage of the request.
    - Each ending of a connection is an event ``websocket.ending``, a log record with all fields of the
      :class:`endwell.Ending`.
    - What :attr:`endwell.Server.metrics` counts is observed as metrics, for this process alone. Each ending is
      recorded in a histogram of durations.
    - With ``messages``, some messages have spans, each in a trace of its own, with a link to the handshake.

    Use processors that export in batches: one that exports at once, such as ``SimpleSpanProcessor``, blocks the
    event loop.

    Args:
        server: The server.
        tracer_provider: Default: the global one.
        meter_provider: Default: the global one.
        logger_provider: Default: the global one.
        messages: The share of messages that have a span, from 0 to 1; or a function ``messages(ws)`` that is
            called for each message, and returns whether it has one. Default: 0.
        public: The clients are strangers, such as browsers: their trace context is only a link of the span, so
            that they do not decide what is sampled, and their baggage is ignored. Default: False.

    Raises:
        TypeError: ``server`` is not a :class:`endwell.Server`, or ``messages`` is neither a number nor a function.
        ValueError: ``messages`` is not between 0 and 1.
        RuntimeError: The server is instrumented already, or serves.

    Example:
        ```python
        import endwell
        from endwell import otel

        server = endwell.Server()
        otel.instrument(server)
        ```
    """
    if not isinstance(server, Server):
        raise TypeError(f"server must be an endwell.Server, not {server!r}")
    dispatcher = server._dispatcher
    if dispatcher.tracing is not None or server._serves:
        raise RuntimeError("this Server is instrumented already, or serves")
    telemetry = Telemetry(tracer_provider, logger_provider)
    spans = MessageSpans.of(telemetry, messages)
    metrics = ServerMetrics.of(telemetry, server, meter_provider)
    tracing = ServerTracing(telemetry, spans, metrics, public)
    dispatcher.tracing = tracing
    server._answer_callbacks.append(tracing.answered)
    server.on_refused(tracing.refused)
    server.on_close(tracing.ended)
    if spans is not None:
        server.on_open(spans.opened)
        dispatcher.websocket_type = TracedWebSocket.of(spans)
        dispatcher.threads.websocket_type = TracedBlockingWebSocket


class _Fields(Getter[Headers]):
    """The header fields of a request, as a propagator reads them."""

    def get(self, carrier: Headers, key: str) -> list[str] | None:
        return legible(key, carrier.get_all(key))

    def keys(self, carrier: Headers) -> list[str]:
        return carrier.names()


_FIELDS = _Fields()


class _Handshake:
    """An opening handshake that is not answered yet."""

    __slots__ = ("reason", "request", "span")

    def __init__(self, span: Span, request: Request) -> None:
        self.span = span
        # Keeps the id() of the request from being used again.
        self.request = request
        self.reason: str | None = None


class ServerTracing:
    """The opening handshakes and the endings of one server."""

    def __init__(
        self, telemetry: Telemetry, spans: MessageSpans | None, metrics: ServerMetrics, public: bool
    ) -> None:
        self.telemetry = telemetry
        self._public = public
        self._metrics = metrics
        self._spans = spans
        # By the id() of the request, because observers of refusals know only the request.
        self._open: dict[int, _Handshake] = {}

    # -- the opening handshake ---------------------------------------------------

    @guarded
    def requested(self, exchange: Exchange, context: Context) -> None:
        """See :class:`endwell.server.tracing.Tracing`."""
        context.run(self._begin, exchange)

    def _begin(self, exchange: Exchange) -> None:
        request = exchange.request
        assert request is not None
        attributes = request_attributes(request, exchange._stream.remote_address, exchange.local_address)
        span, parent = self.telemetry.start_handshake(request.headers, _FIELDS, attributes, self._public)
        self._open[id(request)] = _Handshake(span, request)
        enter(set_span_in_context(span, parent))

    def refused(self, request: Request | None, status: int, reason: str) -> None:
        """See :meth:`Server.on_refused`: the answer follows."""
        if (handshake := self._open.get(id(request))) is not None:
            handshake.reason = reason

    @guarded
    def answered(self, exchange: Exchange, status: int) -> None:
        """See :class:`endwell.server.tracing.Tracing`."""
        handshake = self._open.pop(id(exchange.request), None)
        if handshake is None:
            return
        span = handshake.span
        if exchange.context is not None:
            # A copy, because an eager task runs within the context.
            exchange.context = exchange.context.copy()
            exchange.context.run(_leave, span)
        if get_current_span() is span:
            _leave(span)  # the task of a mounted application goes on
        end_handshake(span, status, reason=handshake.reason, route=handshake.request.route)

    @guarded
    def gone(self, exchange: Exchange) -> None:
        """See :class:`endwell.server.tracing.Tracing`."""
        handshake = self._open.pop(id(exchange.request), None)
        if handshake is not None:
            route = handshake.request.route
            end_handshake(handshake.span, None, ending=exchange.ending, route=route)

    # -- the connection ------------------------------------------------------------

    @guarded
    def returned(self, ws: WebSocket) -> None:
        """See :class:`endwell.server.tracing.Tracing`."""
        if self._spans is not None:
            self._spans.returned(ws)

    @guarded
    def ended(self, ws: Any, ending: Ending) -> None:
        """A connection has ended. Called in its context."""
        if self._spans is not None:
            self._spans.ended(ws, ending)
        engine = engine_of(ws)
        attributes = request_attributes(ws.request, engine._stream.remote_address, ws.local_address)
        attributes["endwell.role"] = "server"
        self._metrics.ended(ws.request.route, ending)
        self.telemetry.emit(ending, attributes)


def _leave(span: Span) -> None:
    enter(linked_context(span))

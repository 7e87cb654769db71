"""The instrumentation of the clients of this process."""

from __future__ import annotations

from functools import partial

from opentelemetry._logs import LoggerProvider
from opentelemetry.context import Context, get_current
from opentelemetry.propagate import inject
from opentelemetry.trace import SpanKind, StatusCode, TracerProvider, get_current_span, set_span_in_context

from ..aio.websocket import WebSocket
from ..client import tracing
from ..ending import Ending
from ..errors import HandshakeError, HandshakeRejected
from ..http import Headers
from ..protocol.uri import WebSocketURI
from .attributes import MAX_TEXT, Attributes, address_attributes
from .telemetry import Telemetry, enter, guarded, linked_context

__all__ = ["instrument_client", "uninstrument_client"]


def instrument_client(
    *, tracer_provider: TracerProvider | None = None, logger_provider: LoggerProvider | None = None
) -> None:
    """Tell OpenTelemetry of the connections of all clients of this process, asyncio and blocking.

    - Each attempt to connect is a span of the kind CLIENT, from the call to the answer of the server, including
      redirects. Its trace context and the baggage go to the server, as the configured propagator writes them,
      unless the request has these header fields already.
    - Each ending, also that of a failed attempt, is an event ``websocket.ending``.

    It applies to the connections that begin afterwards. A second call replaces the first one.

    Args:
        tracer_provider: Default: the global one.
        logger_provider: Default: the global one.

    Example:
        ```python
        from endwell import otel

        otel.instrument_client()
        ```
    """
    telemetry = Telemetry(tracer_provider, logger_provider)
    tracing.begin = lambda: _Attempt(telemetry)


def uninstrument_client() -> None:
    """Undo :func:`instrument_client`, for the connections that begin afterwards.

    Example:
        ```python
        from endwell import otel

        otel.instrument_client()
        otel.uninstrument_client()
        ```
    """
    tracing.begin = None


class _Attempt:
    """One attempt to connect."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        self._attributes: Attributes = {"http.request.method": "GET"}
        self._outside: Context | None = None
        self._begin()

    @guarded
    def _begin(self) -> None:
        self._span = self.telemetry.tracer.start_span(
            "GET", kind=SpanKind.CLIENT, attributes=self._attributes
        )
        # What the functions for the URI, the headers and the token do belongs to the attempt.
        self._outside = get_current()
        enter(set_span_in_context(self._span))

    def headers(self, uri: WebSocketURI, headers: Headers) -> Headers:
        """See :class:`endwell.client.tracing.Attempt`."""
        return self._injected(uri, headers) or headers

    @guarded
    def _injected(self, uri: WebSocketURI, headers: Headers) -> Headers | None:
        if self._outside is None:
            return None
        self._attributes |= {
            # Without the user name, the password and the query.
            "url.full": str(uri)[:MAX_TEXT],
            "url.scheme": "wss" if uri.secure else "ws",
            "server.address": uri.host,
            "server.port": uri.port,
        }
        self._span.set_attributes(self._attributes)
        fields: dict[str, str] = {}
        inject(fields)
        return Headers([*headers, *((name, value) for name, value in fields.items() if name not in headers)])

    @guarded
    def opened(self, ws: WebSocket) -> None:
        """See :class:`endwell.client.tracing.Attempt`."""
        if self._outside is None:
            return
        peer = address_attributes("network.peer", ws._stream.remote_address)
        self._attributes |= {**peer, "endwell.role": "client"}
        try:
            enter(linked_context(self._span))
            # Without a reference to the connection, which is closed with its last reference.
            ws.on_close(partial(_ended, self.telemetry, self._attributes))
            self._span.set_attributes({**peer, "http.response.status_code": 101})
        finally:
            enter(self._outside)
            self._span.end()

    @guarded
    def failed(self, exc: BaseException) -> None:
        """See :class:`endwell.client.tracing.Attempt`."""
        if self._outside is None:
            return
        try:
            if isinstance(exc, HandshakeError):
                # In the context of the span.
                attributes = {**self._attributes, "endwell.role": "client", "endwell.phase": exc.phase}
                self.telemetry.emit(exc.ending, attributes)
        finally:
            # An attempt that is garbage-collected is closed in a context that is not its own.
            if get_current_span() is self._span:
                enter(self._outside)
            self._fail(exc)

    def _fail(self, exc: BaseException) -> None:
        span, error = self._span, type(exc).__qualname__
        try:
            if isinstance(exc, HandshakeRejected):
                error = str(exc.response.status)
                span.set_attribute("http.response.status_code", exc.response.status)
            elif isinstance(exc, HandshakeError):
                error = exc.ending.cause.value
            if isinstance(exc, HandshakeError):
                span.set_attribute("endwell.phase", exc.phase)
            span.set_attribute("error.type", error)
            span.set_status(StatusCode.ERROR, str(exc)[:MAX_TEXT])
        finally:
            span.end()


def _ended(telemetry: Telemetry, attributes: Attributes, ending: Ending) -> None:
    try:
        telemetry.emit(ending, attributes)
    except Exception as exc:
        telemetry.failed(exc)

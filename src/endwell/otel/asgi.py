"""The instrumentation of an ASGI application under uvicorn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from opentelemetry._logs import LoggerProvider
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Span, TracerProvider, set_span_in_context

from ..asgi.scope import route_of
from ..ending import Cause, Ending
from .attributes import MAX_TEXT, Attributes, address_attributes
from .telemetry import Telemetry, end_handshake, enter, guarded, legible, linked_context

__all__ = ["ASGIMiddleware"]

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[Any]]


class ASGIMiddleware:
    """Tell OpenTelemetry of the WebSockets of an application that uvicorn serves with ``endwell.uvicorn.Protocol``.

    It makes the spans of opening handshakes and the events of endings that :func:`instrument` makes for a server, and
    the application runs in the context of the handshake. There are no metrics and no spans of messages. An
    application of :meth:`endwell.Server.mount` does not need it. Requests that endwell refuses itself do not reach it.

    HTTP requests, and WebSockets of other servers, pass unchanged.

    Args:
        app: The application.
        tracer_provider: Default: the global one.
        logger_provider: Default: the global one.
        public: As for :func:`instrument`.

    Example:
        ```python
        from endwell import otel

        async def app(scope, receive, send):
            ...

        app = otel.ASGIMiddleware(app)  # FastAPI, Starlette: app.add_middleware(otel.ASGIMiddleware)
        ```
    """

    def __init__(
        self,
        app: App,
        *,
        tracer_provider: TracerProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        public: bool = False,
    ) -> None:
        self._app = app
        self._public = public
        self._telemetry = Telemetry(tracer_provider, logger_provider)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application."""
        extension = scope.get("extensions", {}).get("endwell") if scope["type"] == "websocket" else None
        if extension is None:
            await self._app(scope, receive, send)
            return
        call = _Call(self._telemetry, scope, send, extension)
        call.begin(self._public)
        try:
            await self._app(scope, receive, call.send)
        finally:
            call.returned()


class _Fields(Getter[Iterable[tuple[bytes, bytes]]]):
    """The header fields of a scope, as a propagator reads them."""

    def get(self, carrier: Iterable[tuple[bytes, bytes]], key: str) -> list[str] | None:
        wanted = key.lower().encode()
        return legible(key, (value.decode("latin-1") for name, value in carrier if name == wanted))

    def keys(self, carrier: Iterable[tuple[bytes, bytes]]) -> list[str]:
        return [name.decode("latin-1") for name, _ in carrier]


_FIELDS = _Fields()


class _Call:
    """One call of the application."""

    def __init__(self, telemetry: Telemetry, scope: Scope, send: Send, extension: dict[str, Any]) -> None:
        self.telemetry = telemetry
        self._scope = scope
        self._send = send
        self._extension = extension
        self._attributes: Attributes = {}
        # None before the begin and after the answer.
        self._span: Span | None = None
        # The status of the answer if the application returns now, unless the server has answered.
        self._status = 500
        # The status of an HTTP response that the application has begun.
        self._begun = 500

    @guarded
    def begin(self, public: bool) -> None:
        """Begin the span in the current task."""
        self._attributes = _scope_attributes(self._scope)
        headers: Iterable[tuple[bytes, bytes]] = self._scope["headers"]
        span, parent = self.telemetry.start_handshake(headers, _FIELDS, self._attributes, public)
        self._span = span
        enter(set_span_in_context(span, parent))
        self._extension["on_close"](self._ended)

    async def send(self, event: Any) -> None:
        """The ``send`` of the application."""
        # The server first, because it refuses events that are invalid or out of order.
        await self._send(event)
        if self._span is not None:
            self._sent(event)

    @guarded
    def _sent(self, event: Any) -> None:
        kind = event["type"]
        if self._is_accepted():
            self.answered(101, None)
        elif self._extension["draining"]:
            self._status = 503  # the server has answered, and ignores the event
        elif kind == "websocket.close":
            self.answered(403, None)
        elif kind == "websocket.http.response.start":
            self._status = self._begun = event["status"]
        elif event.get("more_body"):
            self._status = 500  # the server sends nothing of a response that is incomplete
        else:
            self.answered(self._begun, None)

    @guarded
    def returned(self) -> None:
        """The application has returned or raised. Without its answer, the server has answered or answers now."""
        ending = self._extension["ending"]()
        if ending is not None and ending.cause is not Cause.HANDSHAKE_REJECTED:
            self.answered(None, ending)  # the client has left
        else:
            self.answered(503 if self._extension["draining"] else self._status, None)

    def _is_accepted(self) -> bool:
        return self._extension["websocket"]() is not None

    @guarded
    def answered(self, status: int | None, ending: Ending | None) -> None:
        """The answer begins; or there is none, because the client has left."""
        span, self._span = self._span, None
        if span is None:
            return
        # What follows, and the callback, is in the trace of the span, which has ended.
        enter(linked_context(span))
        # Known since the router of the framework has run.
        if (route := route_of(self._scope)) is not None:
            self._attributes["http.route"] = route
        end_handshake(span, status, ending=ending, route=route)

    @guarded
    def _ended(self, ending: Ending) -> None:
        if self._is_accepted():
            self.telemetry.emit(ending, {**self._attributes, "endwell.role": "server"})


def _scope_attributes(scope: Scope) -> Attributes:
    attributes: Attributes = {
        "http.request.method": "GET",
        "network.protocol.name": "http",
        "network.protocol.version": scope["http_version"],
        "url.path": scope["path"][:MAX_TEXT],
        "url.scheme": scope["scheme"],
        # A list in some servers.
        **address_attributes("client", tuple(scope.get("client") or ())),
        **address_attributes("server", tuple(scope.get("server") or ())),
    }
    agent = _FIELDS.get(scope["headers"], "user-agent")
    if agent is not None:
        attributes["user_agent.original"] = agent[0][:MAX_TEXT]
    return attributes

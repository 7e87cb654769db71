"""Spans of messages: from the receipt of a message until the handler asks for the next one, and of each send."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from random import random
from typing import Any, TypeVar

from opentelemetry.context import Context, get_current
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    get_current_span,
    set_span_in_context,
)

from ..aio.websocket import WebSocket
from ..ending import Cause, Ending
from ..rooms.membership import engine_of
from ..sync.websocket import WebSocket as BlockingWebSocket
from .attributes import Attributes
from .telemetry import Telemetry, enter

__all__ = ["MessageSpans", "TracedBlockingWebSocket", "TracedWebSocket"]

T = TypeVar("T")

#: Maximum number of messages of a connection that are being handled and have a span. A handler that receives each
#: message in a task of its own does not tell when it is handled.
MAX_HANDLED = 16


class MessageSpans:
    """Which messages have a span."""

    def __init__(self, telemetry: Telemetry, chooses: Callable[[Any], bool]) -> None:
        self.telemetry = telemetry
        self._chooses = chooses

    @classmethod
    def of(cls, telemetry: Telemetry, messages: float | Callable[[Any], bool]) -> MessageSpans | None:
        """Return the spans for the argument ``messages``; None for no spans. Raises TypeError and ValueError."""
        if callable(messages):
            return cls(telemetry, messages)
        if isinstance(messages, bool) or not isinstance(messages, int | float):
            raise TypeError(f"messages must be a number or a function, not {messages!r}")
        if not 0 <= messages <= 1:
            raise ValueError(f"messages must be between 0 and 1, not {messages!r}")
        return cls(telemetry, lambda _: random() < messages) if messages else None  # noqa: S311  (a sample)

    def opened(self, ws: Any) -> None:
        """A connection has opened. Called in its context."""
        handled_of(ws).handshake = get_current_span().get_span_context()

    def returned(self, ws: WebSocket) -> None:
        """The handler has returned: its last message is handled."""
        handled_of(ws).returned(ws.ending)

    def ended(self, ws: Any, ending: Ending) -> None:
        """A connection has ended."""
        handled_of(ws).end(ending)

    def chosen(self, ws: Any) -> bool:
        """Whether the next message has a span."""
        try:
            return bool(self._chooses(ws))
        except Exception as exc:
            self.telemetry.failed(exc)
            return False


class Handled:
    """The messages of one connection that have a span."""

    __slots__ = ("_messages", "_spans", "handshake", "returned_at")

    def __init__(self, spans: MessageSpans) -> None:
        self._spans = spans
        #: The opening handshake.
        self.handshake: SpanContext | None = None
        #: When the handler has returned, in nanoseconds; None before.
        self.returned_at: int | None = None
        # The messages that are being handled, and what was current before.
        self._messages: dict[Span, Context] = {}

    def received(self, ws: Any, message: object) -> None:
        """The handler gets ``message``."""
        if message is None or not self._spans.chosen(ws):
            return
        try:
            span = self._start(ws, "receive", Context(), SpanKind.CONSUMER, message)
            if span.is_recording():
                if len(self._messages) >= MAX_HANDLED:
                    self._finish(next(iter(self._messages)))
                self._messages[span] = get_current()
                enter(set_span_in_context(span))
        except Exception as exc:
            self._spans.telemetry.failed(exc)

    def next(self) -> None:
        """The task or thread asks for its next message: the one before is handled."""
        span = get_current_span()
        if span in self._messages:
            enter(self._messages[span])
            self._finish(span)

    def sending(self, ws: Any, message: Any) -> Span | None:
        """Return the span of a message that is sent now; None if it has none."""
        # What a message with a span makes the handler send belongs to the same trace.
        inside = get_current_span() in self._messages
        if not inside and not self._spans.chosen(ws):
            return None
        try:
            parent = get_current() if inside else Context()
            return self._start(ws, "send", parent, SpanKind.PRODUCER, message)
        except Exception as exc:
            self._spans.telemetry.failed(exc)
            return None

    def sent(self, span: Span, error: BaseException | None = None) -> None:
        """``send()`` has returned or raised."""
        try:
            if error is not None:
                span.set_attribute("error.type", type(error).__qualname__)
                span.set_status(StatusCode.ERROR)
            span.end()
        except Exception as exc:
            self._spans.telemetry.failed(exc)

    def returned(self, ending: Ending | None) -> None:
        """The handler has returned. ``ending``: of the connection; None if it has not ended."""
        self.returned_at = time.time_ns()
        if ending is not None:
            self.end(ending)  # messages that the handler got after the end

    def end(self, ending: Ending) -> None:
        """The connection has ended: end all spans."""
        while self._messages:
            self._finish(next(iter(self._messages)), ending)

    def _start(self, ws: Any, name: str, parent: Context, kind: SpanKind, message: Any) -> Span:
        attributes: Attributes = {
            "endwell.message.type": "text" if isinstance(message, str) else "binary",
            # Characters of a text, because counting its bytes would encode it once more.
            "endwell.message.size": len(message) if isinstance(message, str | bytes | bytearray) else 0,
        }
        if (route := ws.request.route) is not None:
            attributes["http.route"] = route
            name = f"{name} {route}"
        links = [Link(self.handshake)] if self.handshake is not None else []
        return self._spans.telemetry.tracer.start_span(name, parent, kind, attributes, links)

    def _finish(self, span: Span, ending: Ending | None = None) -> None:
        if self._messages.pop(span, None) is None:
            return  # another thread has ended it
        try:
            if ending is not None and ending.cause is Cause.HANDLER_ERROR:
                span.set_attribute("error.type", ending.cause.value)
                span.set_status(StatusCode.ERROR)
            span.end(None if ending is None else self.returned_at)
        except Exception as exc:
            self._spans.telemetry.failed(exc)


class TracedWebSocket(WebSocket):
    """A WebSocket whose messages have spans. Subclasses have the attribute ``spans``."""

    __slots__ = ("handled",)

    spans: MessageSpans

    @classmethod
    def of(cls, spans: MessageSpans) -> type[TracedWebSocket]:
        """The class for the connections of one server."""
        return type("WebSocket", (cls,), {"__slots__": (), "spans": spans})

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.handled = Handled(self.spans)

    def recv(self) -> Coroutine[Any, Any, str | bytes]:
        """See :meth:`WebSocket.recv`."""
        return self._traced(super().recv())

    def read(self) -> Coroutine[Any, Any, str | bytes | None]:
        """See :meth:`WebSocket.read`."""
        return self._traced(super().read())

    def __anext__(self) -> Coroutine[Any, Any, str | bytes]:
        return self._traced(super().__anext__())

    async def _traced(self, receiving: Coroutine[Any, Any, Any]) -> Any:
        self.handled.next()
        message = await receiving
        self.handled.received(self, message)
        return message

    def send(self, message: Any) -> Coroutine[Any, Any, None]:
        """See :meth:`WebSocket.send`."""
        span = self.handled.sending(self, message)
        if span is None:
            return super().send(message)
        try:
            sending = super().send(message)
        except BaseException as exc:
            self.handled.sent(span, exc)
            raise
        return self._sent(span, sending)

    async def _sent(self, span: Span, sending: Coroutine[Any, Any, None]) -> None:
        try:
            await sending
        except BaseException as exc:
            self.handled.sent(span, exc)
            raise
        self.handled.sent(span)


class TracedBlockingWebSocket(BlockingWebSocket):
    """The blocking interface of a :class:`TracedWebSocket`."""

    __slots__ = ()

    def recv(self, timeout: float | None = None) -> str | bytes:
        """See :meth:`BlockingWebSocket.recv`."""
        return self._traced(super().recv, timeout)

    def read(self, timeout: float | None = None) -> str | bytes | None:
        """See :meth:`BlockingWebSocket.read`."""
        return self._traced(super().read, timeout)

    def __next__(self) -> str | bytes:
        return self._traced(super().__next__)

    def _traced(self, receive: Callable[..., T], *args: Any) -> T:
        handled = handled_of(self)
        handled.next()
        message = receive(*args)
        handled.received(self, message)
        return message

    def send(self, message: Any) -> None:
        """See :meth:`BlockingWebSocket.send`."""
        handled = handled_of(self)
        span = handled.sending(self, message)
        if span is None:
            super().send(message)
            return
        try:
            super().send(message)
        except BaseException as exc:
            handled.sent(span, exc)
            raise
        handled.sent(span)


def handled_of(ws: Any) -> Handled:
    """The messages of a connection of either interface."""
    engine: Any = engine_of(ws)
    handled: Handled = engine.handled
    return handled

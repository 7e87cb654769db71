"""What the instrumentations of servers and of clients have in common."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from opentelemetry._logs import LoggerProvider, SeverityNumber, get_logger
from opentelemetry.context import Context, attach, get_current
from opentelemetry.propagate import extract
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanKind,
    StatusCode,
    TracerProvider,
    get_current_span,
    get_tracer,
    set_span_in_context,
)

from ..build import __version__
from ..ending import Cause, Ending
from .attributes import Attributes, ending_attributes, error_type

__all__ = ["EVENT", "Telemetry", "end_handshake", "enter", "guarded", "legible", "linked_context"]

logger = logging.getLogger("endwell.otel")

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")

#: The name of the event for each ending.
EVENT = "websocket.ending"

_TOKEN, _VALUE = r"[!#$%&'*+.^_`|~\w-]+", r"[!#-+\--:<-\[\]-~]*"
#: A member of the field ``baggage`` (W3C Baggage §3.3.1).
_MEMBER = re.compile(
    rf"[ \t]*{_TOKEN}[ \t]*=[ \t]*{_VALUE}[ \t]*(;[ \t]*{_TOKEN}[ \t]*(=[ \t]*{_VALUE}[ \t]*)?)*", re.ASCII
)


class Telemetry:
    """The tracer and the logger of one instrumentation."""

    def __init__(
        self, tracer_provider: TracerProvider | None, logger_provider: LoggerProvider | None
    ) -> None:
        self.tracer = get_tracer("endwell", __version__, tracer_provider)
        self._events = get_logger("endwell", __version__, logger_provider)
        self._has_failed = False

    def start_handshake(
        self, carrier: C, getter: Getter[C], attributes: Attributes, public: bool
    ) -> tuple[Span, Context]:
        """Start the span of a server's opening handshake. Returns the context of the request, too.

        ``public``: the trace context is a link and no parent, and there is no baggage.
        """
        parent, links = self._remote(carrier, getter), []
        if public:
            if (context := get_current_span(parent).get_span_context()).is_valid:
                links.append(Link(context))
            parent = Context()
        return self.tracer.start_span("GET", parent, SpanKind.SERVER, attributes, links), parent

    def _remote(self, carrier: C, getter: Getter[C]) -> Context:
        """The trace context and the baggage of a request, and nothing else."""
        try:
            # An empty context: a span that was current when the server was started is not the client's.
            return extract(carrier, Context(), getter)
        except Exception as exc:
            self.failed(exc)
            return Context()

    def emit(self, ending: Ending, attributes: Attributes) -> None:
        """Emit the event for an ending, in the current context."""
        level = SeverityNumber.INFO if error_type(ending) is None else SeverityNumber.WARN
        if ending.cause is Cause.HANDLER_ERROR:
            level = SeverityNumber.ERROR
        self._events.emit(
            timestamp=time.time_ns(),
            context=get_current(),
            severity_number=level,
            severity_text=level.name,
            body=str(ending),
            attributes={**attributes, **ending_attributes(ending)},
            event_name=EVENT,
        )

    def failed(self, exc: Exception) -> None:
        """A provider, a processor or a propagator has raised."""
        if not self._has_failed:
            self._has_failed = True
            logger.error("telemetry failed (further failures are not logged)", exc_info=exc)


def guarded(method: Callable[P, T]) -> Callable[P, T | None]:
    """Make an exception in a method of an object that has a ``telemetry`` no exception in a connection."""

    @wraps(method)
    def call(*args: P.args, **keywords: P.kwargs) -> T | None:
        try:
            return method(*args, **keywords)
        except Exception as exc:
            instance: Any = args[0]
            instance.telemetry.failed(exc)
            return None

    return call


def end_handshake(
    span: Span,
    status: int | None,
    *,
    reason: str | None = None,
    ending: Ending | None = None,
    route: str | None = None,
) -> None:
    """End the span of an opening handshake.

    ``status``: of the answer; None if there is none, because the connection has ended with ``ending``. ``reason``: why
    the server has refused it. ``route``: the pattern, if it is known.
    """
    try:
        if route is not None:
            span.update_name(f"GET {route}")
            span.set_attribute("http.route", route)
        if status is not None:
            span.set_attribute("http.response.status_code", status)
            if status >= 400:
                span.set_attribute("error.type", str(status))
        elif ending is not None:
            span.set_attribute("error.type", ending.cause.value)
        if reason is not None:
            span.set_attribute("endwell.refusal", reason)
        if status is not None and status >= 500:
            span.set_status(StatusCode.ERROR, reason)
    finally:
        span.end()


def linked_context(span: Span) -> Context:
    """The current context with the identity of ``span`` instead of ``span``, which has ended or will end.

    Spans that begin in it are its children. A connection that lasts does not keep the span itself, and an attribute
    that is set after its end is not logged as a mistake.
    """
    return set_span_in_context(NonRecordingSpan(span.get_span_context()))


def legible(name: str, values: Iterable[str]) -> list[str] | None:
    """What a propagator reads of the header fields ``name``; None if there is nothing.

    The fields of W3C are ASCII. The propagator of baggage writes a line to the log for each member that is malformed,
    and a client could send a hundred with each request.
    """
    readable = [value for value in values if value.isascii()]
    if name.lower() == "baggage":
        readable = [",".join(filter(_MEMBER.fullmatch, value.split(","))) for value in readable]
    return readable or None


def enter(context: Context) -> None:
    """Make ``context`` current for the rest of the running task or thread."""
    attach(context)

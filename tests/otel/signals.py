"""What OpenTelemetry gets, in memory."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

__all__ = ["Signals", "objects"]


def objects() -> Counter[str]:
    """The number of the objects of each class."""
    gc.collect()
    count = Counter(type(each).__name__ for each in gc.get_objects())
    # asyncio drops timers later than they are cancelled.
    timers = getattr(asyncio.get_running_loop(), "_scheduled", [])
    cancelled = sum(timer.cancelled() for timer in timers)
    return count - Counter(TimerHandle=cancelled, Context=cancelled)


class Signals:
    """The providers with exporters in memory, and what they have exported."""

    def __init__(self) -> None:
        self._spans, self._logs = InMemorySpanExporter(), InMemoryLogRecordExporter()
        self.reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.logger_provider = LoggerProvider(shutdown_on_exit=False)
        self.logger_provider.add_log_record_processor(SimpleLogRecordProcessor(self._logs))
        self.meter_provider = MeterProvider([self.reader], shutdown_on_exit=False)
        self.tracer = self.tracer_provider.get_tracer("test")

    @property
    def providers(self) -> dict[str, Any]:
        return {**self.of_a_client, "meter_provider": self.meter_provider}

    @property
    def of_a_client(self) -> dict[str, Any]:
        return {"tracer_provider": self.tracer_provider, "logger_provider": self.logger_provider}

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended."""
        return list(self._spans.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    @property
    def events(self) -> list[Any]:
        """The log records."""
        return [log.log_record for log in self._logs.get_finished_logs()]

    def clear(self) -> None:
        self._spans.clear()
        self._logs.clear()

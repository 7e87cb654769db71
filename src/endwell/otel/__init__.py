"""Traces, metrics and events for OpenTelemetry. Needs the extra ``otel``: ``pip install 'endwell[otel]'``."""

from __future__ import annotations

try:
    import opentelemetry.trace  # noqa: F401
except ImportError as missing:
    raise ImportError(f"endwell.otel needs a package: pip install 'endwell[otel]' ({missing})") from missing

from .asgi import ASGIMiddleware
from .client import instrument_client, uninstrument_client
from .server import instrument

__all__ = ["ASGIMiddleware", "instrument", "instrument_client", "uninstrument_client"]

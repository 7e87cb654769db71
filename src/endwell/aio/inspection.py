"""What connections do, in numbers: for an operator who looks at a server."""

from __future__ import annotations

from typing import Any

from .websocket import WebSocket

__all__ = ["Tally", "is_compressed", "is_slow", "key_of", "latency_of", "queued"]

#: Seconds of a round trip from which on a peer counts as slow.
SLOW_LATENCY = 1.0


class Tally:
    """The sums of the counters of many connections.

    Those with the route ``skipped`` are left out.
    """

    def __init__(self, skipped: str) -> None:
        self._skipped = skipped
        self.open = 0
        self.closing = 0
        self.slow = 0
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.routes: dict[str, int] = {}

    def add(self, connections: list[WebSocket], start: int, stop: int) -> None:
        """Add the connections from ``start`` to ``stop``. 1,000 of them take 0.3 ms."""
        skipped, routes = self._skipped, self.routes
        for index in range(start, stop):
            ws = connections[index]
            request = ws._request
            route = request.route or ""
            if route == skipped:
                continue
            core = ws._core
            routes[route] = routes.get(route, 0) + 1
            if core.is_open:
                self.open += 1
            else:
                self.closing += 1
            if core.outbox.size > ws._write_limit or latency_of(ws) > SLOW_LATENCY:
                self.slow += 1
            self.messages_in += core.messages_in
            self.messages_out += core.messages_out
            self.bytes_in += core.bytes_in
            self.bytes_out += core.count_bytes_out()


def queued(ws: WebSocket) -> int:
    """The number of bytes that wait to be sent."""
    return ws._core.outbox.size


def key_of(ws: WebSocket) -> Any:
    """The key with which the connection has joined the sessions; None if it has not."""
    return ws._key


def latency_of(ws: WebSocket) -> float:
    """The smoothed round trip in seconds; -1 if it is unknown."""
    latency: Any = ws._core.smoothed_latency
    return -1.0 if latency is None else latency


def is_slow(ws: WebSocket) -> bool:
    """Whether the peer takes messages too slowly: its queue is full, or its round trip is long."""
    return ws._core.outbox.size > ws._write_limit or latency_of(ws) > SLOW_LATENCY


def is_compressed(ws: WebSocket) -> bool:
    """Whether messages of a server's connection may be compressed."""
    codec = ws._core._codec
    return codec is not None and codec._deflate is not None

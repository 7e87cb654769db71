"""What connections do, in numbers: for an operator who looks at a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .callbacks import Counter
from .websocket import WebSocket

__all__ = ["Tally", "add_up", "is_compressed", "is_slow", "key_of", "latency_of", "present", "queued"]

#: Seconds of a round trip from which on a peer counts as slow.
SLOW_LATENCY = 1.0


class Tally:
    """The sums of the counters of connections that are open or closing."""

    def __init__(self) -> None:
        self.open = 0
        self.closing = 0
        self.slow = 0
        self.messages_in = 0
        self.messages_out = 0
        self.bytes_in = 0
        self.bytes_out = 0


def add_up(connections: Iterable[WebSocket], tallies: dict[Counter, Tally]) -> None:
    """Add the connections to the tallies of what counts their routes. 10,000 of them take 2 ms."""
    # Most of the time is spent waiting for memory. So no other object of a connection is read, and none of these gets
    # a name, because a further reference to it would be a write to another cache line.
    last: Counter | None = None
    tally: Tally | None = None
    for ws in connections:
        counter = ws._counter
        if counter is not last:
            last = counter
            tally = None if counter is None else tallies.get(counter)
        if tally is None:
            continue
        if ws._core.is_open:
            tally.open += 1
        else:
            tally.closing += 1
        if ws._core.outbox.size > ws._write_limit or ws._core.smoothed_latency > SLOW_LATENCY:
            tally.slow += 1
        tally.messages_in += ws._core.messages_in
        tally.messages_out += ws._core.messages_out
        tally.bytes_in += ws._core.bytes_in
        tally.bytes_out += max(0, ws._core.outbox.bytes_sent)


def present(connections: list[WebSocket], start: int, stop: int, skipped: str) -> list[WebSocket]:
    """Those from ``start`` to ``stop`` that have not ended, without those of the route ``skipped``."""
    found = []
    last: str | None = None
    for index in range(start, stop):
        ws = connections[index]
        route = ws._request.route
        # Connections of one route have the same object.
        if route is not last:
            if route == skipped:
                continue
            last = route
        if not ws._over:
            found.append(ws)
    return found


def queued(ws: WebSocket) -> int:
    """The number of bytes that wait to be sent."""
    return ws._core.outbox.size


def key_of(ws: WebSocket) -> Any:
    """The key with which the connection has joined the sessions; None if it has not."""
    return ws._key


def latency_of(ws: WebSocket) -> float:
    """The smoothed round trip in seconds; -1 if it is unknown."""
    return ws._core.smoothed_latency


def is_slow(ws: WebSocket) -> bool:
    """Whether the peer takes messages too slowly: its queue is full, or its round trip is long."""
    return ws._core.outbox.size > ws._write_limit or ws._core.smoothed_latency > SLOW_LATENCY


def is_compressed(ws: WebSocket) -> bool:
    """Whether messages of a server's connection may be compressed."""
    codec = ws._core._codec
    return codec is not None and codec._deflate is not None

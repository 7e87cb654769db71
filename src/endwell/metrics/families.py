"""The names, types, labels and texts of all metrics."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = [
    "BUS",
    "DURATIONS",
    "DURATION_BUCKETS",
    "ENDING",
    "FAMILIES",
    "HANDSHAKES",
    "LATENCIES",
    "LATENCY_BUCKETS",
    "PROCESS",
    "ROUTE",
    "SLOW",
    "Family",
]

#: The blocks of the table. What a block counts never changes, because processes of two versions may share a table.
ROUTE, ENDING, DURATIONS, LATENCIES, HANDSHAKES, PROCESS, BUS, SLOW = range(8)

#: Upper limits of the buckets, in seconds. 30, 60, 300 and 3600 are usual idle timeouts of proxies.
DURATION_BUCKETS = (0.1, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)
LATENCY_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Family(NamedTuple):
    """One metric.

    ``cells`` are the cells of the block that have its values: one for each value of the last label, or one. Those of
    a histogram are its sum, and the counts of its buckets and of what is above them.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    block: int
    labels: tuple[str, ...] = ()
    cells: tuple[int, ...] = (0,)
    #: The values of the last label, if each has a cell.
    split: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# fmt: off
FAMILIES = (
    Family("endwell_connections", "gauge",
           "WebSockets now. A lingering one has ended for the application, and its TCP connection has not.",
           ROUTE, ("route", "state"), (0, 1, 2), ("open", "closing", "lingering")),
    Family("endwell_handshakes", "counter", "Requests for a WebSocket, and requests that were refused.",
           HANDSHAKES, ("outcome", "status")),
    Family("endwell_endings", "counter", "WebSockets that have ended.",
           ENDING, ("route", "cause", "initiator", "code", "clean")),
    Family("endwell_connection_duration_seconds", "histogram", "How long the WebSockets that have ended were open.",
           DURATIONS, ("route", "cause"), buckets=DURATION_BUCKETS),
    Family("endwell_messages", "counter", "Messages.",
           ROUTE, ("route", "direction"), (4, 5), ("in", "out")),
    Family("endwell_bytes", "counter", "Bytes after the opening handshake, frame headers included.",
           ROUTE, ("route", "direction"), (6, 7), ("in", "out")),
    Family("endwell_latency_seconds", "histogram", "Round trips of pings.",
           LATENCIES, ("route",), buckets=LATENCY_BUCKETS),
    Family("endwell_slow", "counter", "Messages of broadcasts and rooms that met a connection with a full queue.",
           SLOW, ("route", "policy")),
    Family("endwell_unsent_bytes", "counter", "Bytes that were queued and not sent when a connection ended.",
           ROUTE, ("route",), (8,)),
    Family("endwell_dropped_messages", "counter", "Received messages that no handler got.",
           ROUTE, ("route",), (9,)),
    Family("endwell_stalled_seconds", "counter", "Seconds for which event loops did not run.",
           PROCESS, (), (0,)),
    Family("endwell_processes", "gauge", "Processes that serve or drain.",
           PROCESS, ("state",), (1, 2), ("serving", "draining")),
    Family("endwell_drain_remaining_seconds", "gauge", "Seconds to the deadline of the drain; 0 without one.",
           PROCESS, (), (3,)),
    Family("endwell_room_gap_messages", "counter", "Publications that rooms have lost, as far as the number is known.",
           BUS, ("bus",), (0,)),
    Family("endwell_bus_deaf", "gauge", "Processes that do not hear the bus of their rooms.",
           BUS, ("bus",), (1,)),
    Family("endwell_bus_disconnections", "counter", "How often a process has lost its bus.",
           BUS, ("bus",), (2,)),
    Family("endwell_bus_lag_seconds", "gauge", "The longest of the processes' last round trips through the bus.",
           BUS, ("bus",), (3,)),
)
# fmt: on

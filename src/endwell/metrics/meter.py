"""Counts the connections of one server."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import TYPE_CHECKING

from ..aio.inspection import Tally, add_up
from ..aio.websocket import WebSocket, count
from ..ending import Cause, Initiator
from .cells import add
from .codes import CodeLabels
from .families import (
    BUS,
    DURATION_BUCKETS,
    DURATIONS,
    ENDING,
    HANDSHAKES,
    LATENCIES,
    LATENCY_BUCKETS,
    PROCESS,
    ROUTE,
    SLOW,
)
from .table import OTHER, Block, Table

if TYPE_CHECKING:
    from ..aio.callbacks import Counter
    from ..protocol.connection import Connection

__all__ = ["OPENED", "Meter", "settle"]

#: The cells of a route: its open, closing and lingering connections; how many have opened; and six sums over all.
OPENED, _SUMS, _ROUTE_CELLS = 3, 4, 10
_CLEAN = {1: "true", 0: "false", -1: "unknown"}


class _Histogram:
    """The cells of a histogram: the sum, and the counts of the buckets; the last one has no limit."""

    def __init__(
        self, table: Table, number: int, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> None:
        self._cells = table.cells
        self._first = table.block(number, labels, 2 + len(buckets))
        self._buckets = buckets

    def observe(self, value: float) -> None:
        """Count a value."""
        cell = self._first + 1
        for limit in self._buckets:
            if value <= limit:
                break
            cell += 1
        add(self._cells, self._first, value)
        add(self._cells, cell, 1)


class _Kind:
    """The cell for endings with the same labels."""

    def __init__(
        self,
        cause: Cause | None,
        initiator: Initiator,
        code: int,
        clean: int,
        cell: int,
        durations: _Histogram,
    ) -> None:
        self.cause = cause
        self.initiator = initiator
        self.code = code
        self.clean = clean
        self.cell = cell
        self.durations = durations


class RouteCounter:
    """Counts the connections of one route: see :class:`endwell.aio.callbacks.Counter`."""

    def __init__(self, table: Table, codes: CodeLabels, name: str) -> None:
        self._table = table
        self._cells = table.cells
        self._codes = codes
        self._name = name
        #: The first of its cells.
        self.first = table.block(ROUTE, (name,), _ROUTE_CELLS)
        self._kinds: list[_Kind] = []
        self._durations: dict[Cause, _Histogram] = {}
        self._latencies: _Histogram | None = None
        self._in = self._out = self._bytes_in = self._bytes_out = self._unsent = self._dropped = 0

    def opened(self) -> None:
        """A connection has opened."""
        add(self._cells, self.first + OPENED, 1)

    def ended(self, core: Connection) -> None:
        """A connection has ended."""
        cause, initiator, code, clean = core.cause, core.initiator, core.end_code(), core.end_clean()
        # Faster than a dict, because the names of enum members are hashed in Python. Few kinds are usual.
        for kind in self._kinds:
            if (
                kind.cause is cause
                and kind.code == code
                and kind.clean == clean
                and kind.initiator is initiator
            ):
                break
        else:
            assert cause is not None
            kind = self._kind(cause, initiator, code, clean)
        add(self._cells, kind.cell, 1)
        kind.durations.observe(core.seconds_open())
        # The table gets these sums at the next refresh, together with those of open connections.
        self._in += core.messages_in
        self._out += core.messages_out
        self._bytes_in += core.bytes_in
        self._bytes_out += core.count_bytes_out()
        self._unsent += core.unsent_bytes()
        self._dropped += core.dropped_messages

    def answered(self, latency: float) -> None:
        """A ping was answered."""
        if self._latencies is None:
            self._latencies = _Histogram(self._table, LATENCIES, (self._name,), LATENCY_BUCKETS)
        self._latencies.observe(latency)

    def lagged(self, slow: str) -> None:
        """A connection was slow when a broadcast came."""
        self._cells[self._table.block(SLOW, (self._name, slow), 1)] += 1

    def _kind(self, cause: Cause, initiator: Initiator, code: int, clean: int) -> _Kind:
        label = self._codes.label(code, initiator)
        durations = self._durations.get(cause)
        if durations is None:
            durations = _Histogram(self._table, DURATIONS, (self._name, cause.value), DURATION_BUCKETS)
            self._durations[cause] = durations
        labels = self._name, cause.value, initiator.value, label, _CLEAN[clean]
        kind = _Kind(cause, initiator, code, clean, self._table.block(ENDING, labels, 1), durations)
        if label != OTHER:
            self._kinds.append(kind)
        return kind

    def sums(self) -> list[int]:
        """The sums over the connections that have ended."""
        return [self._in, self._out, self._bytes_in, self._bytes_out, self._unsent, self._dropped]


class Meter:
    """Counts openings, endings and refused requests.

    What open connections send and receive they count themselves, at no cost; :meth:`refresh` adds it up.
    """

    def __init__(self) -> None:
        self.use(Table())

    def use(self, table: Table) -> None:
        """Count in ``table``. Called before the first connection."""
        self.table = table
        self._routes: dict[str | None, RouteCounter] = {}
        self._codes = CodeLabels()

    def opened(self, ws: WebSocket, route: str | None) -> None:
        """A connection has opened, whose path matches the pattern ``route``."""
        counter = self._routes.get(route)
        if counter is None:
            counter = self._counter(route)
        counter.opened()
        count(ws, counter)

    def _counter(self, route: str | None) -> RouteCounter:
        counter = self._routes[route] = RouteCounter(self.table, self._codes, route or "")
        return counter

    def refused(self, status: int) -> None:
        """A request was refused."""
        self.table.cells[self.table.block(HANDSHAKES, ("refused", str(status)), 1)] += 1

    def refresh(self, connections: Iterable[WebSocket], lingering: int) -> dict[str, Tally]:
        """Count the open connections, and what they have sent and received. Returns these counts of each route."""
        if lingering and None not in self._routes:
            self._counter(None)
        tallies: dict[Counter, Tally] = {counter: Tally() for counter in self._routes.values()}
        add_up(connections, tallies)
        # By their first cells: if the table is full, several routes have the same cells.
        totals: dict[int, list[float]] = {}
        for route, counter in self._routes.items():
            tally = tallies[counter]
            total = totals.setdefault(counter.first, [0.0] * _ROUTE_CELLS)
            total[0] += tally.open
            total[1] += tally.closing
            # The route of a lingering connection is not known any more.
            total[2] += lingering if route is None else 0
            now = tally.messages_in, tally.messages_out, tally.bytes_in, tally.bytes_out
            for index, (ended, more) in enumerate(zip_longest(counter.sums(), now, fillvalue=0), _SUMS):
                total[index] += ended + more
        cells = self.table.cells
        for first, total in totals.items():
            for index, value in enumerate(total):
                if index != OPENED:
                    cells[first + index] = value
        return {route or "": tallies[counter] for route, counter in self._routes.items()}

    def set_process(
        self, stalled: float, *, serving: bool = False, draining: bool = False, remaining: float = 0.0
    ) -> None:
        """Set the seconds for which the loop was stalled, and the seconds to the deadline of a drain."""
        self._set(PROCESS, (), [stalled, float(serving), float(draining), remaining])

    def set_bus(self, name: str, lost: int, deaf: bool, disconnections: int, lag: float) -> None:
        """Set what is known of the bus of the rooms."""
        self._set(BUS, (name,), [float(lost), float(deaf), float(disconnections), lag])

    def _set(self, number: int, labels: tuple[str, ...], values: list[float]) -> None:
        first = self.table.block(number, labels, len(values))
        for index, value in enumerate(values, first):
            self.table.cells[index] = value


def settle(blocks: Iterable[Block]) -> Iterable[Block]:
    """What the blocks of a process come to that has exited: its open connections have ended with it."""
    ended: dict[str, float] = {}
    opened: dict[str, float] = {}
    for number, labels, values in blocks:
        if number == ENDING:
            ended[labels[0]] = ended.get(labels[0], 0.0) + values[0]
        elif number == ROUTE:
            opened[labels[0]] = values[OPENED]
            values[:OPENED] = [0.0] * OPENED
        elif number == PROCESS:
            values[1:] = [0.0] * (len(values) - 1)
        elif number == BUS:
            values[1] = values[3] = 0.0
        yield Block(number, labels, values)
    # If the table was full, more ends than openings are those of the route "other".
    surplus = max(0.0, ended.get(OTHER, 0.0) - opened.get(OTHER, 0.0))
    for route, number_opened in opened.items():
        lost = number_opened - ended.get(route, 0.0)
        elsewhere = min(surplus, max(lost, 0.0))
        surplus -= elsewhere
        if lost > elsewhere:
            labels = route, "process_exited", Initiator.LOCAL.value, "1006", "false"
            yield Block(ENDING, labels, [lost - elsewhere])

"""The sums of some counters over all routes and processes."""

from __future__ import annotations

from .families import BUS, FAMILIES, ROUTE
from .table import Table

__all__ = ["TOTALS", "totals"]


def _place(name: str, value: str | None = None) -> tuple[int, int]:
    """The block and the cell of a family, or of one value of its last label."""
    (family,) = (each for each in FAMILIES if each.name == name)
    return family.block, family.cells[0 if value is None else family.split.index(value)]


#: The block and the cell of each.
TOTALS = {
    "messages_in": _place("endwell_messages", "in"),
    "messages_out": _place("endwell_messages", "out"),
    "bytes_in": _place("endwell_bytes", "in"),
    "bytes_out": _place("endwell_bytes", "out"),
    "lost_publications": _place("endwell_room_gap_messages"),
    "disconnections": _place("endwell_bus_disconnections"),
}


def totals(table: Table, skipped: str) -> dict[str, int]:
    """The sums, without those of the route ``skipped``. They include the processes that have exited."""
    sums = dict.fromkeys(TOTALS, 0)
    for number, labels, values in table.blocks((ROUTE, BUS)):
        if number == ROUTE and labels[0] == skipped:
            continue
        for name, (block, cell) in TOTALS.items():
            if block == number:
                sums[name] += int(values[cell])
    return sums

"""The sums of some counters over all routes and processes."""

from __future__ import annotations

from .families import BUS, ROUTE
from .table import Table

__all__ = ["TOTALS", "totals"]

#: The block and the cell of each.
TOTALS = {
    "messages_in": (ROUTE, 4),
    "messages_out": (ROUTE, 5),
    "bytes_in": (ROUTE, 6),
    "bytes_out": (ROUTE, 7),
    "lost_publications": (BUS, 0),
    "disconnections": (BUS, 2),
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

"""The totals since the start, of which none goes back when a process ends."""

from __future__ import annotations

from .merging import later_totals, sum_counts

__all__ = ["Totals"]

#: Number of tables whose totals are kept each on its own, if not more answer. The processes of a supervisor have one in
#: common.
TABLES = 256


class Totals:
    """What this process knows of the totals of all processes, also of those that do not answer any more."""

    def __init__(self) -> None:
        #: The last totals of each table, the one that was heard of last at the end.
        self._tables: dict[str, dict[str, int]] = {}
        self._others: dict[str, int] = {}

    def update(self, heard: dict[str, dict[str, int]]) -> dict[str, int]:
        """The sums over all tables. ``heard`` has the totals of those that have answered now."""
        for table, counts in heard.items():
            self._tables[table] = later_totals(self._tables.pop(table, {}), counts)
        while len(self._tables) > max(TABLES, len(heard)):
            oldest = self._tables.pop(next(iter(self._tables)))
            self._others = sum_counts([self._others, oldest])
        return sum_counts([self._others, *self._tables.values()])

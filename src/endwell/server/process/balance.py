"""How many connections each worker has, in memory that all see: newcomers go to those with few.

All workers wake for a newcomer, and the fastest accepts. That is who has nothing to do, or who
woke first; and as connections stay, one worker may end up with ten times as many as another.
"""

from __future__ import annotations

import mmap
import os
import tempfile

__all__ = ["LoadTable"]

#: How many connections more than another worker one may have without leaving newcomers to it: so
#: many, and a share of what that one has.
SLACK = 8
SHARE = 1 / 16
#: Processes that can be told from each other; more count as one.
SLOTS = 1023


class LoadTable:
    """The table; its ``file`` is passed on to the workers, each of which has a ``slot`` in it from 1 on."""

    def __init__(self, file: int | None = None, slot: int = 0) -> None:
        if file is None:
            with tempfile.TemporaryFile() as stream:
                stream.truncate(4 * (SLOTS + 1))
                file = os.dup(stream.fileno())
        self.file = file
        self._slot = slot
        # First the number of places that are looked at. Then of each its connections and one, or 0
        # where there is nobody.
        self._table = memoryview(mmap.mmap(file, 4 * (SLOTS + 1))).cast("I")

    def occupy(self, taken: set[int]) -> int:
        """A place that is not one of those ``taken``."""
        slot = next((number for number in range(1, SLOTS) if number not in taken), SLOTS)
        self._table[0] = max(self._table[0], slot)
        return slot

    def vacate(self, slot: int) -> None:
        """Whoever had it is gone."""
        self._table[slot] = 0

    def should_defer(self, connections: int) -> bool:
        """Whether this process, with so many connections, leaves the next one to another."""
        table, own = self._table, connections + 1
        table[self._slot] = own
        least = min(filter(None, table[1 : table[0] + 1]))
        return own > least + SLACK + SHARE * least

    def leave(self) -> None:
        """Nobody is to leave newcomers to this process any more."""
        self.vacate(self._slot)

    def close(self) -> None:
        """Close the file; what was mapped of it stays."""
        os.close(self.file)

"""Load balancing: the number of connections of each worker, in shared memory.

The kernel wakes all workers for a new connection, and the fastest one accepts it. Connections are long-lived,
so without balancing one worker may end up with ten times as many connections as another. A worker with many
connections leaves new ones to the other workers.
"""

from __future__ import annotations

import mmap
import os

from ...metrics.table import anonymous_file

__all__ = ["SLOTS", "LoadTable"]

#: A worker defers if it has more connections than ``least + SLACK + SHARE * least``, where ``least`` is the
#: number of connections of the worker with the fewest.
SLACK = 8
SHARE = 1 / 16
#: Number of slots in the table. Workers beyond it share the last slot.
SLOTS = 1023


class LoadTable:
    """The table. Workers inherit its ``file`` descriptor; each has a ``slot`` of its own, from 1."""

    def __init__(self, file: int | None = None, slot: int = 0) -> None:
        if file is None:
            file = anonymous_file(4 * (SLOTS + 1))
        self.file = file
        self._slot = slot
        # Entry 0 is the highest slot in use. The entry of a slot is the number of connections plus 1, or 0 if
        # the slot is free.
        self._table = memoryview(mmap.mmap(file, 4 * (SLOTS + 1))).cast("I")

    def occupy(self, used: set[int]) -> int:
        """Return a slot that is not in ``used``."""
        slot = next((number for number in range(1, SLOTS) if number not in used), SLOTS)
        self._table[0] = max(self._table[0], slot)
        return slot

    def vacate(self, slot: int) -> None:
        """Free the slot of a process that has exited."""
        self._table[slot] = 0

    def should_defer(self, connections: int) -> bool:
        """Record the number of connections of this process; returns whether it leaves the next one to others."""
        table, own = self._table, connections + 1
        table[self._slot] = own
        least = min(filter(None, table[1 : table[0] + 1]))
        return own > least + SLACK + SHARE * least

    def leave(self) -> None:
        """Free the slot of this process, so that the others no longer defer to it."""
        self.vacate(self._slot)

    def close(self) -> None:
        """Close the file descriptor; the mapping stays."""
        os.close(self.file)

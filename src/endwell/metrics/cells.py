"""Adds to a 64-bit float in memory.

The compiled build uses ``_cells.pyx`` instead (see ``meter.pxd``): to read and to write an item of a memoryview needs
500 instructions. A test compares both.
"""

from __future__ import annotations

__all__ = ["add"]


def add(cells: memoryview[float], index: int, value: float) -> None:
    """Add ``value`` to ``cells[index]``. Raises IndexError if there is no such cell."""
    cells[index] += value

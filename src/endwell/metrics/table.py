"""Counters in memory that several processes share, so that those of a process outlive it.

Each process writes to its own slot, and reads the slots of all. A slot is a sequence of blocks. A block has a
number, which says what it counts, labels, and cells, which are 64-bit floats.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

__all__ = ["Block", "Table", "shared_file"]

#: Bytes of a slot. What is not used takes no memory.
SLOT_SIZE = 1 << 18
#: A slot begins with the position of its end, in bytes. The second word of slot 0 is odd while counts are moved.
_HEADER = 16
#: A block begins with its number, its number of cells, and the length of its labels, which are JSON.
_BLOCK = struct.Struct("<HHI")
#: Cells at the end of a slot, for the blocks for which it has no room. They are not read.
_SPILL = 64


class Block(NamedTuple):
    """What a process has counted for some labels."""

    number: int
    labels: tuple[str, ...]
    values: list[float]


def shared_file(slots: int) -> int:
    """Return the descriptor of a file with room for the tables of ``slots`` processes."""
    with tempfile.TemporaryFile() as stream:
        stream.truncate(slots * SLOT_SIZE)
        return os.dup(stream.fileno())


class Table:
    """The counters of one process, in its ``slot`` of ``file``; without a file, in memory of its own."""

    def __init__(self, file: int = -1, slot: int = 0) -> None:
        size = SLOT_SIZE if file < 0 else os.fstat(file).st_size
        self._slots = size // SLOT_SIZE
        self._bytes = memoryview(mmap.mmap(file, size))
        self._words = self._bytes.cast("Q")
        #: The cells of all processes. This one may change those of its own blocks.
        self.cells = self._bytes.cast("d")
        self._begin = min(slot, self._slots - 1) * SLOT_SIZE
        self._spill = self._begin + SLOT_SIZE - 8 * _SPILL
        self._known: dict[tuple[int, tuple[str, ...]], int] = {}
        self._words[self._begin // 8] = self._words[self._begin // 8] or _HEADER

    def block(self, number: int, labels: tuple[str, ...], size: int) -> int:
        """Return the index of the first of the ``size`` cells of a block. New cells are 0."""
        key = number, labels
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._add(number, labels, size)
        return found

    def _add(self, number: int, labels: tuple[str, ...], size: int) -> int:
        text = json.dumps(labels).encode()
        start = self._begin + self._words[self._begin // 8]
        cells = start + _BLOCK.size + len(text) + -len(text) % 8
        end = cells + 8 * size
        if end > self._spill:
            return self._spill // 8
        _BLOCK.pack_into(self._bytes, start, number, size, len(text))
        self._bytes[start + _BLOCK.size : start + _BLOCK.size + len(text)] = text
        # Last, because other processes read up to it.
        self._words[self._begin // 8] = end - self._begin
        return cells // 8

    def blocks(self) -> list[Block]:
        """Return the blocks of all processes."""
        while True:
            moves = self._words[1]
            blocks = [block for slot in range(self._slots) for block in self._read(slot)]
            if moves % 2 == 0 and moves == self._words[1]:
                return blocks

    def own_blocks(self) -> list[Block]:
        """Return the blocks of this process."""
        return list(self._read(self._begin // SLOT_SIZE))

    def _read(self, slot: int) -> Iterator[Block]:
        at = slot * SLOT_SIZE
        end = at + self._words[at // 8]
        at += _HEADER
        while at < end:
            number, size, length = _BLOCK.unpack_from(self._bytes, at)
            at += _BLOCK.size
            labels = tuple(json.loads(bytes(self._bytes[at : at + length])))
            cells = (at + length + -length % 8) // 8
            yield Block(number, labels, list(self.cells[cells : cells + size]))
            at = (cells + size) * 8

    def retire(self, slot: int, settle: Callable[[Iterable[Block]], Iterable[Block]]) -> None:
        """Add the counts of a process that has ended to those of this one, and free its slot.

        ``settle`` says what its blocks come to. A reader finds the counts once, never twice or not at all.
        """
        begin = slot * SLOT_SIZE
        settled = list(settle(list(self._read(slot))))
        self._words[1] += 1
        for number, labels, values in settled:
            first = self.block(number, labels, len(values))
            for index, value in enumerate(values, first):
                self.cells[index] += value
        end = begin + self._words[begin // 8]
        self._words[begin // 8] = 0
        self._bytes[begin + 8 : end] = bytes(max(0, end - begin - 8))
        self._words[1] += 1

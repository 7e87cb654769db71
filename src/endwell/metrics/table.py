"""Counters in memory that several processes share, so that those of a process outlive it.

Each process writes to its own slot, and reads the slots of all. A slot is a sequence of blocks. A block has a
number, which says what it counts, labels, and cells, which are 64-bit floats.

The supervisor adds the counts of a process that has exited to the totals, which are slot 0. The file has two copies
of this slot, before the other slots: the supervisor writes the new totals to the unused copy, and one word of memory
then says which copy is valid and which slot is not to be read. So a reader never waits, not even if the supervisor is
killed meanwhile.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

__all__ = ["OTHER", "Block", "Table", "anonymous_file", "shared_file"]

#: Bytes of a slot. What is not used takes no memory.
SLOT_SIZE = 1 << 18
#: The number of copies of the totals, and the slots that one takes: a series of a process must have room there. If it
#: had none, its counter would go back when the process exits. Processes may have counted for different labels.
_COPIES = 2
_TOTALS = 8
#: A slot begins with the position of its end, in bytes; 0 if no process has had it. The second word of the file says
#: what is valid.
_HEADER = 16
#: A block begins with its number, its number of cells, and the length of its labels, which are JSON.
_BLOCK = struct.Struct("<HHI")
#: The value of all labels of the blocks for which a slot has no room, and the room that is left for these blocks.
OTHER = "other"
_OTHER_ROOM = 1 << 13
#: How often a reader begins again because a process has exited meanwhile.
_READS = 100


class Block(NamedTuple):
    """What a process has counted for some labels."""

    number: int
    labels: tuple[str, ...]
    values: list[float]


def anonymous_file(size: int) -> int:
    """Return the descriptor of a file without a name that has ``size`` bytes, which are 0.

    It is in memory if the system can do that. A folder for temporary files may be missing or read-only. It may also
    be full: then the system kills a process that writes to a mapped page of the file.
    """
    file = -1
    if hasattr(os, "memfd_create"):
        with suppress(OSError):  # a sandbox may forbid it
            file = os.memfd_create("endwell")
    if file < 0:
        with tempfile.TemporaryFile() as stream:
            file = os.dup(stream.fileno())
    os.truncate(file, size)
    return file


def shared_file(slots: int) -> int:
    """Return the descriptor of a file with room for the totals, and for ``slots`` other processes."""
    return anonymous_file((_COPIES * _TOTALS + slots) * SLOT_SIZE)


class Table:
    """The counters of one process, in its ``slot`` of ``file``; without a file, in memory of its own.

    The supervisor has slot 0.
    """

    def __init__(self, file: int = -1, slot: int = 0) -> None:
        size = SLOT_SIZE if file < 0 else os.fstat(file).st_size
        self._slots = size // SLOT_SIZE
        if file < 0 and sys.platform != "win32":
            # A forked child has its own counters.
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)
        else:
            memory = mmap.mmap(file, size)
        self._bytes = memoryview(memory)
        self._words = self._bytes.cast("Q")
        #: The cells of all processes. This one may change those of its own blocks.
        self.cells = self._bytes.cast("d")
        self._known: dict[tuple[int, tuple[str, ...]], int] = {}
        self._begin = self._begin_of(slot)
        self._words[self._begin // 8] = self._words[self._begin // 8] or _HEADER

    def _begin_of(self, slot: int) -> int:
        return min(slot and slot + _COPIES * _TOTALS - 1, self._slots - 1) * SLOT_SIZE

    def _size_of(self, begin: int) -> int:
        """The bytes of the slot that begins there."""
        is_totals = self._slots > 1 and begin < _COPIES * _TOTALS * SLOT_SIZE
        return _TOTALS * SLOT_SIZE if is_totals else SLOT_SIZE

    def block(self, number: int, labels: tuple[str, ...], size: int) -> int:
        """Return the index of the first of the ``size`` cells of a block. New cells are 0.

        If there is no room, all labels are :data:`OTHER`.
        """
        key = number, labels
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._add(number, labels, size)
        return found

    def _add(self, number: int, labels: tuple[str, ...], size: int) -> int:
        others = (OTHER,) * len(labels)
        text = json.dumps(labels).encode()
        start = self._begin + self._words[self._begin // 8]
        cells = start + _BLOCK.size + len(text) + -len(text) % 8
        end = cells + 8 * size
        limit = self._begin + self._size_of(self._begin)
        if labels != others and end > limit - _OTHER_ROOM:
            return self.block(number, others, size)
        if end > limit:
            raise ValueError(f"there is no room for another block of the number {number}")
        _BLOCK.pack_into(self._bytes, start, number, size, len(text))
        self._bytes[start + _BLOCK.size : start + _BLOCK.size + len(text)] = text
        # A process that had this slot may have been killed while it wrote here.
        self._bytes[cells:end] = bytes(end - cells)
        # Last, because other processes read up to it.
        self._words[self._begin // 8] = end - self._begin
        return cells // 8

    def blocks(self, numbers: Collection[int] | None = None) -> list[Block]:
        """Return the blocks of all processes with these numbers. Default: all blocks."""
        blocks: list[Block] = []
        for _ in range(_READS):
            state = self._words[1]
            blocks = [block for begin in self._valid(state) for block in self._read(begin, numbers)]
            if state == self._words[1]:
                break
        return blocks

    def own_blocks(self) -> list[Block]:
        """Return the blocks of this process."""
        return list(self._read(self._begin))

    def _valid(self, state: int) -> Iterator[int]:
        """Where the slots begin that are to be read."""
        copy, left_out = state & 1, (state & 0xFFFF) >> 1
        yield copy * _TOTALS * SLOT_SIZE
        for begin in range(_COPIES * _TOTALS * SLOT_SIZE, self._slots * SLOT_SIZE, SLOT_SIZE):
            if not self._words[begin // 8]:
                return
            if not left_out or begin != self._begin_of(left_out):
                yield begin

    def _read(self, begin: int, numbers: Collection[int] | None = None) -> Iterator[Block]:
        at, end = begin + _HEADER, begin + min(self._words[begin // 8], self._size_of(begin))
        while at + _BLOCK.size <= end:
            number, size, length = _BLOCK.unpack_from(self._bytes, at)
            at += _BLOCK.size
            cells = (at + length + -length % 8) // 8
            if 8 * (cells + size) > end:
                return
            if numbers is None or number in numbers:
                try:
                    labels = tuple(json.loads(bytes(self._bytes[at : at + length])))
                except (ValueError, TypeError):
                    return  # these bytes are no block; the supervisor must not stop because of them
                yield Block(number, labels, list(self.cells[cells : cells + size]))
            at = (cells + size) * 8

    def prepare(self, slot: int) -> None:
        """Have readers read a slot, which a process is going to use. The slots below it were prepared before."""
        begin = self._begin_of(slot) // 8
        self._words[begin] = self._words[begin] or _HEADER

    def retire(self, slot: int, settle: Callable[[Iterable[Block]], Iterable[Block]]) -> None:
        """Add the counts of a process that has exited to the totals, and free its slot.

        ``settle`` says what its blocks come to. Only the supervisor calls it. A reader finds the counts once, never
        twice or not at all.
        """
        state, begin = self._words[1], self._begin_of(slot)
        copy = state & 1
        settled = [*self._read(copy * _TOTALS * SLOT_SIZE), *settle(list(self._read(begin)))]
        # The other copy gets the new totals.
        self._begin = (1 - copy) * _TOTALS * SLOT_SIZE
        self._known = {}
        self._words[self._begin // 8] = _HEADER
        for number, labels, values in settled:
            first = self.block(number, labels, len(values))
            for index, value in enumerate(values, first):
                self.cells[index] += value
        change = (state >> 16) + 1
        self._words[1] = change << 16 | slot << 1 | 1 - copy
        self._words[begin // 8] = _HEADER
        self._words[1] = change + 1 << 16 | 1 - copy

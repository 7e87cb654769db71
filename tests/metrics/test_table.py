"""The counters in memory that processes share."""

from __future__ import annotations

import os
import tempfile
from importlib import import_module
from importlib.util import find_spec

import pytest

from endwell.metrics import cells
from endwell.metrics.table import OTHER, Block, Table, shared_file

FORMS = [cells]
if find_spec("endwell.metrics._cells"):
    FORMS.append(import_module("endwell.metrics._cells"))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_a_value_is_added_to_a_cell_and_to_no_other(form):
    doubles = memoryview(bytearray(24)).cast("d")
    form.add(doubles, 1, 2)
    form.add(doubles, 1, 0.5)
    assert list(doubles) == [0.0, 2.5, 0.0]
    for wrong in (3, 10**6):
        with pytest.raises(IndexError):
            form.add(doubles, wrong, 1)
    with pytest.raises(TypeError):
        form.add(None, 0, 1)


def counted(table, number, *labels, size=1, value=1):
    """Add to the cells of a block."""
    first = table.block(number, labels, size)
    for index in range(first, first + size):
        table.cells[index] += value


def test_what_has_no_room_in_a_table_is_counted_together():
    table = Table()
    for number in range(20_000):
        counted(table, 1, f"label {number}")
        counted(table, 2, "x" * (number % 7), f"label {number}", size=14)
    blocks = table.blocks()
    assert 1000 < len(blocks) < 20_000
    assert sum(block.values[0] for block in blocks) == 40_000
    assert [block.labels for block in blocks if block.values[0] > 1] == [(OTHER, OTHER), (OTHER,)]


def test_a_pattern_that_is_longer_than_a_table_is_counted_as_another():
    table = Table()
    counted(table, 1, "/" * 2**20)
    counted(table, 1, "/")
    assert table.blocks() == [Block(1, (OTHER,), [1.0]), Block(1, ("/",), [1.0])]


def keep(blocks):
    return blocks


def supervised(slots):
    """The tables of a supervisor and of processes."""
    file = shared_file(slots)
    supervisor = Table(file, 0)
    for slot in range(1, slots + 1):
        supervisor.prepare(slot)
    return supervisor, lambda slot: Table(file, slot)


def test_the_counts_of_a_process_that_has_ended_are_kept_and_its_slot_is_used_again():
    supervisor, process = supervised(4)
    counted(process(2), 1, "a", size=2, value=5)
    for times in range(1, 4):
        supervisor.retire(2, keep)
        again = process(2)
        counted(again, 1, "a", size=2, value=2)
        expected = [[3.0 + 2 * times] * 2, [2.0] * 2]
        assert [block.values for block in supervisor.blocks()] == expected
        assert [block.values for block in again.blocks()] == expected


def test_no_count_goes_back_when_processes_end_that_have_counted_for_different_labels():
    supervisor, process = supervised(4)
    for slot in range(1, 5):
        table = process(slot)
        for number in range(1000):  # half of a slot
            counted(table, 1, f"process {slot}", f"label {number}", size=10, value=slot)
    before = {block.labels: block.values for block in supervisor.blocks()}
    assert len(before) == 4000
    for slot in range(1, 5):
        supervisor.retire(slot, keep)
        assert {block.labels: block.values for block in supervisor.blocks()} == before


def test_a_slot_that_no_process_used_has_no_counts():
    supervisor, process = supervised(3)
    counted(process(3), 1, "a")
    supervisor.retire(1, keep)
    assert supervisor.blocks() == [Block(1, ("a",), [1.0])]


def test_a_reader_finds_counts_once_wherever_the_supervisor_is_killed():
    """The supervisor ends after some of its writes. The workers go on to read."""
    killed = True
    writes = 0
    while killed:
        supervisor, process = supervised(2)
        ending, worker = process(1), process(2)
        counted(ending, 1, "a", value=5)
        counted(ending, 2, "b", "c", size=2, value=5)
        counted(worker, 1, "a", value=3)
        supervisor.retire(2, keep)
        counted(worker := process(2), 1, "a", value=3)
        budget = [writes]
        supervisor._words = Written(supervisor._words, budget)
        supervisor.cells = Written(supervisor.cells, budget)
        try:
            supervisor.retire(1, keep)
        except Killed:
            writes += 1
        else:
            killed = False
        blocks = worker.blocks()
        assert sum(block.values[0] for block in blocks if block.number == 1) == 11
        assert [block.values for block in blocks if block.number == 2] == [[5.0, 5.0]]
    assert writes == 10


class Killed(Exception):
    """In the place of SIGKILL."""


class Written:
    """A memoryview, which fails after a number of writes."""

    def __init__(self, view, budget):
        self._view, self._budget = view, budget

    def __getitem__(self, index):
        return self._view[index]

    def __setitem__(self, index, value):
        if not self._budget[0]:
            raise Killed
        self._budget[0] -= 1
        self._view[index] = value


def test_a_block_that_was_not_finished_leaves_no_counts():
    """A process was killed while it added a block: what it has written is not 0."""
    supervisor, process = supervised(1)
    table = process(1)
    begin = table._begin
    table._bytes[begin + 16 : begin + 400] = b"\xff" * 384
    assert supervisor.blocks() == []
    supervisor.retire(1, keep)
    counted(process(1), 1, "a", size=20, value=2)
    assert supervisor.blocks() == [Block(1, ("a",), [2.0] * 20)]


@pytest.mark.parametrize("garbage", [b"\xff" * 64, bytes(64), b"\1\0\0\0\4\0\0\0null" + bytes(52)])
def test_bytes_that_are_no_blocks_do_not_stop_the_supervisor(garbage):
    supervisor, process = supervised(1)
    table = process(1)
    counted(table, 1, "a")
    at = table._begin + table._words[table._begin // 8]
    table._bytes[at : at + 64] = garbage
    table._words[table._begin // 8] += 64
    assert supervisor.blocks()[0] == Block(1, ("a",), [1.0])
    supervisor.retire(1, keep)
    assert supervisor.blocks()[0] == Block(1, ("a",), [1.0])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_has_its_own_counters():
    table = Table()
    counted(table, 1, "a")
    if not (child := os.fork()):
        counted(table, 1, "a")
        counted(table, 1, "b")
        os._exit(0)
    os.waitpid(child, 0)
    assert table.blocks() == [Block(1, ("a",), [1.0])]


def test_the_shared_file_needs_no_folder_for_temporary_files(monkeypatch):
    if not hasattr(os, "memfd_create"):
        pytest.skip("the system has no memfd_create()")
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    supervisor, process = supervised(1)
    counted(process(1), 1, "a")
    assert supervisor.blocks() == [Block(1, ("a",), [1.0])]


def test_the_shared_file_is_a_temporary_one_where_the_system_has_no_other(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    supervisor, process = supervised(1)
    counted(process(1), 1, "a")
    assert supervisor.blocks() == [Block(1, ("a",), [1.0])]

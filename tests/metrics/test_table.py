"""The counters in memory that processes share."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec

import pytest

from endwell.metrics import cells
from endwell.metrics.table import Table, shared_file

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


def test_a_table_that_is_full_counts_no_further_labels_and_breaks_nothing():
    table = Table()
    for number in range(20_000):
        table.cells[table.block(1, (f"label {number}",), 1)] += 1
    blocks = table.blocks()
    assert 1000 < len(blocks) < 20_000
    assert {block.values[0] for block in blocks} == {1.0}


def test_the_counts_of_a_process_that_has_ended_are_kept_and_its_slot_is_used_again():
    file = shared_file(4)
    supervisor, worker = Table(file, 0), Table(file, 2)
    worker.cells[worker.block(1, ("a",), 2)] = 5
    supervisor.retire(2, lambda blocks: blocks)
    again = Table(file, 2)
    again.cells[again.block(1, ("a",), 2)] = 2
    os.close(file)
    assert [block.values for block in supervisor.blocks()] == [[5.0, 0.0], [2.0, 0.0]]
    supervisor.retire(2, lambda blocks: blocks)
    assert [block.values for block in again.blocks()] == [[7.0, 0.0]]

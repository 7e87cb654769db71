from __future__ import annotations

import asyncio
from collections import Counter

import pytest

import endwell
from endwell.server.process.balance import SLOTS, LoadTable
from tests.server.program import running, write


@pytest.fixture
def table():
    """The load table of a supervisor."""
    table = LoadTable()
    yield table
    table.close()


def two(table):
    """The load tables of two workers."""
    one = LoadTable(table.file, table.occupy(set()))
    other = LoadTable(table.file, table.occupy({1}))
    return one, other


def test_a_worker_with_many_more_connections_defers_new_ones(table):
    one, other = two(table)
    assert not other.should_defer(100)  # there is no other process yet
    assert not one.should_defer(0)
    assert other.should_defer(100)
    assert not one.should_defer(9)
    assert one.should_defer(200)
    assert not other.should_defer(200)


def test_a_small_difference_in_load_does_not_defer(table):
    one, other = two(table)
    one.should_defer(0)
    assert [other.should_defer(count) for count in (8, 9)] == [False, True]
    one.should_defer(1000)
    assert [other.should_defer(count) for count in (1070, 1072)] == [False, True]


def test_a_worker_never_defers_to_one_that_left(table):
    one, other = two(table)
    one.should_defer(0)
    assert other.should_defer(100)
    one.leave()
    assert not other.should_defer(100)
    one.should_defer(0)
    assert other.should_defer(100)
    table.vacate(1)
    assert not other.should_defer(100)


def test_slots_are_reused_and_never_run_out(table):
    assert [table.occupy(taken) for taken in (set(), {1}, {2}, {1, 2, 3})] == [1, 2, 1, 4]
    assert table.occupy(set(range(1, SLOTS + 1))) == SLOTS


async def test_concurrent_connections_spread_evenly_over_the_workers(tmp_path):
    with running(write(tmp_path)) as program:
        connected = []
        for _ in range(10):
            connected += await asyncio.gather(*(program.connect() for _ in range(8)))
        counts = Counter(process for _, process, _ in connected)
        assert len(counts) == 2
        assert min(counts.values()) >= 20, counts
        assert (await asyncio.to_thread(program.finish))[0] == 0
        assert {(await ws.closed).received.code for ws, _, _ in connected} == {endwell.CloseCode.GOING_AWAY}

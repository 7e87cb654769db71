"""Rooms that several threads use at once."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import endwell

THREADS = 8
#: Without a lock, 49 to 369 of these names had two rooms, so none has a probability below 1e-20.
NAMES = 2000


@pytest.fixture
def threads_that_alternate():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("threads_that_alternate")
def test_threads_that_use_a_new_name_at_once_get_the_same_room():
    rooms = endwell.Server().rooms.blocking
    together = threading.Barrier(THREADS)

    def use():
        found = []
        for number in range(NAMES):
            if number % 50 == 0:
                together.wait()
            found.append(rooms[str(number)]._room)
        return found

    with ThreadPoolExecutor(THREADS) as threads:
        results = [each.result() for each in [threads.submit(use) for _ in range(THREADS)]]
    assert [number for number, rooms in enumerate(zip(*results, strict=True)) if len({*rooms}) > 1] == []

"""Who is present in a room with many keys. They are read in parts, so that no loop stands still meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from endwell.rooms import local, present, supervised
from endwell.rooms.nats import bus as nats_bus
from endwell.rooms.present import PART, Present
from endwell.rooms.redis import presence as redis_presence
from tests.pair import until

from .house import House
from .test_rooms import one_server, two_servers

COUNT = 8 * PART + 10


@pytest.fixture
def parts(monkeypatch):
    """How many keys each part has, and in how many turns of the loop other tasks could run before it."""
    found = []

    async def read_parts(read):
        turns = 0

        async def turn():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async def spy(after):
            nonlocal turns
            turns = 0
            part = await read(after)
            found.append((len(part[0]), turns))
            return part

        task = asyncio.create_task(turn())
        try:
            return await present.read_parts(spy)
        finally:
            task.cancel()

    for module in (local, supervised, nats_bus, redis_presence):
        monkeypatch.setattr(module, "read_parts", read_parts)
    return found


async def check(made: House, parts) -> None:
    bus = made.servers[0].rooms._registry.bus
    await bus.listen("a")
    for number in range(COUNT):
        bus.enter("a", number, f"key {number}", {"number": number}, 0.0)
    await bus.flush()
    for number in range(len(made.servers)):
        parts.clear()
        everybody = await made.room(number).presence()
        assert everybody == [Present(f"key {number}", {"number": number}, 1) for number in range(COUNT)]
        # Redis decides by itself how many come at once, about as many as it is asked for.
        assert max(count for count, _ in parts) <= 2 * PART
        assert min(turns for _, turns in parts[1:]) >= 1


@one_server
async def test_many_keys_are_read_in_parts(one: House, parts):
    await check(one, parts)


@two_servers
async def test_many_keys_of_another_process_are_read_in_parts(two: House, parts):
    await check(two, parts)


@one_server
async def test_graces_that_are_over_when_they_begin_end_one_after_the_other(one: House):
    bus = one.servers[0].rooms._registry.bus
    await bus.listen("a")
    for number in range(3):
        bus.enter("a", number, f"{number}", {}, 0.0)
    for number in range(3):
        bus.leave("a", number, f"{number}", 1e-9)
    await until(lambda: len(one.events) == 6)
    assert sorted(event for _, event, _, _ in one.events) == ["joined"] * 3 + ["left"] * 3

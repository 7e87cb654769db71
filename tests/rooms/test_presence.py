"""Who is present in a room with many keys. They are read in parts, so that no loop stands still meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter

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
async def test_a_process_was_told_of_all_its_keys_when_its_calls_are_flushed(one: House):
    rooms, told = one.servers[0].rooms, []

    @rooms.left
    def left(room, present):
        told.append(present.key)

    registry = rooms._registry
    await registry.bus.listen("a")
    keys = [f"key {number}" for number in range(COUNT)]
    for number, key in enumerate(keys):
        registry.bus.enter("a", number, key, {}, 0.0)
    for number, key in enumerate(keys):
        registry.bus.leave("a", number, key, 0.0)
    await registry.bus.flush()
    while registry._tasks:
        await asyncio.wait(registry._tasks)
    assert sorted(told) == sorted(keys)


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


@two_servers
async def test_a_key_whose_connections_leave_at_once_has_left_once(two: House):
    bus = two.servers[0].rooms._registry.bus
    await bus.listen("a")
    for number in range(3):
        bus.enter("a", number, "ada", {}, 0.0)
    await until(lambda: len(two.events) == 1)
    for number in range(3):
        bus.leave("a", number, "ada", 0.0)
    await until(lambda: len(two.events) == 2)
    assert [event for _, event, _, _ in two.events] == ["joined", "left"]


@two_servers
async def test_a_key_that_leaves_and_comes_at_once_has_left_and_joined(two: House):
    bus = two.servers[0].rooms._registry.bus
    await bus.listen("a")
    bus.enter("a", 0, "ada", {}, 0.0)
    await until(lambda: len(two.events) == 1)
    bus.leave("a", 0, "ada", 0.0)
    bus.enter("a", 1, "ada", {}, 0.0)
    await until(lambda: len(two.events) == 3)
    assert [event for _, event, _, _ in two.events] == ["joined", "left", "joined"]


@two_servers
async def test_a_key_whose_connections_come_and_leave_at_once_has_joined_as_often_as_left(two: House):
    bus = two.servers[0].rooms._registry.bus
    await bus.listen("a")
    here = set()
    for number in range(10):
        bus.enter("a", number, "ada", {}, 0.0)
        here.add(number)
        if number % 3 or number == 9:
            while here:
                bus.leave("a", here.pop(), "ada", 0.0)
    bus.enter("a", 10, "eve", {}, 0.0)
    await until(lambda: any(key == "eve" for *_, key in two.events))

    def count(what):
        return sum(event == what and key == "ada" for _, event, _, key in two.events)

    await until(lambda: count("joined") == count("left"))
    assert count("joined") >= 1


@two_servers
async def test_a_key_that_comes_and_leaves_while_it_comes_to_another_process_has_joined_as_often_as_left(
    two: House,
):
    one, other = (server.rooms._registry.bus for server in two.servers)
    for bus in one, other:
        await bus.listen("a")
    keys = [f"{number}" for number in range(20)]
    for number, key in enumerate(keys):
        one.enter("a", number, key, {}, 10.0)
        one.leave("a", number, key, 1.0)
        other.enter("a", number, key, {}, 10.0)
    for number, key in enumerate(keys):
        other.leave("a", number, key, 0.0)

    def count(what):
        return Counter(key for _, event, _, key in two.events if event == what)

    # A key whose last connection is that of the first server leaves after its grace.
    await until(lambda: len(count("left")) == len(keys) and count("joined") == count("left"))

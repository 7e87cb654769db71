"""Sessions and max_connections by Redis, which is stopped, emptied and started again."""

from __future__ import annotations

import pytest

from endwell.rooms import following, returning
from endwell.rooms.redis import presence
from endwell.server import claims, places
from tests.face import ASYNCIO
from tests.pair import until, within
from tests.rooms.house import house
from tests.rooms.test_places import attempt, held_by, open_at
from tests.rooms.test_sessions import Hall

from .server import shared_server


@pytest.fixture
def shared():
    return shared_server()


@pytest.fixture
def quick(monkeypatch):
    """Short intervals: the tests wait for the events that they cause."""
    monkeypatch.setattr(presence, "RENEW_INTERVAL", 0.05)
    monkeypatch.setattr(following, "RETRY_INTERVAL", 0.05)
    monkeypatch.setattr(claims, "RETRY_INTERVAL", 0.05)


def is_up(place):
    return all(bus.is_connected for bus in place.buses())


@pytest.mark.parametrize("data", [True, False])
@pytest.mark.parametrize("fails", [True, False])
async def test_connections_that_join_while_redis_is_away_are_claimed_when_it_is_back(
    redis, quick, monkeypatch, data, fails
):
    monkeypatch.setattr(returning, "WAIT_TIME", 60.0)
    async with house(2, redis.url) as made:
        place = Hall(made, ASYNCIO)
        for server in place.servers:
            server.sessions.grace = 60.0
        before = await place.join(0, "eve")
        await place.heard(0, "eve")
        redis.kill(data=data)
        await until(lambda: not any(bus.is_connected for bus in place.buses()))
        # Longer than the test, or so short that each attempt of that time fails.
        monkeypatch.setattr(returning, "WAIT_TIME", 0.05 if fails else 60.0)
        for bus in place.buses():
            bus._link._overdue._tick()  # the next part of the waiting is as short
        old = await place.join(0)
        new = await place.join(1)
        last = await place.join(1, "eve")
        assert [sorted(server.sessions) for server in place.servers] == [["ada", "eve"]] * 2
        assert all(ws.is_open for ws in (old, new, before, last))
        monkeypatch.setattr(returning, "WAIT_TIME", 60.0)
        redis.start()
        await until(lambda: is_up(place))
        for ws in (old, before):
            assert (await within(ws.closed)).code == 4991
        for name in ("ada", "eve"):
            await place.heard(1, name)
        assert new.is_open
        assert last.is_open
        assert sorted(place.servers[1].sessions) == ["ada", "eve"]
        await until(lambda: {key for _, event, key in place.events if event == "joined"} == {"ada", "eve"})
        # Redis without its data may tell again that a key has joined.
        assert len(place.events) == 2 or not data
        assert await place.present() == {"ada", "eve"}
        assert (await place.servers[0].rooms.user("ada").publish("hello")).workers == 1
        assert await within(new.recv()) == "hello"


async def test_the_keys_of_a_process_that_ends_leave_in_another_one(shared, quick, monkeypatch):
    monkeypatch.setattr(presence, "LEASE_TIME", 0.5)
    async with house(2, shared.url) as made:
        place = Hall(made, ASYNCIO)
        await place.join(1)
        await place.heard(1)
        link = place.buses()[1]._link
        link._task.cancel()
        await until(lambda: (0, "left", "ada") in place.events)
        assert place.endings == [None]


async def test_the_places_of_a_process_that_ends_are_given_back_with_its_lease(shared, quick, monkeypatch):
    monkeypatch.setattr(presence, "LEASE_TIME", 1.0)
    async with house(2, shared.url, 2) as made:
        assert (await attempt(made, 0)).is_open
        assert (await attempt(made, 1)).is_open
        assert await attempt(made, 0) == 503
        link = made.servers[1].rooms._registry.bus._link
        link._task.cancel()
        while await attempt(made, 0) == 503:
            pass
        # The place of a process that renews its lease stays its own.
        assert await attempt(made, 0) == 503
        assert len(made.servers[0].connections) == 2


async def hold(ws):
    await ws.wait_closed()


@pytest.mark.parametrize("data", [True, False])
async def test_while_redis_is_away_new_connections_are_refused_and_the_others_count_afterwards(
    redis, quick, monkeypatch, data
):
    monkeypatch.setattr(places, "RETRY_INTERVAL", 0.05)
    async with house(2, redis.url, 4) as made:
        for server in made.servers:
            # A handler that needs no room.
            server.websocket("/hold/on")(hold)
        for number in (0, 0, 1):
            assert (await attempt(made, number, "/hold/on")).is_open
        redis.kill(data=data)
        buses = [server.rooms._registry.bus for server in made.servers]
        await until(lambda: not any(bus.is_connected for bus in buses))
        monkeypatch.setattr(returning, "WAIT_TIME", 0.05)
        for bus in buses:
            bus._link._overdue._tick()  # the next part of the waiting is as short
        assert await attempt(made, 0, "/hold/on") == await attempt(made, 1, "/hold/on") == 503
        assert open_at(made) == held_by(made) == 3
        monkeypatch.setattr(returning, "WAIT_TIME", 60.0)
        redis.start()
        key = buses[0]._link.place.prefix + "connections"
        await until(lambda: all(bus.is_connected for bus in buses) and redis.ask("HLEN", key) == b":2")
        assert (await attempt(made, 0, "/hold/on")).is_open
        assert await attempt(made, 0, "/hold/on") == await attempt(made, 1, "/hold/on") == 503
        assert open_at(made) == 4

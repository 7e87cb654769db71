"""A process with many rooms: its lease is renewed however long it takes to restore them, or those of another one."""

from __future__ import annotations

import asyncio
import gc
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from endwell.rooms import returning
from endwell.rooms.redis import RedisBus, presence
from endwell.rooms.redis.scripts import BURY, ENTER
from tests.pair import until, write_later

from .test_leases import quick

__all__ = ["quick"]

#: Seconds for which the network delays what it carries, in each direction.
DELAY = 0.01
ROOMS = 60


class Told:
    """A receiver that remembers which keys have joined and left."""

    def __init__(self):
        self.events = []

    def came(self, room, present):
        self.events.append(("joined", room, present.key))

    def went(self, room, present):
        self.events.append(("left", room, present.key))


class Process:
    """A process, as Redis sees it. Counts what it calls."""

    def __init__(self, url):
        self.bus, self.told, self.replies = RedisBus(url), Told(), []

    async def start(self):
        await self.bus.start(self.told)
        self.presence, self.link = self.bus._presence, self.bus._link
        self._call, self.link.call = self.link.call, self._counted
        await self.is_mended()
        return self

    async def is_mended(self):
        """Wait until it has restored its rooms, or those of another one."""
        await until(lambda: self.presence._mending is not None)
        await asyncio.wait([self.presence._mending])

    def _counted(self, script, *arguments, **options):
        reply = self._call(script, *arguments, **options)
        reply.add_done_callback(lambda _: self.replies.append((script, reply)))
        return reply

    def results(self, script):
        """What a script has returned."""
        return [reply.result() for each, reply in self.replies if each is script and not reply.cancelled()]

    async def enters(self, rooms, grace=0.0):
        """A connection comes into each of some rooms."""
        for number, room in enumerate(rooms):
            self.bus.enter(room, number, f"key{number}", {}, grace)
        await self.bus.flush()
        await until(lambda: len(self.told.events) == len(rooms))
        await self.is_confirmed()
        self.told.events.clear()

    async def is_confirmed(self):
        """Wait until Redis knows of all calls of the callbacks. If it ended before, others would repeat them."""
        await until(lambda: not self.presence._duties._told)

    def ends(self):
        """It is killed, as far as Redis sees it."""
        self.link._task.cancel()

    def is_known(self, redis):
        return redis.ask("ZSCORE", self.presence._leases, self.bus._process) != b"$-1"


@asynccontextmanager
async def processes(*urls):
    async with AsyncExitStack() as stack:
        found = []
        for url in urls:
            found.append(await Process(url).start())
            stack.push_async_callback(found[-1].bus.stop)
        yield found


class Delayed(asyncio.Protocol):
    """One direction of a connection through a network that delays everything."""

    def __init__(self, other=None, port=None):
        self.other, self.port, self.held = other, port, []

    def connection_made(self, transport):
        self.transport = transport
        if self.other is None:
            loop = asyncio.get_running_loop()
            self.task = loop.create_task(
                loop.create_connection(lambda: Delayed(self), "127.0.0.1", self.port)
            )
        else:
            self.other.other = self
            for data in self.other.held:
                self.other.data_received(data)

    def data_received(self, data):
        if self.other is None:
            self.held.append(data)
        else:
            write_later(DELAY, self.other.transport, data)

    def connection_lost(self, exc):
        if self.other is not None:
            self.other.transport.abort()


@asynccontextmanager
async def far(redis):
    """The URL of a server in such a network."""
    server = await asyncio.get_running_loop().create_server(lambda: Delayed(port=redis.port), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield f"redis://127.0.0.1:{port}/0"
    await asyncio.sleep(2 * DELAY)


@pytest.fixture(autouse=True)
def slow(quick, monkeypatch):
    """A lease is shorter than a round trip for each room, and one call follows the other."""
    monkeypatch.setattr(presence, "LEASE_TIME", 0.6)
    monkeypatch.setattr(returning, "BATCH", 1)


async def test_a_process_that_restores_its_rooms_longer_than_a_lease_is_not_removed(redis):
    rooms = [f"room{number}" for number in range(ROOMS)]
    async with far(redis) as url, processes(url, redis.url) as (first, second):
        await first.enters(rooms)
        first.replies.clear()
        redis.ask("FLUSHALL")
        name = first.presence._name("rooms", first.bus._process)
        await until(lambda: redis.ask("SCARD", name) == b":%d" % ROOMS)
        await first.is_mended()
        assert first.told.events == second.told.events == []
        for room in rooms:
            assert len(await second.bus.presence(room)) == 1
        # It was not begun again meanwhile.
        assert len(first.results(ENTER)) == ROOMS


async def test_a_process_that_buries_another_one_longer_than_a_lease_is_not_removed(redis):
    rooms = [f"room{number}" for number in range(ROOMS)]
    async with far(redis) as url, processes(redis.url, url, redis.url) as (dead, second, third):
        await dead.enters(rooms)
        await second.enters(["own"])
        # It only looks on, and removes nobody.
        names = []

        async def note(process):
            names.append(process)

        third.presence._bury = note
        dead.ends()
        await until(lambda: len(second.told.events) == ROOMS)
        await until(lambda: not dead.is_known(redis))
        assert {*second.told.events} == {("left", room, f"key{n}") for n, room in enumerate(rooms)}
        assert {*names} == {dead.bus._process}
        assert len(second.results(BURY)) == ROOMS


async def test_processes_that_bury_the_same_one_share_the_work(redis, monkeypatch):
    monkeypatch.setattr(returning, "BATCH", 10)
    rooms = [f"room{number}" for number in range(200)]
    async with processes(*[redis.url] * 5) as (dead, *others):
        await dead.enters(rooms)
        dead.ends()
        await until(lambda: sum(len(each.told.events) for each in others) == len(rooms))
        await until(lambda: not dead.is_known(redis))
        told = [event for each in others for event in each.told.events]
        assert {*told} == {("left", room, f"key{n}") for n, room in enumerate(rooms)}
        # Each room is chosen at random. Without that, all of them would bury all rooms.
        assert sum(len(each.results(BURY)) for each in others) < 2 * len(rooms)


@pytest.mark.parametrize("keys", [1, 2000])
async def test_a_room_with_many_connections_is_buried_in_parts(redis, keys):
    async with processes(redis.url, redis.url) as (dead, second):
        for number in range(2000):
            dead.bus.enter("room", number, f"key{number % keys}", {}, 0.0)
        second.bus.enter("room", 1, "stays", {}, 0.0)
        second.bus.enter("room", 2, "key0", {}, 0.0)
        await dead.bus.flush()
        await until(lambda: len(dead.told.events) == keys)
        await dead.is_confirmed()
        await second.bus.flush()
        await second.is_confirmed()
        second.told.events.clear()
        dead.ends()
        await until(lambda: not dead.is_known(redis))
        await until(lambda: len(second.told.events) == keys - 1)
        assert {*second.told.events} == {("left", "room", f"key{number}") for number in range(1, keys)}
        present = await second.bus.presence("room")
        assert {each.key: each.connections for each in present} == {"stays": 1, "key0": 1}
        parts = second.results(BURY)
        assert len(parts) > 4
        assert max(len(found) for _, found, _, _ in parts) < 2 * 1000


async def test_connections_that_have_left_a_large_room_while_redis_was_away_are_found(redis):
    async with processes(redis.url) as (first,):
        await first.enters(["room"] * 1000)
        redis.kill()
        await until(lambda: not first.bus.is_connected)
        for number in range(0, 1000, 2):
            first.bus.leave("room", number, f"key{number}", 0.0)
        first.link._expire_all()  # it was away for long
        redis.start()
        await until(lambda: len(first.told.events) == 500)
        assert {*first.told.events} == {("left", "room", f"key{number}") for number in range(0, 1000, 2)}
        assert len(await first.bus.presence("room")) == 500


async def test_a_process_that_loses_redis_before_it_has_begun_to_restore_its_rooms_does_it_later(redis):
    async with processes(redis.url) as (first,):
        await first.enters(["room"])
        first.replies.clear()
        first.presence._differs = True
        await first.presence._renew()
        first.presence._end_mending()  # in the same turn of the loop
        await until(lambda: len(first.results(ENTER)) == 1)
        gc.collect()

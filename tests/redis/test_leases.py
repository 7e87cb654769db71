"""The leases of processes: time in which no process can renew its lease ends none of them."""

from __future__ import annotations

import asyncio
import operator
from contextlib import asynccontextmanager, contextmanager

import pytest

from endwell.rooms import following, returning
from endwell.rooms.redis import presence
from endwell.rooms.redis.scripts import BURY, END
from tests.pair import until
from tests.raw import BOUND
from tests.rooms.house import house
from tests.rooms.test_places import attempt, open_at

from .clusters import RedisCluster
from .sentinels import Sentinels
from .server import RedisServer, shared_server

#: Seconds of a lease: 40 renewals of another process, however long they take.
LEASE_TIME = 2.0
HOUR = 3_600_000


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(presence, "LEASE_TIME", LEASE_TIME)
    monkeypatch.setattr(presence, "RENEW_INTERVAL", 0.05)
    monkeypatch.setattr(following, "RETRY_INTERVAL", 0.05)
    monkeypatch.setattr(returning, "BACKOFF", (0.01, 0.05))
    monkeypatch.setattr(returning, "WAIT_TIME", BOUND)


class Servers:
    """All nodes of a Redis, which are away at the same time."""

    def __init__(self, url, nodes):
        self.url, self.nodes = url, nodes

    @contextmanager
    def away(self, how):
        for node in self.nodes:
            node.pause() if how == "stopped" else node.kill()
        yield
        for node in self.nodes:
            node.go_on() if how == "stopped" else node.start(*node.arguments)


class Promoted(Servers):
    """A primary that does not come back: its replica takes over."""

    def __init__(self, sentinels):
        super().__init__(sentinels.url, sentinels.servers)
        self.sentinels = sentinels

    @contextmanager
    def away(self, how):
        primary, _ = self.nodes
        primary.pause() if how == "stopped" else primary.kill()
        self.sentinels.notice()
        yield


@pytest.fixture(params=["one server", "sentinels", "cluster"])
def servers(request):
    if request.param == "one server":
        made = RedisServer()
        made.start()
        place = Servers(made.url, [made])
    elif request.param == "sentinels":
        made = Sentinels()
        place = Promoted(made)
    else:
        made = RedisCluster()
        place = Servers(made.url, made.nodes)
    yield place
    made.close()


class Process:
    """One of the processes, as Redis sees it. It can be kept from coming back, and from renewing its lease."""

    def __init__(self, server):
        self.bus = server.rooms._registry.bus
        self.parts = getattr(self.bus, "_partitions", [self.bus])
        self.may_connect, self.may_renew = asyncio.Event(), asyncio.Event()
        self.may_connect.set()
        self.may_renew.set()
        #: The number of renewals of each part.
        self.renewals = [0 for _ in self.parts]
        for number, part in enumerate(self.parts):
            self._watch(number, part)

    def _watch(self, number, part):
        connect, renew, reserve = part._link._open, part._presence._renew, part._reservation._call

        async def connect_later():
            await self.may_connect.wait()
            await connect()

        async def renew_later():
            await self.may_renew.wait()
            await renew()
            if (mending := part._presence._mending) is not None:
                await asyncio.wait([mending])
            self.renewals[number] += 1

        async def reserve_later(held, wanted, limit):
            if held and not wanted:  # it says again what it has
                await self.may_renew.wait()
            return await reserve(held, wanted, limit)

        part._link._open, part._presence._renew = connect_later, renew_later
        part._reservation._call = reserve_later

    def renews(self, times):
        """Wait until each lease was renewed some times, counted from this call on."""
        reached = [renewals + times for renewals in self.renewals]
        return until(lambda: all(map(operator.ge, self.renewals, reached)))


@asynccontextmanager
async def processes(count, url, limit=None, **options):
    """Some servers, and what is known of them as processes."""
    async with house(count, url, limit, **options) as made:
        for server in made.servers:
            server.rooms.on_gap(lambda room, gap: None)  # otherwise the members are closed after a restart
        found = [Process(server) for server in made.servers]
        for each in found:
            await each.renews(1)  # one that has begun before is not counted
        yield made, found


async def outlast(servers, how, first, *others, before=None, meanwhile=None):
    """Redis is away for longer than a lease, and comes back. So does one process, some time before the others.

    ``before`` is called just before Redis is away, and ``meanwhile`` while it is.
    """
    everybody = (first, *others)
    # A renewal that a stopped server has received already would be done when it goes on.
    interval, presence.RENEW_INTERVAL = presence.RENEW_INTERVAL, 1000.0
    await asyncio.gather(*(each.renews(1) for each in everybody))
    presence.RENEW_INTERVAL = interval
    for each in everybody:
        each.may_connect.clear()
    if before is not None:
        await before()
    with servers.away(how):
        await until(lambda: not any(each.bus.is_connected for each in everybody))
        if meanwhile is not None:
            await meanwhile()
        await asyncio.sleep(LEASE_TIME + 0.5)
    first.may_connect.set()
    await until(lambda: first.bus.is_connected)
    await first.renews(5)
    # Each renewal takes time from the leases of the others, which may need all of it to connect on a busy machine.
    first.may_renew.clear()
    for each in others:
        each.may_connect.set()


async def all_renew(first, *others):
    """Wait until the others have returned after :func:`outlast`. Then all renew their leases."""
    for each in others:
        await each.renews(5)
    first.may_renew.set()
    await first.renews(5)


async def keys_in(room):
    return {each.key for each in await room.presence()}


# -- Redis is away ------------------------------------------------------------------------

HOW = pytest.mark.parametrize("how", ["stopped", "killed"])


@HOW
async def test_no_key_leaves_and_no_place_is_given_twice_though_no_process_could_renew_its_lease(
    servers, how
):
    keys = {"ada", "bob", "eve"}
    async with processes(3, servers.url, 3, grace=0) as (made, (first, *others)):
        for number, key in enumerate(sorted(keys)):
            await made.joined(number, key=key)
        await until(lambda: len(made.events) == open_at(made) == 3)
        await outlast(servers, how, first, *others)
        assert await keys_in(made.room(0)) == keys
        assert await attempt(made, 0) == 503
        for number, each in enumerate(others, 1):
            await until(lambda each=each: each.bus.is_connected)
            assert await keys_in(made.room(number)) == keys
        await all_renew(first, *others)
        assert await keys_in(made.room(0)) == keys
        assert await attempt(made, 0) == 503
        assert open_at(made) == 3
        assert [event for _, event, _, _ in made.events] == ["joined"] * 3


@HOW
async def test_a_key_whose_grace_ends_while_redis_is_away_may_return_in_another_process(servers, how):
    # Less than the time for which Redis is away.
    async with processes(2, servers.url, grace=LEASE_TIME) as (made, (first, second)):
        ws, _ = await made.joined(0, key="ada")
        await made.joined(1, key="bob")
        await until(lambda: len(made.events) == 2)

        async def leave():
            await ws.close(1001)
            await until(lambda: any("ada" in each._presence._graces.get("a", ()) for each in first.parts))

        async def return_in_the_other_one():
            await made.joined(1, key="ada")

        await outlast(servers, how, first, second, before=leave, meanwhile=return_in_the_other_one)
        assert await keys_in(made.room(0)) == {"ada", "bob"}
        await all_renew(first, second)
        await second.bus.flush()
        assert await keys_in(made.room(1)) == {"ada", "bob"}
        assert len(made.events) == 2
        # If it does not return, it leaves once.
        await made.clients[-1].close(1001)
        await until(lambda: len(made.events) == 3)
        assert made.events[-1] == (1, "left", "a", "ada")


async def test_a_key_whose_grace_ends_while_redis_restarts_may_return_in_another_process(redis, monkeypatch):
    monkeypatch.setattr(presence, "LEASE_TIME", 4 * BOUND)  # the restart is short
    async with processes(2, redis.url, grace=0.3) as (made, (first, second)):
        ws, _ = await made.joined(0, key="ada")
        await made.joined(1, key="bob")
        await until(lambda: len(made.events) == 2)
        second.may_connect.clear()
        await ws.close(1001)
        await until(lambda: first.bus._presence._graces)
        redis.kill()
        await until(lambda: not first.bus.is_connected and not second.bus.is_connected)
        await made.joined(1, key="ada")
        await until(lambda: any(each.script is END for each in first.bus._link._queue))
        redis.start()
        await first.renews(5)
        second.may_connect.set()
        await second.renews(5)
        await second.bus.flush()
        assert await keys_in(made.room(1)) == {"ada", "bob"}
        assert len(made.events) == 2


@HOW
async def test_a_process_that_does_not_come_back_with_redis_is_removed_and_no_other_one(servers, how):
    async with processes(3, servers.url, 3, grace=0) as (made, (first, second, third)):
        for number, key in enumerate(("ada", "bob", "eve")):
            await made.joined(number, key=key)
        await until(lambda: len(made.events) == 3)
        await outlast(servers, how, first, second, third)
        third.may_connect.clear()
        for part in third.parts:
            part._link._task.cancel()
        await all_renew(first, second)
        await until(lambda: len(made.events) == 4)
        number, *event = made.events[-1]
        assert number in (0, 1)
        assert event == ["left", "a", "eve"]
        assert await keys_in(made.room(1)) == {"ada", "bob"}
        while await attempt(made, 0) == 503:
            pass  # its place is given back
        assert await attempt(made, 1) == 503
        assert len(made.events) == 4


# -- the clock ----------------------------------------------------------------------------


@pytest.mark.parametrize("step", [HOUR, -HOUR])
async def test_a_step_of_the_clock_of_redis_ends_no_lease_and_lets_none_last(step):
    async with processes(3, shared_server().url, grace=0) as (made, (first, second, third)):
        for number, key in enumerate(("ada", "bob", "eve")):
            await made.joined(number, key=key)
        await until(lambda: len(made.events) == 3)
        # What is remembered is another hour: the clock of the machine belongs to all tests.
        shared_server().ask("HINCRBY", first.bus._presence._clock, "t", -step)
        await first.renews(5)
        await second.renews(5)
        assert await keys_in(made.room(0)) == {"ada", "bob", "eve"}
        assert len(made.events) == 3
        third.bus._link._task.cancel()
        await until(lambda: len(made.events) == 4)
        assert made.events[-1][1:] == ("left", "a", "eve")


async def test_a_lease_that_no_process_could_renew_goes_on_when_all_run_again():
    async with processes(2, shared_server().url, grace=0) as (made, (first, second)):
        await made.joined(0, key="ada")
        await made.joined(1, key="bob")
        await until(lambda: len(made.events) == 2)
        for each in (first, second):
            each.may_renew.clear()
        await asyncio.sleep(LEASE_TIME + 0.5)
        first.may_renew.set()
        await first.renews(5)
        second.may_renew.set()
        await second.renews(5)
        assert await keys_in(made.room(0)) == {"ada", "bob"}
        assert len(made.events) == 2


# -- one process stands still ---------------------------------------------------------------


async def test_a_process_that_was_removed_and_returns_within_the_grace_was_never_away():
    redis = shared_server()
    async with processes(2, redis.url, grace=60) as (made, (first, second)):
        await made.joined(0, key="ada")
        await made.joined(1, key="bob")
        await until(lambda: len(made.events) == 2)
        second.may_renew.clear()
        removed = first.bus._presence._name("buried", second.bus._process)
        await until(lambda: redis.ask("EXISTS", removed) == b":1")
        assert await keys_in(made.room(0)) == {"ada", "bob"}
        second.may_renew.set()
        await second.renews(5)
        await second.bus.flush()
        assert [event for _, event, _, _ in made.events] == ["joined"] * 2
        # A loss of data later is none of its removal.
        names = [first.bus._presence._leases, first.bus._presence._clock, first.bus._presence._hash("a")]
        assert redis.ask("DEL", *names, removed) == b":4"
        await second.renews(5)
        await second.bus.flush()
        assert [event for _, event, _, _ in made.events] == ["joined"] * 2
        # Its key is its own.
        await until(lambda: b'"n":1' in redis.ask("HGET", first.bus._presence._hash("a"), "k:bob"))
        await made.clients[1].close(1000)
        await until(lambda: len(made.events) == 3)
        assert made.events[-1] == (1, "left", "a", "bob")


async def test_a_process_that_renews_its_lease_while_it_is_being_removed_was_never_away():
    redis = shared_server()
    async with processes(2, redis.url, grace=0) as (made, (first, second)):
        await made.joined(0, key="ada")
        await made.joined(1, key="bob")
        await until(lambda: len(made.events) == 2)
        link, tried = first.bus._link, []
        call, take_over = link.call, first.bus._presence._take_over

        def note(script, *arguments, **options):
            if script is BURY:
                tried.append(arguments)
            return call(script, *arguments, **options)

        async def late(process, rooms):
            if process != first.bus._process:
                second.may_renew.set()
                await second.renews(1)
            return await take_over(process, rooms)

        link.call, first.bus._presence._take_over = note, late
        second.may_renew.clear()
        await until(lambda: tried)
        await first.renews(5)
        await second.renews(5)
        await second.bus.flush()
        assert await keys_in(made.room(0)) == {"ada", "bob"}
        assert [event for _, event, _, _ in made.events] == ["joined"] * 2
        names = [first.bus._presence._name(kind, second.bus._process) for kind in ("buried", "rooms")]
        assert [redis.ask("EXISTS", name) for name in names] == [b":0", b":1"]
        assert len(tried) == 1

"""The end of a process: what it had is free at once, and nothing that comes late takes it again."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from endwell.rooms.redis import presence
from tests.pair import until

from .server import shared_server
from .test_leases import quick
from .test_many_rooms import processes

__all__ = ["quick"]


async def test_a_process_that_has_stopped_renews_nothing_while_its_connections_are_closed(monkeypatch):
    redis = shared_server()
    url = f"{redis.url}?prefix=stopped"
    async with processes(url, url) as (first, second):
        assert await first.bus.reserve(0, 3, 4) == (3, 3)
        link, stop = first.link, first.link.stop
        monkeypatch.setattr(presence, "RENEW_INTERVAL", 0.0)  # it renews in each turn of the loop
        renewals = len(second.results(presence.LEASE))

        async def late():
            # The network is slow.
            await until(lambda: len(second.results(presence.LEASE)) > renewals + 50)
            await stop()

        link.stop = late
        await first.bus.stop()
        assert await second.bus.reserve(0, 4, 4) == (4, 4)
        await until(lambda: not first.is_known(redis))


@asynccontextmanager
async def one_that_does_not_renew(redis):
    """Two processes. The first one is in a room, and its renewals wait until the function is called."""
    url = f"{redis.url}?prefix=slow"
    async with processes(url, url) as (first, second):
        await first.enters(["before"])
        renew = first.presence._renew

        async def wait():
            pass

        first.presence._renew = wait

        def go_on():
            first.presence._renew = renew

        yield first, second, go_on


async def test_a_key_that_comes_after_a_loss_of_data_leaves_though_its_process_ends_before_it_renews(redis):
    async with one_that_does_not_renew(redis) as (first, second, _):
        redis.ask("FLUSHALL")
        first.bus.enter("after", 7, "ada", {}, 0.0)
        await first.bus.flush()
        assert first.told.events == [("joined", "after", "ada")]
        await first.is_confirmed()
        first.ends()
        await until(lambda: second.told.events)
        assert second.told.events == [("left", "after", "ada")]
        await until(lambda: not first.is_known(redis))


@pytest.mark.parametrize("reply", ["arrives", "is lost"])
async def test_a_process_that_is_known_by_a_key_restores_the_others(redis, reply):
    async with one_that_does_not_renew(redis) as (first, second, go_on):
        redis.ask("FLUSHALL")
        if reply == "is lost":
            first.link._connections[0]._writer.transport.pause_reading()
        first.bus.enter("after", 7, "ada", {}, 0.0)
        await until(lambda: first.is_known(redis))
        if reply == "is lost":
            first.link._connections[0]._writer.transport.abort()
        else:
            await first.bus.flush()
        go_on()
        while not await second.bus.presence("before"):
            pass
        await until(lambda: first.told.events)
        assert first.told.events == [("joined", "after", "ada")]
        assert second.told.events == []


async def test_a_process_that_was_removed_while_it_restored_its_rooms_tells_which_keys_have_joined_again(
    redis,
):
    async with one_that_does_not_renew(redis) as (first, second, go_on):
        await until(lambda: second.told.events == [("left", "before", "key0")])
        # It stood still meanwhile, and does not know yet that it was removed.
        await first.presence._restore()
        assert await second.bus.presence("before") == []
        go_on()
        await until(lambda: first.told.events)
        assert first.told.events == [("joined", "before", "key0")]
        assert len(await second.bus.presence("before")) == 1


async def test_a_key_whose_connections_leave_at_once_leaves_though_its_process_ends_in_its_grace(redis):
    async with processes(redis.url, redis.url) as (first, second):
        await first.enters(["room"])
        first.bus.enter("room", 1, "key0", {}, 0.5)
        await first.bus.flush()
        for number in (0, 1):
            first.bus.leave("room", number, "key0", 0.5)
        await first.bus.flush()
        await first.bus.flush()
        first.ends()
        first.bus._presence._stopped = True
        await until(lambda: second.told.events)
        assert second.told.events == [("left", "room", "key0")]


async def test_the_graces_of_a_process_that_stops_are_ended_though_another_key_leaves_last(redis):
    async with processes(redis.url, redis.url) as (first, second):
        await first.enters(["room"] * 2)
        redis.pause()
        first.bus.leave("room", 0, "key0", 0.5)
        first.bus.leave("room", 1, "key1", 0.0)
        stopping = asyncio.create_task(first.bus.stop())
        await asyncio.sleep(0)
        redis.go_on()
        await stopping
        await until(lambda: second.told.events)
        assert first.told.events == [("left", "room", "key1")]
        assert second.told.events == [("left", "room", "key0")]


async def test_a_connection_that_left_without_redis_is_found_though_another_one_has_left_the_room(redis):
    async with processes(redis.url, redis.url) as (first, second):
        await first.enters(["room"])
        redis.kill()
        await until(lambda: not first.bus.is_connected)
        first.bus.leave("room", 0, "key0", 0.0)
        first.bus.enter("room", 1, "key1", {}, 0.0)
        first.bus.leave("room", 1, "key1", 0.0)
        first.link._expire_all()  # it was away for long
        redis.start()
        await until(lambda: first.told.events)
        assert first.told.events == [("left", "room", "key0")]
        assert await second.bus.presence("room") == []
        # The room is not forgotten before, and is forgotten then.
        name = first.presence._name("rooms", first.bus._process)
        await until(lambda: redis.ask("EXISTS", name) == b":0")

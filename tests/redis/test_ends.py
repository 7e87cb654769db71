"""The end of a process: what it had is free at once, and nothing that comes late takes it again."""

from __future__ import annotations

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

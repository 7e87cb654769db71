"""Replies that are lost or late: each key is told to have joined and left in turn, once by all processes."""

from __future__ import annotations

import asyncio

import pytest

from endwell.rooms.redis import presence
from tests.pair import until

from .server import shared_server
from .test_leases import LEASE_TIME, keys_in, processes, quick

__all__ = ["quick"]


def told(made, key):
    """What the callbacks of all processes were told of a key, in order."""
    return [event for _, event, _, each in made.events if each == key]


@pytest.mark.parametrize("grace", [0, 0.3])
@pytest.mark.parametrize("leaves", ["before the loss", "after the loss"])
async def test_a_key_that_came_without_a_reply_has_joined_before_it_leaves(redis, leaves, grace):
    async with processes(1, redis.url, grace=grace) as (made, (process,)):
        await made.joined(key="ada")
        await until(lambda: made.events)
        redis.pause()
        # Redis runs what it has received when it goes on.
        bob, _ = await made.joined(key="bob")
        if leaves == "after the loss":
            await until(lambda: not process.bus.is_connected)
        await bob.close(1000)
        await until(lambda: len(made.room().members) == 1)
        await until(lambda: not process.bus.is_connected)
        redis.go_on()
        await until(lambda: "left" in told(made, "bob"))
        assert told(made, "bob") == ["joined", "left"]
        assert await keys_in(made.room()) == {"ada"}


async def test_a_key_that_came_without_a_reply_and_is_in_another_process_has_joined_once(redis):
    async with processes(2, redis.url, grace=60) as (made, (first, second)):
        for number, key in enumerate(("ada", "eve")):
            await made.joined(number, key=key)
        redis.pause()
        bob, _ = await made.joined(0, key="bob")
        first.may_connect.clear()
        await until(lambda: not first.bus.is_connected)
        await bob.close(1000)
        redis.go_on()
        await until(lambda: second.bus.is_connected)
        bob, _ = await made.joined(1, key="bob")
        await second.bus.flush()
        assert told(made, "bob") == []
        first.may_connect.set()
        await until(lambda: told(made, "bob"))
        await first.renews(5)
        assert told(made, "bob") == ["joined"]
        assert await keys_in(made.room(1)) == {"ada", "bob", "eve"}


@pytest.mark.parametrize("call", ["LEAVE", "END"])
async def test_a_process_that_was_removed_does_not_tell_again_what_a_late_reply_says(call):
    grace = {"LEAVE": 0, "END": 0.2}[call]
    async with processes(2, shared_server().url, grace=grace) as (made, (_, second)):
        await made.joined(0, key="ada")
        bob, _ = await made.joined(1, key="bob")
        await until(lambda: len(made.events) == 2)
        # It stands still after its call: the reply waits in its socket.
        second.may_renew.clear()
        await asyncio.sleep(3 * presence.RENEW_INTERVAL)
        transport = second.bus._link._connections[0]._writer.transport
        end = second.bus._presence._end

        def end_and_stand_still(room, key):
            end(room, key)
            transport.pause_reading()

        second.bus._presence._end = end_and_stand_still
        if call == "LEAVE":
            transport.pause_reading()
        await bob.close(1001 if grace else 1000)
        await until(lambda: len(made.events) == 3)
        assert made.events[-1] == (0, "left", "a", "bob")
        second.bus._presence._end = end
        transport.resume_reading()
        await second.bus.flush()
        second.may_renew.set()
        await second.renews(5)
        assert told(made, "bob") == ["joined", "left"]
        assert not second.bus._presence._graces


@pytest.mark.parametrize("returns", [True, False])
async def test_a_key_that_leaves_without_a_grace_while_redis_is_away_may_be_in_another_process(
    redis, returns
):
    async with processes(2, redis.url, grace=0) as (made, (first, second)):
        for number, key in enumerate(("ada", "eve")):
            await made.joined(number, key=key)
        await until(lambda: len(made.events) == 2)
        redis.kill()
        await until(lambda: not first.bus.is_connected and not second.bus.is_connected)
        second.may_connect.clear()
        await made.clients[0].close(1000)
        await until(lambda: not made.room(0).members)
        if returns:
            await made.joined(1, key="ada")
        await asyncio.sleep(0.5 * LEASE_TIME)
        redis.start()
        await first.renews(5)
        assert told(made, "ada") == ["joined"]
        second.may_connect.set()
        await second.renews(5)
        if returns:
            await second.bus.flush()
            await made.clients[-1].close(1000)
        await until(lambda: len(told(made, "ada")) == 2)
        await first.renews(5)
        assert told(made, "ada") == ["joined", "left"]
        assert made.events[-1][0] == (1 if returns else 0)

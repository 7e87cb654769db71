"""Each coming and each leaving of a key is told once, in turn, whichever processes tell it, and if one of them ends."""

from __future__ import annotations

import asyncio

import pytest

from endwell.rooms.redis import presence
from endwell.rooms.redis.scripts import CONFIRM, END, ENTER, LEAVE
from tests.pair import until
from tests.raw import BOUND

from .server import shared_server
from .test_leases import LEASE_TIME, keys_in, processes, quick
from .test_lost_replies import told
from .test_many_rooms import processes as buses

__all__ = ["quick"]


@pytest.fixture(autouse=True)
def lasting(quick, monkeypatch):
    """A stall of the test is no time in which Redis was away, and ends no lease."""
    monkeypatch.setattr(presence, "LEASE_TIME", 4 * BOUND)


def end_lease(redis, process):
    """The lease of a process that does not renew it ends."""
    redis.ask("ZADD", process.bus._presence._leases, 1, process.bus._process)


class Held:
    """Calls of a process that wait: the first replies to one script, or the script itself."""

    def __init__(self, link, script, *, sent=True, count=1):
        self.found, self.go = asyncio.Event(), asyncio.Event()
        self.call, self.script, self.sent, self.left = link.call, script, sent, count
        self.tasks = []
        link.call = self._call

    def _call(self, script, *arguments, **options):
        if script is not self.script or not self.left:
            return self.call(script, *arguments, **options)
        self.left -= 1
        later = asyncio.get_running_loop().create_future()
        begun = self.call(script, *arguments, **options) if self.sent else None

        async def deliver():
            if begun is not None:
                await begun
            self.found.set()
            await self.go.wait()
            result = await (self.call(script, *arguments, **options) if begun is None else begun)
            if not later.done():
                later.set_result(result)

        self.tasks.append(asyncio.create_task(deliver()))
        return later

    async def stop(self):
        self.go.set()
        await asyncio.gather(*self.tasks)


# -- replies that are late ----------------------------------------------------------------


async def test_a_key_that_returns_before_a_late_reply_to_its_leaving_has_left_and_joined_again():
    async with processes(2, shared_server().url, grace=0) as (made, (first, second)):
        await made.joined(0, key="ada")
        await made.joined(1, key="bob")
        await until(lambda: len(made.events) == 2)
        await until(lambda: not second.bus._presence._duties._told)
        late = Held(first.bus._link, END)
        # It stands still, so it is removed.
        second.may_renew.clear()
        await second.bus.flush()
        end_lease(shared_server(), second)
        await late.found.wait()
        second.may_renew.set()
        await second.renews(5)
        assert await keys_in(made.room(0)) == {"ada", "bob"}
        assert told(made, "bob") == ["joined"]
        await late.stop()
        await until(lambda: len(told(made, "bob")) == 3)
        await second.renews(5)
        assert told(made, "bob") == ["joined", "left", "joined"]


@pytest.mark.parametrize("stays", [True, False])
async def test_a_key_that_comes_elsewhere_while_its_leaving_is_told_has_joined_after_it(stays):
    async with processes(2, shared_server().url, grace=0) as (made, (first, second)):
        await made.joined(0, key="ada")
        await until(lambda: len(made.events) == 1)
        late = Held(first.bus._link, LEAVE)
        await made.clients[0].close(1000)
        await late.found.wait()
        ws, _ = await made.joined(1, key="ada")
        if not stays:
            await ws.close(1000)
        await second.renews(5)
        assert told(made, "ada") == ["joined"]
        assert await keys_in(made.room(1)) == {"ada"}
        await late.stop()
        expected = ["joined", "left", "joined", *([] if stays else ["left"])]
        await until(lambda: len(told(made, "ada")) == len(expected))
        await second.renews(5)
        assert told(made, "ada") == expected
        assert await keys_in(made.room(1)) == ({"ada"} if stays else set())


async def test_a_key_that_leaves_elsewhere_while_its_coming_is_told_has_left_after_it():
    async with processes(2, shared_server().url, grace=0) as (made, (first, second)):
        late = Held(first.bus._link, ENTER)
        await made.joined(0, key="ada")
        await late.found.wait()
        await made.joined(1, key="ada")
        await made.clients[0].close(1000)
        await until(lambda: not made.room(0).members)
        # The reply to LEAVE says that the key has come.
        await until(lambda: told(made, "ada") == ["joined"])
        await made.clients[1].close(1000)
        await until(lambda: told(made, "ada") == ["joined", "left"])
        await late.stop()
        await second.renews(5)
        assert told(made, "ada") == ["joined", "left"]
        assert [number for number, _, _, _ in made.events] == [0, 1]


async def test_a_key_leaves_only_when_another_process_has_told_that_it_has_joined():
    async with processes(2, shared_server().url, grace=0) as (made, (first, second)):
        late = Held(first.bus._link, CONFIRM, sent=False)
        first.bus.enter("a", 1000, "ada", {}, 0.0)
        await late.found.wait()
        second.bus.enter("a", 1001, "ada", {}, 0.0)
        await second.bus.flush()
        first.bus.leave("a", 1000, "ada", 0.0)
        await first.bus.flush()
        second.bus.leave("a", 1001, "ada", 0.0)
        await second.renews(5)
        assert told(made, "ada") == ["joined"]
        await late.stop()
        await until(lambda: told(made, "ada") == ["joined", "left"])


# -- processes that end -------------------------------------------------------------------


async def enters_and_ends(process, redis, grace):
    """A process is killed between the ENTER of a key and its reply."""
    transport = process.link._connections[0]._writer.transport
    transport.pause_reading()
    process.bus.enter("room", 1, "ada", {"color": "red"}, grace)
    name = process.presence._hash("room")
    await until(lambda: redis.ask("HEXISTS", name, "k:ada") == b":1")
    process.bus._presence._stopped = True
    process.ends()
    await until(process.link._task.done)
    end_lease(redis, process)


async def test_a_key_whose_process_ends_before_it_tells_it_has_joined_before_it_leaves(redis):
    async with buses(redis.url, redis.url) as (first, second):
        await enters_and_ends(first, redis, 0.0)
        await until(lambda: len(second.told.events) == 2)
        assert second.told.events == [("joined", "room", "ada"), ("left", "room", "ada")]
        await until(lambda: not first.is_known(redis))
        assert first.told.events == []
        assert redis.ask("EXISTS", first.presence._hash("room")) == b":0"


@pytest.mark.parametrize("comes", ["before", "after"])
async def test_a_key_whose_process_ends_before_it_tells_it_has_joined_in_another_one(redis, comes):
    async with buses(redis.url, redis.url) as (first, second):
        if comes == "before":
            await enters_and_ends(first, redis, 60.0)
            second.bus.enter("room", 2, "ada", {}, 0.0)
            await second.bus.flush()
            assert second.told.events == []
            await until(lambda: not first.is_known(redis))
        else:
            await enters_and_ends(first, redis, 60.0)
            await until(lambda: not first.is_known(redis))
            assert second.told.events == []
            second.bus.enter("room", 2, "ada", {}, 0.0)
        await until(lambda: second.told.events)
        second.bus.leave("room", 2, "ada", 0.0)
        await until(lambda: len(second.told.events) == 2)
        assert second.told.events == [("joined", "room", "ada"), ("left", "room", "ada")]


async def test_a_key_that_was_told_is_told_once_though_its_process_ends(redis):
    async with buses(redis.url, redis.url) as (first, second):
        first.bus.enter("room", 1, "ada", {}, 0.0)
        await until(lambda: first.told.events)
        await first.is_confirmed()
        first.ends()
        await until(first.link._task.done)
        end_lease(redis, first)
        await until(lambda: second.told.events)
        await until(lambda: not first.is_known(redis))
        assert second.told.events == [("left", "room", "ada")]


async def test_a_leaving_that_a_process_owes_is_told_by_another_one_though_the_key_is_back(redis):
    async with buses(redis.url, redis.url, redis.url) as (first, second, third):
        await first.enters(["room"])
        first.link._connections[0]._writer.transport.pause_reading()
        first.bus.leave("room", 0, "key0", 0.0)
        name = first.presence._hash("room")
        await until(lambda: b'"g"' in redis.ask("HGET", name, "k:key0"))
        second.bus.enter("room", 1, "key0", {}, 0.0)
        await second.bus.flush()
        assert [each.key for each in await third.bus.presence("room")] == ["key0"]
        events = []
        for each in (second, third):
            each.told.events = events
        first.presence._stopped = True
        first.ends()
        await until(first.link._task.done)
        end_lease(redis, first)
        await until(lambda: len(events) == 2)
        assert events == [("left", "room", "key0"), ("joined", "room", "key0")]
        second.bus.leave("room", 1, "key0", 0.0)
        await until(lambda: len(events) == 3)
        assert events[2] == ("left", "room", "key0")


# -- confirmations that are lost ------------------------------------------------------------


async def test_a_coming_whose_confirmation_a_replica_does_not_have_keeps_no_key(redis, monkeypatch):
    monkeypatch.setattr(presence, "LEASE_TIME", LEASE_TIME)  # Redis restarts
    async with buses(redis.url, redis.url) as (first, second):
        first.bus.enter("room", 1, "ada", {}, 0.0)
        first.bus.enter("room", 2, "eve", {}, 0.0)
        await until(lambda: len(first.told.events) == 2)
        await first.is_confirmed()
        # As if the replica had not got the last command.
        name = first.presence._hash("room")
        for number, key in enumerate(("ada", "eve")):
            entry = redis.ask("HGET", name, f"k:{key}")
            assert b'"f"' not in entry
            text = entry.replace(b"{", b'{"f":"%s:%d",' % (first.bus._process.encode(), number), 1)
            redis.ask("HSET", name, f"k:{key}", text.decode())
        second.bus.enter("room", 3, "eve", {}, 0.0)
        first.bus.leave("room", 2, "eve", 0.0)
        await first.bus.flush()
        redis.kill()
        redis.start()
        for bus, connection, key in ((first.bus, 1, "ada"), (second.bus, 3, "eve")):
            await until(lambda bus=bus: bus.is_connected)
            bus.leave("room", connection, key, 0.0)
        await until(lambda: first.told.events[2:] == [("left", "room", "ada")])
        await until(lambda: second.told.events == [("left", "room", "eve")])

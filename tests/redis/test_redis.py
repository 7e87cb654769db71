"""The bus by Redis, with a redis-server that is killed, stopped and emptied: nothing is lost silently."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

import endwell
from endwell.errors import BusUnavailable
from endwell.rooms import Gap, History, Position, following, listening, returning
from endwell.rooms.frames import Shared
from endwell.rooms.redis import presence
from endwell.rooms.redis.scripts import CONFIRM, END, ENTER, LEAVE
from tests.pair import until, within
from tests.rooms.house import house
from tests.rooms.two import is_up, two

from .server import shared_server


@pytest.fixture
def shared():
    return shared_server()


@pytest.fixture
def quick(monkeypatch):
    """Short intervals: the tests wait for the events that they cause."""
    monkeypatch.setattr(presence, "RENEW_INTERVAL", 0.05)
    monkeypatch.setattr(following, "RETRY_INTERVAL", 0.05)


# -- Redis ends and comes back ----------------------------------------------------------


@pytest.mark.parametrize("data", [True, False])
async def test_a_restart_of_redis_is_told_and_the_rooms_go_on(redis, quick, caplog, data):
    caplog.set_level(logging.INFO, "endwell.rooms")
    async with two(redis.url) as pair:
        before = (await pair.rooms[0].publish("before")).position
        await until(lambda: pair.all_got("before"))
        redis.kill(data=data)
        await until(lambda: not any(bus.is_connected for bus in pair.buses))
        assert not pair.made.servers[0].rooms.is_connected
        assert not pair.made.servers[0].is_ready
        redis.start()
        # The numbers of the last publications may be given to others, so nothing more is known.
        await until(lambda: pair.gaps == [[Gap(None, 0)], [Gap(None, 0)]])
        assert is_up(pair)
        after = (await pair.rooms[1].publish("after")).position
        assert after.epoch != before.epoch
        await until(lambda: pair.all_got("after"))
        assert pair.got == [["before", "after"]] * 2
        kept = [each.message for each in await pair.rooms[0].history()]
        assert kept == (["before", "after"] if data else ["after"])
        assert pair.rooms[0]._position == pair.rooms[1]._position == after
        assert len([each for each in pair.made.events if each[1] == "joined"]) == 2
        present = await pair.rooms[1].presence()
        assert {each.key: each.connections for each in present} == {"user0": 1, "user1": 1}
    assert "no connection to Redis at redis://127.0.0.1" in caplog.text
    assert "connected to Redis at redis://127.0.0.1" in caplog.text


async def test_publishing_while_redis_is_away_waits_and_then_says_that_nothing_was_sent(
    redis, quick, monkeypatch
):
    async with two(redis.url) as pair:
        redis.kill()
        await until(lambda: not any(bus.is_connected for bus in pair.buses))
        monkeypatch.setattr(returning, "WAIT_TIME", 0.05)
        pair.buses[0]._link._overdue._tick()
        for call in (pair.rooms[0].publish("x"), pair.rooms[0].position(), pair.rooms[0].presence()):
            with pytest.raises(BusUnavailable, match=r"not available \(.*; nothing was sent"):
                await within(call)
        monkeypatch.setattr(returning, "WAIT_TIME", 60.0)
        waiting = [asyncio.create_task(pair.rooms[0].publish(f"{number}")) for number in range(3)]
        await asyncio.sleep(0)
        redis.start()
        receipts = await within(asyncio.gather(*waiting))
        assert [receipt.position.sequence for receipt in receipts] == [1, 2, 3]
        await until(lambda: pair.all_got("0", "1", "2"))
        assert pair.got == [["0", "1", "2"]] * 2
        monkeypatch.setattr(returning, "MAX_QUEUE", 10)
        redis.kill()
        await until(lambda: not is_up(pair))
        with pytest.raises(BusUnavailable, match="bytes wait for Redis already; nothing was sent"):
            await pair.rooms[0].publish("x" * 20)


async def test_a_publication_without_a_reply_may_have_been_sent(redis, quick):
    async with two(redis.url) as pair:
        redis.pause()
        link = pair.buses[0]._link
        waiting = asyncio.create_task(pair.rooms[0].publish("x"))
        await until(lambda: any(command.future for command in link._sent))
        redis.kill()
        with pytest.raises(BusUnavailable, match="may have been sent"):
            await within(waiting)


async def test_a_publication_has_its_receipt_if_the_last_member_leaves_before_it_arrives(shared, monkeypatch):
    monkeypatch.setattr(returning, "WAIT_TIME", 60.0)
    async with house(1, shared.url) as made:
        await made.joined()
        bus = made.servers[0].rooms._registry.bus
        _, listener = bus._link._connections
        listener._writer.transport.pause_reading()  # the network of this connection is slow
        publishing = asyncio.create_task(made.room().publish("x"))
        await until(lambda: bool(bus._rooms["a"]._waiters._futures))
        made.memberships[0].leave()
        assert (await within(publishing)).position.sequence == 1


async def test_a_server_that_starts_without_redis_connects_later(redis, quick, monkeypatch):
    monkeypatch.setattr(returning, "WAIT_TIME", 0.05)
    redis.kill()
    async with house(1, redis.url) as made:
        assert not made.servers[0].rooms.is_connected
        monkeypatch.setattr(returning, "WAIT_TIME", 60.0)
        redis.start()
        await until(lambda: made.servers[0].rooms.is_connected)
        ws, found = await made.joined()
        assert found == "Fresh()"
        await made.room().publish("x")
        assert await within(ws.recv()) == "x"


# -- deafness ---------------------------------------------------------------------------


async def test_a_redis_that_stands_still_is_noticed_and_nothing_is_lost(redis, quick, caplog):
    async with two(redis.url) as pair:
        redis.pause()
        await until(lambda: not any(bus.is_connected for bus in pair.buses))
        # A link is not connected any more a moment before it knows why, and counts it.
        await until(lambda: caplog.text.count("no connection to Redis") == 2)
        assert "is not heard for" in caplog.text
        assert [bus.disconnections for bus in pair.buses] == [1, 1]
        waiting = asyncio.create_task(pair.rooms[0].publish("x"))
        redis.go_on()
        await within(waiting)
        await until(lambda: pair.all_got("x"))
        # The same server without a restart: it has lost nothing.
        assert pair.gaps == [[], []]


async def test_a_process_whose_subscriptions_are_not_served_notices_it_alone(shared, quick):
    async with two(shared.url) as pair:
        link = pair.buses[1]._link
        heard = link._heard
        link._canary += b" unheard"
        link._heard = lambda channel, data: None
        await pair.rooms[0].publish("missed")
        assert is_up(pair)
        await until(lambda: not pair.buses[1].is_connected)
        assert [server.is_ready for server in pair.made.servers] == [True, False]
        link._heard = heard
        await until(lambda: pair.all_got("missed"))
        assert pair.gaps == [[], []]


@pytest.mark.parametrize("kept", [True, False])
async def test_killed_subscribers_catch_up_or_are_told_the_exact_gap(redis, quick, kept):
    options = {} if kept else {"history": None}
    async with two(redis.url, **options) as pair:
        done = False

        async def publish():
            number = 0
            while not done:
                with contextlib.suppress(BusUnavailable):
                    await pair.rooms[number % 2].publish(str(number))
                number += 1
                await asyncio.sleep(0.001)

        start = await pair.rooms[0].position()
        publishing = asyncio.create_task(publish())
        for count in (1, 2, 3):
            await until(lambda count=count: all(len(got) > 30 * count for got in pair.got))
            redis.ask("CLIENT", "KILL", "TYPE", "pubsub")
            await until(lambda: not is_up(pair))
            await until(lambda: is_up(pair))
        done = True
        await publishing
        last = (await pair.rooms[0].publish("1000000")).position
        assert last.epoch == start.epoch
        await until(lambda: all(got[-1] == "1000000" for got in pair.got))
        for got, gaps in zip(pair.got, pair.gaps, strict=True):
            numbers = [int(each) for each in got]
            assert numbers == sorted({*numbers})
            assert last.sequence - start.sequence - len(numbers) == sum(gap.lost for gap in gaps)
            assert not (kept and gaps)


async def test_a_message_larger_than_the_output_buffer_limit_is_read_from_the_history(redis, quick):
    async with two(redis.url) as pair:
        redis.ask("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1000 0 0")
        await pair.rooms[0].publish("x" * 100_000)
        await until(lambda: pair.all_got("x" * 100_000))
        await pair.rooms[1].publish("after")
        await until(lambda: pair.all_got("after"))
        assert pair.gaps == [[], []]
        assert [len(got) for got in pair.got] == [2, 2]


async def test_a_publication_that_gets_lost_is_found_without_a_later_one(shared, monkeypatch):
    monkeypatch.setattr(following, "TRANSIT_TIME", 0.0)
    async with two(shared.url) as pair:
        bus = pair.buses[1]
        heard, bus._link._heard = bus._link._heard, lambda channel, data: None
        receipt = await pair.rooms[0].publish("lost")
        # A round trip of the other connection: a canary is published and dropped after it.
        await until(lambda: pair.got[0] == ["lost"])
        await asyncio.sleep(0.05)
        bus._link._heard = heard
        await bus._check_all()
        await until(lambda: pair.got[1] == ["lost"])
        assert pair.rooms[1]._position == receipt.position
        # A hole that a later publication shows.
        bus._link._heard = lambda channel, data: setattr(bus._link, "_heard", heard)
        await pair.rooms[0].publish("lost again")
        await pair.rooms[0].publish("later")
        await until(lambda: pair.got[1] == ["lost", "lost again", "later"])
        assert pair.gaps == [[], []]


async def test_too_many_publications_while_the_history_is_read_are_read_from_it(shared, monkeypatch):
    monkeypatch.setattr(listening, "MAX_BUFFER", 2)
    async with two(shared.url) as pair:
        bus = pair.buses[1]
        state = bus._rooms["a"]
        state.reads = True
        for number in range(10):
            await pair.rooms[0].publish(str(number))
        await until(lambda: state.overflowed)
        bus._follow(state, subscribe=False)
        await until(lambda: len(pair.got[1]) == 10)
        assert pair.got[1] == [str(number) for number in range(10)]


async def test_publications_of_an_epoch_that_has_ended_do_not_keep_a_room_reading(shared):
    async with two(shared.url) as pair:
        bus = pair.buses[1]
        state = bus._rooms["a"]
        state.reads = True
        state.keep(listening.Heard(Position("an older", 7), Shared(b"another.", 1, "old", "skip")), 3)
        bus._follow(state, subscribe=False)
        await until(lambda: not state.reads)
        await pair.rooms[0].publish("new")
        await until(lambda: pair.all_got("new"))
        assert (pair.got[1], pair.gaps) == (["new"], [[], []])


async def test_a_history_that_cannot_be_decoded_is_logged_and_read_again(redis, quick, caplog):
    async with two(redis.url) as pair:
        bus = pair.buses[1]
        names = bus._keys("a")
        await pair.rooms[0].publish("first")
        await until(lambda: pair.all_got("first"))
        position = await pair.rooms[0].position()
        redis.ask("XADD", names[1], f"{position.sequence + 1}-0", "d", "", "t", "9" * 13, "n", "1")
        bus._heal(bus._rooms["a"])
        await until(lambda: "reading what the room 'a' has missed failed" in caplog.text)
        redis.ask("DEL", names[1])
        await until(lambda: not bus._rooms["a"].reads)


# -- data that is lost ------------------------------------------------------------------


async def test_after_flushall_members_are_told_and_hear_the_publisher(redis, quick):
    async with two(redis.url) as pair:
        await pair.rooms[0].publish("before")
        await until(lambda: pair.all_got("before"))
        redis.ask("FLUSHALL")
        receipt = await pair.rooms[0].publish("after")
        assert (receipt.sent, receipt.position.sequence) == (1, 1)
        await until(lambda: pair.all_got("after"))
        assert pair.got == [["before", "after"]] * 2
        await until(lambda: all(pair.gaps))
        assert pair.gaps == [[Gap(None, 0)]] * 2
        # Presence is restored with the next lease, and no callback is told again.
        while len(await pair.rooms[0].presence()) < 2:
            await asyncio.sleep(0.02)
        assert [event for _, event, _, _ in pair.made.events] == ["joined", "joined"]


async def test_after_flushall_a_member_that_returns_is_told(redis, quick):
    async with two(redis.url) as pair:
        epoch = (await pair.rooms[0].publish("before")).position.epoch
        redis.ask("FLUSHALL")
        _, found = await pair.made.joined(1, since=Position(epoch, 0))
        assert found == repr(Gap(None, 0))
        assert (await pair.rooms[1].position()).sequence == 0


async def test_scripts_that_redis_has_forgotten_are_sent_again(redis):
    async with two(redis.url) as pair:
        redis.ask("SCRIPT", "FLUSH")
        receipts = await asyncio.gather(*(pair.rooms[0].publish(str(each)) for each in range(3)))
        assert sorted(receipt.position.sequence for receipt in receipts) == [1, 2, 3]
        await until(lambda: pair.all_got("0", "1", "2"))


async def test_an_error_of_redis_is_one_error_of_the_call(redis):
    async with two(redis.url) as pair:
        redis.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(BusUnavailable, match=r"Redis refuses it: .*; nothing was sent"):
            await pair.rooms[0].publish("x")
        redis.ask("CONFIG", "SET", "maxmemory", "0")
        assert (await pair.rooms[0].publish("y")).position.sequence == 1


# -- the history ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "sizes", "kept"),
    [
        (History(messages=3), [1] * 5, 3),
        (History(bytes=10), [4, 4, 4, 4], 2),
        (History(bytes=10), [4, 11], 0),
        (History(bytes=10), [10, 0, 0], 3),
        (History(bytes=5), [5, 0, 0, 5], 3),
    ],
)
async def test_the_bounds_of_a_history_are_exact(shared, history, sizes, kept):
    async with house(1, shared.url, history=history) as made:
        room = made.room()
        start = await room.position()
        for size in sizes:
            await room.publish(b"x" * size)
        entries = await room.history()
        assert [len(each.message) for each in entries] == sizes[len(sizes) - kept :]
        page = await made.servers[0].rooms._registry.bus.page("a", start, None)
        assert page.lost == len(sizes) - kept


async def test_an_old_publication_expires_and_the_room_stays(shared):
    async with house(1, shared.url, history=History(seconds=0.05)) as made:
        room = made.room()
        start = await room.position()
        await room.publish("x")
        while await room.history():
            await asyncio.sleep(0.01)
        assert await room.position() == Position(start.epoch, 1)
        bus = made.servers[0].rooms._registry.bus
        assert (await bus.page("a", start, None)).lost == 1


async def test_a_history_does_not_continue_behind_a_message_that_is_not_kept(shared):
    async with house(2, shared.url) as made:
        made.servers[1].rooms.configure("*")
        start = await made.room(0).position()
        await made.room(0).publish("kept")
        await made.room(1).publish("not kept")
        await made.room(0).publish("kept again")
        page = await made.servers[0].rooms._registry.bus.page("a", start, None)
        assert (page.lost, [each.message for each in page.publications]) == (2, ["kept again"])


async def test_a_room_is_forgotten_after_its_last_use_or_with_its_history(shared):
    async with house(1, shared.url, history=History(seconds=1000)) as made:
        await made.room().publish("x")
        bus = made.servers[0].rooms._registry.bus
        names = bus._keys("a")
        assert 300_000 < int(shared.ask("PTTL", names[0])[1:]) <= 1_000_000
        assert 300_000 < int(shared.ask("PTTL", names[1])[1:]) <= 1_000_000
        await made.room(0, "idle").position()
        assert 0 < int(shared.ask("PTTL", bus._keys("idle")[0])[1:]) <= 300_000


# -- presence ---------------------------------------------------------------------------


async def test_the_keys_of_a_process_that_ends_leave_once(shared, quick, monkeypatch):
    monkeypatch.setattr(presence, "LEASE_TIME", 0.5)
    async with house(3, shared.url) as made:
        await made.joined(0, key="ada")
        await made.joined(1, key="bob")
        await made.joined(2, key="eve")
        link = made.servers[0].rooms._registry.bus._link
        link._task.cancel()
        await until(lambda: not link.connected)
        await until(lambda: any(event == "left" for _, event, _, _ in made.events))
        assert [each.key for each in await made.room(1).presence()] == ["bob", "eve"]
        left = [each for each in made.events if each[1] == "left"]
        assert len(left) == 1
        assert left[0][0] in (1, 2)
        assert left[0][3] == "ada"


async def test_a_process_that_was_taken_for_ended_enters_again(redis, quick, monkeypatch):
    monkeypatch.setattr(presence, "LEASE_TIME", 1.0)
    async with two(redis.url) as pair:
        link = pair.buses[0]._link
        run, link._run_id = pair.buses[0]._presence._renew, link._run_id

        async def no_renewal():
            pass

        pair.buses[0]._presence._renew = no_renewal
        await until(lambda: any(each[1:] == ("left", "a", "user0") for each in pair.made.events))
        pair.buses[0]._presence._renew = run
        await until(lambda: [each[1] for each in pair.made.events if each[3] == "user0"][2:] == ["joined"])
        assert len(await pair.rooms[1].presence()) == 2


async def test_joined_and_left_are_told_once_though_each_reply_gets_lost(redis, quick):
    async with house(1, redis.url) as made:
        link = made.servers[0].rooms._registry.bus._link
        call, lost = link.call, []

        def without_reply(script, keys, *arguments, size=0):
            reply = call(script, keys, *arguments, size=size)
            if script not in (ENTER, LEAVE, END, CONFIRM) or script in lost:
                return reply
            lost.append(script)

            def is_done(reply):
                reply.exception()  # it may have failed because of the call before
                redis.ask("CLIENT", "KILL", "TYPE", "normal")

            reply.add_done_callback(is_done)
            failed = asyncio.get_running_loop().create_future()
            failed.set_exception(BusUnavailable("lost"))
            return failed

        link.call = without_reply
        ws, _ = await made.joined(key="ada")
        await until(lambda: len(made.events) == 1)
        made.memberships[0].ws.abort()
        await within(ws.closed)
        await until(lambda: len(made.events) == 2)
        await until(lambda: not made.servers[0].rooms._registry.bus._presence._duties._told)
        assert made.events == [(0, "joined", "a", "ada"), (0, "left", "a", "ada")]
        assert len(lost) == 4
        assert await made.room().presence() == []


# -- where Redis is ---------------------------------------------------------------------


async def test_a_unix_socket_and_a_password(redis, tmp_path, monkeypatch):
    monkeypatch.setattr(returning, "WAIT_TIME", 60.0)
    redis.kill()
    redis.start("--unixsocket", str(tmp_path / "s"), "--requirepass", "secret")
    server = endwell.Server(bus=f"unix://:secret@{tmp_path}/s?db=3", compression=None)
    async with server.serving(grace=1.0):
        assert server.rooms.is_connected
        assert (await server.rooms["a"].publish("x")).position.sequence == 1
    monkeypatch.setattr(returning, "WAIT_TIME", 0.1)
    wrong = endwell.Server(bus=f"valkey://:mistake@127.0.0.1:{redis.port}/3", compression=None)
    async with wrong.serving(grace=1.0):
        assert not wrong.rooms.is_connected


async def test_databases_and_prefixes_are_apart(shared):
    servers = [
        endwell.Server(bus=f"{shared.url[:-1]}{number}?prefix={prefix}", compression=None)
        for number, prefix in ((0, "p"), (1, "p"), (0, "q"))
    ]
    async with servers[0].serving(grace=1), servers[1].serving(grace=1), servers[2].serving(grace=1):
        names = {server.rooms._registry.bus._topic("a") for server in servers}
        assert len(names) == 3
        epochs = {(await server.rooms["a"].position()).epoch for server in servers}
        assert len(epochs) == 3

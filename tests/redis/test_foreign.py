"""What is not from endwell: messages of other programs in its channels, and what a client sends back."""

from __future__ import annotations

import socket

import pytest

from endwell.errors import BusUnavailable
from endwell.rooms import History, Resumed, Rooms
from endwell.rooms.frames import Shared, pack_shared
from endwell.rooms.redis import presence
from tests.pair import until, within
from tests.rooms.house import house
from tests.rooms.two import is_up, two

from .server import shared_server


@pytest.fixture
def shared():
    return shared_server()


def heard(server, channel, payload):
    """Publish as another program does."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as sock:
        octets = (b"PUBLISH", channel, payload)
        sock.sendall(b"*3\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(each), each) for each in octets))
        assert sock.recv(100).startswith(b":")


@pytest.mark.parametrize("payload", [b"", b"hello", b"12345678 \xff", b"12345678x 0123456789abcdef0"])
async def test_a_message_of_another_program_in_the_channel_of_a_room_disconnects_nothing(
    shared, caplog, payload
):
    async with two(shared.url) as pair:
        links = [bus._link._connections for bus in pair.buses]
        heard(shared, pair.buses[0]._topic("a"), payload)
        await until(lambda: caplog.text.count("is not valid") == 2)
        await pair.rooms[0].publish("after")
        await until(lambda: pair.all_got("after"))
        assert [bus._link._connections for bus in pair.buses] == links
        assert pair.gaps == [[], []]


async def test_a_canary_of_another_program_disconnects_nothing(shared, caplog):
    async with two(shared.url) as pair:
        heard(shared, pair.buses[0]._link._canary, b"hello")
        await until(lambda: "is not valid" in caplog.text)
        assert is_up(pair)


async def test_a_number_that_the_room_never_had_is_dropped_and_the_history_is_read_once(shared, monkeypatch):
    async with two(shared.url) as pair:
        position = (await pair.rooms[0].publish("before")).position
        await until(lambda: pair.all_got("before"))
        bus, reads = pair.buses[0], []
        read = bus._read

        async def counted(*arguments):
            reads.append(arguments)
            return await read(*arguments)

        monkeypatch.setattr(bus, "_read", counted)
        frame = pack_shared(Shared(b"12345678", 1, "forged", "skip"))
        number = f"{position.epoch}{position.sequence + 1000} ".encode()
        heard(shared, bus._topic("a"), number + frame)
        await until(lambda: reads and not bus._rooms["a"].reads)
        await pair.rooms[1].publish("after")
        await until(lambda: pair.all_got("after"))
        assert (pair.got, pair.gaps) == ([["before", "after"]] * 2, [[], []])
        assert len(reads) <= 2


@pytest.mark.parametrize("since", ["\ud800:1", "é:1", "x" * 1000 + ":1"])
async def test_a_position_that_no_room_has_given_does_not_reach_redis(shared, since):
    async with two(shared.url) as pair:
        await pair.rooms[0].publish("x")
        links = [bus._link._connections for bus in pair.buses]
        assert [each.message for each in await within(pair.rooms[0].history(since))] == ["x"]
        assert is_up(pair)
        assert [bus._link._connections for bus in pair.buses] == links


async def test_a_history_without_end_is_kept(shared):
    async with house(1, shared.url, history=History(seconds=2.0**62)) as made:
        for number in (1, 2):
            assert (await made.room().publish("x")).position.sequence == number
        assert len(await made.room().history()) == 2


async def test_nothing_is_left_in_redis_of_the_presence_in_a_room_whose_keys_have_left(shared):
    async with house(1, shared.url, grace=0) as made:
        bus = made.servers[0].rooms._registry.bus
        for key in ("ada", "eve"):
            ws, _ = await made.joined(0, key=key)
            await ws.close()
        await until(lambda: sum(event == "left" for _, event, _, _ in made.events) == 2)
        await until(lambda: shared.ask("EXISTS", bus._presence._hash("a")) == b":0")
        await made.joined(0, key="ada")
        assert [each.key for each in await made.room().presence()] == ["ada"]


async def test_a_full_redis_refuses_publications_and_nothing_else(redis, monkeypatch):
    monkeypatch.setattr(presence, "RENEW_INTERVAL", 0.05)
    async with house(2, redis.url, limit=3) as made:
        await made.joined(0, key="ada")
        position = (await made.room().publish("before")).position
        bus = made.servers[0].rooms._registry.bus
        of = bus._presence._leases, bus._process
        lease = float(redis.ask("ZSCORE", *of))
        redis.ask("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(BusUnavailable, match="nothing was sent"):
            await made.room().publish("x")
        assert [each.message for each in await made.room(1).history()] == ["before"]
        ws, found = await made.joined(1, since=position, key="eve")
        assert found == repr(Resumed(0))
        await made.joined(1, "another")
        assert [each.key for each in await made.room().presence()] == ["ada"]
        # A process whose lease ends would be taken for one that has ended.
        await until(lambda: float(redis.ask("ZSCORE", *of)) > lease)
        redis.ask("CONFIG", "SET", "maxmemory", 0)
        assert (await made.room().publish("after")).position.sequence == 2
        assert await within(ws.recv()) == "after"
        await until(lambda: (1, "joined", "a", "eve") in made.events)
        assert all(event != "left" for _, event, _, _ in made.events)


@pytest.mark.parametrize("rule", ["-evalsha", "-subscribe", "resetkeys"])
async def test_a_user_that_may_not_use_redis_is_told_why_it_is_not_ready(redis, refused, caplog, rule):
    redis.ask("ACL", "SETUSER", "few", "on", ">secret", "~*", "&*", "+@all", rule)
    async with Rooms(bus=f"redis://few:secret@127.0.0.1:{redis.port}/0") as rooms:
        await until(lambda: "no connection to Redis" in caplog.text)
        assert not rooms.is_connected
    assert "this user has no permissions" in caplog.text
    assert "secret" not in caplog.text

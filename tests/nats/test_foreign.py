"""What is not from endwell: messages of other programs in its subjects. And answers larger than NATS takes."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from nats.aio.client import Client

from endwell.errors import RoomLimit
from endwell.rooms import Rooms
from tests.pair import until, within
from tests.raw import BOUND
from tests.rooms.house import house
from tests.rooms.two import is_up, two

from .faults import leader_of
from .server import shared_server


@pytest.fixture
def shared():
    return shared_server()


WRONG = [b"", b"hello", b"\0\0\0\x02\x04[]", b"\0\0\0\x04\x04[1,2"]


async def test_messages_of_another_program_disconnect_nothing(shared, caplog):
    async with two(shared.url) as pair:
        other = Client()
        await other.connect(shared.url)
        bus = leader_of(pair.buses)
        subject = bus._place.subject
        subjects = [
            f"{bus._link.inbox}.{word}" for word in ("who", "heritage", "lead", "tell", "canary", "x")
        ]
        subjects += [subject("leader"), subject("who"), subject("ask", bus._process), bus._topic("a")]
        clients = [each._link._client for each in pair.buses]
        for each in subjects:
            for data in WRONG:
                await other.publish(each, data)
        await other.publish(
            subject("ask", bus._process), b"no name!" + b"\0\0\0\x0b\x04" + b'["restore"]', "x.y"
        )
        await other.flush()
        await pair.rooms[0].publish("after")
        await until(lambda: pair.all_got("after"))
        assert is_up(pair)
        assert [each._link._client for each in pair.buses] == clients
        assert (pair.got, pair.gaps) == ([["after"]] * 2, [[], []])
        assert "is not valid" in caplog.text
        await other.close()


async def test_the_presence_of_more_keys_than_a_message_of_nats_takes_comes_in_parts(shared):
    async with house(2, shared.url) as made:
        await made.joined(0, key="ada")
        bus = made.servers[0].rooms._registry.bus
        keys = [f"user{number}" for number in range(300)]
        for number, key in enumerate(keys):
            bus.enter("a", 1000 + number, key, {"text": "x" * 4000}, 0.0)
        for number in (0, 1):
            present = await within(made.room(number).presence())
            assert [each.key for each in present] == ["ada", *keys]
            assert len(present[-1].info["text"]) == 4000
        assert all(server.rooms.is_connected for server in made.servers)


async def test_a_frame_that_nats_does_not_take_is_not_sent_and_logged(shared, caplog):
    async with two(shared.url) as pair:
        link = pair.buses[0]._link
        client = link._client
        link.send("somewhere", bytes(link.max_payload + 1))
        await pair.rooms[0].publish("after")
        await until(lambda: pair.all_got("after"))
        assert link._client is client
        assert "max_payload" in caplog.text


async def test_max_known_rooms_applies_in_the_leader_and_a_join_says_so(shared):
    url = f"{shared.url}?prefix=few"
    async with Rooms(bus=url, max_known_rooms=2) as few, Rooms(bus=url) as other:
        for name in ("a", "b"):
            await few._registry.bus.listen(name)
        with pytest.raises(RoomLimit, match="max_known_rooms"):
            await other["c"].publish("x")
        with pytest.raises(RoomLimit, match="max_known_rooms"):
            await within(other._registry.bus.listen("c"))
        other._registry.bus.ignore("c")
        few._registry.bus.ignore("a")
        # The two processes have connections of their own, so the leader may get the second call first.
        async with asyncio.timeout(BOUND):
            while True:
                with suppress(RoomLimit):
                    await other._registry.bus.listen("c")
                    break
                other._registry.bus.ignore("c")
                await asyncio.sleep(0.01)


async def test_claims_of_sessions_that_nats_does_not_take_at_once_are_sent_in_parts(shared, caplog):
    async with house(2, shared.url) as made:
        for server in made.servers:
            server.rooms._registry.bus._link.max_payload = 8192

            @server.websocket("/user/{name}")
            async def user(ws, name, server=server):
                server.sessions.join(name + "x" * 900, ws)
                await ws.wait_closed()

        names = [f"user/{number}" for number in range(20)]
        for number in (0, 1):
            await asyncio.gather(*(made.client(number, name) for name in names))
        # The newest connection of each key stays, and the others are closed.
        await until(lambda: [len(server.sessions) for server in made.servers] == [0, 20])
    assert "failed" not in caplog.text

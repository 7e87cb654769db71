"""The bus in memory that fails as a test asks: what an application is told, on a virtual clock."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

import endwell
from endwell import testing
from endwell.errors import BusUnavailable
from endwell.rooms import Gap, History, Position, Rooms


def virtually(test):
    """Decorator: run a test on a virtual clock."""

    def run():
        testing.run(test())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


class Stage:
    """A server with a member in a room with a history and in one without, and another process."""

    def __init__(self):
        self.bus, self.server, self.other = testing.FaultyBus(), endwell.Server(), Rooms()
        self.rooms = self.server.rooms
        self.bus.connect(self.rooms, self.other)
        for rooms in (self.rooms, self.other):
            rooms.configure("kept", history=History(messages=3))
        self.gaps, self.clients = [], {}
        self.server.websocket("/{name}")(self._member)
        self.rooms.on_gap(self._on_gap)

    def _on_gap(self, room, gap):
        self.gaps.append((room.name, gap.lost))
        self.server.broadcast([each.ws for each in room.members], "gap", slow="queue")

    async def _member(self, ws, name):
        async with self.rooms[name].join(ws, key="member"):
            await ws.send("joined")
            await ws.wait_closed()

    async def publish(self, *numbers):
        for number in numbers:
            for name in ("kept", "none"):
                await self.other[name].publish(str(number))

    async def received(self, name, count):
        return [await self.clients[name].recv() for _ in range(count)]


@asynccontextmanager
async def stage():
    made = Stage()
    async with made.server.serving(), made.other:
        for name in ("kept", "none"):
            made.clients[name] = await endwell.connect(f"ws://localhost:{made.server.port}/{name}")
            assert await made.clients[name].recv() == "joined"
        yield made
        for ws in made.clients.values():
            await ws.close()


@virtually
async def test_publications_that_are_lost_are_read_from_the_history_or_told_with_their_number():
    async with stage() as made:
        await made.publish(0)
        made.bus.lose(4, made.rooms)
        await made.publish(1, 2, 3)
        assert await made.received("kept", 4) == ["0", "1", "2", "3"]
        assert await made.received("none", 3) == ["0", "gap", "3"]
        assert made.gaps == [("none", 2)]


@virtually
async def test_what_is_published_while_a_process_is_cut_is_read_when_it_is_connected_again():
    async with stage() as made:
        made.bus.cut(made.rooms)
        assert (made.rooms.is_connected, made.other.is_connected) == (False, True)
        await made.publish(0, 1, 2, 3, 4)
        made.bus.heal()
        assert made.rooms.is_connected
        assert await made.received("kept", 4) == ["gap", "2", "3", "4"]
        made.bus.cut(made.rooms)
        assert (made.rooms.disconnections, made.other.disconnections) == (2, 0)
        # 5 in the room without a history, 2 in the other one.
        assert (made.rooms.lost_publications, made.other.lost_publications) == (7, 0)
        made.bus.heal()
        assert await made.received("none", 1) == ["gap"]
        assert sorted(made.gaps) == [("kept", 2), ("none", 5)]
        await made.publish(5)
        assert await made.received("none", 1) == ["5"]


@virtually
async def test_a_process_that_is_cut_waits_for_5_s_before_it_raises():
    async with stage() as made:
        loop = asyncio.get_running_loop()
        room = made.rooms["kept"]
        made.bus.cut()
        for call in (lambda: room.publish("x"), room.position, room.history, room.presence):
            began = loop.time()
            with pytest.raises(BusUnavailable, match="nothing was sent"):
                await call()
            assert loop.time() - began == pytest.approx(5.0)
        publishing = asyncio.create_task(room.publish("y"))
        await asyncio.sleep(4)
        made.bus.heal()
        assert (await publishing).position.sequence == 1


@virtually
async def test_a_receipt_that_is_lost_raises_and_the_message_is_sent():
    async with stage() as made:
        made.bus.lose_receipts(1, made.other)
        with pytest.raises(BusUnavailable, match="may have been sent"):
            await made.other["none"].publish("x")
        await made.other["none"].publish("y")
        assert await made.received("none", 2) == ["x", "y"]


@pytest.mark.parametrize("cut", [False, True])
def test_after_a_restart_the_rooms_have_another_epoch_and_no_history(cut):
    async def main():
        async with stage() as made:
            await made.publish(0)
            before = await made.rooms["kept"].position()
            if cut:
                made.bus.cut(made.rooms)
            made.bus.restart()
            if cut:
                assert made.gaps == []
                made.bus.heal()
            await made.publish(1)
            after = await made.rooms["kept"].position()
            assert (after.epoch != before.epoch, after.sequence) == (True, 1)
            assert sorted(made.gaps) == [("kept", None), ("none", None)]
            assert await made.received("none", 3) == ["0", "gap", "1"]
            assert [each.key for each in await made.other["none"].presence()] == ["member"]

    testing.run(main())


@virtually
async def test_a_key_that_comes_and_goes_while_the_process_is_cut_is_seen_when_it_is_back():
    async with stage() as made:
        told = []
        made.rooms.left(lambda room, present: told.append((room.name, present.key)))
        made.bus.cut(made.rooms)
        await made.clients["kept"].close()
        await asyncio.sleep(1)
        assert [each.key for each in await made.other["kept"].presence()] == ["member"]
        made.bus.heal()
        await asyncio.sleep(1)
        assert (await made.other["kept"].presence(), told) == ([], [("kept", "member")])


@virtually
async def test_a_member_that_returns_after_a_restart_is_told_an_unknown_gap():
    async with stage() as made:
        await made.publish(0)
        old = await made.rooms["kept"].position()
        made.bus.restart()
        assert (await made.rooms["kept"].position()).epoch != old.epoch
        found = []

        @made.server.websocket("/again/now")
        async def again(ws):
            found.append(await made.rooms["kept"].join(ws, since=str(old)))

        async with endwell.connect(f"ws://localhost:{made.server.port}/again/now") as ws:
            await ws.closed
        assert [each.arrived for each in found] == [Gap(None, 0)]


def test_rooms_are_connected_before_they_are_used_and_only_rooms_are():
    bus, rooms = testing.FaultyBus(), Rooms()
    with pytest.raises(TypeError, match="must be Rooms"):
        bus.connect(endwell.Server())
    with pytest.raises(ValueError, match="not connected to this bus"):
        bus.cut(rooms)

    async def main():
        async with rooms:
            with pytest.raises(endwell.ConcurrencyError, match="in use"):
                bus.connect(rooms)
            assert (await rooms["a"].publish("x")).position != Position("", 0)

    testing.run(main())

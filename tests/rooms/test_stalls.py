"""Processes that stand still, or whose event loop is busy, while they wait for the bus."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager

import pytest

from endwell.rooms import BusUnavailable, returning
from endwell.rooms.rooms import make_bus
from tests.pair import loop_turns, until, within

from .house import BETWEEN, SERVERS, house
from .witness import Witness

#: The limit of a call in these tests, and a longer stall.
LIMIT, STALL = 2.5, 3.0


@contextmanager
def busy_loop(seconds):
    """Each turn of the event loop takes this time, or longer."""

    async def work():
        while True:
            time.sleep(seconds)  # noqa: ASYNC251 (handlers that have much to do)
            await asyncio.sleep(0)

    task = asyncio.get_running_loop().create_task(work())
    yield
    task.cancel()


async def connects_with_a_busy_loop(url):
    """The bus connects, though a connection takes more turns than fit into CONNECT_TIME, and a question into a second."""
    bus = make_bus(url, 1 << 20)
    with busy_loop(0.1):
        await bus.start(Witness())
        await until(lambda: bus.is_connected)
    await bus.stop()


@pytest.mark.parametrize("bus", [each for each in BETWEEN if each in SERVERS])
async def test_a_process_whose_event_loop_is_busy_connects(bus):
    await connects_with_a_busy_loop(SERVERS[bus]().url)


@pytest.mark.parametrize("bus", [each for each in BETWEEN if each in SERVERS])
async def test_calls_survive_a_stall_of_this_process_that_is_longer_than_their_limit(bus, monkeypatch):
    async with house(1, bus) as made:
        await made.joined()
        room, other, new = (made.room(name=name) for name in ("a", "b", "c"))
        (membership,) = made.memberships

        async def join():
            await new.join(membership.ws)

        monkeypatch.setattr(returning, "WAIT_TIME", LIMIT)
        calls = (
            join(),
            room.publish("x"),
            other.publish("x"),
            room.position(),
            room.history(),
            room.presence(),
        )
        waiting = asyncio.gather(*calls)
        await loop_turns(3)  # all are sent, and nothing is answered yet
        time.sleep(STALL)  # noqa: ASYNC251 (a handler that blocks the event loop)
        await within(waiting)


async def test_calls_do_not_wait_for_ever_while_the_supervisor_stands_still(monkeypatch, caplog):
    async with house(2, "supervisor") as made:
        ws, _ = await made.joined()
        room, new, server = made.room(), made.room(name="new"), made.servers[0]
        (membership,) = made.memberships

        async def join():
            await new.join(membership.ws)

        made.pump.holds = True
        monkeypatch.setattr(returning, "WAIT_TIME", 0.2)
        calls = room.publish("x"), join(), room.position(), room.history(), room.presence()
        results = await within(asyncio.gather(*calls, return_exceptions=True))
        assert {type(each) for each in results} == {BusUnavailable}
        assert ["may have been sent" in str(each) for each in results] == [True] + [False] * 4
        assert (server.rooms.is_connected, server.rooms.disconnections) == (False, 1)
        assert "the supervisor has not answered" in caplog.text
        monkeypatch.setattr(returning, "WAIT_TIME", 60.0)
        made.pump.holds = False
        made.pump.flush()
        assert await within(ws.recv()) == "x"
        assert server.rooms.is_connected
        assert (await room.publish("y")).position.sequence == 2
        assert not made.pump.broker._hub._rooms["new"].listeners


async def test_what_waits_for_a_supervisor_that_reads_nothing_is_limited(monkeypatch):
    async with house(1, "supervisor") as made:
        loop, (link,) = asyncio.get_running_loop(), made.pump.links
        room = made.room()
        monkeypatch.setattr(returning, "MAX_QUEUE", 1 << 20)
        loop.remove_reader(link.fileno())
        waiting = [asyncio.create_task(room.publish(bytes(1 << 20))) for _ in range(3)]
        await loop_turns()
        with pytest.raises(
            BusUnavailable, match=r"\d+ bytes wait for the supervisor already; nothing was sent"
        ):
            await room.publish("x")
        loop.add_reader(link.fileno(), made.pump._readable, link)
        receipts = await within(asyncio.gather(*waiting))
        assert [each.position.sequence for each in receipts] == [1, 2, 3]

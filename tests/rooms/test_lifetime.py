"""Rooms that begin and end: what is left behind, and what is told at the end."""

from __future__ import annotations

import asyncio
import secrets
import socket

import pytest

import endwell
from endwell.rooms import Rooms, returning
from tests.pair import until, within

from .house import BETWEEN, SERVERS

SCHEMES = ["redis", "redis+cluster", "nats"]


@pytest.fixture(params=SCHEMES)
def away(request):
    """The URL of a bus that refuses connections."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"{request.param}://127.0.0.1:{sock.getsockname()[1]}"


async def test_two_servers_with_the_same_rooms_start_at_once_and_leave_nothing_behind(away, monkeypatch):
    monkeypatch.setattr(returning, "WAIT_TIME", 0.1)
    rooms = Rooms(bus=away)
    both = asyncio.Barrier(2)

    async def serve():
        async with endwell.Server(rooms=rooms).serving():
            await both.wait()

    await asyncio.gather(serve(), serve())


async def test_rooms_whose_start_is_cancelled_leave_nothing_behind_and_may_start_again(
    away, monkeypatch, caplog
):
    rooms = Rooms(bus=away)

    async def use():
        async with rooms:
            pass

    task = asyncio.create_task(use())
    await until(lambda: "no connection to" in caplog.text)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(endwell.ConcurrencyError, match="not in use"):
        await rooms["a"].publish("x")
    monkeypatch.setattr(returning, "WAIT_TIME", 0.1)
    await use()


def server_of(url):
    """A server whose members leave at once, and whose callback tells the others."""
    server = endwell.Server(compression=None, bus=url)
    server.rooms.configure("*", grace=0)

    @server.websocket("/{key}")
    async def member(ws, key):
        async with server.rooms["a"].join(ws, key=key):
            await ws.send("joined")
            await ws.wait_closed()

    @server.rooms.left
    async def left(room, present):
        await room.publish(f"{present.key} has left")

    return server


async def client(server, key):
    ws = await endwell.connect(f"ws://127.0.0.1:{server.port}/{key}", compression=None)
    assert await within(ws.recv()) == "joined"
    return ws


@pytest.mark.parametrize("bus", [each for each in BETWEEN if each in SERVERS])
async def test_of_a_key_that_leaves_as_its_server_stops_the_others_are_told(bus):
    url = f"{SERVERS[bus]().url}?prefix={secrets.token_hex(4)}"
    async with server_of(url).serving() as stays:
        eve = await client(stays, "eve")
        async with server_of(url).serving(grace=1.0) as leaves:
            ada = await client(leaves, "ada")
        assert await within(eve.recv()) == "ada has left"
        await within(ada.closed)
        await eve.close()

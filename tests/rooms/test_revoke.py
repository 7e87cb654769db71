"""A revocation closes the connections of a subject in all processes."""

from __future__ import annotations

import asyncio
import logging

import pytest

import endwell
from endwell import Cause, Close
from endwell.errors import BusUnavailable
from endwell.rooms.keys import REVOKED
from tests.pair import until, within

from .house import BETWEEN, house

CLOSE = Close(3003, "authorization revoked")


def authorize(made):
    """Each server authorizes its connections for the user of their path. Returns the causes of the endings."""
    causes = []
    for server in made.servers:

        @server.websocket("/user/{name}")
        async def handler(ws, name):
            ws.authorize(subject=name)
            await ws.send("in")
            async for _ in ws:
                pass

        server.on_close(lambda ws, ending: causes.append(ending.cause))
    return causes


async def connect(server, name):
    path = "/" if name is None else f"/user/{name}"
    ws = await endwell.connect(f"ws://127.0.0.1:{server.port}{path}", compression=None)
    assert await within(ws.recv()) == "in"
    return ws


async def listening(made):
    """Wait until the processes hear each other."""
    for server in made.servers:
        await until(lambda server=server: server._revocations._registry and server._revocations.listens)


@pytest.mark.parametrize("bus", BETWEEN)
async def test_the_connections_of_all_processes_are_closed(bus):
    async with house(2, bus) as made:
        causes = authorize(made)
        await listening(made)
        ada = [await connect(server, "ada") for server in made.servers]
        bob = [await connect(server, "bob") for server in made.servers]
        assert await within(made.servers[0].revoke("ada")) == 1
        assert [(await within(ws.closed)).received for ws in ada] == [CLOSE] * 2
        await until(lambda: causes == [Cause.AUTH_REVOKED] * 2)
        assert all(ws.is_open for ws in bob)
        # A connection that opens later is for the application to refuse.
        again = await connect(made.servers[1], "ada")
        await within(made.servers[0].revoke("nobody"))
        assert again.is_open
        for ws in (*bob, again):
            await ws.close()


@pytest.mark.parametrize("bus", BETWEEN)
async def test_an_opening_that_another_process_is_deciding_is_refused(bus):
    async with house(2, bus) as made:
        asked, go = asyncio.Event(), asyncio.Event()

        async def accept(request):
            asked.set()
            await go.wait()
            return endwell.Accept(subject="ada")

        @made.servers[1].websocket("/", accept=accept)
        async def handler(ws):
            await ws.wait_closed()

        await listening(made)
        url = f"ws://127.0.0.1:{made.servers[1].port}/"
        opening = asyncio.ensure_future(endwell.connect(url)._open())
        await within(asked.wait())
        assert await within(made.servers[0].revoke("ada")) == 0
        await until(lambda: made.servers[1]._revocations._revoked)
        go.set()
        with pytest.raises(endwell.HandshakeRejected, match="403"):
            await within(opening)


async def test_without_the_bus_the_own_connections_are_closed_and_the_call_raises():
    async with house(2, "supervisor") as made:
        authorize(made)
        await listening(made)
        own, other = [await connect(server, "ada") for server in made.servers]
        made.pump.end(made.pump.links[0])
        with pytest.raises(BusUnavailable):
            await within(made.servers[0].revoke("ada"))
        assert (await within(own.closed)).received == CLOSE
        assert other.is_open
        await other.close()


@pytest.mark.parametrize("name", ["ada", None])
async def test_lost_revocations_are_logged_if_a_connection_has_a_subject(name, caplog):
    async with house(1, "supervisor") as made:
        authorize(made)

        @made.servers[0].websocket("/")
        async def without_subject(ws):
            await ws.send("in")
            await ws.wait_closed()

        await listening(made)
        registry = made.servers[0].rooms._registry
        ws = await connect(made.servers[0], name)
        with caplog.at_level(logging.ERROR):
            registry.lost(REVOKED, None, await registry.bus.position(REVOKED))
        await ws.close()
    text = "this process has lost an unknown number of revocations of other processes"
    assert (text in caplog.text) is (name is not None)


async def test_an_application_cannot_use_the_room():
    async with house(1, "local") as made:
        with pytest.raises(endwell.errors.RoomLimit, match="reserved"):
            made.servers[0].rooms[REVOKED]

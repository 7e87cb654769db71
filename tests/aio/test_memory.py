"""Connections in memory on a virtual clock: hours pass in milliseconds, and each duration is exact."""

from __future__ import annotations

import asyncio

import pytest

import endwell
from endwell import Cause, TcpEnd, testing


def echo_server(**options):
    server = endwell.Server(**options)

    @server.websocket("/")
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    return server


def test_a_handler_is_tested_without_a_socket_and_without_waiting():
    async def talk():
        async with (
            (server := echo_server()).serving(),
            endwell.connect(f"ws://localhost:{server.port}/") as ws,
        ):
            for message in ("a", bytes(900_000)):
                await ws.send(message)
                assert await ws.recv() == message
            await asyncio.sleep(3600)
            assert ws.is_open
        return ws.ending

    ending = testing.run(talk())
    assert (ending.clean, ending.tcp) == (True, TcpEnd.FIN)
    assert ending.duration == pytest.approx(3600, abs=0.1)


def test_a_lost_network_is_noticed_after_the_times_of_keepalive():
    async def lose():
        server = echo_server(ping_interval=20, ping_timeout=30)
        closed = asyncio.get_running_loop().create_future()
        server.on_close(lambda _, ending: closed.set_result(ending))
        async with server.serving():
            ws = await endwell.connect(f"ws://localhost:{server.port}/", ping_interval=None)
            testing.cut(ws)
            ending = await closed
            ws.abort()
            return ending

    ending = testing.run(lose())
    assert ending.cause is Cause.KEEPALIVE_TIMEOUT
    assert ending.duration == pytest.approx(50, abs=1.1)

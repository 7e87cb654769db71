"""``server.blocking``: the methods that wait, called in a thread."""

from __future__ import annotations

import asyncio

import pytest

import endwell
from endwell import Close
from endwell.errors import ConcurrencyError
from tests.pair import within


def make():
    server = endwell.Server()

    @server.websocket("/user/{name}")
    def user(ws, name):
        ws.authorize(subject=name)
        ws.send("in")
        ws.wait_closed()

    @server.websocket("/listen")
    def listen(ws):
        ws.send("in")
        while ws.read() is not None:
            pass

    @server.websocket("/block/{name}")
    def block(ws, name):
        ws.send(str(server.blocking.revoke(name)))

    return server


async def connect(server, path):
    ws = await endwell.connect(f"ws://127.0.0.1:{server.port}{path}")
    assert await within(ws.recv()) == "in"
    return ws


async def test_a_plain_handler_revokes():
    server = make()
    async with server.serving():
        ada, bob = [await connect(server, f"/user/{name}") for name in ("ada", "bob")]
        async with endwell.connect(f"ws://127.0.0.1:{server.port}/block/ada") as ws:
            assert await within(ws.recv()) == "1"
        assert (await within(ada.closed)).received == Close(3003, "authorization revoked")
        assert bob.is_open


async def test_a_thread_sheds():
    server = make()
    async with server.serving():
        ws = await connect(server, "/listen")
        assert await within(asyncio.to_thread(server.blocking.shed, 1, over=0)) == 1
        assert ws.ending.received.code == 1012


async def test_it_refuses_the_thread_of_the_loop_and_a_server_that_does_not_serve():
    server = make()
    with pytest.raises(
        ConcurrencyError, match=r"revoke\(\) was called in a thread while its server does not serve"
    ):
        server.blocking.revoke("ada")
    async with server.serving():
        with pytest.raises(ConcurrencyError, match="would block the event loop"):
            server.blocking.revoke("ada")

"""What the application learns when this side closes in a protocol without codes, as server and as client."""

from __future__ import annotations

import asyncio

import pytest

from endwell import ConnectionClosed, Server, connect
from endwell.aio.syscalls import monotonic
from tests.pair import pair, within
from tests.raw import PROMPT, RawPeer

from .old import CLOSING
from .truth import MAX_SIZE, Report

CELLS = [(version, name) for version in CLOSING for name in CLOSING[version]]


@pytest.mark.parametrize(("version", "name"), CELLS)
async def test_the_closing_side_learns_the_true_ending_at_once(version, name, role, face):
    how, end = CLOSING[version][name]
    async with pair(role, face=face, version=version, max_size=MAX_SIZE) as both:
        await within(both.ws.send("last words"))
        assert (await both.peer.read_frame()).payload == b"last words"
        began = monotonic()
        closing = asyncio.ensure_future(both.ws.close(*how))
        await within(end.act(both.peer))
        both.peer.drop()
        ending = await within(closing)
        assert monotonic() - began < PROMPT
        assert Report.by(both.ws, ConnectionClosed.of(ending)) == end.expected
        assert ending.sent == both.close_sent(*how)


async def test_a_server_with_old_protocols_serves_rfc_6455_too(transport):
    server = Server(legacy=True)

    @server.websocket("/")
    async def handle(ws):
        assert ws.response.status == 101
        async for message in ws:
            await ws.send(message)

    scheme = "ws" if transport.server is None else "wss"
    async with server.serving(ssl=transport.server):
        for version in ("13", "hixie-76", "hybi-08", "hybi-07", "hybi-03", "hixie-75"):
            uri = f"{scheme}://127.0.0.1:{server.port}/"
            async with connect(uri, ssl=transport.client, version=version) as ws:
                for message in ("héllo", "x" * 300_000):
                    await ws.send(message)
                    assert await ws.recv() == message
            assert ws.ending.ok
            assert ws.response.status == 101
        with await RawPeer.connect(server.port, transport.client) as peer:
            await peer.close()
            assert (await peer.read_close()).code == 1000

"""What is told about an ending in hixie-75, hixie-76 and hybi-08, to a server's handler and to a client."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import pytest

from endwell import Server, Unsupported, connect
from tests.raw import BOUND, RawPeer, RawServer

from .old import MAX_SIZE, TABLE, OldPeer, told

PROMPT = 1.0
CELLS = [
    pytest.param(version, name, role, reads, id=f"{role} {version} {name} {'reading' if reads else 'busy'}")
    for version, table in TABLE.items()
    for name in table
    for role in ("server", "client")
    for reads in (True, False)
]


def speaking(version: str) -> type[OldPeer]:
    return type("Peer", (OldPeer,), {"version": version})


async def attend(ws, reads: bool, done: asyncio.Event) -> None:
    if reads:
        async for _ in ws:
            pass
    else:
        await done.wait()


@asynccontextmanager
async def joined(version: str, role: str, reads: bool):
    """Our WebSocket, whose application reads or is busy, and its peer."""
    done = asyncio.Event()
    if role == "server":
        server = Server(max_size=MAX_SIZE, legacy=[version])
        opened = asyncio.get_running_loop().create_future()

        @server.websocket("/")
        async def handle(ws):
            opened.set_result(ws)
            await attend(ws, reads, done)

        async with server.serving(grace=0):
            with await speaking(version).connect(server.port) as peer:
                yield await asyncio.wait_for(opened, BOUND), peer
                done.set()
        return
    with RawServer(peers=speaking(version)) as listening:
        accepting = asyncio.create_task(listening.accept())
        async with connect(listening.uri, version=version, max_size=MAX_SIZE) as ws:
            work = asyncio.create_task(attend(ws, reads, done))
            with await accepting as peer:
                yield ws, peer
            done.set()
            await work


@pytest.mark.parametrize(("version", "name", "role", "reads"), CELLS)
async def test_the_truth_is_told_at_once_in_each_old_protocol(version, name, role, reads, caplog):
    end = TABLE[version][name]
    async with joined(version, role, reads) as (ws, peer):
        endings, began = [], time.monotonic()
        ws.on_close(endings.append)
        closing = None
        if end.ours is not None:
            await ws.send("last words")
            closing = asyncio.create_task(ws.close(*end.ours))
        await asyncio.wait_for(end.act(peer), BOUND)
        peer.sock.close()
        ending = await asyncio.wait_for(ws.closed, BOUND)
        assert time.monotonic() - began < PROMPT
        assert told(ws) == end.told
        assert endings == [ending]
        assert isinstance(ending.exception, end.exception)
        assert closing is None or await closing is ending
    assert not caplog.records


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("version", ["hixie-76", "hixie-75"])
async def test_bytes_and_pings_are_refused_at_the_call_and_text_goes_on(version, role):
    async with joined(version, role, reads=True) as (ws, peer):
        with pytest.raises(Unsupported, match="message must be a str"):
            await ws.send(b"\0")
        with pytest.raises(Unsupported, match="no pings"):
            await ws.ping()
        await ws.send("text")
        assert (await peer.read_frame()).payload == b"text"
        assert ws.is_open


async def test_challenge_bytes_that_never_come_cost_the_open_timeout_and_no_more():
    server = Server(open_timeout=0.2, legacy=True)

    @server.websocket("/")
    async def handle(ws):
        raise AssertionError("it never opened")

    async with server.serving():
        with await speaking("hixie-76").reach(server.port) as peer:
            began = time.monotonic()
            await peer.write(peer.request()[:-1])
            await peer.read_to_the_end()
            assert 0.19 <= time.monotonic() - began < PROMPT


async def test_a_client_of_rfc_6455_is_served_beside_old_ones():
    server = Server(legacy=True)

    @server.websocket("/")
    async def handle(ws):
        async for message in ws:
            await ws.send(message)

    async with server.serving():
        for version in ("13", "hixie-76", "hybi-08", "hybi-07", "hybi-03", "hixie-75"):
            async with connect(f"ws://127.0.0.1:{server.port}/", version=version) as ws:
                for message in ("héllo", "x" * 300_000):
                    await ws.send(message)
                    assert await ws.recv() == message
            assert ws.ending.ok
            assert ws.response.status == 101
        with await RawPeer.connect(server.port) as peer:
            await peer.close()
            assert (await peer.read_close()).code == 1000

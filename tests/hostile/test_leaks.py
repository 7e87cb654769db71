"""Nothing remains of ended connections, for each kind of frame, of ending and of handshake result."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import weakref

import pytest

from endwell import Server
from tests.pair import nothing_left_behind, until
from tests.raw import BOUND, RawPeer
from tests.wire.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT

#: The number of warm-up rounds, and of counted rounds.
WARM, ROUNDS = 10, 50
#: The average number of bytes that a round may leave: less than any object.
NOTHING = 32


async def talk(peer, octets=b""):
    await peer.upgrade()
    await peer.write(octets)
    await peer.close()
    await peer.read_to_the_end()
    peer.fin()


async def refused(peer, octets):
    await peer.write(octets)
    while await peer.more():
        pass
    peer.fin()


async def left(peer, octets, end):
    await peer.write(octets)
    getattr(peer, end)()


async def cut(peer, octets, end):
    await peer.upgrade()
    await left(peer, octets, end)


async def reading(ws):
    async for _ in ws:
        pass


PAGE = b"GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

ROUND = {
    "text": lambda peer: talk(peer, peer.octets(TEXT, b"x" * 1000)),
    "binary": lambda peer: talk(peer, peer.octets(BINARY, b"x" * 20_000)),
    "fragments": lambda peer: talk(
        peer, peer.octets(TEXT, b"x" * 1000, fin=False) + peer.octets(CONTINUATION, b"y" * 1000)
    ),
    "ping": lambda peer: talk(peer, peer.octets(PING, b"x" * 125) * 10),
    "pong": lambda peer: talk(peer, peer.octets(PONG, b"x" * 125) * 10),
    "close without a code": lambda peer: talk(peer, peer.octets(CLOSE)),
    "a fault": lambda peer: talk(peer, peer.octets(11)),
    "what is not utf-8": lambda peer: talk(peer, peer.octets(TEXT, b"x" * 1000 + b"\xff")),
    "half a message and fin": lambda peer: cut(peer, peer.octets(TEXT, b"x" * 1000)[:500], "fin"),
    "half a message and rst": lambda peer: cut(peer, peer.octets(TEXT, b"x" * 1000)[:500], "reset"),
    "a fragment and rst": lambda peer: cut(peer, peer.octets(TEXT, b"x" * 1000, fin=False), "reset"),
    "junk": lambda peer: refused(peer, b"\0\1\2\r\n\r\n"),
    "half a head and fin": lambda peer: left(peer, peer.request()[:50], "fin"),
    "half a head and rst": lambda peer: left(peer, peer.request()[:50], "reset"),
    "no websocket": lambda peer: refused(peer, PAGE),
    "not found": lambda peer: refused(peer, peer.request("/nothing")),
    "another version": lambda peer: refused(peer, peer.request().replace(b"13", b"12")),
    "another origin": lambda peer: refused(peer, peer.request()[:-2] + b"Origin: http://x.example\r\n\r\n"),
    "a body": lambda peer: refused(peer, peer.request()[:-2] + b"Content-Length: 3\r\n\r\nabc"),
}


@pytest.mark.parametrize("name", ROUND)
async def test_nothing_remains_of_an_ended_connection(name):
    server = Server(ping_interval=None, close_timeout=2 * BOUND, open_timeout=2 * BOUND)
    server.websocket("/")(reading)
    server.get("/page")(lambda request: "a page")

    async def play(rounds):
        for _ in range(rounds):
            with await RawPeer.connect_tcp(server.port) as peer:
                await ROUND[name](peer)
            await until(lambda: not server.connections and not server._listener.openings)
        await asyncio.sleep(0.02)  # the last callbacks

    async with server.serving(grace=0), nothing_left_behind():
        await play(WARM)
        gc.collect()
        tracemalloc.start()
        try:
            await play(2)  # objects that are created once while it traces
            gc.collect()
            before = tracemalloc.take_snapshot()
            await play(ROUNDS)
            gc.collect()
            after = tracemalloc.take_snapshot()
        finally:
            tracemalloc.stop()
    ours = [tracemalloc.Filter(True, "*/endwell/*")]
    grown = after.filter_traces(ours).compare_to(before.filter_traces(ours), "lineno")
    kept = sum(line.size_diff for line in grown)
    assert kept < NOTHING * ROUNDS, "\n".join(map(str, grown[:5]))


class Params(dict):
    """An attribute of a connection that can be weakly referenced."""


@pytest.mark.parametrize("when", ["answered", "answer_timeout"])
async def test_an_ended_connection_is_freed_at_once(when, face):
    """It is in no reference cycle, nor does a Close that waited for its handler leave one."""
    server = Server(answer_timeout=0.05 if when == "answer_timeout" else 60.0, ping_interval=None)
    held = []

    async def handler(ws):
        ws.request.params = params = Params()
        held.append(weakref.ref(params))
        del params
        while await ws.read() is not None:
            await face.pause(0.1)

    server.websocket("/")(face.handler(handler))
    gc.disable()
    try:
        async with server.serving():
            with await RawPeer.connect(server.port) as peer:
                await peer.write(peer.octets(TEXT, b"x") * 2 + peer.close_octets())
                await peer.read_to_the_end()
                peer.fin()
                await until(lambda: held and held[0]() is None)
    finally:
        gc.enable()

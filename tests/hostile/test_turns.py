"""Loop iterations: however fast a peer uploads, a connection has one callback per purpose in each."""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from contextlib import contextmanager, suppress

import pytest

from endwell import ConnectionClosed, Server, TcpEnd
from tests.hostile.flood import flooding
from tests.hostile.test_messages import compressing
from tests.pair import pair, until, within
from tests.raw import RawPeer
from tests.wire.peer import BINARY


class Turns:
    """The pending ``call_soon`` callbacks of a loop that are methods of our own objects."""

    def __init__(self, loop):
        self._real = loop.call_soon
        #: By object and method name: the number of pending calls.
        self.pending = Counter()
        #: The maximum of these numbers.
        self.most = Counter()
        self.turns = 0

    def call_soon(self, callback, *args, context=None):
        owner = getattr(callback, "__self__", None)
        if not type(owner).__module__.startswith(("endwell.aio.", "endwell.sync.")):
            return self._real(callback, *args, context=context)
        # The object itself, which keeps its identity this way.
        key = owner, callback.__name__
        self.pending[key] += 1
        self.most[key] = max(self.most[key], self.pending[key])

        def run():
            self.pending[key] -= 1
            callback(*args)

        return self._real(run, context=context)

    def count(self):
        """Once in each iteration."""
        self.turns += 1
        self._counting = self._real(self.count)

    def stop(self):
        self._counting.cancel()


@contextmanager
def counted_turns():
    """Count the callbacks that endwell's objects schedule during the block."""
    loop = asyncio.get_running_loop()
    turns = Turns(loop)
    loop.call_soon = turns.call_soon
    turns.count()
    try:
        yield turns
    finally:
        turns.stop()
        del loop.call_soon


def upload(peer):
    return peer.octets(BINARY, bytes(100)) * 600


async def hungry(ws):
    async for message in ws:
        yield message


async def slow(ws):
    """It lets other tasks run after each message, so its inbox is full again and again."""
    async for message in ws:
        await asyncio.sleep(0)
        yield message


@pytest.mark.parametrize("takes", [hungry, slow])
async def test_an_uploader_has_one_callback_per_purpose_and_iteration(takes, transport, role):
    enough = asyncio.Event()

    async def sink(ws):
        count = 0
        async for _ in takes(ws):
            count += 1
            if count == 2000:
                enough.set()

    async with pair(role, transport, handler=sink) as both:
        with counted_turns() as turns, flooding(both.peer, upload(both.peer)):
            await within(enough.wait())
    assert turns.turns > 1
    assert max(turns.most.values(), default=0) <= 1, turns.most.most_common(3)


async def test_an_uploader_has_one_callback_per_purpose_during_a_drain(transport, face):
    server = Server(compression=None)
    loop, began = asyncio.get_running_loop(), asyncio.Event()

    async def sink(ws):
        async for _ in ws:
            if not began.is_set():
                loop.call_soon_threadsafe(began.set)

    server.websocket("/")(face.handler(sink))
    async with server.serving(ssl=transport.server):
        with await RawPeer.connect(server.port, transport.client) as peer, flooding(peer, upload(peer)):
            await within(began.wait())
            with counted_turns() as turns:
                report = await within(server.drain(deadline=5))
    assert max(turns.most.values(), default=0) <= 1, turns.most.most_common(3)
    assert (report.connections, report.stuck) == (1, ())


@pytest.mark.parametrize("ending", ["open", "reset"])
async def test_empty_compressed_blocks_are_inflated_in_steps(ending, transport, monkeypatch):
    # RFC 7692 §7.2.3.5: two octets, for each of which zlib starts again.
    blocks = b"\x03\x00" * 100_000 + b"\x00"
    opened = asyncio.get_running_loop().create_future()
    server = Server(ping_interval=None, close_timeout=1.0)

    @server.websocket("/")
    async def idle(ws):
        opened.set_result(ws)
        await ws.closed

    async with server.serving(ssl=transport.server, grace=0):
        with await compressing(server.port, transport.client) as peer, counted_turns() as turns:
            begun = Counter()
            real = zlib.decompressobj

            def decompressobj(*arguments):
                begun[turns.turns] += 1
                return real(*arguments)

            monkeypatch.setattr(zlib, "decompressobj", decompressobj)
            ws = await within(opened)
            with flooding(peer, peer.octets(BINARY, blocks, rsv=4)) as flooded:
                await until(lambda: begun.total() > 20_000)
                flooded.stop()
                if ending == "reset":
                    # Data in the kernel is still read, because a Close may follow.
                    peer.reset()
                    with suppress(ConnectionClosed):
                        await ws.send("it fails")
                    assert (await within(ws.closed)).tcp is TcpEnd.RST
    # A step of 4 KiB may follow the maximum, and there are four reads per iteration. A failed write reads
    # the rest at once, possibly in an iteration that has read already: once in the life of a connection.
    times = 2 if ending == "reset" else 1
    assert max(begun.values()) <= times * 4 * (2**18 // 64 + 2**12 // 2)

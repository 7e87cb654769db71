"""An asyncio WebSocket used from a thread other than that of its event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from endwell import ConcurrencyError, Server, connect
from endwell.aio.broadcast import broadcast
from endwell.aio.websocket import begin_close
from tests.pair import pair, within
from tests.wire.peer import TEXT

CALLS = {
    "send": lambda ws: ws.send("x"),
    "recv": lambda ws: asyncio.run(as_it_is(ws.recv())),
    "read": lambda ws: asyncio.run(as_it_is(ws.read())),
    "__anext__": lambda ws: asyncio.run(as_it_is(anext(ws))),
    "ping": lambda ws: ws.ping(),
    "close": lambda ws: ws.close(),
    "begin_close": lambda ws: begin_close(ws, None, 1000),
    "abort": lambda ws: ws.abort(),
    "wait_closed": lambda ws: ws.wait_closed(),
    "closed": lambda ws: asyncio.run(as_it_is(ws.closed)),
    "on_close": lambda ws: ws.on_close(print),
}


async def as_it_is(awaitable):
    return await awaitable


@pytest.mark.parametrize("waiting", [False, True], ids=["a message is there", "none is there"])
@pytest.mark.parametrize("name", CALLS)
async def test_every_call_from_another_thread_raises_without_effect(name, waiting):
    async with pair("server") as both:
        if not waiting:
            await both.peer.frame(TEXT, b"for the loop")
            while not both.core.inbox:
                await asyncio.sleep(0.001)
        with pytest.raises(
            ConcurrencyError, match=rf"^{name}\(\) of an asyncio WebSocket was called in a thread"
        ):
            await asyncio.to_thread(CALLS[name], both.ws)
        if waiting:
            await both.peer.frame(TEXT, b"for the loop")
        assert await within(both.ws.recv()) == "for the loop"
        await both.ws.send("and on")
        assert await both.peer.read_frame() == (TEXT, b"and on")
        both.peer.fin()


async def test_a_broadcast_from_another_thread_raises():
    async with pair("server") as both:
        with pytest.raises(ConcurrencyError, match=r"^broadcast\(\) of an asyncio WebSocket"):
            await asyncio.to_thread(broadcast, [both.ws], "x", "skip")
        broadcast([both.ws], "y", "skip")
        assert await both.peer.read_frame() == (TEXT, b"y")
        both.peer.fin()


async def test_sends_from_many_threads_keep_the_compressed_stream_valid():
    server = Server()

    @server.websocket("/")
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    async with server.serving(), connect(f"ws://127.0.0.1:{server.port}/") as ws:
        refused = []

        def send():
            for _ in range(50):
                try:
                    ws.send("corrupt " * 100)
                except ConcurrencyError as exc:
                    refused.append(exc)

        threads = [threading.Thread(target=send) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(50):
            await ws.send(f"{number} " * 100)
            assert await within(ws.recv()) == f"{number} " * 100
        await asyncio.to_thread(lambda: [thread.join() for thread in threads])
        assert len(refused) == 100
    assert ws.ending.ok


def test_a_loop_may_run_in_different_threads_one_after_another():
    loop = asyncio.new_event_loop()
    server = Server()

    @server.websocket("/")
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    serving = server.serving(grace=0)

    async def begin():

        await serving.__aenter__()
        return await connect(f"ws://127.0.0.1:{server.port}/")

    async def end():
        await ws.send("from another thread")
        assert await ws.recv() == "from another thread"
        await ws.close()
        await serving.__aexit__(None, None, None)

    ws = loop.run_until_complete(begin())
    faults = []

    def run():
        try:
            loop.run_until_complete(end())
        except BaseException as exc:
            faults.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    loop.close()
    assert not faults

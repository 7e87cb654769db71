"""Tasks are resumed inside the read callback: all guarantees of asyncio must hold for them."""

from __future__ import annotations

import asyncio
import contextvars
import select
import threading

import pytest

from endwell import Server, WebSocket, connect
from tests.pair import QUIET, loop_turns, pair, until, within
from tests.raw import BOUND, RawPeer
from tests.wire.peer import BINARY, TEXT

NUMBER = contextvars.ContextVar("NUMBER", default=0)


async def test_a_timeout_around_recv_cancels_it_and_nothing_else():
    async with pair("server") as both:
        for attempt in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await both.ws.recv()
            await both.peer.frame(TEXT, str(attempt).encode())
            async with asyncio.timeout(BOUND):
                assert await both.ws.recv() == str(attempt)


async def test_recv_works_in_gather_shield_wait_for_and_task_groups():
    async with pair("server") as both:
        for how in (asyncio.gather, asyncio.shield, lambda receiving: asyncio.wait_for(receiving, BOUND)):
            waiting = asyncio.ensure_future(how(both.ws.recv()))
            await loop_turns()
            await both.peer.frame(TEXT, b"here")
            assert await within(waiting) in ("here", ["here"])
        async with asyncio.TaskGroup() as group:
            task = group.create_task(both.ws.recv())
            await both.peer.frame(TEXT, b"in a group")
        assert task.result() == "in a group"


async def test_a_recv_cancelled_by_its_failing_task_group_loses_no_message():
    async def fail():
        await loop_turns()
        raise LookupError

    async def receive_beside_a_failure(ws):
        async with asyncio.TaskGroup() as group:
            group.create_task(ws.recv())
            group.create_task(fail())

    async with pair("server") as both:
        with pytest.raises(ExceptionGroup):
            await receive_beside_a_failure(both.ws)
        await both.peer.frame(TEXT, b"later")
        assert await within(both.ws.recv()) == "later"


async def test_a_resumed_task_has_its_own_context_and_is_current():
    seen = []

    async def handler(ws):
        NUMBER.set(7)
        task = asyncio.current_task()
        async for _ in ws:
            seen.append((NUMBER.get(), asyncio.current_task() is task))
            NUMBER.set(NUMBER.get() + 1)

    async with pair("server", handler=handler) as both:
        for number in range(2):
            await both.peer.frame(TEXT, b"?")
            await until(lambda number=number: len(seen) == number + 1)
    assert seen == [(7, True), (8, True)]
    assert NUMBER.get() == 0


@pytest.mark.parametrize("what", ["close", "abort", "return", "raise"])
async def test_a_task_resumed_by_a_read_may_end_the_connection(what, caplog):
    async def handler(ws):
        async for _ in ws:
            if what == "close":
                await ws.close(4000)
            elif what == "abort":
                ws.abort()
            elif what == "raise":
                raise LookupError
            return

    async with pair("server", handler=handler) as both:
        # The rest of the read, and the next read, come when everything has ended.
        both.peer.send_at_once(both.peer.octets(TEXT, b"now") + both.peer.octets(TEXT, b"late"))
        both.peer.send_at_once(both.peer.octets(BINARY, bytes(300_000)))
        both.peer.fin()
        ending = await both.ending()
        assert ending.sent is not None
        assert ending.sent.code == {"close": 4000, "abort": 1001, "return": 1000, "raise": 1011}[what]


async def test_a_task_resumed_by_a_read_may_cancel_tasks():
    others = []

    async def handler(ws):
        async for message in ws:
            for other in others:
                other.cancel()
            if message == "yourself":
                asyncio.current_task().cancel()
                await asyncio.Event().wait()

    async with pair("server", handler=handler) as both:
        others.append(asyncio.ensure_future(asyncio.Event().wait()))
        await both.peer.frame(TEXT, b"others")
        with pytest.raises(asyncio.CancelledError):
            await within(others[0])
        await both.peer.frame(TEXT, b"yourself")
        assert (await both.peer.read_close()).code == 1001


async def test_messages_are_sent_while_the_handler_awaits_something_else():
    gate = asyncio.Event()

    async def handler(ws):
        async for _ in ws:
            await ws.send("first")
            await ws.send("second")
            await gate.wait()
            await ws.send("third")

    async with pair("server", handler=handler) as both:
        await both.peer.frame(TEXT, b"go")
        assert (await both.peer.read_frame()).payload == b"first"
        assert (await both.peer.read_frame()).payload == b"second"
        gate.set()
        assert (await both.peer.read_frame()).payload == b"third"


async def test_a_flood_on_one_connection_does_not_delay_others():
    """256 KiB of messages per read, and a handler that awaits only them."""
    server = Server(**QUIET)
    echoed = 0

    @server.websocket("/")
    async def echo(ws: WebSocket) -> None:
        nonlocal echoed
        async for message in ws:
            echoed += 1
            await ws.send(message)

    done = threading.Event()

    def flood(peer: RawPeer) -> None:
        octets, at = peer.octets(BINARY, bytes(100)) * 5000, 0
        while not done.is_set():
            readable, writable, _ = select.select([peer.sock], [peer.sock], [], 0.1)
            if readable:
                peer.sock.recv(2**20)
            if writable:
                at = (at + peer.sock.send(octets[at:])) % len(octets)

    async with server.serving(grace=0):
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.upgrade()
            flooding = asyncio.ensure_future(asyncio.to_thread(flood, peer))
            async with connect(f"ws://127.0.0.1:{server.port}/", **QUIET) as honest:
                await until(lambda: echoed)
                most = 0
                for number in range(50):
                    before = echoed
                    await honest.send(str(number))
                    assert await within(honest.recv()) == str(number)
                    most = max(most, echoed - before)
            done.set()
            await within(flooding)
    # A read may contain 2473 messages. Without fairness, the other connection would wait for all of them.
    assert most < 4 * 2473


async def test_debug_mode_changes_nothing():
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    try:
        async with pair("server") as both:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(both.ws.recv(), 0.01)
            receiving = asyncio.ensure_future(both.ws.recv())
            await loop_turns()
            await both.peer.frame(TEXT, b"here")
            assert await within(receiving) == "here"
            await both.ws.send("there")
            assert (await both.peer.read_frame()).payload == b"there"
    finally:
        loop.set_debug(False)


@pytest.mark.parametrize("end", ["reset", "fin", "close"])
async def test_an_end_within_a_long_message_drops_the_message(end):
    async with pair("server") as both:
        receiving = asyncio.ensure_future(both.ws.read())
        octets = both.peer.octets(BINARY, bytes(500_000))
        await both.peer.write(octets[:300_000])
        while both.core.room() is None:
            await asyncio.sleep(0.001)
        if end == "close":
            closing = asyncio.ensure_future(both.ws.close())
            await asyncio.sleep(0.01)
            await both.peer.write(octets[300_000:])
            await both.peer.close(1000)
            # It arrived after our Close was sent, and is still delivered.
            assert await within(receiving) == bytes(500_000)
            both.peer.fin()
            await within(closing)
        else:
            both.peer.reset() if end == "reset" else both.peer.fin()
            assert await within(receiving) is None
        assert (await both.ending()).messages_in == (end == "close")

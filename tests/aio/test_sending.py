"""send() and its back-pressure."""

from __future__ import annotations

import asyncio

import pytest

from endwell import ConnectionClosed, Server, connect
from tests.pair import loop_turns, pair, within
from tests.wire.peer import BINARY, TEXT

SMALL = 16384
#: The number of sends in one loop iteration after which the next send yields to the loop.
BURST = 256
#: More octets than our kernel accepts for a peer that does not read.
HUGE = bytes(2 * 2**20)


async def block(both):
    """Keep our outbox over its limit until the peer reads."""
    await both.ws.send(HUGE)
    assert both.core.outbox.size > both.core.options.write_limit


async def waiting(*sends):
    """Tasks that wait for room, in this order."""
    tasks = []
    for send in sends:
        tasks.append(asyncio.ensure_future(send))
        await asyncio.sleep(0)
    await loop_turns()
    assert not any(task.done() for task in tasks)
    return tasks


async def payloads(peer, count):
    return [(await peer.read_frame()).payload for _ in range(count)]


async def test_send_does_not_suspend_below_write_limit():
    async with pair("server") as both:
        coroutine = both.ws.send("at once")
        with pytest.raises(StopIteration):
            coroutine.send(None)
        assert await both.peer.read_frame() == (TEXT, b"at once")
        both.peer.fin()


class Name(str):
    __slots__ = ()


class Blob(bytes):
    pass


KINDS = {
    "str": str,
    "a subclass of str": Name,
    "bytes": bytes,
    "a subclass of bytes": Blob,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "memoryview that can be written": lambda data: memoryview(bytearray(data)),
    "memoryview of a part": lambda data: memoryview(b"<" + data + b">")[1:-1],
    "memoryview backwards": lambda data: memoryview(data[::-1])[::-1],
    "memoryview of pairs": lambda data: memoryview(data).cast("H"),
    "memoryview of a table": lambda data: (
        memoryview(data).cast("B", (2, len(data) // 2)) if data else memoryview(data)
    ),
}


@pytest.mark.parametrize("size", [0, 4, 200, 10_000, 70_000])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_every_kind_of_message_arrives(role, kind, size):
    data = b"\x00\x01\x02\x7f" * (size // 4)
    text = isinstance(kind, type) and issubclass(kind, str)
    async with pair(role) as both:
        await both.ws.send(kind(data.decode()) if text else kind(data))
        await both.ws.send("end")
        assert await both.peer.read_frame() == (TEXT if text else BINARY, data)
        assert await both.peer.read_frame() == (TEXT, b"end")
        both.peer.fin()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
async def test_every_kind_of_message_arrives_compressed(kind):
    data = b"\x00\x01\x02\x7f" * 5000
    sent = kind(data.decode()) if isinstance(kind, type) and issubclass(kind, str) else kind(data)
    server = Server()

    @server.websocket("/")
    async def handler(ws):
        await ws.send(await ws.recv())
        await ws.send(sent)

    async with server.serving(), connect(f"ws://127.0.0.1:{server.port}/") as ws:
        await ws.send(sent)
        for _ in range(2):
            received = await within(ws.recv())
            assert received == (str(sent) if isinstance(sent, str) else data)
            assert type(received) is (str if isinstance(sent, str) else bytes)
        assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]
    assert ws.ending.bytes_in + ws.ending.bytes_out < 2000


async def test_text_beyond_ascii_is_sent_as_utf_8(role):
    async with pair(role) as both:
        await both.ws.send("Grüße, 世界 🌍")
        assert await both.peer.read_frame() == (TEXT, "Grüße, 世界 🌍".encode())
        both.peer.fin()


async def test_a_buffer_may_be_reused_after_send(role):
    async with pair(role, buffer=SMALL) as both:
        await block(both)
        both.ws._write_limit = 2**30
        buffer = bytearray(b"first")
        await both.ws.send(buffer)
        buffer[:] = b"other"
        assert (await payloads(both.peer, 2))[1] == b"first"
        both.peer.fin()


@pytest.mark.parametrize("message", [None, 1, ["x"], object()])
async def test_an_invalid_message_raises_and_leaves_the_connection_open(role, message):
    async with pair(role) as both:
        with pytest.raises(TypeError, match="message must be"):
            await both.ws.send(message)
        await both.ws.send("still there")
        assert await both.peer.read_frame() == (TEXT, b"still there")
        both.peer.fin()


async def test_a_lone_surrogate_raises_and_leaves_the_connection_open(role):
    async with pair(role) as both:
        with pytest.raises(ValueError, match=r"^message contains a lone surrogate"):
            await both.ws.send("x\ud800")
        await both.ws.send("still there")
        assert await both.peer.read_frame() == (TEXT, b"still there")
        both.peer.fin()


async def test_send_waits_above_write_limit(role, transport):
    async with pair(role, transport, buffer=SMALL) as both:
        await block(both)
        (task,) = await waiting(both.ws.send("next"))
        assert await payloads(both.peer, 2) == [HUGE, b"next"]
        await within(task)
        both.peer.fin()


async def test_waiting_sends_are_sent_in_call_order(role, transport):
    async with pair(role, transport, buffer=SMALL) as both:
        await block(both)
        tasks = await waiting(*(both.ws.send(str(number)) for number in range(10)))
        assert await payloads(both.peer, 11) == [HUGE, *(str(number).encode() for number in range(10))]
        await within(asyncio.gather(*tasks))
        both.peer.fin()


async def test_a_loop_of_sends_does_not_overtake_waiting_sends():
    async def two():
        await both.ws.send("a1")
        await both.ws.send("a2")

    async with pair("server", buffer=SMALL) as both:
        await block(both)
        tasks = await waiting(two(), both.ws.send("b"), both.ws.send("c"))
        assert await payloads(both.peer, 5) == [HUGE, b"a1", b"b", b"c", b"a2"]
        await within(asyncio.gather(*tasks))
        both.peer.fin()


async def test_a_new_send_does_not_overtake_a_woken_one():
    async with pair("server", buffer=SMALL) as both:
        await block(both)
        first, second = await waiting(both.ws.send("first"), both.ws.send("second"))
        newcomer = None

        def come(_task):
            nonlocal newcomer
            newcomer = asyncio.ensure_future(both.ws.send("newcomer"))

        first.add_done_callback(come)
        assert await payloads(both.peer, 4) == [HUGE, b"first", b"second", b"newcomer"]
        await within(asyncio.gather(first, second, newcomer))
        both.peer.fin()


@pytest.mark.parametrize("which", [0, 1, 2])
async def test_a_cancelled_waiting_send_sends_nothing_and_delays_no_other(which):
    async with pair("server", buffer=SMALL) as both:
        await block(both)
        tasks = await waiting(*(both.ws.send(str(number)) for number in range(3)))
        tasks[which].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[which]
        rest = [number for number in range(3) if number != which]
        assert await payloads(both.peer, 3) == [HUGE, *(str(number).encode() for number in rest)]
        await within(asyncio.gather(*(tasks[number] for number in rest)))
        await both.ws.send("and on")
        assert await payloads(both.peer, 1) == [b"and on"]
        both.peer.fin()
    assert both.ws.ending.messages_out == 4


async def test_a_send_cancelled_after_wakeup_wakes_the_next():
    async with pair("server", buffer=SMALL) as both:
        await block(both)
        first, second = await waiting(both.ws.send("first"), both.ws.send("second"))
        both.ws._sender.set_result(None)
        first.cancel()  # it has not resumed yet
        with pytest.raises(asyncio.CancelledError):
            await first
        assert not second.done()
        assert await payloads(both.peer, 2) == [HUGE, b"second"]
        await within(second)
        both.peer.fin()


async def test_waiting_sends_raise_when_the_connection_ends(role):
    async with pair(role, buffer=SMALL) as both:
        await block(both)
        tasks = await waiting(*(both.ws.send(str(number)) for number in range(3)))
        both.peer.reset()
        for task in tasks:
            with pytest.raises(ConnectionClosed) as raised:
                await within(task)
            assert raised.value.ending is both.ws.ending
    assert both.ws.ending.messages_out == 1


async def test_concurrent_sends_of_tasks_keep_each_message_whole(role, transport):
    async with pair(role, transport, buffer=SMALL) as both:
        messages = [f"{number:05}" * 2000 for number in range(100)]
        sending = asyncio.gather(*(both.ws.send(message) for message in messages))
        received = await payloads(both.peer, 100)
        await within(sending)
        both.peer.fin()
    assert [payload.decode() for payload in received] == messages


async def test_a_loop_of_sends_yields_to_other_tasks(role):
    async with pair(role) as both:
        stop = asyncio.Event()
        sent = most = 0

        async def flood():
            nonlocal sent
            while not stop.is_set():
                await both.ws.send(b"x" * 100)
                sent += 1

        async def drain():
            while not stop.is_set():
                await both.peer.more()

        tasks = [asyncio.create_task(flood()), asyncio.create_task(drain())]
        for _ in range(50):
            before = sent
            await asyncio.sleep(0)
            most = max(most, sent - before)
        stop.set()
        await within(asyncio.wait(tasks))
        both.peer.fin()
    assert sent
    assert most <= 256  # a loop of sends yields once in 256


async def test_many_messages_are_sent_at_once_with_a_low_write_limit(role):
    async with pair(role, write_limit=100) as both:

        async def answer():
            await both.ws.recv()
            for _ in range(10):
                await both.ws.send(b"x" * 90)

        task = asyncio.create_task(answer())
        await loop_turns()
        await both.peer.frame(TEXT, b"go")
        await within(task)
        for _ in range(10):
            assert await both.peer.read_frame() == (BINARY, b"x" * 90)
        both.peer.fin()


async def test_an_unawaited_send_that_would_wait_warns_by_name(role):
    async with pair(role, buffer=SMALL) as both:
        await block(both)
        with pytest.warns(RuntimeWarning, match=r"^coroutine 'WebSocket\.send' was never awaited$") as warned:
            both.ws.send("lost")
        assert {warning.filename for warning in warned} == {__file__}
        (task,) = await waiting(both.ws.send("next"))
        assert await payloads(both.peer, 2) == [HUGE, b"next"]
        await within(task)
        both.peer.fin()


async def test_a_loop_of_unawaited_sends_warns_with_a_fast_peer():
    async with pair("server") as both:
        for _ in range(BURST - 1):
            both.ws.send("x")
        with pytest.warns(RuntimeWarning, match=r"^coroutine 'WebSocket\.send' was never awaited$"):
            both.ws.send("x")
        # The messages were sent all the same.
        assert await payloads(both.peer, BURST) == [b"x"] * BURST
        both.peer.fin()


async def test_an_unawaited_send_after_the_end_warns_by_name():
    async with pair("server") as both:
        both.peer.fin()
        await both.ending()
        with pytest.warns(RuntimeWarning, match=r"^coroutine 'WebSocket\.send' was never awaited$"):
            both.ws.send("lost")

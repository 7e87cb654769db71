"""A Close is processed after the messages that were received before it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from endwell import Cause, Close, ConnectionClosed, Server, TcpEnd
from endwell.aio.syscalls import monotonic
from tests.pair import idle, pair, until, within
from tests.raw import BOUND, RawPeer
from tests.wire.peer import TEXT

#: An answer that waits for this comes after the bound of any wait in these tests (``BOUND``).
TOO_LATE = 60.0

FIVE = [f"message {number}" for number in range(5)]


def five_and_close(peer, code=4001):
    return b"".join(peer.octets(TEXT, text.encode()) for text in FIVE) + peer.close_octets(code)


class Loop:
    """The loop of cpp-httplib's cookbook, W03: ``is_open``, ``read()``, an answer, cleanup."""

    def __init__(self):
        self.handled = []
        self.after_the_loop = []
        self.cleaned_up = []

    async def __call__(self, ws):
        try:
            while ws.is_open:
                message = await ws.read()
                if message is None:
                    break
                await ws.send(f"answer to {message}")
                self.handled.append(message)
            self.after_the_loop.append(True)
        finally:
            self.cleaned_up.append(True)


@pytest.mark.parametrize("fin", [False, True], ids=["Close", "Close and FIN"])
async def test_messages_before_a_close_are_answered_before_the_close(fin, role, transport, face):
    loop = Loop()
    async with pair(role, transport, face, handler=loop, answer_timeout=TOO_LATE) as both:
        both.peer.send_at_once(five_and_close(both.peer))
        if fin:
            both.peer.fin()
        seen = await both.peer.read_to_the_end()
        both.peer.fin()
        ending = await both.ending()
        await until(lambda: loop.cleaned_up)
    assert loop.handled == FIVE
    assert loop.after_the_loop == [True]
    assert [frame.payload.decode() for frame in seen.frames] == [f"answer to {text}" for text in FIVE]
    assert (seen.close, seen.closes, seen.tcp) == (Close(4001), 1, TcpEnd.FIN)
    assert (ending.cause, ending.clean, ending.tcp) == (Cause.PEER_CLOSED, True, transport.fin)
    assert (ending.received, ending.sent) == (Close(4001), Close(4001))


async def test_after_a_close_and_a_reset_the_cleanup_runs(role, transport, face):
    loop = Loop()
    called = []

    async def handler(ws):
        with suppress(ConnectionClosed):  # in send(), if the reset comes first
            await loop(ws)

    async with pair(role, transport, face, handler=handler, answer_timeout=TOO_LATE) as both:
        both.ws.on_close(called.append)
        both.peer.send_at_once(five_and_close(both.peer))
        await both.peer.until_acknowledged()
        both.peer.reset()
        ending = await both.ending()
        await until(lambda: loop.cleaned_up and called)
    assert called == [ending]
    assert (ending.cause, ending.received, ending.code) == (Cause.PEER_CLOSED, Close(4001), 4001)


async def test_a_reset_is_reported_while_the_handler_works_on_earlier_messages(role, transport, face):
    working, go_on = [], []

    async def handler(ws):
        await ws.recv()
        working.append(True)
        while not go_on:
            await face.pause(0.005)

    async with pair(role, transport, face, handler=handler, answer_timeout=TOO_LATE) as both:
        both.peer.send_at_once(five_and_close(both.peer))
        await until(lambda: working and both.core.received)
        assert both.ws.is_open
        both.peer.reset()
        ending = await within(both.ws.closed)
        assert not both.ws.is_open
        go_on.append(True)
    assert (ending.cause, ending.received, ending.tcp) == (Cause.PEER_CLOSED, Close(4001), TcpEnd.RST)
    assert (ending.sent, ending.clean) == (None, False)


async def test_send_works_until_the_handler_receives_again(role, transport, face):
    working, go_on, raised = [], [], []

    async def handler(ws):
        await ws.recv()
        working.append(True)
        while not go_on:
            await face.pause(0.005)
        await ws.send("answer")
        assert ws.is_open
        with pytest.raises(ConnectionClosed) as info:
            await ws.recv()
        raised.append(info.value)

    async with pair(role, transport, face, handler=handler, answer_timeout=TOO_LATE) as both:
        peer = both.peer
        peer.send_at_once(peer.octets(TEXT, b"question") + peer.close_octets(4001, "bye"))
        await until(lambda: working and both.core.received)
        assert both.ws.is_open
        assert both.ws.ending is None
        assert await peer.is_silent(0.02)
        go_on.append(True)
        frame = await peer.read_frame()
        assert frame is not None
        assert frame.payload == b"answer"
        assert await peer.read_close() == Close(4001, "bye")
        assert not both.ws.is_open
        peer.fin()
        ending = await both.ending()
        await until(lambda: raised)
    assert raised[0].ending is ending


@pytest.mark.parametrize("pending", ["unread", "at work"])
async def test_a_close_is_answered_after_at_most_answer_timeout(pending, role, transport, face):
    go_on = []

    async def handler(ws):
        if pending == "at work":
            await ws.recv()
        while not go_on:
            await face.pause(0.005)

    async with pair(role, transport, face, handler=handler, answer_timeout=0.1) as both:
        peer = both.peer
        began = monotonic()
        peer.send_at_once(peer.octets(TEXT, b"question") + peer.close_octets(4001))
        assert await peer.read_close() == Close(4001)
        assert monotonic() - began >= 0.09
        assert not both.ws.is_open
        peer.fin()
        ending = await both.ending()
        go_on.append(True)
    assert (ending.cause, ending.clean) == (Cause.PEER_CLOSED, True)


@pytest.mark.parametrize("state", ["never took a message", "waits for a message"])
async def test_with_nothing_pending_a_close_is_answered_at_once(state, role, transport, face):
    go_on = []

    async def handler(ws):
        if state == "waits for a message":
            assert await ws.recv() == "first"
            await ws.send("taken")
            assert await ws.read() is None
        while not go_on:
            await face.pause(0.005)

    async with pair(role, transport, face, handler=handler, answer_timeout=TOO_LATE) as both:
        peer = both.peer
        if state == "waits for a message":
            await peer.frame(TEXT, b"first")
            await peer.read_frame()
        await peer.close(4001)
        assert await peer.read_close() == Close(4001)
        peer.fin()
        await both.ending()
        go_on.append(True)


async def test_a_close_is_answered_when_the_handler_returns_or_closes(role, transport, face):
    go_on = []

    async def handler(ws):
        await ws.recv()
        while not go_on:
            await face.pause(0.005)
        await ws.send("answer")
        await ws.close(4002)

    async with pair(role, transport, face, handler=handler, answer_timeout=TOO_LATE) as both:
        peer = both.peer
        peer.send_at_once(peer.octets(TEXT, b"question") + peer.close_octets(4001))
        await until(lambda: both.core.received)
        go_on.append(True)
        frame = await peer.read_frame()
        assert frame is not None
        assert frame.payload == b"answer"
        # The first closing event counts: the peer's Close.
        assert await peer.read_close() == Close(4001)
        peer.fin()
        ending = await both.ending()
    assert (ending.cause, ending.sent) == (Cause.PEER_CLOSED, Close(4001))


async def test_large_answers_reach_a_peer_that_has_half_closed(role, transport, face):
    large = bytes(400_000)

    async def handler(ws):
        while await ws.read() is not None:
            await ws.send(large)

    async with pair(role, transport, face, handler=handler, buffer=16384, answer_timeout=TOO_LATE) as both:
        both.peer.send_at_once(five_and_close(both.peer))
        both.peer.fin()
        seen = await both.peer.read_to_the_end()
        ending = await both.ending()
    assert [len(frame.payload) for frame in seen.frames] == [len(large)] * 5
    assert (seen.close, ending.clean, ending.unsent_bytes) == (Close(4001), True, 0)


async def test_a_pending_end_of_tcp_costs_no_cpu_time(role, transport):
    async def handler(ws):
        await ws.recv()
        await asyncio.sleep(0.3)
        async for _ in ws:
            pass

    async with pair(role, transport, handler=handler, answer_timeout=TOO_LATE) as both:
        both.peer.send_at_once(five_and_close(both.peer))
        both.peer.fin()
        await until(lambda: both.core.received)
        await asyncio.sleep(0.05)
        began = time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)
        await asyncio.sleep(0.2)
        spent = time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID) - began
        ending = await both.ending()
    assert spent < 0.1
    assert (ending.cause, ending.received) == (Cause.PEER_CLOSED, Close(4001))


# -- the ending is reported, whatever TCP does -------------------------------------


@pytest.mark.parametrize("first", ["we", "they", "fault"])
async def test_the_ending_is_reported_within_linger_timeout_while_tcp_stays_open(
    first, role, transport, face
):
    called = []
    async with pair(role, transport, face, handler=idle, close_timeout=60.0, linger_timeout=0.1) as both:
        peer = both.peer
        peer.answers_notify = False
        both.ws.on_close(called.append)
        began = monotonic()
        closing = asyncio.ensure_future(both.ws.close(4000)) if first == "we" else None
        if closing is not None:
            assert await peer.read_close() == Close(4000)
        if first == "fault":
            await peer.frame(TEXT, b"\xff")
        else:
            await peer.close(4000)
        ending = await within(both.ws.closed)
        assert monotonic() - began >= 0.09
        await until(lambda: called)
        assert called == [ending]
        if closing is not None:
            assert await within(closing) is ending
        assert await within(both.ws.read()) is None
    assert ending.clean is (first != "fault")
    assert ending.tcp is (TcpEnd.OPEN if role == "server" else TcpEnd.TIMEOUT)


async def test_a_server_keeps_reading_after_the_ending_and_then_aborts(transport):
    async with pair("server", transport, linger_timeout=0.05, close_timeout=2.5) as both:
        peer = both.peer
        await peer.close(4001)
        ending = await within(both.ws.closed)
        stream = both.ws._stream
        assert stream.sock is not None
        await peer.write(peer.octets(TEXT, bytes(60_000)) * 20)
        await peer.until_acknowledged()
        assert await peer.read_close() == Close(4001)
        seen = await peer.read_to_the_end()
        assert seen.tcp is TcpEnd.FIN  # not a reset, which would destroy an unread Close
        await until(lambda: stream.sock is None)
    assert both.ws.ending is ending
    assert (ending.clean, ending.tcp) == (True, TcpEnd.OPEN)


async def test_stop_closes_the_sockets_of_reported_endings(transport):
    async with pair("server", transport, linger_timeout=0.05, close_timeout=60.0) as both:
        await both.peer.close(4001)
        await within(both.ws.closed)
        stream = both.ws._stream
        assert stream.sock is not None
        both.peer.drop()
        await until(lambda: stream.sock is None)


async def test_an_ended_connection_counts_for_max_connections_until_tcp_ends():
    ended = []
    server = Server(max_connections=1, linger_timeout=0.05, close_timeout=60.0, ping_interval=None)
    server.on_close(lambda ws, ending: ended.append(ending))

    @server.websocket("/")
    async def handler(ws):
        await ws.wait_closed()

    async def answer():
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(peer.request())
            return (await peer.read_head()).splitlines()[0]

    async with server.serving():
        with await RawPeer.connect(server.port) as first:
            await first.close()
            await until(lambda: ended and not server.connections)
            assert await answer() == "HTTP/1.1 503 Service Unavailable"
        async with asyncio.timeout(BOUND):
            while await answer() != "HTTP/1.1 101 Switching Protocols":
                await asyncio.sleep(0.01)


# -- a Close without a code -------------------------------------------------------


async def test_close_without_a_code_sends_no_code(role, transport, face):
    async with pair(role, transport, face) as both:
        closing = asyncio.ensure_future(both.ws.close(None))
        assert await both.peer.read_close() == Close(None)
        await both.peer.close(None)
        both.peer.fin()
        ending = await within(closing)
        with pytest.raises(ValueError, match="reason"):
            await both.ws.close(None, "why")
    assert (ending.cause, ending.sent, ending.received) == (Cause.APP_CLOSED, Close(None), Close(None))
    assert (ending.code, ending.ok, ending.clean) == (1005, True, True)

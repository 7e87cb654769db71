"""Closing with full queues: messages sent before the Close arrive before it, and the queues do not delay it."""

from __future__ import annotations

import asyncio

import pytest

from endwell import Cause, Close, ConnectionClosed, ConnectionClosedOK, TcpEnd
from tests.pair import loop_turns, pair, until, within
from tests.wire.peer import BINARY, PING, PONG, TEXT

#: The receive buffer of the peer's kernel, in bytes. Our kernel keeps a few hundred kilobytes; the rest
#: waits in our outbox.
SMALL = 16384
CHUNK = bytes(range(256)) * 256  # 64 KiB
#: The number of such messages: 4 MiB in total.
MANY = 64


#: More octets than our kernel accepts for a peer that does not read.
HUGE = bytes(2 * 2**20)


async def leave(peer):
    """Read everything, then end TCP too."""
    seen = await peer.read_to_the_end()
    peer.sock.close()
    return seen


async def block(both):
    """Keep our outbox over its limit until the peer reads."""
    await both.ws.send(HUGE)
    assert both.core.outbox.size > both.core.options.write_limit


async def test_everything_sent_before_close_arrives_before_the_close(role, transport):
    async with pair(role, transport, buffer=SMALL, write_limit=16 * 2**20) as both:
        for number in range(MANY):
            await both.ws.send(number.to_bytes(2, "big") + CHUNK)
        await both.ws.send("last words")
        closing = asyncio.ensure_future(both.ws.close(4000))
        await asyncio.sleep(0)
        assert both.core.outbox.size > 2**20
        await both.peer.close(4000)  # not an answer: it has read nothing yet
        for number in range(MANY):
            received = await both.peer.read_frame()
            assert received.payload == number.to_bytes(2, "big") + CHUNK
            if number % 8 == 0:
                await asyncio.sleep(0.002)  # a slow reader
        assert await both.peer.read_frame() == (TEXT, b"last words")
        assert await both.peer.read_close() == Close(4000)
        both.peer.fin()
        ending = await within(closing)
    assert (ending.sent, ending.clean, ending.unsent_bytes) == (Close(4000), True, 0)
    assert ending.messages_out == MANY + 1


async def test_one_large_message_sent_before_close_arrives_before_the_close(role, transport):
    message = CHUNK * MANY
    async with pair(role, transport, buffer=SMALL) as both:
        await both.ws.send(message)
        closing = asyncio.ensure_future(both.ws.close(4000))
        data = await both.peer.read_frame()
        assert await both.peer.read_close() == Close(4000)
        await both.peer.close(4000)
        both.peer.fin()
        ending = await within(closing)
    assert data.payload == message
    assert (ending.clean, ending.unsent_bytes) == (True, 0)


async def test_messages_sent_before_the_peers_close_arrive_before_our_answer(role, transport):
    async with pair(role, transport, buffer=SMALL) as both:
        await block(both)
        await both.peer.close(4001)
        await both.peer.until_acknowledged()
        seen = await leave(both.peer)
    assert seen.frames == [(BINARY, HUGE)]
    assert (seen.close, seen.closes, seen.tcp) == (Close(4001), 1, TcpEnd.FIN)
    assert (both.ws.ending.clean, both.ws.ending.cause) == (True, Cause.PEER_CLOSED)


async def test_close_cancels_a_waiting_send_and_keeps_earlier_messages(role, transport):
    async with pair(role, transport, buffer=SMALL) as both:
        await block(both)
        waiting = [asyncio.ensure_future(both.ws.send(f"too late {number}")) for number in range(3)]
        await loop_turns()
        assert not any(task.done() for task in waiting)
        closing = asyncio.ensure_future(both.ws.close(4000))
        await asyncio.sleep(0)
        await both.peer.close(4000)
        seen = await leave(both.peer)
        ending = await within(closing)
        for task in waiting:
            with pytest.raises(ConnectionClosed) as raised:
                await within(task)
            assert raised.value.ending is ending
    assert seen.frames == [(BINARY, HUGE)]
    assert (seen.close, seen.closes, seen.tcp) == (Close(4000), 1, TcpEnd.FIN)
    assert (ending.clean, ending.messages_out) == (True, 1)


async def test_a_peer_that_reads_nothing_during_our_close_is_aborted_after_close_timeout(role, transport):
    async with pair(role, transport, buffer=SMALL, close_timeout=0.2) as both:
        await block(both)
        ending = await within(both.ws.close(4000))
    assert (ending.sent, ending.clean, ending.tcp) == (None, False, TcpEnd.TIMEOUT)
    assert ending.unsent_bytes > 2**16
    assert "4000" not in str(ending)


# -- the inbox is full ------------------------------------------------------------


async def test_a_full_inbox_pauses_reading_and_then_delivers_in_order(role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise, max_queue=2) as both:
        for number in range(5):
            await both.peer.frame(TEXT, str(number).encode())
            await asyncio.sleep(0.005)
        await both.peer.close(4001)
        await both.peer.until_acknowledged()
        await until(lambda: not both.core.wants_read())
        assert both.ws.is_open
        assert len(both.core.inbox) <= (2 if bytewise else 3)
        assert [message async for message in both.ws if both.peer.fin() is None] == list("01234")
        assert (await both.peer.read_to_the_end()).close == Close(4001)
    assert (both.ws.ending.cause, both.ws.ending.clean) == (Cause.PEER_CLOSED, True)
    assert both.ws.ending.dropped_messages == 0


async def test_a_full_inbox_does_not_delay_our_close(role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise, max_queue=2) as both:
        for _ in range(5):
            await both.peer.frame(TEXT, b"unread")
            await asyncio.sleep(0.005)
        await until(lambda: not both.core.wants_read())
        closing = asyncio.ensure_future(both.ws.close(4000))
        await both.peer.close(4000)
        assert await both.peer.read_close() == Close(4000)
        both.peer.fin()
        ending = await within(closing)
        assert [message async for message in both.ws] == ["unread"] * (5 - ending.dropped_messages)
    assert (ending.clean, ending.messages_in) == (True, 5)
    assert ending.dropped_messages >= 2


# -- the outbox is full -----------------------------------------------------------


async def test_a_peer_that_closes_receives_a_full_outbox_before_the_answer(role, transport, bytewise):
    async def stream(ws):
        while True:
            await ws.send(HUGE)

    async def streaming(ws):
        with pytest.raises(ConnectionClosedOK):
            await stream(ws)

    async with pair(role, transport, handler=streaming, bytewise=bytewise, buffer=SMALL) as both:
        await until(lambda: both.core.outbox.size > both.core.options.write_limit)
        await both.peer.close(1001)
        await both.peer.until_acknowledged()
        while both.ws.is_open:
            await asyncio.sleep(0.001)
        seen = await leave(both.peer)
    assert seen.frames == [(BINARY, HUGE)] * both.ws.ending.messages_out
    assert (seen.close, seen.closes, seen.tcp) == (Close(1001), 1, TcpEnd.FIN)
    assert (both.ws.ending.clean, both.ws.ending.unsent_bytes) == (True, 0)


async def test_a_drop_with_a_full_outbox_is_reported_as_such(role, transport):
    async with pair(role, transport, buffer=SMALL) as both:
        await block(both)
        both.peer.reset()
        ending = await both.ending()
    assert (ending.cause, ending.tcp) == (Cause.CONNECTION_RESET, TcpEnd.RST)
    assert ending.unsent_bytes > 0


@pytest.mark.waits
async def test_a_peer_that_reads_nothing_is_closed_after_write_timeout(role, transport):
    async with pair(role, transport, buffer=SMALL, write_timeout=0.2) as both:
        await block(both)
        ending = await both.ending()
    assert (ending.cause, ending.sent, ending.clean) == (Cause.WRITE_TIMEOUT, None, False)
    assert ending.tcp is TcpEnd.ABORTED


@pytest.mark.waits
async def test_a_slow_reader_is_not_closed(role, transport):
    # Longer in total than write_timeout, but never without progress for that long, even on a stalled
    # machine.
    async with pair(role, transport, buffer=65536, write_timeout=2.5) as both:
        await both.ws.send(HUGE * 2)
        for _ in range(20):
            await asyncio.sleep(0.15)
            assert await within(both.peer.more())
        assert both.ws.is_open
        assert await both.peer.read_frame() == (BINARY, HUGE * 2)
        both.peer.fin()


# -- pings ------------------------------------------------------------------------


async def test_pings_from_a_peer_that_does_not_read_queue_no_unbounded_pongs(role, transport):
    async with pair(role, transport, buffer=SMALL) as both:
        peer, outbox = both.peer, both.core.outbox
        flood = peer.octets(PING, bytes(125)) * 1000
        largest = most = rounds = 0
        while rounds < 10:  # of more than a megabyte, once the kernel's buffers are full
            await peer.write(flood)
            rounds += outbox.size > both.core.options.write_limit
            largest, most = max(largest, outbox.size), max(most, len(outbox.sealed))
        await peer.frame(PING, b"the last one")
        await peer.until_acknowledged()
        largest = max(largest, outbox.size)
        assert both.core.options.write_limit < largest <= both.core.options.write_limit + 131
        assert most <= largest // 127 + 1
        closing = asyncio.ensure_future(both.ws.close(4000))
        await peer.close(4000)
        seen = await leave(peer)
        assert (await within(closing)).clean
    assert {frame.opcode for frame in seen.frames} == {PONG}
    assert (seen.close, seen.tcp) == (Close(4000), TcpEnd.FIN)


async def test_a_peer_that_reads_again_finds_the_pong_to_its_newest_ping(role, transport, bytewise):
    async with pair(role, transport, buffer=SMALL, bytewise=bytewise) as both:
        await block(both)
        for number in range(10):
            await both.peer.frame(PING, str(number).encode())
        await both.peer.until_acknowledged()
        while both.core._pong != b"9":
            await asyncio.sleep(0.001)
        assert await both.peer.read_frame() == (BINARY, HUGE)
        assert await both.peer.read_frame() == (PONG, b"9")
        both.peer.fin()

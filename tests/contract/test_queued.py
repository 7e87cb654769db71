"""Close with a queue: what was sent before it arrives before it, and full queues do not hold it up."""

from __future__ import annotations

import asyncio

import pytest

from endwell import Cause, Close, ConnectionClosed, ConnectionClosedOK, TcpEnd
from tests.pair import pair, turns, until, within
from tests.wire.peer import BINARY, PING, PONG, TEXT

#: Bytes that the peer's kernel takes; ours keeps a few hundred kilobytes, and the rest waits with us.
SMALL = 16384
CHUNK = bytes(range(256)) * 256  # 64 KiB
#: Messages of that size: 4 MiB.
MANY = 64


#: More than our kernel takes for a peer that does not read.
HUGE = bytes(2 * 2**20)


async def leave(peer):
    """Read everything there is, then end TCP too."""
    seen = await peer.read_to_the_end()
    peer.sock.close()
    return seen


async def block(both):
    """Have our queue over its limit for as long as the peer does not read."""
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
                await asyncio.sleep(0.002)  # it is slow
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


async def test_everything_sent_before_the_peers_close_arrives_before_our_answer(role, transport):
    async with pair(role, transport, buffer=SMALL) as both:
        await block(both)
        await both.peer.close(4001)
        await both.peer.delivered()
        seen = await leave(both.peer)
    assert seen.frames == [(BINARY, HUGE)]
    assert (seen.close, seen.closes, seen.tcp) == (Close(4001), 1, TcpEnd.FIN)
    assert (both.ws.ending.clean, both.ws.ending.cause) == (True, Cause.PEER_CLOSED)


async def test_a_send_that_waits_when_we_close_sends_nothing_and_all_before_it_arrives(role, transport):
    async with pair(role, transport, buffer=SMALL) as both:
        await block(both)
        waiting = [asyncio.ensure_future(both.ws.send(f"too late {number}")) for number in range(3)]
        await turns()
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


async def test_a_peer_that_reads_nothing_during_our_close_is_cut_after_close_timeout(role, transport):
    async with pair(role, transport, buffer=SMALL, close_timeout=0.2) as both:
        await block(both)
        ending = await within(both.ws.close(4000))
    assert (ending.sent, ending.clean, ending.tcp) == (None, False, TcpEnd.TIMEOUT)
    assert ending.unsent_bytes > 2**16
    assert "4000" not in str(ending)


# -- the inbox is full ------------------------------------------------------------


async def test_a_full_inbox_holds_the_peer_back_and_then_tells_everything_in_order(role, transport, bytewise):
    async with pair(role, transport, bytewise=bytewise, max_queue=2) as both:
        for number in range(5):
            await both.peer.frame(TEXT, str(number).encode())
            await asyncio.sleep(0.005)
        await both.peer.close(4001)
        await both.peer.delivered()
        await until(lambda: not both.core.wants_read())
        assert both.ws.is_open
        assert len(both.core.inbox) <= (2 if bytewise else 3)
        assert [message async for message in both.ws if both.peer.fin() is None] == list("01234")
        assert (await both.peer.read_to_the_end()).close == Close(4001)
    assert (both.ws.ending.cause, both.ws.ending.clean) == (Cause.PEER_CLOSED, True)
    assert both.ws.ending.dropped_messages == 0


async def test_a_full_inbox_does_not_hold_up_our_own_close(role, transport, bytewise):
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


async def test_a_peer_that_closes_with_our_outbox_full_gets_everything_and_then_the_answer(
    role, transport, bytewise
):
    async def stream(ws):
        while True:
            await ws.send(HUGE)

    async def streaming(ws):
        with pytest.raises(ConnectionClosedOK):
            await stream(ws)

    async with pair(role, transport, handler=streaming, bytewise=bytewise, buffer=SMALL) as both:
        await until(lambda: both.core.outbox.size > both.core.options.write_limit)
        await both.peer.close(1001)
        await both.peer.delivered()
        while both.ws.is_open:
            await asyncio.sleep(0.001)
        seen = await leave(both.peer)
    assert seen.frames == [(BINARY, HUGE)] * both.ws.ending.messages_out
    assert (seen.close, seen.closes, seen.tcp) == (Close(1001), 1, TcpEnd.FIN)
    assert (both.ws.ending.clean, both.ws.ending.unsent_bytes) == (True, 0)


async def test_a_peer_that_drops_with_our_outbox_full_is_told_as_that(role, transport):
    async with pair(role, transport, buffer=SMALL) as both:
        await block(both)
        both.peer.reset()
        ending = await both.ending()
    assert (ending.cause, ending.tcp) == (Cause.CONNECTION_RESET, TcpEnd.RST)
    assert ending.unsent_bytes > 0


async def test_a_peer_that_takes_nothing_is_given_up_after_write_timeout(role, transport):
    async with pair(role, transport, buffer=SMALL, write_timeout=0.2) as both:
        await block(both)
        ending = await both.ending()
    assert (ending.cause, ending.sent, ending.clean) == (Cause.WRITE_TIMEOUT, None, False)
    assert ending.tcp is TcpEnd.ABORTED


async def test_a_peer_that_takes_its_time_is_not_given_up(role, transport):
    # Longer in all, but never so long without taking anything, though the machine stalls besides.
    async with pair(role, transport, buffer=65536, write_timeout=2.5) as both:
        await both.ws.send(HUGE * 2)
        for _ in range(20):
            await asyncio.sleep(0.15)
            assert await within(both.peer.more())
        assert both.ws.is_open
        assert await both.peer.read_frame() == (BINARY, HUGE * 2)
        both.peer.fin()


# -- pings ------------------------------------------------------------------------


async def test_a_peer_that_pings_without_reading_gets_no_unbounded_queue(role, transport):
    async with pair(role, transport, buffer=SMALL) as both:
        peer, outbox = both.peer, both.core.outbox
        flood = peer.octets(PING, bytes(125)) * 1000
        largest = most = rounds = 0
        while rounds < 10:  # of more than a megabyte, once the kernel's buffers are full
            await peer.write(flood)
            rounds += outbox.size > both.core.options.write_limit
            largest, most = max(largest, outbox.size), max(most, len(outbox.sealed))
        await peer.frame(PING, b"the last one")
        await peer.delivered()
        largest = max(largest, outbox.size)
        assert both.core.options.write_limit < largest <= both.core.options.write_limit + 131
        assert most <= largest // 127 + 1
        closing = asyncio.ensure_future(both.ws.close(4000))
        await peer.close(4000)
        seen = await leave(peer)
        assert (await within(closing)).clean
    assert {frame.opcode for frame in seen.frames} == {PONG}
    assert (seen.close, seen.tcp) == (Close(4000), TcpEnd.FIN)


async def test_when_a_peer_reads_again_it_finds_the_pong_to_its_newest_ping(role, transport, bytewise):
    async with pair(role, transport, buffer=SMALL, bytewise=bytewise) as both:
        await block(both)
        for number in range(10):
            await both.peer.frame(PING, str(number).encode())
        await both.peer.delivered()
        while both.core._pong != b"9":
            await asyncio.sleep(0.001)
        assert await both.peer.read_frame() == (BINARY, HUGE)
        assert await both.peer.read_frame() == (PONG, b"9")
        both.peer.fin()

"""A peer that is gone without a word is noticed in time, whatever else goes on."""

from __future__ import annotations

import asyncio

import pytest

from endwell import Cause, TcpEnd
from tests.pair import pair
from tests.raw import BOUND
from tests.wire.peer import BINARY, PING

KEEPALIVE = {"ping_interval": 0.3, "ping_timeout": 0.3, "write_timeout": None}

#: Seconds after which nothing but the close timeout would end it: more than a test waits.
LONG = 60.0

#: More than any kernel buffers on the way.
HUGE = bytes(2**24)


async def fill_inbox(both):
    for _ in range(20):
        await both.peer.frame(BINARY, b"unread")
    async with asyncio.timeout(BOUND):
        while both.core.wants_read():
            await asyncio.sleep(0.001)


async def block_writes(both):
    await both.ws.send(HUGE)
    assert both.core.outbox.size


async def nothing(both):
    pass


@pytest.mark.parametrize("before", [nothing, block_writes, fill_inbox])
async def test_a_dead_peer_is_gone_within_ping_interval_and_ping_timeout(before, role, transport):
    async with pair(role, transport, buffer=65536, close_timeout=LONG, **KEEPALIVE) as both:
        await before(both)
        await both.peer.vanish()
        ending = await both.ending()  # it does not wait for an answer to a Close
    assert (ending.cause, ending.tcp, ending.clean) == (Cause.KEEPALIVE_TIMEOUT, TcpEnd.ABORTED, False)


async def test_a_dead_peer_is_gone_with_its_inbox_full_and_the_queue_to_it_blocked(role, transport):
    async with pair(role, transport, buffer=65536, **KEEPALIVE) as both:
        await block_writes(both)
        await fill_inbox(both)
        await both.peer.vanish()
        assert (await both.ending()).cause is Cause.KEEPALIVE_TIMEOUT


async def test_a_reset_is_told_at_once_though_messages_wait_for_a_busy_handler(role, transport):
    # Without keepalive nothing else would ever tell it.
    async with pair(role, transport, close_timeout=LONG) as both:
        await fill_inbox(both)
        both.peer.reset()
        ending = await both.ending()
        assert [message async for message in both.ws][:16] == [b"unread"] * 16
    assert (ending.cause, ending.tcp) == (Cause.CONNECTION_RESET, TcpEnd.RST)


async def test_a_peer_that_has_closed_its_socket_is_gone_with_the_next_ping_though_messages_wait(role):
    async with pair(role, ping_interval=0.1, ping_timeout=LONG, close_timeout=LONG) as both:
        await fill_inbox(both)
        both.peer.drop()
        ending = await both.ending()
    assert (ending.cause, ending.tcp) == (Cause.CONNECTION_RESET, TcpEnd.RST)


async def test_whoever_is_held_back_by_turns_goes_on_each_time_and_is_not_taken_for_reset(role, transport):
    async def slow(ws):
        async for message in ws:
            await asyncio.sleep(0)
            await ws.send(message)

    async with pair(role, transport, handler=slow) as both:
        for _ in range(20):
            await both.peer.write(both.peer.octets(BINARY, b"again") * 50)
            for _ in range(50):
                assert await both.peer.read_frame() == (BINARY, b"again")


async def test_a_peer_whose_messages_wait_for_a_busy_handler_is_not_given_up(role, transport):
    async with pair(role, transport, **KEEPALIVE) as both:
        await fill_inbox(both)
        for _ in range(4):  # the last one leaves long after the first should have been answered
            assert (await both.peer.read_frame()).opcode == PING
        assert both.ws.is_open
        # Nor is it at the moment at which the handler takes them, though no pong was read.
        for _ in range(20):
            assert await both.ws.recv() == b"unread"
        assert both.ws.is_open


async def test_a_peer_that_takes_nothing_is_gone_after_write_timeout_without_any_keepalive(role, transport):
    async with pair(role, transport, buffer=65536, write_timeout=0.2, close_timeout=LONG) as both:
        await fill_inbox(both)
        await block_writes(both)
        ending = await both.ending()
    assert (ending.cause, ending.tcp) == (Cause.WRITE_TIMEOUT, TcpEnd.ABORTED)
    assert ending.unsent_bytes > 0

"""A dead peer is detected in time, whatever else happens."""

from __future__ import annotations

import asyncio

import pytest

from endwell import Cause, TcpEnd
from tests.pair import pair
from tests.raw import BOUND
from tests.selection import MEMORY
from tests.wire.peer import BINARY, PING

KEEPALIVE = {"ping_interval": 0.3, "ping_timeout": 0.3, "write_timeout": None}

#: Seconds after which only the close timeout would end the connection: longer than a test waits.
LONG = 60.0

#: More octets than the kernel buffers on the path hold.
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
async def test_a_dead_peer_is_closed_within_ping_interval_and_ping_timeout(before, role, transport):
    async with pair(role, transport, buffer=65536, close_timeout=LONG, **KEEPALIVE) as both:
        await before(both)
        await both.peer.vanish()
        ending = await both.ending()  # it does not wait for an answer to a Close
    assert (ending.cause, ending.tcp, ending.clean) == (Cause.KEEPALIVE_TIMEOUT, TcpEnd.ABORTED, False)


async def test_a_dead_peer_is_closed_with_full_inbox_and_blocked_outbox(role, transport):
    async with pair(role, transport, buffer=65536, **KEEPALIVE) as both:
        await block_writes(both)
        await fill_inbox(both)
        await both.peer.vanish()
        assert (await both.ending()).cause is Cause.KEEPALIVE_TIMEOUT


async def test_a_reset_is_reported_at_once_while_messages_wait(role, transport):
    # Without keepalive nothing else would report it.
    async with pair(role, transport, close_timeout=LONG) as both:
        await fill_inbox(both)
        both.peer.reset()
        ending = await both.ending()
        assert [message async for message in both.ws][:16] == [b"unread"] * 16
    assert (ending.cause, ending.tcp) == (Cause.CONNECTION_RESET, TcpEnd.RST)


async def test_a_ping_detects_a_closed_socket_while_messages_wait(role):
    async with pair(role, ping_interval=0.1, ping_timeout=LONG, close_timeout=LONG) as both:
        await fill_inbox(both)
        both.peer.drop()
        ending = await both.ending()
    assert (ending.cause, ending.tcp) == (Cause.CONNECTION_RESET, TcpEnd.RST)


async def test_a_peer_that_is_repeatedly_paused_is_not_reset(role, transport):
    async def slow(ws):
        async for message in ws:
            await asyncio.sleep(0)
            await ws.send(message)

    async with pair(role, transport, handler=slow) as both:
        for _ in range(20):
            await both.peer.write(both.peer.octets(BINARY, b"again") * 50)
            for _ in range(50):
                assert await both.peer.read_frame() == (BINARY, b"again")


@pytest.mark.waits
@pytest.mark.parametrize("transport", ["ws", "wss", MEMORY], indirect=True)
async def test_a_peer_whose_messages_wait_does_not_time_out(role, transport):
    async with pair(role, transport, **KEEPALIVE) as both:
        await fill_inbox(both)
        for _ in range(4):  # the last one is sent long after the first should have been answered
            assert (await both.peer.read_frame()).opcode == PING
        assert both.ws.is_open
        # Nor at the moment at which the handler receives them, although no pong was read.
        for _ in range(20):
            assert await both.ws.recv() == b"unread"
        assert both.ws.is_open


@pytest.mark.waits
@pytest.mark.parametrize("transport", ["ws", "wss", MEMORY], indirect=True)
async def test_write_timeout_works_without_keepalive(role, transport):
    async with pair(role, transport, buffer=65536, write_timeout=0.2, close_timeout=LONG) as both:
        await fill_inbox(both)
        await block_writes(both)
        ending = await both.ending()
    assert (ending.cause, ending.tcp) == (Cause.WRITE_TIMEOUT, TcpEnd.ABORTED)
    assert ending.unsent_bytes > 0

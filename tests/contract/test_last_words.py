"""A Close that is readable only after our own write has failed.

A page that reloads sends Close 1001 and closes TCP without waiting for our answer. What
we are streaming to it lies unread in its buffer, so its system resets the connection,
and the next thing that happens on our side is a write that fails.
"""

from __future__ import annotations

import asyncio

import pytest

from endwell import Cause, Close, ConnectionClosedOK, Initiator, TcpEnd
from tests.pair import pair, until, until_reset, within
from tests.wire.peer import PING, TEXT

GOING_AWAY = Close(1001, "reloading")


async def with_pauses(ws):
    while True:
        await ws.send("x" * 1000)
        await asyncio.sleep(0.001)


async def without_pauses(ws):
    while True:
        await ws.send("x" * 1000)


async def in_large_messages(ws):
    while True:
        await ws.send(bytes(100_000))


def streaming(stream):
    """A handler that streams until it is told that the peer is gone, which is no fault."""

    async def handler(ws):
        with pytest.raises(ConnectionClosedOK):
            await stream(ws)

    return handler


def told_the_truth(ending):
    assert (ending.cause, ending.initiator) == (Cause.PEER_CLOSED, Initiator.PEER)
    assert (ending.received, ending.code) == (GOING_AWAY, 1001)
    assert ending.ok
    assert ending.tcp is TcpEnd.RST


def reload(peer):
    """All at once, as a browser does it."""
    peer.push(peer.close_octets(GOING_AWAY.code, GOING_AWAY.reason))
    peer.reset()


@pytest.mark.parametrize("stream", [with_pauses, without_pauses, in_large_messages])
async def test_a_page_that_reloads_while_we_stream_to_it_has_closed_with_1001(stream, role, transport):
    async with pair(role, transport, handler=streaming(stream)) as both:
        await asyncio.sleep(0.02)
        reload(both.peer)
        told_the_truth(await both.ending())


async def test_a_page_that_reloads_octet_by_octet_has_closed_with_1001(role, transport):
    async with pair(role, transport, handler=streaming(with_pauses), bytewise=True) as both:
        await both.peer.close(GOING_AWAY.code, GOING_AWAY.reason)
        both.peer.drop()
        ending = await both.ending()
    assert (ending.cause, ending.received) == (Cause.PEER_CLOSED, GOING_AWAY)


@pytest.mark.parametrize("stream", [with_pauses, in_large_messages])
async def test_a_page_that_has_read_nothing_and_reloads_has_closed_with_1001(stream, role, transport):
    async with pair(role, transport, handler=streaming(stream), buffer=4096) as both:
        while both.core.outbox.size <= both.core.options.write_limit:
            if stream is with_pauses:  # as many as it takes to fill the kernel's buffers
                both.core.send(bytes(100_000), 0.0)
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)  # until it takes no more
        assert both.core.wants_write()
        reload(both.peer)
        told_the_truth(await both.ending())


async def test_the_close_is_found_although_our_write_is_the_first_to_meet_the_reset(role, transport):
    async with pair(role, transport) as both:
        reload(both.peer)
        until_reset(both.ws)
        await both.ws.send("x")  # nothing has been read since
        ending = both.ws.ending
        told_the_truth(ending)
        with pytest.raises(ConnectionClosedOK):
            await within(both.ws.send("x"))
        with pytest.raises(ConnectionClosedOK):
            await within(both.ws.recv())


async def test_the_close_is_found_behind_everything_that_nobody_had_read(role, transport):
    async with pair(role, transport, max_queue=2) as both:
        peer = both.peer
        for number in range(300):  # over TLS, each in a record of its own
            await peer.write(peer.octets(TEXT, str(number).encode()) + peer.octets(PING))
        await peer.delivered()
        while both.core.wants_read():
            await asyncio.sleep(0)
        taken = len(both.core.inbox)
        reload(peer)
        until_reset(both.ws)
        await both.ws.send("x")
        ending = both.ws.ending
        told_the_truth(ending)
        assert [message async for message in both.ws] == [str(number) for number in range(taken)]
    assert (ending.messages_in, ending.dropped_messages) == (300, 300 - taken)


async def test_a_ping_of_ours_is_enough_to_find_the_close(role, transport):
    async with pair(role, transport, max_queue=1, ping_interval=0.1) as both:
        await both.peer.frame(TEXT, b"unread")
        await until(lambda: not both.core.wants_read())
        reload(both.peer)
        told_the_truth(await both.ending())


async def test_our_own_close_may_be_the_write_that_fails(role, transport):
    async with pair(role, transport) as both:
        reload(both.peer)
        ending = await both.ws.close(4000)
    # Ours was first, as far as this side knew.
    assert (ending.cause, ending.received) == (Cause.APP_CLOSED, GOING_AWAY)
    assert ending.tcp is TcpEnd.RST


async def test_a_fault_that_was_readable_after_a_failed_write_is_told(role, transport):
    async with pair(role, transport) as both:
        both.peer.push(both.peer.octets(TEXT, b"\xff"))
        both.peer.reset()
        await both.ws.send("x")
    assert (both.ws.ending.cause, both.ws.ending.received) == (Cause.INVALID_DATA, None)

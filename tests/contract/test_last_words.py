"""A Close that can be read only after our own write has failed.

A page that reloads sends Close 1001 and closes TCP without waiting for our answer. Its buffer holds unread
data of our stream, so its kernel resets the connection. The next event on our side is a failed write.
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
    """A handler that streams until send() raises because the peer is gone, which is no error."""

    async def handler(ws):
        with pytest.raises(ConnectionClosedOK):
            await stream(ws)

    return handler


def assert_page_reloaded(ending):
    assert (ending.cause, ending.initiator) == (Cause.PEER_CLOSED, Initiator.PEER)
    assert (ending.received, ending.code) == (GOING_AWAY, 1001)
    assert ending.ok
    assert ending.tcp is TcpEnd.RST


def reload(peer):
    """All in one go, as a browser does."""
    peer.send_at_once(peer.close_octets(GOING_AWAY.code, GOING_AWAY.reason))
    peer.reset()


@pytest.mark.parametrize("stream", [with_pauses, without_pauses, in_large_messages])
async def test_a_page_that_reloads_during_our_stream_closed_with_1001(stream, role, transport):
    async with pair(role, transport, handler=streaming(stream)) as both:
        await asyncio.sleep(0.02)
        reload(both.peer)
        assert_page_reloaded(await both.ending())


async def test_a_close_octet_by_octet_before_a_reset_is_found(role, transport):
    async with pair(role, transport, handler=streaming(with_pauses), bytewise=True) as both:
        await both.peer.close(GOING_AWAY.code, GOING_AWAY.reason)
        both.peer.drop()
        ending = await both.ending()
    assert (ending.cause, ending.received) == (Cause.PEER_CLOSED, GOING_AWAY)


@pytest.mark.parametrize("stream", [with_pauses, in_large_messages])
async def test_a_page_that_reads_nothing_and_reloads_closed_with_1001(stream, role, transport):
    async with pair(role, transport, handler=streaming(stream), buffer=4096) as both:
        while both.core.outbox.size <= both.core.options.write_limit:
            if stream is with_pauses:  # enough messages to fill the kernel's buffers
                both.core.send(bytes(100_000), 0.0)
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)  # until the kernel accepts no more
        assert both.core.wants_write()
        reload(both.peer)
        assert_page_reloaded(await both.ending())


async def test_the_close_is_found_if_our_write_meets_the_reset_first(role, transport):
    async with pair(role, transport) as both:
        reload(both.peer)
        until_reset(both.ws)
        await both.ws.send("x")  # no read has happened since
        ending = await both.ending()  # a slow machine needs several turns of the loop
        assert_page_reloaded(ending)
        with pytest.raises(ConnectionClosedOK):
            await within(both.ws.send("x"))
        with pytest.raises(ConnectionClosedOK):
            await within(both.ws.recv())


async def test_the_close_is_found_behind_unread_messages(role, transport):
    async with pair(role, transport, max_queue=2) as both:
        peer = both.peer
        for number in range(300):  # over TLS, each in a record of its own
            await peer.write(peer.octets(TEXT, str(number).encode()) + peer.octets(PING))
        await peer.until_acknowledged()
        while both.core.wants_read():
            await asyncio.sleep(0)
        taken = len(both.core.inbox)
        reload(peer)
        until_reset(both.ws)
        await both.ws.send("x")
        ending = await both.ending()  # a slow machine needs several turns of the loop
        assert_page_reloaded(ending)
        assert [message async for message in both.ws] == [str(number) for number in range(taken)]
    assert (ending.messages_in, ending.dropped_messages) == (300, 300 - taken)


async def test_the_close_is_found_when_our_ping_fails(role, transport):
    async with pair(role, transport, max_queue=1, ping_interval=0.1) as both:
        await both.peer.frame(TEXT, b"unread")
        await until(lambda: not both.core.wants_read())
        reload(both.peer)
        assert_page_reloaded(await both.ending())


async def test_the_peers_close_is_found_when_our_close_fails(role, transport):
    async with pair(role, transport) as both:
        reload(both.peer)
        ending = await both.ws.close(4000)
    # Our Close was first, as far as this side knew.
    assert (ending.cause, ending.received) == (Cause.APP_CLOSED, GOING_AWAY)
    assert ending.tcp is TcpEnd.RST


async def test_a_protocol_error_found_after_a_failed_write_is_reported(role, transport):
    async with pair(role, transport) as both:
        both.peer.send_at_once(both.peer.octets(TEXT, b"\xff"))
        both.peer.reset()
        await both.ws.send("x")
    assert (both.ws.ending.cause, both.ws.ending.received) == (Cause.INVALID_DATA, None)

"""ping(), pongs and keepalive."""

from __future__ import annotations

import asyncio
import threading

import pytest

from endwell import Cause, ConnectionClosed
from endwell.aio.syscalls import monotonic
from tests.pair import until, within
from tests.wire.peer import PING, PONG, TEXT

pytestmark = pytest.mark.needs("pings")


async def pinged(both, payload=None):
    """A ping that waits for its pong."""
    task = asyncio.ensure_future(both.ws.ping(payload))
    return task, await both.peer.read_frame()


async def test_a_ping_returns_the_round_trip_in_seconds(open_pair):
    async with open_pair() as both:
        assert both.ws.latency is both.ws.smoothed_latency is None
        began = monotonic()
        task, received = await pinged(both)
        assert received.opcode == PING
        await asyncio.sleep(0.05)
        await both.peer.frame(PONG, received.payload)
        latency = await within(task)
        assert 0.04 <= latency <= monotonic() - began  # timers of loops may be early by about a millisecond
        assert both.ws.latency == both.ws.smoothed_latency == latency
        task, received = await pinged(both)
        await both.peer.frame(PONG, received.payload)
        second = await within(task)
        assert both.ws.latency == second
        assert min(latency, second) <= both.ws.smoothed_latency <= max(latency, second)
        both.peer.fin()
        assert (await both.ending()).latency == second


async def test_a_ping_has_the_given_payload_or_a_random_one(open_pair):
    async with open_pair() as both:
        one, first = await pinged(both)
        two, second = await pinged(both)
        three, third = await pinged(both, b"of the application")
        assert first.payload != second.payload
        assert third == (PING, b"of the application")
        for received in (first, second, third):
            await both.peer.frame(PONG, received.payload)
        await within(asyncio.gather(one, two, three))
        both.peer.fin()


async def test_an_invalid_ping_raises_and_leaves_the_connection_open(open_server_pair):
    async with open_server_pair() as both:
        task, received = await pinged(both, b"once")
        with pytest.raises(ValueError, match="unanswered ping"):
            await both.ws.ping(b"once")
        with pytest.raises(ValueError, match="125"):
            await both.ws.ping(bytes(126))
        await both.peer.frame(PONG, received.payload)
        await within(task)
        for payload in (b"once", bytes(125)):  # free again, with the longest payload
            task, received = await pinged(both, payload)
            assert received == (PING, payload)
            await both.peer.frame(PONG, payload)
            await within(task)
        both.peer.fin()


async def test_a_waiting_ping_raises_when_the_connection_ends(open_pair):
    async with open_pair() as both:
        tasks = [(await pinged(both))[0] for _ in range(2)]
        both.peer.fin()
        for task in tasks:
            with pytest.raises(ConnectionClosed) as raised:
                await within(task)
            assert raised.value.ending is both.ws.ending


async def test_pings_and_a_close_are_answered_while_the_application_is_busy(open_pair, face):
    stop = threading.Event()

    async def busy(ws):
        while not stop.is_set():
            await face.pause(0.005)

    async with open_pair(handler=busy) as both:
        await both.peer.frame(TEXT, b"unread")
        await both.peer.frame(PING, b"are you there?")
        assert await both.peer.read_frame() == (PONG, b"are you there?")
        await both.peer.close(4001)
        assert await both.peer.read_close() == both.close_received(4001)
        assert not both.ws.is_open
        both.peer.fin()
        await both.ending()
        stop.set()


@pytest.mark.current_protocol
async def test_keepalive_sends_pings_and_measures_latency(open_pair):
    began = monotonic()
    async with open_pair(ping_interval=0.05) as both:
        for _ in range(2):
            received = await both.peer.read_frame()
            assert received.opcode == PING
            await both.peer.frame(PONG, received.payload)
        await until(lambda: both.ws.latency)
        assert 0 < both.ws.latency <= monotonic() - began
        both.peer.fin()


async def test_a_peer_that_answers_no_ping_is_closed(open_pair):
    async with open_pair(ping_interval=0.1, ping_timeout=0.1) as both:
        receiving = asyncio.ensure_future(both.ws.recv())
        seen = await both.peer.read_to_the_end()
        ending = await both.ending()
        with pytest.raises(ConnectionClosed):
            await within(receiving)
    assert ending.cause is Cause.KEEPALIVE_TIMEOUT
    assert ending.sent == both.close_sent(1001, ending.sent.reason)
    assert seen.close == both.close_received(1001, ending.sent.reason)

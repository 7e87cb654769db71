"""ping(), pongs and keepalive on a live connection."""

from __future__ import annotations

import asyncio

import pytest

from endwell import Cause, ConnectionClosed
from tests.pair import pair, within
from tests.wire.peer import PING, PONG, TEXT


async def pinged(both, payload=None):
    """A ping that waits for its pong."""
    task = asyncio.ensure_future(both.ws.ping(payload))
    return task, await both.peer.read_frame()


async def test_a_ping_returns_the_round_trip_in_seconds(role, transport):
    async with pair(role, transport) as both:
        assert both.ws.latency is None
        task, received = await pinged(both)
        assert received.opcode == PING
        await asyncio.sleep(0.05)
        await both.peer.frame(PONG, received.payload)
        latency = await within(task)
        assert 0.04 <= latency < 1.0  # loops' timers may be early by a millisecond or so
        assert both.ws.latency == latency
        both.peer.fin()
        assert (await both.ending()).latency == latency


async def test_a_ping_has_the_payload_that_was_asked_for_or_a_fresh_one():
    async with pair("server") as both:
        one, first = await pinged(both)
        two, second = await pinged(both)
        three, third = await pinged(both, b"of the application")
        assert first.payload != second.payload
        assert third == (PING, b"of the application")
        for received in (first, second, third):
            await both.peer.frame(PONG, received.payload)
        await within(asyncio.gather(one, two, three))
        both.peer.fin()


async def test_a_pong_answers_the_pings_before_it_too():
    async with pair("server") as both:
        one, _ = await pinged(both)
        two, second = await pinged(both)
        three, third = await pinged(both)
        await both.peer.frame(PONG, second.payload)
        await within(asyncio.gather(one, two))
        assert not three.done()
        await both.peer.frame(PONG, third.payload)
        await within(three)
        both.peer.fin()


async def test_pongs_that_nobody_asked_for_are_taken_and_ignored():
    async with pair("server") as both:
        await both.peer.frame(PONG, b"unsolicited")
        task, received = await pinged(both)
        await both.peer.frame(PONG, b"another")
        await both.peer.frame(PONG, received.payload)
        await both.peer.frame(PONG, received.payload)
        await within(task)
        await both.peer.frame(TEXT, b"still there")
        assert await within(both.ws.recv()) == "still there"
        both.peer.fin()


async def test_a_ping_that_may_not_be_sent_is_refused_and_the_connection_goes_on():
    async with pair("server") as both:
        task, received = await pinged(both, b"once")
        with pytest.raises(ValueError, match="not answered yet"):
            await both.ws.ping(b"once")
        with pytest.raises(ValueError, match="125"):
            await both.ws.ping(bytes(126))
        await both.peer.frame(PONG, received.payload)
        await within(task)
        for payload in (b"once", bytes(125)):  # free again; as long as it may be
            task, received = await pinged(both, payload)
            assert received == (PING, payload)
            await both.peer.frame(PONG, payload)
            await within(task)
        both.peer.fin()


async def test_a_payload_that_was_too_long_is_not_waited_for():
    async with pair("server") as both:
        for _ in range(2):
            with pytest.raises(ValueError, match="125"):
                await both.ws.ping(bytes(126))
        both.peer.fin()


async def test_a_cancelled_ping_does_no_harm_when_its_pong_comes():
    async with pair("server") as both:
        task, received = await pinged(both)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await both.peer.frame(PONG, received.payload)
        another, received = await pinged(both)
        await both.peer.frame(PONG, received.payload)
        await within(another)
        both.peer.fin()


async def test_a_ping_that_waits_is_told_the_end():
    async with pair("server") as both:
        tasks = [(await pinged(both))[0] for _ in range(2)]
        both.peer.fin()
        for task in tasks:
            with pytest.raises(ConnectionClosed) as raised:
                await within(task)
            assert raised.value.ending is both.ws.ending


async def test_a_ping_is_answered_whatever_the_handler_does(role, transport):
    async with pair(role, transport) as both:
        await both.peer.frame(PING, b"are you there?")
        assert await both.peer.read_frame() == (PONG, b"are you there?")
        both.peer.fin()


async def test_keepalive_pings_by_itself_and_measures_the_latency(role, transport):
    async with pair(role, transport, ping_interval=0.05) as both:
        for _ in range(2):
            received = await both.peer.read_frame()
            assert received.opcode == PING
            await both.peer.frame(PONG, received.payload)
        await asyncio.sleep(0.01)
        assert 0 < both.ws.latency < 1.0
        both.peer.fin()


async def test_a_peer_that_answers_no_ping_is_given_up(role, transport):
    async with pair(role, transport, ping_interval=0.1, ping_timeout=0.1) as both:
        ending = await both.ending()
        seen = await both.peer.read_to_the_end()
    assert ending.cause is Cause.KEEPALIVE_TIMEOUT
    assert seen.close == ending.sent
    assert seen.close.code == 1001

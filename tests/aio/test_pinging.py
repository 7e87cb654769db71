"""ping(), pongs and keepalive on an open connection."""

from __future__ import annotations

import asyncio

import pytest

from tests.pair import pair, within
from tests.wire.peer import PONG, TEXT


async def pinged(both, payload=None):
    """A ping that waits for its pong."""
    task = asyncio.ensure_future(both.ws.ping(payload))
    return task, await both.peer.read_frame()


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


async def test_unsolicited_pongs_are_ignored():
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


async def test_a_ping_with_a_too_long_payload_leaves_no_waiter():
    async with pair("server") as both:
        for _ in range(2):
            with pytest.raises(ValueError, match="125"):
                await both.ws.ping(bytes(126))
        both.peer.fin()


async def test_a_pong_to_a_cancelled_ping_is_ignored():
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

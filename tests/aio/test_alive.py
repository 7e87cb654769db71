"""alive(): a body that is cancelled when the connection ends."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from endwell import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK, TcpEnd
from tests.pair import loop_turns, pair, until_reset, within
from tests.raw import BOUND


async def for_ever():
    await asyncio.Event().wait()


async def living(ws, body=for_ever):
    async with ws.alive() as same:
        assert same is ws
        await body()


async def still_works():
    """Whether this task can be used after it was cancelled from the inside."""
    await asyncio.sleep(0)
    await asyncio.sleep(0.001)
    assert asyncio.current_task().cancelling() == 0


async def test_alive_cancels_its_body_at_the_end_and_raises(role, transport):
    told = []

    async def handler(ws):
        async def body():
            try:
                await for_ever()
            except asyncio.CancelledError:
                told.append("cancelled")
                raise

        with pytest.raises(ConnectionClosedOK) as raised:
            await living(ws, body)
        assert raised.value.ending is ws.ending
        assert isinstance(raised.value.__cause__, asyncio.CancelledError)
        await still_works()
        told.append("cleaned up")

    async with pair(role, transport, handler=handler) as both:
        await both.peer.close()
        both.peer.fin()
        await both.ending()
    assert told == ["cancelled", "cleaned up"]


async def test_a_body_that_returned_is_not_cancelled():
    async with pair("server") as both:
        before = list(both.ws._callbacks or ())
        for _ in range(3):
            async with both.ws.alive():
                await asyncio.sleep(0)
        assert (both.ws._callbacks or []) == before
        both.peer.fin()
        await both.ending()
        await still_works()


async def test_alive_is_not_entered_after_the_end():
    async with pair("server") as both:
        both.peer.fin()
        await both.ending()
        with pytest.raises(ConnectionClosedError):
            await living(both.ws, lambda: pytest.fail("it was entered"))
        await still_works()


async def test_an_exception_of_the_body_propagates():
    async def body():
        raise KeyError("of the application")

    async with pair("server") as both:
        with pytest.raises(KeyError):
            await living(both.ws, body)
        await still_works()
        both.peer.fin()


async def test_an_exception_in_the_cleanup_of_the_body_propagates():
    async def body():
        try:
            await for_ever()
        finally:
            raise KeyError("of the application")

    async def handler(ws):
        with pytest.raises(KeyError):
            await living(ws, body)
        await still_works()

    async with pair("server", handler=handler) as both:
        both.peer.fin()


async def test_alive_raises_although_the_body_swallowed_the_cancellation():
    async def body():
        with suppress(asyncio.CancelledError):
            await for_ever()
        await asyncio.sleep(0)

    async def handler(ws):
        with pytest.raises(ConnectionClosedError):
            await living(ws, body)
        await still_works()

    async with pair("server", handler=handler) as both:
        both.peer.fin()


async def test_a_cancellation_from_outside_propagates():
    async with pair("server") as both:
        task = asyncio.ensure_future(living(both.ws))
        await loop_turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        both.peer.fin()


async def test_a_cancellation_from_outside_during_the_end_is_not_lost():
    async with pair("server") as both:
        task = asyncio.ensure_future(living(both.ws))
        await loop_turns()
        both.ws.on_close(lambda _: task.cancel())
        both.ws.abort()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("which", [0, 1])
async def test_nested_alive_raises_for_the_connection_that_ended(which):
    async with pair("server") as one, pair("client") as two:

        async def body():
            async with one.ws.alive(), two.ws.alive():
                await for_ever()

        task = asyncio.ensure_future(body())
        await loop_turns()
        both = (one, two)[which]
        both.peer.fin()
        with pytest.raises(ConnectionClosed) as raised:
            await within(task)
        assert raised.value.ending is both.ws.ending


@pytest.mark.parametrize("outside", [True, False])
async def test_alive_nests_with_asyncio_timeout(outside):
    async def both_limits(ws, seconds):
        if outside:
            async with asyncio.timeout(seconds), ws.alive():
                await for_ever()
        else:
            async with ws.alive(), asyncio.timeout(seconds):
                await for_ever()

    async with pair("server") as both:
        with pytest.raises(TimeoutError):
            await both_limits(both.ws, 0.01)
        await still_works()
        both.peer.fin()
        with pytest.raises(ConnectionClosedError):
            await both_limits(both.ws, BOUND)
        await still_works()


async def test_the_body_may_end_the_connection():
    async with pair("server") as both:

        async def body():
            both.ws.abort()

        with pytest.raises(ConnectionClosedError):
            await living(both.ws, body)
        await still_works()


async def test_the_body_may_be_the_first_to_detect_the_end():
    async with pair("server") as both:

        async def body():
            both.peer.reset()
            until_reset(both.ws)
            await both.ws.send("x")  # fails, without a suspension
            assert both.ws.ending.tcp is TcpEnd.RST

        with pytest.raises(ConnectionClosedError):
            await living(both.ws, body)
        await still_works()


async def test_a_body_that_ends_the_connection_is_cancelled_at_its_next_await():
    async with pair("server") as both:

        async def body():
            both.ws.abort()
            await for_ever()

        with pytest.raises(ConnectionClosedError):
            await living(both.ws, body)
        await still_works()


async def test_several_tasks_may_be_alive_on_one_connection():
    async with pair("server") as both:
        tasks = [asyncio.ensure_future(living(both.ws)) for _ in range(3)]
        await loop_turns()
        both.peer.fin()
        results = await within(asyncio.gather(*tasks, return_exceptions=True))
        assert [result.ending for result in results] == [both.ws.ending] * 3

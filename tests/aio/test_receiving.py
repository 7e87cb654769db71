"""recv(), read() and iteration."""

from __future__ import annotations

import asyncio

import pytest

from endwell import ConcurrencyError
from tests.pair import pair, until, within
from tests.wire.peer import BINARY, TEXT


async def run_until_waiting(task):
    """Let ``task`` run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()


async def test_a_second_receiving_task_raises_and_the_first_continues():
    async with pair("server") as both:
        first = asyncio.ensure_future(both.ws.recv())
        await run_until_waiting(first)
        for another in (both.ws.recv, both.ws.read, both.ws.__anext__):
            with pytest.raises(ConcurrencyError, match="another task"):
                await another()
        await both.peer.frame(TEXT, b"for the first")
        assert await within(first) == "for the first"
        await both.peer.frame(TEXT, b"and again")
        assert await within(both.ws.recv()) == "and again"


@pytest.mark.parametrize("late", [0, 1, 2, 3])
async def test_a_recv_cancelled_as_the_message_arrives_loses_nothing(late):
    async with pair("server") as both:
        receiving = asyncio.ensure_future(both.ws.recv())
        await run_until_waiting(receiving)
        both.peer.send_at_once(both.peer.octets(TEXT, b"at that moment"))
        for _ in range(late):
            await asyncio.sleep(0)
        receiving.cancel()
        try:
            message = await receiving
        except asyncio.CancelledError:
            message = await within(both.ws.recv())
        assert message == "at that moment"


async def test_a_recv_cancelled_after_wakeup_leaves_its_message():
    async with pair("server") as both:
        receiving = asyncio.ensure_future(both.ws.recv())
        await run_until_waiting(receiving)
        both.core.receive(both.peer.octets(TEXT, b"at that moment"), 0.0)
        both.ws._stream.settle()  # wakes it; it has not resumed yet
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        assert await within(both.ws.recv()) == "at that moment"


@pytest.mark.parametrize("max_queue", [1, 3])
async def test_a_full_inbox_pauses_reading_and_loses_nothing(role, transport, max_queue):
    async with pair(role, transport, max_queue=max_queue) as both:
        octets = both.peer.octets(BINARY, bytes(2**18))
        sending = asyncio.ensure_future(both.peer.write(octets * 40))  # 10 MiB
        await until(lambda: not both.core.wants_read())
        assert not sending.done()
        for _ in range(40):
            assert len(await within(both.ws.recv())) == 2**18
            assert len(both.core.inbox) <= max_queue
        await within(sending)
        both.peer.fin()

"""recv(), read() and iteration."""

from __future__ import annotations

import asyncio

import pytest

from endwell import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK
from tests.pair import pair, within
from tests.wire.peer import BINARY, TEXT


async def soon(task):
    """Let ``task`` run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()


async def test_text_is_str_and_binary_is_bytes():
    async with pair("server") as both:
        await both.peer.frame(TEXT, "grüß dich".encode())
        await both.peer.frame(BINARY, b"\x00\xff")
        assert await within(both.ws.recv()) == "grüß dich"
        assert await within(both.ws.recv()) == b"\x00\xff"


async def test_a_second_task_that_receives_is_refused_and_the_first_is_not_disturbed():
    async with pair("server") as both:
        first = asyncio.ensure_future(both.ws.recv())
        await soon(first)
        for another in (both.ws.recv, both.ws.read, both.ws.__anext__):
            with pytest.raises(ConcurrencyError, match="another task"):
                await another()
        await both.peer.frame(TEXT, b"for the first")
        assert await within(first) == "for the first"
        await both.peer.frame(TEXT, b"and again")
        assert await within(both.ws.recv()) == "and again"


async def test_a_cancelled_recv_loses_nothing():
    async with pair("server") as both:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(both.ws.recv(), 0.01)
        await both.peer.frame(TEXT, b"later")
        assert await within(both.ws.recv()) == "later"


@pytest.mark.parametrize("late", [0, 1, 2, 3])
async def test_a_recv_cancelled_just_as_the_message_comes_loses_nothing(late):
    async with pair("server") as both:
        receiving = asyncio.ensure_future(both.ws.recv())
        await soon(receiving)
        both.peer.push(both.peer.octets(TEXT, b"at that moment"))
        for _ in range(late):
            await asyncio.sleep(0)
        receiving.cancel()
        try:
            message = await receiving
        except asyncio.CancelledError:
            message = await within(both.ws.recv())
        assert message == "at that moment"


async def test_a_recv_cancelled_after_it_was_woken_leaves_the_message_to_the_next():
    async with pair("server") as both:
        receiving = asyncio.ensure_future(both.ws.recv())
        await soon(receiving)
        both.core.receive(both.peer.octets(TEXT, b"at that moment"), 0.0)
        both.ws._stream.settle()  # wakes it; it has not run yet
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        assert await within(both.ws.recv()) == "at that moment"


async def test_read_is_none_at_the_end_and_an_empty_message_is_not_the_end():
    async with pair("server") as both:
        await both.peer.frame(TEXT)
        await both.peer.frame(BINARY)
        await both.peer.close(4000)
        assert await within(both.ws.read()) == ""
        assert await within(both.ws.read()) == b""
        both.peer.fin()
        assert await within(both.ws.read()) is None
        assert await within(both.ws.read()) is None


@pytest.mark.parametrize("code", [1000, 1011])
async def test_iteration_ends_quietly_and_recv_raises_after_all_messages(code):
    messages = []

    async def handler(ws):
        messages.extend([message async for message in ws])

    async with pair("server", handler=handler) as both:
        for number in range(3):
            await both.peer.frame(TEXT, str(number).encode())
        await both.peer.close(code)
        both.peer.fin()
        ending = await both.ending()
        error = ConnectionClosedOK if code == 1000 else ConnectionClosedError
        for _ in range(2):
            with pytest.raises(error) as raised:
                await both.ws.recv()
            assert raised.value.ending is ending
    assert messages == ["0", "1", "2"]


async def test_a_recv_that_waits_is_told_the_end():
    async with pair("server") as both:
        receiving = asyncio.ensure_future(both.ws.recv())
        await soon(receiving)
        both.peer.fin()
        with pytest.raises(ConnectionClosedError) as raised:
            await within(receiving)
        assert raised.value.ending is both.ws.ending


@pytest.mark.parametrize("max_queue", [1, 3])
async def test_a_full_inbox_holds_the_peer_back_and_reading_goes_on_where_it_stopped(
    role, transport, max_queue
):
    async with pair(role, transport, max_queue=max_queue) as both:
        octets = both.peer.octets(BINARY, bytes(2**18))
        sending = asyncio.ensure_future(both.peer.write(octets * 40))  # 10 MiB
        async with asyncio.timeout(5):
            while both.core.reads():
                await asyncio.sleep(0.001)
        assert not sending.done()
        for _ in range(40):
            assert len(await within(both.ws.recv())) == 2**18
            assert len(both.core.inbox) <= max_queue
        await within(sending)
        both.peer.fin()

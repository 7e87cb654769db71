"""close(), closed, on_close() and other ways to learn of the end."""

from __future__ import annotations

import asyncio

import pytest

from endwell import Cause, Close, Initiator, TcpEnd
from endwell.protocol.closing import State
from tests.pair import loop_turns, pair, within

# -- close() ----------------------------------------------------------------------


async def test_a_cancelled_close_continues_to_close():
    async with pair("server") as both:
        closing = asyncio.ensure_future(both.ws.close(4000))
        await loop_turns()
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert await both.peer.read_close() == Close(4000)
        await both.peer.close(4000)
        both.peer.fin()
        assert (await both.ending()).clean


async def test_cancelling_one_wait_for_the_end_leaves_others():
    async with pair("server") as both:
        waits = [asyncio.ensure_future(both.ws.wait_closed()) for _ in range(3)]
        await loop_turns()
        waits[1].cancel()
        await loop_turns()
        both.peer.fin()
        await within(asyncio.gather(waits[0], waits[2]))
        assert waits[1].cancelled()
    assert not both.ws._watchers


async def test_abort_ends_a_closing_handshake_at_once(role, transport):
    async with pair(role, transport) as both:
        both.ws.abort()
        ending = both.ws.ending
        seen = await both.peer.read_to_the_end()
        both.ws.abort()
        assert both.ws.ending is ending
    assert (ending.cause, ending.initiator, ending.tcp) == (Cause.APP_CLOSED, Initiator.LOCAL, TcpEnd.ABORTED)
    assert (ending.sent, ending.clean) == (Close(1001), False)
    assert (seen.close, seen.tcp) == (Close(1001), TcpEnd.FIN)


# -- is_open, close_code, repr ----------------------------------------------------


async def test_is_open_is_false_as_soon_as_close_is_called():
    async with pair("server") as both:
        assert both.ws.is_open
        closing = asyncio.ensure_future(both.ws.close())
        await loop_turns()
        assert not both.ws.is_open
        assert both.ws.ending is None
        both.peer.fin()
        await within(closing)


async def test_close_code_is_the_peers_even_if_ours_was_first():
    async with pair("server") as both:
        closing = asyncio.ensure_future(both.ws.close(4000))
        assert await both.peer.read_close() == Close(4000)
        await both.peer.close(4001)
        both.peer.fin()
        ending = await within(closing)
        assert (both.ws.close_code, ending.code) == (4001, 4000)


async def test_repr_shows_the_state_and_then_the_ending():
    async with pair("server") as both:
        assert repr(both.ws).endswith(" open>")
        closing = asyncio.ensure_future(both.ws.close(4000))
        await loop_turns()
        assert repr(both.ws).endswith(" closing>")
        assert "'/'" in repr(both.ws)
        both.peer.fin()
        ending = await within(closing)
        assert str(ending) in repr(both.ws)


async def test_the_addresses_are_those_of_the_sockets(role):
    async with pair(role) as both:
        assert both.ws.remote_address == both.peer.sock.getsockname()
        assert both.ws.local_address == both.peer.sock.getpeername()
        before = both.ws.remote_address
        both.peer.fin()
        await both.ending()
        assert both.ws.remote_address == before


# -- on_close() -------------------------------------------------------------------


async def test_on_close_callbacks_run_once_and_in_order(caplog):
    async with pair("server") as both:
        calls = []
        both.ws.on_close(lambda ending: calls.append((1, ending, both.ws.is_open, both.ws.ending)))
        both.ws.on_close(lambda ending: calls.append((2, ending, both.ws.is_open, both.ws.ending)))
        both.core.eof(0.0)
        both.ws._stream.settle()
        ending = both.ws.ending
        assert calls == [(1, ending, False, ending), (2, ending, False, ending)]  # before anything else ran
        both.ws._stream.settle()
        assert len(calls) == 2


async def test_on_close_runs_before_a_reader_resumes(role, transport):
    async with pair(role, transport) as both:
        told = []

        async def read():
            assert await both.ws.read() is None
            told.append("reader")

        reading = asyncio.ensure_future(read())
        await loop_turns()
        both.ws.on_close(lambda ending: told.append("on_close"))
        await both.peer.close()
        both.peer.fin()
        await within(reading)
        assert told == ["on_close", "reader"]


async def test_a_callback_may_use_the_ended_connection():
    calls = []

    def callback(ending):
        both.ws.abort()
        both.ws.on_close(lambda again: calls.append(again is ending))
        calls.append(both.core.state is State.ENDED)

    async with pair("server") as both:
        both.ws.on_close(callback)
        both.peer.fin()
        await both.ending()
    assert calls == [True, True]

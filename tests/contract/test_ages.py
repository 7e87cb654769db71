"""Connections that end by idle_timeout or max_lifetime, on either side; both are off by default."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import pairwise

import pytest

from endwell import Cause, Close, CloseCode, ConnectionClosed, Initiator, RetryAdvice
from endwell.aio.syscalls import monotonic
from tests.pair import LASTING, within
from tests.raw import Seen
from tests.wire.peer import PING, PONG, TEXT

pytestmark = pytest.mark.current_protocol


@pytest.mark.waits
async def test_pings_do_not_count_as_activity_for_idle_timeout(open_pair):
    began = monotonic()
    async with open_pair(idle_timeout=0.3, ping_interval=0.05) as both:
        while (received := await both.peer.read_frame()).opcode == PING:
            await both.peer.frame(PONG, received.payload)
        assert monotonic() - began > 0.29
        code, reason = int.from_bytes(received.payload[:2], "big"), received.payload[2:].decode()
        assert Close(code, reason) == Close(CloseCode.GOING_AWAY, Cause.IDLE_TIMEOUT.meaning)
        await both.peer.close(code)
        both.peer.fin()
        ending = await both.ending()
    assert (ending.cause, ending.initiator, ending.clean) == (Cause.IDLE_TIMEOUT, Initiator.LOCAL, True)
    assert ending.ok


@pytest.mark.waits
async def test_messages_in_either_direction_prevent_idle_timeout(open_pair):
    # On a stalled machine the connection is rightly idle; so one of several attempts has to run
    # undisturbed.
    for _ in range(10):
        moments = [monotonic()]
        async with open_pair(idle_timeout=2.5) as both:
            # First only we send, then only the peer, for longer than 2.5 s each.
            for theirs in [False] * 3 + [True] * 3:
                await asyncio.sleep(0.85)
                if theirs:
                    await both.peer.frame(TEXT, b"theirs")
                    assert await within(both.ws.recv()) == "theirs"
                else:
                    with suppress(ConnectionClosed):
                        await both.ws.send("ours")
                moments.append(monotonic())
            if both.ws.is_open:
                return
        assert max(later - sooner for sooner, later in pairwise(moments)) >= 2.5
    raise AssertionError("it never was undisturbed")


@pytest.mark.waits
async def test_stale_after_closes_although_we_send_and_the_peer_answers_pings(open_pair):
    began = monotonic()
    async with (
        open_pair(stale_after=0.3, ping_interval=0.05, **LASTING) as both,
        asyncio.TaskGroup() as sends,
    ):

        async def send():
            with suppress(ConnectionClosed):
                await both.ws.send("ours")

        while (received := await both.peer.read_frame()).opcode in (PING, TEXT):
            if received.opcode == PING:
                await both.peer.frame(PONG, received.payload)
                # Once endwell has sent its Close, send() waits for the answer of this peer.
                sends.create_task(send())
        assert monotonic() - began > 0.29
        assert int.from_bytes(received.payload[:2], "big") == CloseCode.GOING_AWAY
        await both.peer.close(CloseCode.GOING_AWAY)
        both.peer.fin()
        ending = await both.ending()
    assert (ending.cause, ending.initiator, ending.clean) == (Cause.IDLE_TIMEOUT, Initiator.LOCAL, True)


@pytest.mark.waits
async def test_max_lifetime_closes_with_1012_and_retry_advice(open_pair, role):
    began = monotonic()
    async with open_pair(max_lifetime=0.3) as both:
        seen: Seen = await both.peer.read_to_the_end(answer=True)
        assert monotonic() - began > 0.9 * 0.3 - 0.01
        both.peer.fin()
        ending = await both.ending()
    meaning = Cause.LIFETIME_REACHED.meaning
    reason = f"{meaning}; retry 0-1s" if role == "server" else meaning
    assert ending.sent == seen.close == Close(CloseCode.SERVICE_RESTART, reason)
    assert RetryAdvice.parse(reason) == ((0, 1) if role == "server" else None)
    assert (ending.cause, ending.initiator, ending.clean) == (Cause.LIFETIME_REACHED, Initiator.LOCAL, True)
    assert ending.ok

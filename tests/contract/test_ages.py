"""Connections that end because they are idle, or old: switched off unless asked for, on either side."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from itertools import pairwise

import pytest

from endwell import Cause, Close, CloseCode, ConnectionClosed, Initiator, RetryAdvice
from tests.pair import within
from tests.raw import Seen
from tests.wire.peer import PING, PONG, TEXT

pytestmark = pytest.mark.alike


async def test_a_connection_without_messages_is_closed_with_1001_though_pings_flow(meet):
    began = time.monotonic()
    async with meet(idle_timeout=0.3, ping_interval=0.05) as both:
        while (received := await both.peer.read_frame()).opcode == PING:
            await both.peer.frame(PONG, received.payload)
        assert time.monotonic() - began > 0.29
        code, reason = int.from_bytes(received.payload[:2], "big"), received.payload[2:].decode()
        assert Close(code, reason) == Close(CloseCode.GOING_AWAY, Cause.IDLE_TIMEOUT.meaning)
        await both.peer.close(code)
        both.peer.fin()
        ending = await both.ending()
    assert (ending.cause, ending.initiator, ending.clean) == (Cause.IDLE_TIMEOUT, Initiator.LOCAL, True)
    assert ending.ok


async def test_messages_either_way_keep_a_connection_from_being_idle(meet):
    # A machine that stalls makes it idle rightly; so one of several attempts has to be undisturbed.
    for _ in range(10):
        moments = [time.monotonic()]
        async with meet(idle_timeout=2.5) as both:
            # First only ours, then only theirs, for longer than 2.5 s each.
            for theirs in [False] * 3 + [True] * 3:
                await asyncio.sleep(0.85)
                if theirs:
                    await both.peer.frame(TEXT, b"theirs")
                    assert await within(both.ws.recv()) == "theirs"
                else:
                    with suppress(ConnectionClosed):
                        await both.ws.send("ours")
                moments.append(time.monotonic())
            if both.ws.is_open:
                return
        assert max(later - sooner for sooner, later in pairwise(moments)) >= 2.5
    raise AssertionError("it never was undisturbed")


async def test_an_old_connection_is_closed_with_1012_and_a_server_says_when_to_come_back(meet, role):
    began = time.monotonic()
    async with meet(max_lifetime=0.3) as both:
        seen: Seen = await both.peer.read_to_the_end(answer=True)
        assert time.monotonic() - began > 0.9 * 0.3 - 0.01
        both.peer.fin()
        ending = await both.ending()
    meaning = Cause.LIFETIME_REACHED.meaning
    reason = f"{meaning}; retry 0-1s" if role == "server" else meaning
    assert ending.sent == seen.close == Close(CloseCode.SERVICE_RESTART, reason)
    assert RetryAdvice.parse(reason) == ((0, 1) if role == "server" else None)
    assert (ending.cause, ending.initiator, ending.clean) == (Cause.LIFETIME_REACHED, Initiator.LOCAL, True)
    assert ending.ok

"""A blocked event loop, or a machine that slept, is nobody's death."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress

from endwell import Cause, Close, Server, connect
from endwell.aio import watchdog
from tests.pair import idle, pair, turns, until, within
from tests.raw import BOUND, RawPeer, RawServer
from tests.wire.peer import PING, PONG

#: A peer of the test answers within ping_timeout though the machine stalls for a while; a stall above
#: 2 s is noticed, and does not count.
KEEPALIVE = {"ping_interval": 0.2, "ping_timeout": 2.5}

#: Seconds of a standstill in which that runs out.
LONG = 4.0

#: Less than a second, so that it is no standstill that does not count, and a timeout that runs out in it.
SHORT, TIMEOUT = 0.9, 0.75


def block(seconds: float) -> None:
    """The loop, and with it the peer that the test plays."""
    time.sleep(seconds)


class Attempt(AsyncExitStack):
    """What a test has opened since it began."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()

    def late(self) -> bool:
        """Whether a timeout may have run out already, because the machine stalled."""
        return time.monotonic() - self._began >= TIMEOUT


def attempts() -> Iterator[Attempt]:
    """For a test that can judge nothing unless it has prepared all within TIMEOUT; it leaves the loop when it has."""
    for _ in range(100):
        yield Attempt()
    raise AssertionError("it never was in time")


async def answer(peer: RawPeer) -> None:
    """The next ping."""
    opcode, payload = await within(peer.read_frame())
    assert opcode == PING
    await peer.frame(PONG, payload)


async def test_a_peer_is_not_dead_before_a_ping_that_was_sent_after_the_standstill_went_unanswered(role):
    async with pair(role, **KEEPALIVE) as both:
        await answer(both.peer)
        assert (await within(both.peer.read_frame())).opcode == PING
        block(LONG)
        for _ in range(3):  # the one that is sent now, and those after it
            await answer(both.peer)
        assert both.ws.is_open


async def test_a_dead_peer_is_told_with_how_long_our_own_loop_stood_still(role, caplog):
    caplog.set_level("INFO", "endwell")
    began = time.monotonic()
    async with pair(role, **KEEPALIVE) as both:
        await both.peer.vanish()
        block(LONG)
        again = time.monotonic()
        ending = await both.ending()
        # It has all the time of a ping that is sent now.
        assert time.monotonic() - again > 2.49
    assert ending.cause is Cause.KEEPALIVE_TIMEOUT
    # The beat that notices it is due once a second; what the machine stalls besides is in it, too.
    assert LONG - 1.1 < ending.stalled <= time.monotonic() - began
    assert f"this side was stalled for {ending.stalled:.1f} s" in str(ending)
    assert "the event loop was stalled" in caplog.text


async def test_what_lies_in_the_kernel_is_read_before_anybody_is_judged(role, transport):
    async with pair(role, transport, close_timeout=TIMEOUT) as both:
        closing = asyncio.ensure_future(both.ws.close(4000, "bye"))
        await asyncio.sleep(0)  # in the turn in which it closes, so that its time begins here
        both.peer.push(both.peer.close_octets(4000, "bye"))
        block(SHORT)
        ending = await closing
        assert await both.peer.read_close() == Close(4000, "bye")
        assert (ending.received, ending.clean) == (Close(4000, "bye"), True)


async def test_nobody_is_judged_unheard_though_more_have_answered_than_are_read_in_a_turn(monkeypatch):
    monkeypatch.setattr("endwell.aio.reactor.EVENTS", 1)
    server = Server(compression=None, ping_interval=0.2, ping_timeout=TIMEOUT)
    server.websocket("/")(idle)
    for attempt in attempts():
        async with attempt as stack:
            await stack.enter_async_context(server.serving(grace=0))
            peers = [stack.enter_context(await RawPeer.connect(server.port)) for _ in range(10)]
            for peer in peers:
                assert (await peer.read_frame()).opcode == PING
            if attempt.late():
                continue
            for peer in peers:
                peer.push(peer.octets(PONG, b"I am here"))
            block(SHORT)
            # Those that are given up get a Close instead.
            assert [(await peer.read_frame()).opcode for peer in peers] == [PING] * 10
            break


async def test_an_opening_that_lies_in_the_kernel_is_not_late(transport):
    server = Server(open_timeout=TIMEOUT)
    server.websocket("/")(idle)
    for attempt in attempts():
        async with attempt as stack:
            await stack.enter_async_context(server.serving(ssl=transport.server, grace=0))
            peer = stack.enter_context(await RawPeer.reach(server.port, transport.client))
            with suppress(OSError, AssertionError):  # it was cut already
                await peer.shake()
            if attempt.late():
                continue
            peer.push(peer.request())
            block(SHORT)
            assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
            break


async def test_what_the_peer_takes_now_it_has_not_refused(role, transport):
    async with pair(role, transport, buffer=65536, write_timeout=TIMEOUT) as both:
        await both.ws.send(bytes(2**24))
        unsent = both.core.outbox.size
        assert unsent
        both.peer.sock.recv(2**24)  # now, and we have not looked since
        block(SHORT)
        await turns()  # in which the time that has run out is looked at
        assert both.ws.is_open
        assert both.core.outbox.size < unsent


async def test_whoever_could_not_connect_because_the_loop_was_blocked_tries_again_and_has_all_his_time():
    with RawServer() as listening:
        connecting = asyncio.ensure_future(connect(listening.uri, open_timeout=3))
        await asyncio.sleep(0)
        block(4.5)
        # The first connection is of the attempt that ran out of time while the loop was blocked.
        with await listening.reached(), await listening.reached() as peer:
            await asyncio.sleep(0.1)
            await peer.upgrade()
            ws = await within(connecting)
            closing = asyncio.ensure_future(ws.close())
            await peer.read_to_the_end(answer=True)
            assert (await closing).clean


async def test_a_client_asks_at_once_after_a_sleep_and_a_server_does_not(role, monkeypatch, caplog):
    caplog.set_level("INFO", "endwell")
    async with pair(role, ping_interval=20.0, ping_timeout=20.0) as both:
        awake = watchdog.clock
        monkeypatch.setattr(watchdog, "clock", lambda: awake() + 3600.0)
        if role == "client":
            await answer(both.peer)
            await until(lambda: both.ws.latency)
            assert both.ws.latency < BOUND  # without the time that was slept
        else:
            assert await both.peer.silence(1.1)
        assert both.ws.is_open
    assert re.search(r"this machine slept for 36\d\d\.", caplog.text)


async def test_a_server_that_is_gone_when_the_client_wakes_is_noticed_within_ping_timeout(monkeypatch):
    began = time.monotonic()
    async with pair("client", ping_interval=3 * BOUND, ping_timeout=0.2) as both:
        await both.peer.vanish()
        awake = watchdog.clock
        monkeypatch.setattr(watchdog, "clock", lambda: awake() + 3600.0)
        ending = await both.ending()  # within BOUND
    assert ending.cause is Cause.KEEPALIVE_TIMEOUT
    assert 3599.0 < ending.stalled < 3601.0 + time.monotonic() - began

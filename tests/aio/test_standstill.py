"""A blocked event loop, or a machine that slept, is nobody's death."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack

import pytest

from endwell import Cause, Close, Server, connect
from endwell.aio import pulse
from tests.pair import idle, pair, until, within
from tests.raw import RawPeer, RawServer
from tests.wire.peer import BINARY, PING, PONG

KEEPALIVE = {"ping_interval": 0.2, "ping_timeout": 0.2}


def block(seconds: float) -> None:
    """The loop, and with it the peer that the test plays."""
    time.sleep(seconds)


async def answer(peer: RawPeer) -> None:
    """The next ping."""
    opcode, payload = await within(peer.read_frame())
    assert opcode == PING
    await peer.frame(PONG, payload)


async def test_a_peer_is_not_dead_before_a_ping_that_was_sent_after_the_standstill_went_unanswered(role):
    async with pair(role, **KEEPALIVE) as both:
        await answer(both.peer)
        assert (await within(both.peer.read_frame())).opcode == PING
        block(1.5)
        for _ in range(3):  # the one that is sent now, and those after it
            await answer(both.peer)
        assert both.ws.is_open


async def test_a_dead_peer_is_told_with_how_long_our_own_loop_stood_still(role, caplog):
    caplog.set_level("INFO", "endwell")
    async with pair(role, **KEEPALIVE) as both:
        await both.peer.vanish()
        await asyncio.sleep(0.01)
        block(2.5)
        began = time.monotonic()
        ending = await both.ending()
        assert 0.19 < time.monotonic() - began < 0.2 + 0.2 + 1.0
    assert ending.cause is Cause.KEEPALIVE_TIMEOUT
    assert 1.5 < ending.stalled < 2.6
    assert f"this side stood still for {ending.stalled:.1f} s" in str(ending)
    assert "the event loop stood still" in caplog.text


async def test_what_lies_in_the_kernel_is_read_before_anybody_is_judged(role, transport):
    async with pair(role, transport, close_timeout=0.2) as both:
        closing = asyncio.ensure_future(both.ws.close(4000, "bye"))
        assert await both.peer.read_close() == Close(4000, "bye")
        both.peer.push(both.peer.close_octets(4000, "bye"))
        block(0.5)
        ending = await closing
        assert (ending.received, ending.clean) == (Close(4000, "bye"), True)


async def test_nobody_is_judged_unheard_though_more_have_answered_than_are_read_in_a_turn(monkeypatch):
    monkeypatch.setattr("endwell.aio.commons.EVENTS", 1)
    server = Server(compression=None, **KEEPALIVE)
    server.websocket("/")(idle)
    async with server.serving(grace=0):
        with ExitStack() as stack:
            peers = [stack.enter_context(await RawPeer.connect(server.port)) for _ in range(10)]
            for peer in peers:
                assert (await within(peer.read_frame())).opcode == PING
            for peer in peers:
                peer.push(peer.octets(PONG, b"I am here"))
            block(0.5)
            await asyncio.sleep(0.1)
            assert len(server.connections) == 10


async def test_an_opening_that_lies_in_the_kernel_is_not_late(transport):
    server = Server(open_timeout=0.2)
    server.websocket("/")(idle)
    async with server.serving(ssl=transport.server, grace=0):
        with await RawPeer.reach(server.port, transport.client) as peer:
            await peer.shake()
            peer.push(peer.request())
            block(0.5)
            assert (await peer.read_head()).startswith("HTTP/1.1 101 ")


async def test_what_the_peer_takes_now_it_has_not_refused(role, transport):
    async with pair(role, transport, buffer=65536, write_timeout=0.3) as both:
        await both.ws.send(bytes(2**24))
        assert both.core.outbox.size
        reading = asyncio.ensure_future(both.peer.read_frame())
        await asyncio.sleep(0.05)
        block(0.6)
        assert (await within(reading)).opcode == BINARY
        assert both.ws.is_open


async def test_whoever_could_not_connect_because_the_loop_was_blocked_tries_again_and_has_all_his_time():
    with RawServer() as listening:
        connecting = asyncio.ensure_future(connect(listening.uri, open_timeout=0.4))
        await asyncio.sleep(0)
        block(1.7)
        with await listening.reached() as peer:
            await asyncio.sleep(0.1)
            await peer.upgrade()
            ws = await within(connecting)
            closing = asyncio.ensure_future(ws.close())
            await peer.read_to_the_end(answer=True)
            assert (await closing).clean


async def test_a_client_asks_at_once_after_a_sleep_and_a_server_does_not(role, monkeypatch, caplog):
    caplog.set_level("INFO", "endwell")
    async with pair(role, ping_interval=20.0, ping_timeout=20.0) as both:
        awake = pulse.clock
        monkeypatch.setattr(pulse, "clock", lambda: awake() + 3600.0)
        if role == "client":
            await answer(both.peer)
            await until(lambda: both.ws.latency)
            assert both.ws.latency < 1.0
        else:
            assert await both.peer.silence(1.1)
        assert both.ws.is_open
    assert "this machine slept for 3600." in caplog.text


async def test_a_server_that_is_gone_when_the_client_wakes_is_noticed_within_ping_timeout(monkeypatch):
    async with pair("client", ping_interval=20.0, ping_timeout=0.2) as both:
        await both.peer.vanish()
        awake = pulse.clock
        monkeypatch.setattr(pulse, "clock", lambda: awake() + 3600.0)
        began = time.monotonic()
        ending = await both.ending()
        assert time.monotonic() - began < 1.0 + 0.2 + 0.5
    assert ending.cause is Cause.KEEPALIVE_TIMEOUT
    assert ending.stalled == pytest.approx(3600.0, abs=2.0)

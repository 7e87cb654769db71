"""A blocked event loop or a suspended machine must not close connections."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, suppress

from endwell import Cause, Close, Server, connect
from endwell.aio import watchdog
from tests.pair import idle, loop_turns, pair, until, within
from tests.raw import BOUND, RawPeer, RawServer
from tests.wire.peer import PING, PONG

#: The test's peer answers within ping_timeout although the machine stalls for a while. A stall above 2 s is
#: detected and does not count.
KEEPALIVE = {"ping_interval": 0.2, "ping_timeout": 2.5}

#: Seconds of a stall in which that timeout expires.
LONG = 4.0

#: Less than a second, so that it is not detected as a stall, and a timeout that expires in it.
SHORT, TIMEOUT = 0.9, 0.75


def block(seconds: float) -> None:
    """Block the loop, and with it the peer that the test plays."""
    time.sleep(seconds)


class Attempt(AsyncExitStack):
    """What a test has opened since its start."""

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()

    def late(self) -> bool:
        """Whether a timeout may have expired already, because the machine stalled."""
        return time.monotonic() - self._began >= TIMEOUT


def attempts() -> Iterator[Attempt]:
    """Attempts for a test whose preparations must be done within TIMEOUT; it leaves the loop on success."""
    for _ in range(100):
        yield Attempt()
    raise AssertionError("no attempt was in time")


async def answer(peer: RawPeer) -> None:
    """The next ping."""
    opcode, payload = await within(peer.read_frame())
    assert opcode == PING
    await peer.frame(PONG, payload)


async def test_after_a_stall_a_peer_times_out_only_for_a_new_ping(role):
    async with pair(role, **KEEPALIVE) as both:
        await answer(both.peer)
        assert (await within(both.peer.read_frame())).opcode == PING
        block(LONG)
        for _ in range(3):  # the one that is sent now, and later ones
            await answer(both.peer)
        assert both.ws.is_open


async def test_the_ending_of_a_dead_peer_names_our_stall(role, caplog):
    caplog.set_level("INFO", "endwell")
    began = time.monotonic()
    async with pair(role, **KEEPALIVE) as both:
        await both.peer.vanish()
        block(LONG)
        again = time.monotonic()
        ending = await both.ending()
        # The peer has the full ping_timeout for a ping that is sent now.
        assert time.monotonic() - again > 2.49
    assert ending.cause is Cause.KEEPALIVE_TIMEOUT
    # The check that detects it runs once a second; a stall of the machine counts too.
    assert LONG - 1.1 < ending.stalled <= time.monotonic() - began
    assert f"this side was stalled for {ending.stalled:.1f} s" in str(ending)
    assert "the event loop was stalled" in caplog.text


async def test_data_in_the_kernel_is_read_before_timeouts_are_checked(role, transport):
    async with pair(role, transport, close_timeout=TIMEOUT) as both:
        closing = asyncio.ensure_future(both.ws.close(4000, "bye"))
        await asyncio.sleep(0)  # in the same iteration as the close, so that its time starts here
        both.peer.send_at_once(both.peer.close_octets(4000, "bye"))
        block(SHORT)
        ending = await closing
        assert await both.peer.read_close() == Close(4000, "bye")
        assert (ending.received, ending.clean) == (Close(4000, "bye"), True)


async def test_pongs_beyond_one_iteration_of_reads_prevent_timeouts(monkeypatch):
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
                peer.send_at_once(peer.octets(PONG, b"I am here"))
            block(SHORT)
            # Those that time out receive a Close instead.
            assert [(await peer.read_frame()).opcode for peer in peers] == [PING] * 10
            break


async def test_a_handshake_received_during_a_stall_is_not_late(transport):
    server = Server(open_timeout=TIMEOUT)
    server.websocket("/")(idle)
    for attempt in attempts():
        async with attempt as stack:
            await stack.enter_async_context(server.serving(ssl=transport.server, grace=0))
            peer = stack.enter_context(await RawPeer.connect_tcp(server.port, transport.client))
            with suppress(OSError, AssertionError):  # it was aborted already
                await peer.tls_handshake()
            if attempt.late():
                continue
            peer.send_at_once(peer.request())
            block(SHORT)
            assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
            break


async def test_a_peer_that_reads_after_a_stall_is_not_slow(role, transport):
    async with pair(role, transport, buffer=65536, write_timeout=TIMEOUT) as both:
        await both.ws.send(bytes(2**24))
        unsent = both.core.outbox.size
        assert unsent
        both.peer.sock.recv(2**24)  # now, and the loop has not looked since
        block(SHORT)
        await loop_turns()  # in which the expired timeout is checked
        assert both.ws.is_open
        assert both.core.outbox.size < unsent


async def test_connect_retries_after_a_stall_with_the_full_timeout():
    with RawServer() as listening:
        connecting = asyncio.ensure_future(connect(listening.uri, open_timeout=3))
        await asyncio.sleep(0)
        block(4.5)
        # The first connection belongs to the attempt that timed out while the loop was blocked.
        with await listening.accept_tcp(), await listening.accept_tcp() as peer:
            await asyncio.sleep(0.1)
            await peer.upgrade()
            ws = await within(connecting)
            closing = asyncio.ensure_future(ws.close())
            await peer.read_to_the_end(answer=True)
            assert (await closing).clean


async def test_after_a_suspension_only_a_client_pings_at_once(role, monkeypatch, caplog):
    caplog.set_level("INFO", "endwell")
    async with pair(role, ping_interval=20.0, ping_timeout=20.0) as both:
        awake = watchdog.clock
        monkeypatch.setattr(watchdog, "clock", lambda: awake() + 3600.0)
        # A client pings after a stall, too: the ping of an earlier stall is not that of the suspension.
        await until(lambda: "this machine slept for " in caplog.text)
        if role == "client":
            await answer(both.peer)
            await until(lambda: both.ws.latency)
            assert both.ws.latency < BOUND  # without the time of the suspension
        else:
            assert await both.peer.is_silent(1.1)
        assert both.ws.is_open
    # Time during which this process was stalled before is not part of it.
    assert re.search(r"this machine slept for (359|36\d)\d\.", caplog.text)


async def test_after_a_suspension_a_dead_server_is_detected_within_ping_timeout(monkeypatch):
    began = time.monotonic()
    async with pair("client", ping_interval=3 * BOUND, ping_timeout=0.2) as both:
        await both.peer.vanish()
        awake = watchdog.clock
        monkeypatch.setattr(watchdog, "clock", lambda: awake() + 3600.0)
        ending = await both.ending()  # within BOUND
    assert ending.cause is Cause.KEEPALIVE_TIMEOUT
    assert 3599.0 < ending.stalled < 3601.0 + time.monotonic() - began

"""The driver over an asyncio transport: when it is chosen, its flow control, and taking over a transport."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from endwell import Cause, Close, Options, Server, TcpEnd, connect
from endwell.aio.reactor import Reactor, reactor_of
from endwell.aio.tcp import TcpDriver
from endwell.aio.tls import TlsDriver
from endwell.aio.transport import TlsTransportDriver, TransportDriver
from endwell.protocol.connection import Connection
from endwell.wire.codec import Codec
from tests.loops import Proactor
from tests.pair import idle, loop_turns, pair, until, within
from tests.raw import BOUND, PLAIN, named, wss
from tests.wire.peer import CLOSE, KEY, TEXT, frame


@pytest.mark.parametrize("secure", [False, True])
def test_a_loop_without_readers_serves_and_connects_over_transports(secure):
    transport = wss() if secure else PLAIN
    endings, kinds = [], set()

    async def talk():
        server = Server()
        server.on_close(lambda _, ending: endings.append(ending))

        @server.websocket("/")
        async def echo(ws):
            kinds.add(type(ws._stream))
            async for message in ws:
                await ws.send(message)

        async with server.serving(ssl=transport.server):
            uri = f"ws{'s' if secure else ''}://127.0.0.1:{server.port}/"
            for _ in range(2):
                async with connect(uri, ssl=transport.client) as ws:
                    kinds.add(type(ws._stream))
                    for message in ("a", bytes(300_000)):
                        await ws.send(message)
                        assert await within(ws.recv()) == message
                endings.append(ws.ending)

    with asyncio.Runner(loop_factory=Proactor) as runner:
        runner.run(within(talk()))
    assert kinds == {TlsTransportDriver if secure else TransportDriver}
    assert len(endings) == 4
    assert all(ending.clean for ending in endings)
    assert {ending.tcp for ending in endings} == {TcpEnd.UNKNOWN if secure else TcpEnd.FIN}


async def test_a_transport_is_used_only_if_it_is_asked_for(monkeypatch):
    loop = asyncio.get_running_loop()
    assert reactor_of(loop).has_readers
    monkeypatch.setenv("ENDWELL_DRIVER", "transport")
    assert not Reactor(loop).has_readers


def test_each_driver_declares_what_it_can_do():
    names = ("half_close", "reads_after_failed_write", "tcp_info", "not_sent_limit")
    told = {
        driver: [getattr(driver, name) for name in names]
        for driver in (TcpDriver, TlsDriver, TransportDriver, TlsTransportDriver)
    }
    assert told == {
        TcpDriver: [True, True, True, True],
        TlsDriver: [True, True, True, True],
        TransportDriver: [True, False, False, False],
        TlsTransportDriver: [False, False, False, False],
    }


class Foreign(asyncio.Protocol):
    """Another server's protocol, which gives its transport away."""

    def __init__(self, made):
        self.made = made

    def connection_made(self, transport):
        self.made.set_result(transport)


async def test_a_transport_can_be_taken_over_with_what_has_arrived():
    loop = asyncio.get_running_loop()
    made = loop.create_future()
    server = await loop.create_server(lambda: Foreign(made), "127.0.0.1", 0)
    peer = socket.create_connection(server.sockets[0].getsockname())
    peer.setblocking(False)
    transport = await within(made)
    core = Connection(False, Options(compression=None), time.monotonic())
    first, second = (frame(TEXT, text, key=KEY) for text in (b"first", b"second"))
    driver = TransportDriver.over(reactor_of(loop), transport, core, first + second[:3])
    assert driver.remote_address == peer.getsockname()
    assert driver.local_address == peer.getpeername()
    core.accept(Codec(client=False), time.monotonic())
    driver.settle()
    await until(lambda: core.inbox.messages == ["first"])
    peer.send(second[3:])
    await until(lambda: core.inbox.messages == ["first", "second"])
    core.inbox.messages.clear()
    peer.send(frame(CLOSE, b"\x0f\xa1", key=KEY))
    assert await within(loop.sock_recv(peer, 100)) == frame(CLOSE, b"\x0f\xa1", key=None)
    assert await within(loop.sock_recv(peer, 100)) == b""  # the half-close
    peer.close()
    await until(lambda: core.ended and driver.sock is None)
    assert (core.ending.cause, core.ending.tcp) == (Cause.PEER_CLOSED, TcpEnd.FIN)
    assert (core.ending.received, core.ending.sent) == (Close(4001), Close(4001))
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("name", ["ws over a transport", "wss over a transport"])
async def test_a_full_inbox_pauses_the_transport(name, use, role):
    async with pair(role, use(name), max_queue=4) as both:
        octets = both.peer.octets(TEXT, b"x")
        for _ in range(4):
            await both.peer.write(octets)
        await until(lambda: not both.core.wants_read())
        await loop_turns()
        before = len(both.core.inbox.messages)
        await both.peer.write(octets)
        await loop_turns()
        assert len(both.core.inbox.messages) == before == 4
        for _ in range(5):
            assert await within(both.ws.recv()) == "x"


async def test_a_paused_tls_transport_loses_nothing_before_a_fin_and_holds_the_peer_back(use, role):
    messages = 128
    async with pair(role, use("wss over a transport"), max_queue=1) as both:
        loop, peer = asyncio.get_running_loop(), both.peer
        # The kernel holds less than the data, so the peer can send all of it only if this process reads.
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
        both.ws._stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)

        async def send():
            await peer.write(peer.octets(TEXT, b"x" * 2**14) * messages + peer.close_octets(4001))
            peer.fin()

        sending = loop.create_task(send())
        await until(lambda: not both.core.wants_read())
        await loop_turns(20)
        assert not sending.done()
        assert len(both.core.inbox) < messages // 4
        received = 0
        async for message in both.ws:
            assert len(message) == 2**14
            received += 1
            await loop_turns(2)
        assert received == messages
        await within(sending)
    assert both.ws.ending.received == Close(4001)
    assert both.ws.ending.dropped_messages == 0


async def test_data_that_the_system_does_not_accept_waits_in_the_outbox(use, role):
    async with pair(role, use("ws over a transport"), buffer=4096, write_limit=2**16) as both:
        sending = asyncio.ensure_future(both.ws.send(bytes(2**24)))
        await until(lambda: both.core.outbox.bytes_sent and both.ws._stream.core.outbox.stuck_at < 1e9)
        assert both.core.outbox.size > 2**23
        total = 0
        loop = asyncio.get_running_loop()
        while total < 2**24:
            octets = await within(loop.sock_recv(both.peer.sock, 2**18))
            total += len(octets)
            assert both.core.outbox.bytes_sent + both.core.outbox.size >= total
        await within(sending)
        await until(lambda: not both.core.outbox.size)


async def test_a_peer_that_does_not_finish_the_tls_handshake_is_given_up_in_time(monkeypatch, use):
    transport = use("wss over a transport")
    server = Server(open_timeout=0.2)
    server.websocket("/")(idle)
    async with server.serving(ssl=transport.server):
        loop = asyncio.get_running_loop()
        with socket.create_connection(("127.0.0.1", server.port)) as peer:
            peer.setblocking(False)
            async with asyncio.timeout(BOUND):
                assert await loop.sock_recv(peer, 1) == b""
        await until(lambda: not server._listener.openings)


async def test_the_names_of_the_transports_are_known():
    assert named("wss over a transport").fin is TcpEnd.UNKNOWN
    assert named("ws over a transport").fin is named("wss").fin is TcpEnd.FIN

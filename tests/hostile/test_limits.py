"""More connections than a server accepts."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from endwell import Server
from endwell.aio.admission import REFUSALS, UNLIMITED, Admission
from endwell.aio.exchange import Exchange
from endwell.options import Options
from tests.pair import idle, nothing_left_behind, until
from tests.raw import BOUND, RawPeer

PAGE = b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def serve(**options):
    server = Server(ping_interval=None, close_timeout=2 * BOUND, **options)
    server.websocket("/")(idle)
    server.get("/page")(lambda request: "a page")
    return server


async def refused(server, transport, request):
    """The response to an excess connection."""
    with await RawPeer.connect_tcp(server.port, transport.client) as peer:
        await peer.tls_handshake()
        await peer.write(request)
        head = await peer.read_head()
        while await peer.more():
            pass
        assert peer.seen.tcp.name == "FIN"
        await peer.send_close_notify()
        peer.fin()
        return head


REACHED = "%s (%d) is reached: more are refused with 503"
OVER = "%s (%d) is no longer reached; refused meanwhile: %d"


@pytest.mark.parametrize("option", ["max_connections", "max_connections_per_address"])
async def test_an_excess_connection_gets_503_with_retry_after(option, transport, caplog):
    server = serve(**{option: 2})
    async with server.serving(ssl=transport.server, grace=0), nothing_left_behind():
        with (
            await RawPeer.connect(server.port, transport.client) as one,
            await RawPeer.connect(server.port, transport.client) as two,
        ):
            for request in (one.request(), PAGE, one.request("/nothing/here")):
                head = await refused(server, transport, request)
                assert head.startswith("HTTP/1.1 503 ")
                assert "\r\nRetry-After: 10" in head
            # Existing connections continue, and a slot that becomes free is reused.
            assert len(server.connections) == 2
            two.drop()
            async with asyncio.timeout(BOUND):
                while len(server.connections) == 2:
                    await asyncio.sleep(0.001)
            with await RawPeer.connect(server.port, transport.client) as three:
                assert len(server.connections) == 2
                three.drop()
            one.drop()
        async with asyncio.timeout(BOUND):
            while server.connections:
                await asyncio.sleep(0.001)
    # One line each, for any number of refusals; an address at its own limit causes no line.
    told = [record.msg for record in caplog.records]
    assert told == ([REACHED, OVER] if option == "max_connections" else [])


@pytest.mark.virtual_clock
async def test_pages_and_unfinished_handshakes_count_for_max_connections():
    server = serve(max_connections=1, open_timeout=2.5)
    async with server.serving(grace=0), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port) as peer:
            await until(lambda: server._listener.openings)
            with await RawPeer.connect_tcp(server.port) as other:
                await other.write(PAGE)
                assert (await other.read_head()).startswith("HTTP/1.1 503 ")
            assert await peer.read_frame() is None  # aborted after open_timeout
        for _ in range(3):  # and each slot is free again
            with await RawPeer.connect_tcp(server.port) as peer:
                await peer.write(PAGE)
                assert (await peer.read_head()).startswith("HTTP/1.1 200 ")
                peer.fin()
                while await peer.more():
                    pass
            await until(lambda: not server._listener.openings)


async def test_pending_refusals_are_bounded():
    server = serve(max_connections=1)
    async with server.serving(grace=0), nothing_left_behind():
        with await RawPeer.connect(server.port) as one:
            crowd = [await RawPeer.connect_tcp(server.port) for _ in range(REFUSALS + 10)]
            async with asyncio.timeout(BOUND):
                for peer in crowd[REFUSALS:]:
                    assert not await peer.more()  # aborted
            await crowd[0].write(crowd[0].request())
            assert (await crowd[0].read_head()).startswith("HTTP/1.1 503 ")
            for peer in crowd:
                peer.drop()
            await one.frame(8)
            assert await one.read_close()


def test_a_server_without_limits_accepts_all():
    assert Admission(Options()).admit(("192.0.2.1", 1)) is UNLIMITED


def test_each_address_or_ipv6_64_prefix_has_its_own_limit():
    admission = Admission(Options(max_connections_per_address=1))
    first = admission.admit(("192.0.2.1", 1))
    assert not first.refused
    assert admission.admit(("192.0.2.1", 2)).refused
    assert not admission.admit(("192.0.2.2", 1)).refused
    assert not admission.admit(("2001:db8::1", 1, 0, 0)).refused
    assert admission.admit(("2001:db8::2", 1, 0, 0)).refused
    assert not admission.admit(("2001:db8:0:1::1", 1, 0, 0)).refused
    assert not admission.admit(("fe80::1%lo", 1, 0, 1)).refused
    first.leave()
    assert not admission.admit(("192.0.2.1", 3)).refused


def test_an_address_that_a_socket_for_both_versions_has_mapped_is_the_ipv4_address():
    admission = Admission(Options(max_connections_per_address=1))
    for address in ("::ffff:192.0.2.1", "::ffff:192.0.2.2", "::FFFF:c000:203"):
        assert not admission.admit((address, 1, 0, 0)).refused
    for address in ("192.0.2.1", "::ffff:192.0.2.2", "192.0.2.3"):
        assert admission.admit((address, 2)).refused


def test_unix_sockets_count_for_the_total_limit_only():
    admission = Admission(Options(max_connections=3, max_connections_per_address=1))
    assert [admission.admit("").refused for _ in range(4)] == [False, False, False, True]


def test_ended_connections_leave_no_admission_records():
    admission = Admission(Options(max_connections=10))
    places = [admission.admit((f"192.0.2.{n}", n)) for n in range(20)]
    for place in places:
        place.leave()
    assert not admission._admitted
    assert not admission._refused


async def test_a_connection_that_ended_before_accept_leaves_nothing(transport):
    server = serve(max_connections=100)
    async with server.serving(ssl=transport.server, grace=0), nothing_left_behind():
        socks = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(20)]
        for sock in socks:
            sock.send(b"junk\r\n\r\n")
            sock.close()
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.tls_handshake()
            await peer.write(PAGE)
            assert (await peer.read_head()).startswith("HTTP/1.1 200 ")
        async with asyncio.timeout(BOUND):
            while gc.collect() or any(isinstance(left, Exchange) for left in gc.get_objects()):
                await asyncio.sleep(0.01)

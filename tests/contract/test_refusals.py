"""Connections that end with an HTTP response, which has to arrive whole, like a Close."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from endwell import HandshakeRejected, Initiator, Response, Server, TcpEnd, connect
from tests.pair import nothing_left_behind, until, within
from tests.raw import BOUND, RawPeer, RawServer, TcpState

BODY = b"no, " * 2**20  # 4 MiB


@asynccontextmanager
async def refused(transport, **options):
    """A raw client of a server that refuses everything; the server has no connections left afterwards."""
    bytewise, buffer = options.pop("bytewise", False), options.pop("buffer", None)
    server = Server(**options)
    server.process_request(lambda request: Response(403, body=BODY if request.path == "/large" else b"no"))
    async with server.serving(ssl=transport.server, grace=0), nothing_left_behind():
        context = transport.client
        with await RawPeer.connect_tcp(server.port, context, bytewise=bytewise, buffer=buffer) as peer:
            await peer.tls_handshake()
            yield peer


async def body(peer):
    """Everything until the end of TCP."""
    async with asyncio.timeout(BOUND):
        while await peer.more():
            pass
    return bytes(peer._received)


async def test_a_refusal_arrives_whole_and_the_server_ends_tcp_first(transport, bytewise):
    async with refused(transport, bytewise=bytewise) as peer:
        await peer.write(peer.request())
        assert (await peer.read_head()).startswith("HTTP/1.1 403 ")
        assert await body(peer) == b"no"
        assert peer.tcp_state is TcpState.CLOSE_WAIT
    assert (peer.seen.tcp, peer.seen.close_notify) == (TcpEnd.FIN, None if transport.server is None else True)


async def test_a_refusal_reaches_a_client_that_keeps_sending(transport):
    async with refused(transport) as peer:
        await peer.write(peer.request() + bytes(3_000_000))
        await peer.until_acknowledged()
        assert (await peer.read_head()).startswith("HTTP/1.1 403 ")
        assert await body(peer) == b"no"
    assert peer.seen.tcp is TcpEnd.FIN


async def test_a_refusal_reaches_a_client_whose_head_never_ends(transport):
    async with refused(transport) as peer:
        await peer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * 3_000_000)
        await peer.until_acknowledged()
        assert (await peer.read_head()).startswith("HTTP/1.1 431 ")
        await body(peer)
    assert peer.seen.tcp is TcpEnd.FIN


@pytest.mark.waits
async def test_a_refused_client_that_keeps_tcp_open_is_aborted_after_close_timeout(transport):
    server = Server(close_timeout=0.2)
    async with server.serving(ssl=transport.server, grace=0), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.tls_handshake()
            await peer.write(peer.request())
            await body(peer)
            assert peer.tcp_state is TcpState.CLOSE_WAIT
            await until(lambda: not server._listener.openings)


@pytest.mark.parametrize("how", ["a refusal", "a page", "a file"])
async def test_a_half_closed_client_receives_the_whole_response(how, transport, tmp_path):
    (tmp_path / "large").write_bytes(BODY)
    server = Server()
    server.static("/files", tmp_path)
    server.get("/page")(lambda request: BODY)
    server.process_request(lambda request: Response(403, body=BODY) if request.path == "/none" else None)
    path = {"a refusal": "/none", "a page": "/page", "a file": "/files/large"}[how]
    async with server.serving(ssl=transport.server), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port, transport.client, buffer=65536) as peer:
            await peer.tls_handshake()
            await peer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            await peer.send_close_notify()
            peer.fin()
            await peer.read_head()
            assert len(await body(peer)) == len(BODY)
        assert peer.seen.tcp is TcpEnd.FIN


async def test_a_half_closed_client_that_reads_nothing_is_aborted_after_close_timeout(transport):
    server = Server(close_timeout=0.2)
    server.get("/")(lambda request: BODY)
    async with server.serving(ssl=transport.server), nothing_left_behind():
        with await RawPeer.connect_tcp(server.port, transport.client, buffer=65536) as peer:
            await peer.tls_handshake()
            await peer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            await peer.send_close_notify()
            peer.fin()
            await peer.read_head()
            await until(lambda: not server._listener.openings)


@pytest.mark.waits
async def test_a_slow_client_receives_a_large_response_whole(transport):
    async with refused(transport, buffer=65536, close_timeout=2.5) as peer:
        await peer.write(peer.request("/large"))
        began = asyncio.get_running_loop().time()
        assert (await peer.read_head()).startswith("HTTP/1.1 403 ")
        while len(peer._received) < len(BODY):
            # Longer in total than close_timeout, but never without progress for that long.
            await asyncio.sleep(0.1 if asyncio.get_running_loop().time() - began < 3.0 else 0)
            assert await peer.more()
        assert await body(peer) == BODY
    assert peer.seen.tcp is TcpEnd.FIN


async def test_a_client_that_drops_within_a_response_leaves_nothing(transport, caplog):
    async with refused(transport, buffer=16384) as peer:
        await peer.write(peer.request("/large"))
        await peer.read_head()
        peer.reset()
    assert not caplog.records


@pytest.mark.parametrize("end", ["FIN", "RST"])
async def test_our_client_has_the_response_of_a_server_that_then_drops(end, transport, bytewise):
    async def opened(uri):
        return await connect(uri, ssl=transport.client)

    answer = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nX-Why: because\r\n\r\nno"
    with RawServer(transport.server, bytewise=bytewise) as listening:
        async with nothing_left_behind():
            connecting = asyncio.ensure_future(opened(listening.uri))
            with await listening.accept_tcp() as peer:
                await peer.upgrade(answer)
                await peer.until_acknowledged()
                if end == "FIN":
                    peer.fin()
                else:
                    peer.reset()
                with pytest.raises(HandshakeRejected) as raised:
                    await within(connecting)
    response = raised.value.response
    assert (response.status, response.headers["X-Why"], response.body) == (401, "because", b"no")
    assert raised.value.ending.initiator is Initiator.PEER

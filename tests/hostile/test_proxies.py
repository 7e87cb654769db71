"""Who may say where a connection comes from: proxies, and clients that forge what proxies say."""

from __future__ import annotations

import asyncio
import struct

import pytest

from endwell import Server
from tests.face import ASYNCIO
from tests.loops import Proactor
from tests.pair import nothing_left_behind, until, within
from tests.raw import HOST, TRANSPORTS, RawPeer
from tests.selection import MEMORY

FORGED = [
    b"X-Forwarded-For: 203.0.113.9\r\n",
    b"X-Forwarded-Proto: https\r\n",
    b"X-Forwarded-Host: evil.example\r\n",
    b"Forwarded: for=203.0.113.9;proto=https;host=evil.example\r\n",
    b"X-Real-IP: 203.0.113.9\r\n",
    b"True-Client-IP: 203.0.113.9\r\n",
]
V1 = b"PROXY TCP4 192.0.2.1 10.0.0.1 5678 80\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([192, 0, 2, 1, 10, 0, 0, 1]) + struct.pack("!HH", 5678, 80)


def watching(face, **options):
    """A server, and what its handler, its hook and its observers know of each connection."""
    server, seen, refused = Server(**options), [], []

    async def script(ws):
        seen.append(
            (ws.remote_address, ws.request.remote_address, ws.request.secure, ws.request.headers["Host"])
        )
        await ws.close()

    server.websocket("/")(face.handler(script))
    server.on_refused(lambda request, status, reason: refused.append((status, reason)))
    return server, seen, refused


async def opened(server, transport, *fields, before=b""):
    """The head of the answer to a client that sends ``fields``, and ``before`` below TLS."""
    with await RawPeer.connect_tcp(server.port, transport.client) as peer:
        await peer.send_tcp(before)
        await peer.tls_handshake()
        await peer.write(peer.request()[:-2] + b"".join(fields) + b"\r\n")
        head = await peer.read_head()
        if head.startswith("HTTP/1.1 101 "):
            await peer.read_to_the_end(answer=True)
        return head, peer.sock.getsockname() if peer.sock.fileno() >= 0 else None


# --- headers ----------------------------------------------------------------------


@pytest.mark.parametrize("proxies", [(), ("10.0.0.0/8",), ("unix", "::1")])
async def test_a_client_that_is_no_proxy_cannot_forge_where_it_comes_from(face, transport, proxies):
    server, seen, _ = watching(face, proxy_headers=proxies)
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        _, name = await opened(server, transport, *FORGED)
        await until(lambda: seen)
    assert seen == [(name, name, transport.server is not None, "localhost")]


async def test_behind_a_trusted_proxy_address_scheme_and_host_are_the_clients(face, transport):
    server, seen, _ = watching(face, proxy_headers=["127.0.0.0/8"])
    fields = [b"X-Forwarded-For: 203.0.113.9, 192.0.2.1\r\n", b"X-Forwarded-Proto: https\r\n"]
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        await opened(server, transport, *fields, b"X-Forwarded-Host: example.com\r\n")
        await opened(server, transport, b"Forwarded: for=192.0.2.1;proto=https;host=example.com\r\n")
        await until(lambda: len(seen) == 2)
    # The client has forged 203.0.113.9.
    assert seen == [(("192.0.2.1", 0), ("192.0.2.1", 0), True, "example.com")] * 2


@pytest.mark.parametrize("trusted", [True, False])
async def test_the_origin_check_is_right_behind_a_proxy_that_ends_tls(face, transport, trusted):
    server, seen, refused = watching(face, proxy_headers=["127.0.0.1"] if trusted else [])
    page = b"Origin: https://example.com\r\n"
    fields = [b"X-Forwarded-Proto: https\r\n", b"X-Forwarded-Host: example.com\r\n"]
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        head, _ = await opened(server, transport, page, *fields)
        assert head.startswith("HTTP/1.1 101 " if trusted else "HTTP/1.1 403 ")
        # A page of another origin is refused in each case.
        head, _ = await opened(server, transport, b"Origin: https://evil.example\r\n", *fields)
        assert head.startswith("HTTP/1.1 403 ")
        await until(lambda: len(refused) == (1 if trusted else 2) and len(seen) == trusted)


async def test_allowed_hosts_is_checked_for_the_clients_host(face, transport):
    server, _, _ = watching(face, proxy_headers=["127.0.0.1"], allowed_hosts=["localhost"])
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        head, _ = await opened(server, transport, b"X-Forwarded-Host: evil.example\r\n")
    assert head.startswith("HTTP/1.1 421 ")


@pytest.mark.parametrize(
    "fields",
    [
        [b"X-Forwarded-Host: a b\r\n"],
        [b"X-Forwarded-Proto: javascript\r\n"],
        [b'Forwarded: for="1\r\n'],
        [b"X-Forwarded-For: 192.0.2.1\r\n", b"Forwarded: for=203.0.113.9\r\n"],
        [b"X-Forwarded-For: unknown\r\n", b"Forwarded: for=203.0.113.9\r\n"],
        [b"X-Forwarded-For: 203.0.113.9, _hidden\r\n", b"Forwarded: for=203.0.113.9\r\n"],
        [b"X-Forwarded-For: 203.0.113.9\r\n", b"Forwarded: for=unknown\r\n"],
    ],
)
async def test_what_a_proxy_cannot_mean_is_refused_with_400(face, transport, fields):
    server, seen, refused = watching(face, proxy_headers=["127.0.0.1"])
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        head, _ = await opened(server, transport, *fields)
        assert head.startswith("HTTP/1.1 400 ")
        await until(lambda: refused)
    assert seen == []


async def test_the_certificate_is_that_of_the_proxy_whatever_it_says_about_its_client(transport):
    server, seen = Server(proxy_headers=["127.0.0.1"]), []

    @server.websocket("/")
    async def handler(ws):
        seen.append((ws.request.secure, ws.tls is not None))

    async with nothing_left_behind(), server.serving(ssl=transport.server):
        await opened(server, transport, b"X-Forwarded-Proto: http\r\n")
        await opened(server, transport, b"X-Forwarded-Proto: https\r\n")
    has_tls = transport.server is not None
    assert seen == [(False, has_tls), (True, has_tls)]


# In memory there is no PROXY protocol: endwell.testing says so.
over_each = pytest.mark.parametrize(
    "transport", [name for name in TRANSPORTS if name != MEMORY], indirect=True
)


# --- the PROXY protocol --------------------------------------------------------------


@pytest.mark.parametrize("preamble", [V1, V2], ids=["v1", "v2"])
@over_each
async def test_the_preamble_names_the_client(face, transport, preamble):
    server, seen, _ = watching(face, proxy_protocol=True)
    client = ("192.0.2.1", 5678)
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        await opened(server, transport, before=preamble)
        await until(lambda: seen)
    assert seen == [(client, client, transport.server is not None, "localhost")]


@pytest.mark.parametrize("preamble", [b"PROXY UNKNOWN\r\n", V2[:12] + b"\x20\0\0\0"], ids=["v1", "v2"])
@over_each
async def test_without_an_address_the_peer_is_the_client(face, transport, preamble):
    server, seen, _ = watching(face, proxy_protocol=True)
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        _, name = await opened(server, transport, before=preamble)
        await until(lambda: seen)
    assert seen[0][0] == name


@pytest.mark.loop(factory=Proactor)
@pytest.mark.parametrize("preamble", [V1, V2], ids=["v1", "v2"])
@over_each
async def test_a_loop_without_readers_reads_the_preamble(preamble, transport):
    server, seen, _ = watching(ASYNCIO, proxy_protocol=True)
    client = ("192.0.2.1", 5678)
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        await opened(server, transport, before=preamble)
        await until(lambda: seen)
    assert seen == [(client, client, transport.server is not None, "localhost")]


@pytest.mark.loop(factory=Proactor)
@pytest.mark.parametrize("end", ["junk", "silence", "FIN", "RST", "stop"])
@pytest.mark.parametrize("start", [b"", V1[:20], V1[:-1], V2[:14]], ids=["nothing", "v1", "v1 CR", "v2"])
async def test_a_loop_without_readers_bounds_a_preamble_as_others_do(start, end):
    server, refused = Server(proxy_protocol=True, open_timeout=0.5 if end == "silence" else 30), []
    server.on_refused(lambda request, status, reason: refused.append(reason))
    async with nothing_left_behind():
        async with server.serving(grace=0):
            peer = await RawPeer.connect_tcp(server.port)
            await peer.write(start)
            await until(lambda: server._listener.openings or refused)
            await peer.until_acknowledged()
            if end == "junk":
                await peer.write(b"\xff" * 5000)
            elif end == "FIN":
                peer.fin()
            elif end == "RST":
                peer.reset()
            if end != "stop":
                await until(lambda: refused)
                assert not server._listener.openings
        if end != "RST":
            while await within(peer.more()):
                pass
            assert not peer._received
        peer.sock.close()
    assert len(refused) == (end != "stop")


@pytest.mark.loop(factory=Proactor)
async def test_a_loop_without_readers_believes_only_the_preamble_and_takes_no_byte_after_it():
    server, seen, _ = watching(ASYNCIO, proxy_protocol=True)
    async with nothing_left_behind(), server.serving():
        for bytewise in (False, True):
            for preamble in (V1, V2):
                with await RawPeer.connect_tcp(server.port, bytewise=bytewise) as peer:
                    forged = b"".join(FORGED) + b"\r\n"
                    await peer.write(preamble + peer.request()[:-2] + forged)
                    assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
                    await peer.read_to_the_end(answer=True)
    assert [address for address, *_ in seen] == [("192.0.2.1", 5678)] * 4


@pytest.mark.parametrize("preamble", [V1, V2], ids=["v1", "v2"])
async def test_a_preamble_that_comes_bytewise_costs_no_byte_of_what_follows(face, preamble):
    server, seen, _ = watching(face, proxy_protocol=True)
    async with nothing_left_behind(), server.serving():
        with await RawPeer.connect_tcp(server.port, bytewise=True) as peer:
            await peer.write(preamble + peer.request())
            assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
            await peer.read_to_the_end(answer=True)
    assert seen[0][0] == ("192.0.2.1", 5678)


async def test_the_request_may_come_with_the_preamble(face):
    server, seen, _ = watching(face, proxy_protocol=True)
    async with nothing_left_behind(), server.serving():
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(V1 + peer.request())
            await peer.read_head()
            await peer.read_to_the_end(answer=True)
    assert seen[0][0] == ("192.0.2.1", 5678)


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\0\1\0\1\xfc\x03\x03" + bytes(40),
        b"PROXY TCP4 300.0.2.1 10.0.0.1 5678 80\r\n",
        b"PROXY TCP4 " + b" " * 200,
        V2[:12] + b"\x21\x11\xff\xff" + bytes(100),
        V2[:12] + b"\x21\x11\0\4abcd",
    ],
    ids=["HTTP", "TLS", "bad address", "long v1", "long v2", "short v2"],
)
@over_each
async def test_a_connection_without_a_preamble_is_closed_unanswered_and_told(transport, start, caplog):
    caplog.set_level("INFO", "endwell.server")
    server = Server(proxy_protocol=True)
    refused = []
    server.on_refused(lambda request, status, reason: refused.append((request, status, reason)))
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(start)
            while await peer.more():
                pass
            assert not peer._received
        await until(lambda: refused)
        assert not server._listener.openings
    assert refused[0][:2] == (None, 400)
    assert "preamble" in refused[0][2]
    assert any("refused a malformed request" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("end", ["silence", "FIN", "RST"])
@pytest.mark.parametrize("start", [b"", b"PROXY TCP4 192.0.2.1 ", V2[:20]], ids=["nothing", "v1", "v2"])
@over_each
async def test_half_a_preamble_ends_with_open_timeout_or_with_tcp_and_never_spins(start, end, transport):
    server = Server(proxy_protocol=True, open_timeout=0.5 if end == "silence" else 30)
    refused = []
    server.on_refused(lambda request, status, reason: refused.append(reason))
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(start)
            await until(lambda: server._listener.openings or refused)
            await peer.until_acknowledged()
            if end == "FIN":
                peer.fin()
            elif end == "RST":
                peer.reset()
            await until(lambda: refused)
        assert not server._listener.openings


async def test_half_a_preamble_is_read_once_and_not_announced_again_and_again():
    server, reads = Server(proxy_protocol=True), []
    async with nothing_left_behind(), server.serving():
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(V1[:-5])
            await until(lambda: server._listener.openings)
            (opening,) = server._listener.openings
            await until(lambda: len(opening._preamble._reader._data) == len(V1) - 5)
            read = opening._preamble._read
            loop = asyncio.get_running_loop()
            loop.add_reader(opening._sock.fileno(), lambda: (reads.append(1), read()))
            await asyncio.sleep(0.1)
            assert reads == []
            await peer.write(V1[-5:] + peer.request("/nowhere"))
            assert (await peer.read_head()).startswith("HTTP/1.1 404 ")
            while await peer.more():
                pass


@over_each
async def test_a_server_that_stops_closes_half_a_preamble(transport):
    server = Server(proxy_protocol=True)
    async with nothing_left_behind():
        async with server.serving(ssl=transport.server, grace=0):
            peer = await RawPeer.connect_tcp(server.port)
            await peer.write(V1[:20])
            await until(lambda: server._listener.openings)
        while await within(peer.more()):
            pass
        peer.sock.close()


async def test_without_the_option_a_preamble_is_a_malformed_request(face):
    server, seen, _ = watching(face)
    async with nothing_left_behind(), server.serving():
        for preamble in (V1, V2):
            with await RawPeer.connect_tcp(server.port) as peer:
                await peer.write(preamble + peer.request())
                assert (await peer.read_head()).startswith("HTTP/1.1 400 ")
                while await peer.more():
                    pass
    assert seen == []


async def test_the_preambles_address_decides_whether_headers_are_believed(face):
    server, seen, _ = watching(face, proxy_protocol=True, proxy_headers=["192.0.2.0/24"])
    async with nothing_left_behind(), server.serving():
        for preamble in (V1, V1.replace(b"192.0.2.1", b"198.51.100.1")):
            with await RawPeer.connect_tcp(server.port) as peer:
                await peer.write(preamble + peer.request()[:-2] + b"X-Forwarded-For: 203.0.113.9\r\n\r\n")
                await peer.read_head()
                await peer.read_to_the_end(answer=True)
    assert [address for address, *_ in seen] == [("203.0.113.9", 0), ("198.51.100.1", 5678)]
    assert HOST not in str(seen)

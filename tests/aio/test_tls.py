"""TLS over memory BIOs: no received data stays unread in them, and no unsent data counts as sent."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import hmac
import socket
import ssl
import sys
import termios
import time

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from endwell import Cause, Options, Server, TcpEnd
from endwell.aio.reactor import reactor_of
from endwell.aio.tls import TlsDriver
from endwell.protocol.connection import Connection
from tests.pair import loop_turns, pair, within
from tests.raw import RawPeer, wss
from tests.wire.peer import BINARY, TEXT

READ = 32768  # one read of the socket; a loop iteration does four
KEY_UPDATE = b"\x18\x00\x00\x01\x01"  # RFC 8446 §4.6.3, update_requested
HELLO_REQUEST = b"\x00\x00\x00\x00"  # RFC 5246 §7.4.1.1


@pytest.fixture
def transport():
    """Contexts that the test may change."""
    return wss.__wrapped__()


# -- received data ---------------------------------------------------------------


async def test_a_message_and_a_close_notify_behind_it_are_both_processed(role, transport):
    async with pair(role, transport) as both:
        octets = both.peer.encrypt(both.peer.octets(TEXT, b"last"))
        with pytest.raises(ssl.SSLWantReadError):
            both.peer._tls.unwrap()
        await both.peer.send_tcp(octets + both.peer._out.read())
        assert await within(both.ws.recv()) == "last"
        ending = await within(both.ws.closed)
        assert both.peer._fin is False
    assert (ending.cause, ending.tcp, ending.messages_in) == (Cause.PEER_VANISHED, TcpEnd.FIN, 1)


async def test_an_end_beyond_one_iteration_of_reads_is_found_in_the_next(role, transport):
    async with pair(role, transport, max_size=None) as both:
        octets = both.peer.encrypt(both.peer.octets(BINARY, bytes(110_000)))
        with pytest.raises(ssl.SSLWantReadError):
            both.peer._tls.unwrap()
        octets += both.peer._out.read()
        assert 3 * READ < len(octets) < 4 * READ
        assert both.peer.sock.send(octets) == len(octets)
        assert len(await within(both.ws.recv())) == 110_000
        await within(both.ws.closed)


async def test_a_message_and_a_broken_record_behind_it_are_both_processed(role, transport):
    async with pair(role, transport) as both:
        octets = both.peer.encrypt(both.peer.octets(TEXT, b"last"))
        await both.peer.send_tcp(octets + b"\x17\x03\x03\x00\x20" + bytes(32))
        assert await within(both.ws.recv()) == "last"
        ending = await within(both.ws.closed)
        await both.peer.read_to_the_end()
    assert both.peer.seen.alert == "SSLV3_ALERT_BAD_RECORD_MAC"
    assert (ending.cause, ending.messages_in) == (Cause.TLS_ERROR, 1)
    assert isinstance(ending.exception, ssl.SSLError)


async def test_records_beyond_a_full_inbox_are_kept_and_delivered(role, transport):
    many = [b"%d" % number for number in range(500)]
    async with pair(role, transport, max_queue=4) as both:
        for payload in many:
            both.peer._tls.write(both.peer.octets(BINARY, payload))
        await both.peer.send_tcp(both.peer.encrypt(b""))
        await both.peer.until_acknowledged()
        await asyncio.sleep(0.01)
        assert [await within(both.ws.recv()) for _ in many] == many


async def test_data_with_the_clients_last_handshake_flight_is_processed(transport):
    server = Server()

    @server.websocket("/")
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    async with server.serving(ssl=transport.server, grace=0):
        with await RawPeer.connect_tcp(server.port, transport.client) as peer:
            await peer.send_tcp(peer.tls_flight())
            rest = peer.tls_flight(await peer.recv_tcp())
            await peer.send_tcp(rest + peer.encrypt(peer.request()))
            assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
            await peer.close()
            await peer.read_to_the_end()


async def test_a_message_of_many_full_reads_arrives_whole(role, transport):
    payload = bytes(range(256)) * 2000
    async with pair(role, transport) as both:
        sending = asyncio.ensure_future(both.peer.frame(BINARY, payload))
        assert await within(both.ws.recv()) == payload
        await sending


# -- sent data -------------------------------------------------------------------


async def test_only_bytes_accepted_by_the_kernel_count_as_sent(transport):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        peer = RawPeer(theirs, transport.client, server=False)
        core = Connection(False, Options(write_timeout=None), time.monotonic())
        driver = TlsDriver(reactor_of(asyncio.get_running_loop()), ours, core, None, transport.server)
        await peer.send_tcp(peer.tls_flight())
        driver.settle()
        while not driver.has_shaken_hands():
            await peer.send_tcp(peer.tls_flight(await peer.recv_tcp()))
            driver.settle()
        outbox, payload = core.outbox, bytes(range(256)) * 1000
        outbox.append(payload[:200_000])
        outbox.append(payload[200_000:])
        below, came, counts = 0, b"", []
        while outbox.size or below < len(payload):
            before = outbox.bytes_sent
            driver.settle()
            counts.append(outbox.bytes_sent - before)
            waiting = int.from_bytes(fcntl.ioctl(theirs, termios.FIONREAD, bytes(4)), sys.byteorder)
            assert outbox.bytes_sent <= below + waiting
            if waiting:
                octets = theirs.recv(5000)
                below += len(octets)
                peer._in.write(octets)
                came += opened(peer)
        driver.abort()
        while octets := theirs.recv(2**20):
            peer._in.write(octets)
        assert came + opened(peer) == payload
        assert sum(count > 0 for count in counts) > 4


def opened(peer):
    """All that the peer can decrypt."""
    data = b""
    while True:
        try:
            data += peer._tls.read(2**16)
        except ssl.SSLWantReadError:
            return data


async def test_a_close_that_is_partly_unsent_counts_as_not_sent(transport):
    async with pair("server", transport, buffer=4096, close_timeout=0.2) as both:
        closing = asyncio.ensure_future(both.ws.send(bytes(8 * 2**20)))
        await asyncio.sleep(0)
        ending = await within(both.ws.close(4000))
        await within(closing)
    assert (ending.sent, ending.clean) == (None, False)
    assert ending.unsent_bytes > 0


# -- key update and renegotiation --------------------------------------------------


async def test_a_key_update_request_is_answered_before_the_next_message(role, transport, tmp_path):
    log = tmp_path / "keys"
    transport.server.num_tickets = 0
    for context in (transport.server, transport.client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    (transport.client if role == "server" else transport.server).keylog_filename = str(log)
    async with pair(role, transport) as both:
        name = "CLIENT_TRAFFIC_SECRET_0" if role == "server" else "SERVER_TRAFFIC_SECRET_0"
        secret = secret_of(log, name)
        size = 32 if "AES_128" in both.peer._tls.cipher()[0] else 48
        assert "GCM" in both.peer._tls.cipher()[0]
        # The head of the handshake was record 0.
        await both.peer.send_tcp(record_13(secret, size, 1, KEY_UPDATE))
        await both.peer.until_acknowledged()
        await loop_turns()  # in which it is read
        await both.ws.send("under a new key")
        octets = await both.peer.recv_tcp()
        assert octets[3:5] == (len(KEY_UPDATE) + 17).to_bytes(2, "big")
        both.peer._in.write(octets)
        both.peer._decrypt(both.peer._tls)
        assert await both.peer.read_frame() == (TEXT, b"under a new key")


async def test_key_update_requests_pause_reading_until_the_peer_reads(role, transport, tmp_path):
    log = tmp_path / "keys"
    transport.server.num_tickets = 0
    for context in (transport.server, transport.client):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    (transport.client if role == "server" else transport.server).keylog_filename = str(log)
    async with pair(role, transport, buffer=4096) as both:
        for sock in (both.ws._stream.sock, both.peer.sock):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        both.ws._stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        name = "CLIENT_TRAFFIC_SECRET_0" if role == "server" else "SERVER_TRAFFIC_SECRET_0"
        secret = secret_of(log, name)
        size = 32 if "AES_128" in both.peer._tls.cipher()[0] else 48
        octets, number = b"", 1  # the head of the handshake was record 0
        for _ in range(6000):
            octets += record_13(secret, size, number, KEY_UPDATE)
            secret, number = expand(secret, size, b"traffic upd", size), 0
        frame = both.peer.octets(TEXT, b"under the last key")
        octets += record_13(secret, size, 0, frame, kind=b"\x17")
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < len(octets):
                # linger_timeout after the last octets were sent, everything in both kernels has arrived.
                async with asyncio.timeout(0.5):
                    count = await send_some(both.peer.sock, octets[sent:])
                sent += count
        assert sent < 110_000 < len(octets)
        # Once the peer reads, so do we.
        reading = asyncio.ensure_future(discard(both.peer.sock))
        await both.peer.send_tcp(octets[sent:])
        assert await within(both.ws.recv()) == "under the last key"
        reading.cancel()


async def discard(sock):
    while await asyncio.get_running_loop().sock_recv(sock, 2**16):
        pass


async def send_some(sock, octets):
    """Wait until the kernel accepts some octets; their number."""
    while True:
        try:
            return sock.send(octets[:4096])
        except BlockingIOError:
            await asyncio.sleep(0.001)


async def test_an_unfinished_renegotiation_causes_no_busy_loop(transport, tmp_path, monkeypatch):
    flights = []
    send_tcp = RawPeer.send_tcp
    monkeypatch.setattr(
        RawPeer, "send_tcp", lambda self, octets: flights.append(octets) or send_tcp(self, octets)
    )
    log = tmp_path / "keys"
    for context in (transport.server, transport.client):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE+AES128+AESGCM")
    transport.client.keylog_filename = str(log)
    async with pair("client", transport, write_timeout=0.3) as both:
        master, client_random = secret_of(log, "CLIENT_RANDOM"), random_of(log)
        # After the headers of the record and of ServerHello, and its version.
        server_random = next(filter(None, flights))[11:43]
        # Finished was record 0 under these keys, and the head of the handshake record 1.
        await both.peer.send_tcp(record_12(master, client_random, server_random, 2, HELLO_REQUEST))
        assert (await both.peer.recv_tcp())[0] == 22  # a handshake record: our ClientHello alone
        began = time.thread_time()
        await both.ws.send("in vain")
        ending = await within(both.ws.closed)
        assert time.thread_time() - began < 0.15
    assert (ending.cause, ending.unsent_bytes > 0) == (Cause.WRITE_TIMEOUT, True)


def secret_of(log, name):
    (line,) = (line for line in log.read_text().splitlines() if line.startswith(name + " "))
    return bytes.fromhex(line.split()[2])


def random_of(log):
    (line,) = (line for line in log.read_text().splitlines() if line.startswith("CLIENT_RANDOM "))
    return bytes.fromhex(line.split()[1])


def record_13(secret, size, number, content, kind=b"\x16"):
    """A record of TLS 1.3 that holds a handshake message, or another ``kind`` of content (RFC 8446 §5.2, §7.3)."""
    key, iv = expand(secret, size, b"key", 16 if size == 32 else 32), expand(secret, size, b"iv", 12)
    nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
    header = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2, "big")
    return header + AESGCM(key).encrypt(nonce, content + kind, header)


def expand(secret, size, label, length):
    """HKDF-Expand-Label with an empty context (RFC 8446 §7.1), for at most one block."""
    label = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(label)]) + label + b"\x00\x01"
    return hmac.digest(secret, info, {32: "sha256", 48: "sha384"}[size])[:length]


def record_12(master, client_random, server_random, number, handshake):
    """A record from a server of TLS 1.2 with AES-128-GCM (RFC 5246 §5, §6.3, RFC 5288 §3)."""
    seed = b"key expansion" + server_random + client_random
    block, chain = b"", seed
    while len(block) < 40:
        chain = hmac.digest(master, chain, hashlib.sha256)
        block += hmac.digest(master, chain + seed, hashlib.sha256)
    key, salt, explicit = block[16:32], block[36:40], number.to_bytes(8, "big")
    sealed = AESGCM(key).encrypt(
        salt + explicit, handshake, explicit + b"\x16\x03\x03" + len(handshake).to_bytes(2, "big")
    )
    return b"\x16\x03\x03" + (8 + len(sealed)).to_bytes(2, "big") + explicit + sealed

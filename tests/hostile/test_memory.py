"""The worst that a peer can do in each phase: the memory held for it stays below a known cap.

``docs/howto/limits.md`` has the same caps in words.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import zlib
from contextlib import contextmanager, suppress

import pytest

from endwell import HandshakeError, HandshakeRejected, Options, Server, connect
from tests.pair import pair, within
from tests.raw import PLAIN, RawPeer, RawServer, switching_protocols, wss
from tests.wire.peer import BINARY, CONTINUATION, PING, TEXT

KiB, MiB = 2**10, 2**20

#: One read of the socket, and its events apart from the messages: 4096 of them as Python objects, the rest
#: as received and copied once; and a message while it is copied.
READ = 256 * KiB
OBJECTS = 12 * READ

LIMITS = {"max_size": MiB, "max_queue": 16, "write_limit": 64 * KiB, "max_head": 32 * KiB}


@contextmanager
def peak_below(cap):
    """The memory allocated in the block stays below ``cap`` at any moment."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
        held = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert held < cap, f"{held / KiB:.0f} KiB held, {cap / KiB:.0f} KiB allowed"


async def send_all_accepted(peer, octets, seconds=0.5):
    """Send as much as the other side reads."""
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().sock_sendall(peer.sock, octets)


# -- the opening --------------------------------------------------------------------


@pytest.mark.parametrize("head", ["one line", "many fields", "empty lines"])
async def test_a_request_head_costs_at_most_max_head_and_a_read(head):
    octets = {
        "one line": b"GET /" + b"x" * 10 * MiB,
        "many fields": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * MiB,
        "empty lines": b"\r\n" * 5 * MiB,
    }[head]
    server = Server(max_line=2**15, max_head=2**15, max_headers=2**15)
    async with server.serving(grace=0):
        with await RawPeer.connect_tcp(server.port) as peer, peak_below(Options().max_head + 4 * READ):
            await send_all_accepted(peer, octets)


async def test_early_frames_cost_a_read_and_wait_in_the_kernel():
    server = Server(**LIMITS)
    decide = asyncio.Event()

    @server.process_request
    async def hook(request):
        await decide.wait()

    async with server.serving(grace=0):
        with await RawPeer.connect_tcp(server.port) as peer:
            octets = peer.request() + peer.octets(BINARY, bytes(1000)) * 20_000
            with peak_below(4 * READ):
                await send_all_accepted(peer, octets)


@pytest.mark.parametrize("answer", ["fields", "interim", "body", "chunks", "trailers"])
async def test_a_response_costs_at_most_max_head_max_refusal_and_a_read(answer):
    head = b"HTTP/1.1 403 Forbidden\r\n"
    octets = {
        "fields": head + b"X: y\r\n" * MiB,
        "interim": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 200_000,
        "body": head + b"\r\n" + bytes(10 * MiB),
        "chunks": head + b"Transfer-Encoding: chunked\r\n\r\n" + b"1;" + b"x" * 10 * MiB,
        "trailers": head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * MiB,
    }[answer]
    with RawServer() as listening:
        connecting = asyncio.ensure_future(_opened(listening.uri))
        with await listening.accept_tcp() as peer:
            await peer.read_head()
            with peak_below(Options().max_head + 12 * Options().max_refusal + 4 * READ):
                await send_all_accepted(peer, octets)
                with pytest.raises(HandshakeError) as raised:
                    await within(connecting)
            if answer == "body":
                assert isinstance(raised.value, HandshakeRejected)
                assert len(raised.value.response.body) == Options().max_refusal


async def _opened(uri, **options):
    return await connect(uri, **options)


# -- open, and closing --------------------------------------------------------------

#: What waits in the inbox and the message in progress. As text, Python may use four bytes per character,
#: and both forms exist during the conversion.
RECEIVED = 2 * MiB + OBJECTS + MiB

FLOODS = {
    "tiny messages": lambda octets: octets(BINARY, b"xy") * 300_000,
    "large messages": lambda octets: octets(BINARY, bytes(1000)) * 8_000,
    "one message after another": lambda octets: octets(BINARY, bytes(MiB)) * 8,
    "one endless message": lambda octets: (
        octets(BINARY, fin=False) + octets(CONTINUATION, bytes(1000), fin=False) * 8_000
    ),
    "empty fragments": lambda octets: octets(BINARY, fin=False) + octets(CONTINUATION, fin=False) * 300_000,
    "pings": lambda octets: octets(PING, bytes(125)) * 40_000,
    "pongs": lambda octets: octets(10, bytes(125)) * 40_000,
}


@pytest.mark.parametrize("state", ["open", "open, over TLS", "closing", "lingering"])
@pytest.mark.parametrize("name", FLOODS)
async def test_a_connection_costs_at_most_max_size_twice_and_a_read(name, state, role):
    transport = wss() if "TLS" in state else PLAIN
    async with pair(role, transport, close_timeout=0.6, **LIMITS) as both:
        if state == "lingering":
            await both.peer.close()
        octets = both.peer.encrypt(FLOODS[name](both.peer.octets))
        with peak_below(RECEIVED + LIMITS["write_limit"]):
            closing = asyncio.ensure_future(both.ws.close()) if state == "closing" else None
            await send_all_accepted(both.peer, octets, 0.4)
        both.peer.drop()
        both.ws.abort()
        if closing is not None:
            await within(closing)


async def test_text_costs_four_bytes_for_each_character(role):
    async with pair(role, **LIMITS) as both:
        # One character that needs four bytes makes Python use four bytes for each.
        text = both.peer.octets(TEXT, b"x" * (MiB - 4) + "\N{GRINNING FACE}".encode())
        with peak_below(RECEIVED + 4 * 3 * MiB):  # two wait, and one is in progress
            await send_all_accepted(both.peer, text * 5, 0.4)
        both.ws.abort()


@pytest.mark.parametrize("state", ["open", "closing"])
async def test_compressed_messages_cost_no_more_than_uncompressed_ones(state):
    server = Server(ping_interval=None, close_timeout=0.6, **LIMITS)

    @server.websocket("/")
    async def handle(ws):
        await (ws.close() if state == "closing" else ws.closed)

    compressor = zlib.compressobj(9, wbits=-12)
    bomb = (compressor.compress(bytes(MiB)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
    async with server.serving(grace=0):
        with await RawPeer.connect_tcp(server.port) as peer:
            octets = peer.octets(BINARY, bomb, rsv=4) * 500
            extension = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
            await peer.write(peer.request()[:-2] + extension)
            assert "permessage-deflate" in await peer.read_head()
            with peak_below(RECEIVED + MiB):
                await send_all_accepted(peer, octets, 0.4)


async def test_compressed_messages_cost_a_client_no_more():
    with RawServer() as listening:
        connecting = asyncio.ensure_future(_opened(listening.uri, ping_interval=None, **LIMITS))
        with await listening.accept_tcp() as peer:
            head = switching_protocols(await peer.read_head())
            await peer.write(head[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
            ws = await within(connecting)
            compressor = zlib.compressobj(9, wbits=-15)
            bomb = (compressor.compress(bytes(MiB)) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
            octets = peer.octets(BINARY, bomb, rsv=4) * 500
            with peak_below(RECEIVED + MiB):
                await send_all_accepted(peer, octets, 0.4)
            ws.abort()


async def test_a_peer_that_never_reads_costs_write_limit_and_a_message(role):
    async def stream(ws):
        with suppress(Exception):
            while True:
                await ws.send(message)

    message = bytes(100 * KiB)
    async with pair(role, handler=stream, buffer=16384, write_limit=64 * KiB) as both:
        with peak_below(64 * KiB + 2 * len(message) + 64 * KiB):
            await asyncio.sleep(0.3)
        assert both.core.outbox.size < 64 * KiB + len(message) + 14


async def test_a_peer_that_never_reads_its_echoes_costs_no_more(role, transport):
    async def echo(ws):
        with suppress(Exception):
            async for message in ws:
                await ws.send(message)

    async with pair(role, transport, handler=echo, buffer=16384, **LIMITS) as both:
        octets = both.peer.encrypt(both.peer.octets(BINARY, bytes(10_000)) * 1000)
        with peak_below(RECEIVED + 64 * KiB + MiB):
            await send_all_accepted(both.peer, octets, 0.4)
        assert both.core.outbox.size < 64 * KiB + 10_100
        both.ws.abort()

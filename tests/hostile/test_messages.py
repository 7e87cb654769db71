"""Invalid messages from a peer in either role, and the code that ends the connection."""

from __future__ import annotations

import asyncio
import zlib

import pytest

from endwell import Cause, connect
from tests.hostile.flood import flooding
from tests.hostile.honest import attacked
from tests.pair import pair, until, within
from tests.raw import RawPeer, RawServer, switching_protocols
from tests.wire.peer import BINARY, CLOSE, CONTINUATION, PING, TEXT

RSV1, RSV2, RSV3 = 4, 2, 1

#: By name: the code, and the octets as a function of ``octets(opcode, payload, ...)`` of the peer.
FAULTS = {
    "rsv2": (1002, lambda octets: octets(TEXT, b"", rsv=RSV2)),
    "rsv3": (1002, lambda octets: octets(TEXT, b"", rsv=RSV3)),
    "rsv1 that nobody agreed to": (1002, lambda octets: octets(TEXT, b"x", rsv=RSV1)),
    "an unknown opcode": (1002, lambda octets: octets(3)),
    "an unknown control opcode": (1002, lambda octets: octets(11)),
    "a fragmented ping": (1002, lambda octets: octets(PING, fin=False)),
    "a ping of 126 bytes": (1002, lambda octets: octets(PING, bytes(126))),
    "a ping of 2**63 - 1 bytes": (1002, lambda octets: _declared(octets(PING), 2**63 - 1)),
    "a message of 2**63 - 1 bytes": (1009, lambda octets: _declared(octets(BINARY), 2**63 - 1)),
    "a message of 2**63 bytes": (1002, lambda octets: _declared(octets(BINARY), 2**63)),
    "a message of 2**64 - 1 bytes": (1002, lambda octets: _declared(octets(BINARY), 2**64 - 1)),
    "a message of 2**32 bytes": (1009, lambda octets: _declared(octets(BINARY), 2**32)),
    "a length in more octets than it needs": (1002, lambda octets: octets(TEXT, b"x", width=8)),
    "a continuation of nothing": (1002, lambda octets: octets(CONTINUATION, b"x")),
    "a message inside a message": (1002, lambda octets: octets(TEXT, b"x", fin=False) + octets(TEXT, b"y")),
    "text that is not utf-8": (1007, lambda octets: octets(TEXT, b"\xc0\x80")),
    "a surrogate": (1007, lambda octets: octets(TEXT, b"\xed\xa0\x80")),
    "a close of one byte": (1002, lambda octets: octets(CLOSE, b"\x03")),
    "a close with 1005": (1002, lambda octets: octets(CLOSE, b"\x03\xed")),
    "a close with 999": (1002, lambda octets: octets(CLOSE, b"\x03\xe7")),
    "a close with 65535": (1002, lambda octets: octets(CLOSE, b"\xff\xff")),
    "a reason that is not utf-8": (1007, lambda octets: octets(CLOSE, b"\x03\xe8\xff")),
    "a message above max_size": (1009, lambda octets: octets(BINARY, bytes(2**16 + 1))),
    "fragments above max_size": (
        1009,
        lambda octets: (
            octets(BINARY, bytes(2**15), fin=False)
            + octets(CONTINUATION, bytes(2**15), fin=False)
            + octets(CONTINUATION, b"x")
        ),
    ),
    "a fragment of 2**63 - 1 bytes after another": (
        1009,
        lambda octets: (
            octets(BINARY, b"x", fin=False)
            + _declared(octets(CONTINUATION, fin=False), 2**63 - 1)
            + bytes(2**18)
        ),
    ),
    "empty fragments without end": (
        1008,
        lambda octets: octets(BINARY, fin=False) + octets(CONTINUATION, fin=False) * 2**17,
    ),
}

CAUSES = {
    1002: Cause.PROTOCOL_ERROR,
    1007: Cause.INVALID_DATA,
    1008: Cause.POLICY_LIMIT,
    1009: Cause.MESSAGE_TOO_BIG,
}


def _declared(frame, length):
    """The frame with another length, without the rest of the payload."""
    return frame[:1] + bytes([frame[1] | 127]) + length.to_bytes(8, "big") + frame[2:]


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_ends_the_connection_with_its_code_and_cause(name, role, transport, caplog):
    code, octets = FAULTS[name]
    async with pair(role, transport, max_size=2**16) as both:
        both.peer.bytewise = len(octets(both.peer.octets)) < 100
        # Data after a fault is ignored.
        await both.peer.write(octets(both.peer.octets) + both.peer.octets(TEXT, b"smuggled") * 10)
        seen = await both.peer.read_to_the_end(answer=True)
        both.peer.fin()
        ending = await both.ending()
        assert [message async for message in both.ws] == []
    assert (seen.close.code, seen.closes) == (code, 1)
    assert (ending.cause, ending.code, ending.sent) == (CAUSES[code], code, seen.close)
    assert not caplog.records


async def test_a_client_must_mask_and_a_server_must_not(role):
    async with pair(role) as both:
        await both.peer.frame(TEXT, b"x", key=None if role == "server" else b"abcd")
        assert (await both.peer.read_close()).code == 1002
        both.peer.drop()


# -- compressed ---------------------------------------------------------------------


@pytest.fixture
def compressor():
    return zlib.compressobj(9, wbits=-12)


def compress(compressor, data):
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


async def compressing(port, context=None):
    """A client with permessage-deflate."""
    peer = await RawPeer.connect_tcp(port, context)
    await peer.tls_handshake()
    extension = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    await peer.write(peer.request()[:-2] + extension)
    assert "permessage-deflate" in await peer.read_head()
    return peer


BOMBS = {
    "a bomb": (1009, lambda deflate, octets: [octets(BINARY, deflate(bytes(2**25)), rsv=RSV1)]),
    "a bomb in fragments": (
        1009,
        lambda deflate, octets: [
            octets(BINARY, (bomb := deflate(bytes(2**25)))[:9], rsv=RSV1, fin=False),
            *(octets(CONTINUATION, bomb[at : at + 99], fin=False) for at in range(9, len(bomb), 99)),
        ],
    ),
    "what is no deflate": (1002, lambda deflate, octets: [octets(BINARY, b"\xff" * 99, rsv=RSV1)]),
    "rsv1 on a continuation": (
        1002,
        lambda deflate, octets: [
            octets(BINARY, deflate(b"x"), rsv=RSV1, fin=False),
            octets(CONTINUATION, deflate(b"x"), rsv=RSV1),
        ],
    ),
    "rsv1 on a ping": (1002, lambda deflate, octets: [octets(PING, b"x", rsv=RSV1)]),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_compressed_fault_ends_the_connection_with_its_code(name, transport, compressor):
    code, octets = BOMBS[name]
    async with attacked(transport=transport) as both:
        with await compressing(both.port, transport.client) as peer:
            await peer.write(b"".join(octets(lambda data: compress(compressor, data), peer.octets)))
            assert (await peer.read_to_the_end()).close.code == code
        assert (await both.ended()).cause is CAUSES[code]


@pytest.mark.parametrize("name", BOMBS)
async def test_a_compressed_fault_of_a_server_ends_the_connection_with_its_code(name, transport, compressor):
    code, octets = BOMBS[name]
    with RawServer(transport.server) as listening:
        connecting = asyncio.ensure_future(opened(listening.uri, ssl=transport.client))
        with await listening.accept_tcp() as peer:
            await peer.tls_handshake()
            head = switching_protocols(await peer.read_head())
            await peer.write(head[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
            ws = await within(connecting)
            await peer.write(b"".join(octets(lambda data: compress(compressor, data), peer.octets)))
            assert (await peer.read_to_the_end(answer=True)).close.code == code
            assert (await within(ws.closed)).cause is CAUSES[code]


async def opened(uri, **options):
    return await connect(uri, ping_interval=None, **options)


# -- floods -------------------------------------------------------------------------


async def ignore(ws):
    """A handler that reads nothing."""
    await ws.closed


async def take(ws):
    """A handler that only reads."""
    async for _ in ws:
        pass


#: Each is sent again and again, as fast as possible.
FLOODS = {
    "pings": lambda peer, deflate: peer.octets(PING) * 50_000,
    "pings of 125 bytes": lambda peer, deflate: peer.octets(PING, bytes(125)) * 3000,
    "pongs that nobody asked for": lambda peer, deflate: peer.octets(10, b"1234") * 30_000,
    "empty messages": lambda peer, deflate: peer.octets(TEXT) * 50_000,
    "tiny messages": lambda peer, deflate: peer.octets(TEXT, b"x") * 50_000,
    "tiny fragments": lambda peer, deflate: _fragments(peer, b"x"),
    "empty fragments": lambda peer, deflate: _fragments(peer, b""),
    "large messages": lambda peer, deflate: peer.octets(BINARY, bytes(1000)) * 300,
    "bombs just below the limit": lambda peer, deflate: (
        peer.octets(BINARY, deflate(bytes(2**20)), rsv=RSV1) * 300
    ),
    "compressed nothing": lambda peer, deflate: peer.octets(BINARY, deflate(b""), rsv=RSV1) * 40_000,
    "compressed blocks of nothing": lambda peer, deflate: peer.octets(
        BINARY, b"\x03\x00" * 150_000 + b"\x00", rsv=RSV1
    ),
}


def _fragments(peer, data):
    rest = peer.octets(CONTINUATION, data, fin=False) * 40_000
    return peer.octets(BINARY, fin=False) + rest + peer.octets(CONTINUATION)


@pytest.mark.parametrize("handler", [ignore, take], ids=["idle", "taking"])
@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_does_not_delay_other_connections(name, handler, transport, compressor):
    # A handler that does not read detects by an unanswered ping that the attacker is gone.
    async with attacked(handler, transport, ping_interval=0.2) as both:
        with await compressing(both.port, transport.client) as peer:
            flood = FLOODS[name](peer, lambda data: compress(compressor, data))
            with flooding(peer, flood) as flooded:
                await until(lambda: flooded.sent > 2**16)
                await both.least_of(3, trips=4)


async def test_a_peer_that_sends_octet_by_octet_delays_no_other(transport):
    async with attacked(transport=transport) as both:
        with await RawPeer.connect(both.port, transport.client) as peer:
            peer.bytewise = True
            await peer.write(peer.octets(BINARY, bytes(1000)))
            assert len((await peer.read_frame()).payload) == 1000


async def test_a_peer_that_never_reads_delays_no_other_until_write_timeout(transport):
    async def stream(ws):
        while True:
            await ws.send(bytes(2**16))

    async with attacked(stream, transport, write_timeout=0.3) as both:
        with await RawPeer.connect(both.port, transport.client, buffer=65536):
            ending = await both.ended()
        assert ending.cause is Cause.WRITE_TIMEOUT

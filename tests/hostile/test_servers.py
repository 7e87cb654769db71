"""Invalid responses of a server to our client, and how the handshake fails."""

from __future__ import annotations

import asyncio

import pytest

from endwell import Cause, HandshakeError, HandshakeRejected, connect
from tests.pair import nothing_left_behind, within
from tests.raw import PROMPT, RawServer, switching_protocols
from tests.selection import MEMORY
from tests.wire.peer import TEXT


def switched(request, *more, without=b""):
    """A 101, with fields added or removed."""
    lines = switching_protocols(request).split(b"\r\n")[:-2]
    lines = [line for line in lines if not without or not line.startswith(without)]
    return b"\r\n".join([*lines, *more, b"", b""])


def other_key(request):
    return switching_protocols("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")


FAULTS = {
    "junk": lambda request: bytes(range(256)) * 4,
    "tls": lambda request: b"\x15\x03\x03\x00\x02\x02\x28\r\n\r\n",
    "http/1.0": lambda request: switched(request).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "http/2.0": lambda request: switched(request).replace(b"HTTP/1.1", b"HTTP/2.0"),
    "a status of two digits": lambda request: switched(request).replace(b" 101 ", b" 99 "),
    "a nul": lambda request: switched(request, b"X: a\0b"),
    "a bare lf": lambda request: switched(request).replace(b"\r\n", b"\n"),
    "a folded first line": lambda request: switched(request).replace(b"\r\n", b"\r\n folded\r\n", 1),
    "no upgrade": lambda request: switched(request, without=b"Upgrade"),
    "no connection": lambda request: switched(request, without=b"Connection"),
    "no proof": lambda request: switched(request, without=b"Sec-WebSocket-Accept"),
    "the proof of another key": other_key,
    "a proof outside ascii": lambda request: switched(
        request, b"Sec-WebSocket-Accept: \xff", without=b"Sec-WebSocket-Accept"
    ),
    "two proofs": lambda request: switched(request, b"Sec-WebSocket-Accept: x"),
    "a subprotocol that was not offered": lambda request: switched(request, b"Sec-WebSocket-Protocol: evil"),
    "two subprotocols": lambda request: switched(request, *[b"Sec-WebSocket-Protocol: chat"] * 2),
    "an extension that was not offered": lambda request: switched(
        request, b"Sec-WebSocket-Extensions: constructor"
    ),
    "a window of no size": lambda request: switched(
        request, b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99"
    ),
    "a window that is no number": lambda request: switched(
        request, b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=\xff"
    ),
    "an extension with an open quote": lambda request: switched(
        request, b'Sec-WebSocket-Extensions: x; y="' + b"\\" * 4000
    ),
    "a field without end": lambda request: b"HTTP/1.1 101 x\r\nX: " + b"y" * 50_000,
    "fields without end": lambda request: b"HTTP/1.1 101 x\r\n" + b"X: y\r\n" * 10_000,
    "interim answers without end": lambda request: b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    "empty lines without end": lambda request: b"\r\n" * 50_000,
    "two lengths": lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
}


@pytest.mark.parametrize("name", FAULTS)
async def test_an_invalid_response_fails_the_handshake_and_leaves_nothing(name, caplog):
    with RawServer() as listening:
        async with nothing_left_behind():
            connecting = asyncio.ensure_future(opened(listening.uri, subprotocols=["chat"]))
            with await listening.accept_tcp() as peer:
                answer = FAULTS[name](await peer.read_head())
                # None of the frames after it is parsed.
                await peer.write(answer + peer.octets(TEXT, b"smuggled"))
                with pytest.raises(HandshakeError) as raised:
                    await within(connecting)
                assert not isinstance(raised.value, HandshakeRejected)
                while await peer.more():
                    pass
    assert raised.value.ending.cause is Cause.HANDSHAKE_FAILED
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300
    assert not caplog.records


async def test_a_chunk_of_2_to_the_64_octets_ends_the_body_of_a_refusal():
    with RawServer() as listening:
        async with nothing_left_behind():
            connecting = asyncio.ensure_future(opened(listening.uri))
            with await listening.accept_tcp() as peer:
                await peer.read_head()
                await peer.write(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n10000000000000000\r\nx"
                )
                with pytest.raises(HandshakeRejected) as raised:
                    await within(connecting)
                while await peer.more():
                    pass
    assert (raised.value.response.status, raised.value.response.body) == (200, b"no")


async def opened(uri, **options):
    return await connect(uri, **options)


DRIBBLES = {
    "nothing": b"",
    "a field": b"HTTP/1.1 101 Switching Protocols\r\nX: " + b"y" * 1000,
    "fields": b"HTTP/1.1 101 Switching Protocols\r\n" + b"X: y\r\n" * 100,
    "interim answers": b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
    "a body": b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10000\r\n\r\n" + b"x" * 1000,
    "chunks": b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100,
}


@pytest.mark.waits
@pytest.mark.parametrize("transport", ["ws", "wss", MEMORY], indirect=True)
@pytest.mark.parametrize("name", DRIBBLES)
async def test_open_timeout_is_absolute_for_a_slow_response(name, transport):
    with RawServer(transport.server) as listening:
        connecting = asyncio.ensure_future(opened(listening.uri, ssl=transport.client, open_timeout=2.5))
        with await listening.accept_tcp() as peer:
            await peer.tls_handshake()
            await peer.read_head()
            sending = asyncio.ensure_future(dribble(peer, DRIBBLES[name]))
            # All of it would take at least 30 seconds.
            with pytest.raises(HandshakeError) as raised:
                await within(connecting, PROMPT)
            sending.cancel()
            await asyncio.wait([sending])
    refused = b"HTTP/1.1 403" in DRIBBLES[name]
    assert isinstance(raised.value, HandshakeRejected) is refused
    assert raised.value.ending.cause is (Cause.HANDSHAKE_REJECTED if refused else Cause.HANDSHAKE_FAILED)


async def dribble(peer, octets):
    """The first half at once, the rest octet by octet."""
    half = len(octets) // 2
    await peer.write(octets[:half])
    for at in range(half, len(octets)):
        await asyncio.sleep(0.1)
        await peer.write(octets[at : at + 1])


async def test_octets_outside_ascii_in_a_response_are_kept():
    with RawServer() as listening:
        connecting = asyncio.ensure_future(opened(listening.uri))
        with await listening.accept_tcp() as peer:
            await peer.write(switched(await peer.read_head(), b"X: \xff\xfe"))
            ws = await within(connecting)
            assert ws.response.headers["X"] == "\xff\xfe"
            peer.fin()
            await within(ws.closed)

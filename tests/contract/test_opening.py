"""connect(), its ``with`` block, and what both sides negotiate."""

from __future__ import annotations

import asyncio

import pytest

from endwell import Cause, Close, HandshakeError, HandshakeRejected, Initiator, Server, TcpEnd
from endwell.aio.syscalls import monotonic
from tests.pair import within
from tests.ports import free_port
from tests.raw import HOST, PROMPT, RawServer, wss


async def idle(ws):
    await ws.wait_closed()


def uri(server, transport):
    return f"{'ws' if transport.client is None else 'wss'}://{HOST}:{server.port}/"


async def test_headers_and_the_subprotocol_reach_both_sides(face, transport):
    seen = []

    async def handler(ws):
        seen.append((ws.request.headers["X-One"], ws.subprotocol))
        await ws.send("hi")

    server = Server(subprotocols=["chat.v2", "chat.v1"])
    server.websocket("/")(face.handler(handler))
    async with server.serving(ssl=transport.server):
        ws = await face.connect(
            uri(server, transport),
            ssl=transport.client,
            additional_headers={"X-One": "1"},
            subprotocols=["chat.v1", "other"],
        )
        assert await within(ws.recv()) == "hi"
        assert ws.subprotocol == ws.response.headers["Sec-WebSocket-Protocol"] == "chat.v1"
        assert ws.request.headers["X-One"] == "1"
        assert ws.remote_address == server.addresses[0]
        assert (await within(ws.closed)).received == Close(1000)
    assert seen == [("1", "chat.v1")]


async def test_the_asyncio_and_the_blocking_face_interoperate_with_compression(face, transport):
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    server = Server()
    server.websocket("/")(face.handler(echo))
    async with server.serving(ssl=transport.server):
        ws = await face.connect(uri(server, transport), ssl=transport.client)
        for message in ("ü" * 100_000, bytes(100_000), "", b""):
            await within(ws.send(message))
            assert await within(ws.recv()) == message
        ending = await within(ws.close())
    assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]
    assert (ending.clean, ending.tcp) == (True, transport.fin)
    assert ending.bytes_out < 10_000


async def outcome_of_block(face, transport, script):
    """The outcome of ``script`` in the block of a client: the raised exception, the Close, the ending."""
    connections = []

    async def recording(ws):
        connections.append(ws)
        await script(ws)

    with RawServer(transport.server) as listening:
        visiting = asyncio.ensure_future(face.run_client(recording, listening.uri, ssl=transport.client))
        with await listening.accept() as peer:
            seen = await peer.read_to_the_end(answer=True)
        (left,) = await within(asyncio.gather(visiting, return_exceptions=True))
    return left, seen.close, connections[0].ending


async def test_leaving_the_block_closes_with_1000(face, transport):
    async def script(ws):
        await ws.send("bye")

    left, close, ending = await outcome_of_block(face, transport, script)
    assert (left, close) == (None, Close(1000))
    assert (ending.cause, ending.clean) == (Cause.APP_CLOSED, True)


async def test_leaving_the_block_by_an_exception_closes_too(face, transport):
    async def script(ws):
        raise KeyError("x")

    left, close, ending = await outcome_of_block(face, transport, script)
    assert isinstance(left, KeyError)
    assert close == ending.sent == Close(1000)


async def test_leaving_the_block_after_a_close_sends_nothing(face, transport):
    async def script(ws):
        await ws.close(4000, "mine")

    left, close, ending = await outcome_of_block(face, transport, script)
    assert (left, close) == (None, Close(4000, "mine"))
    assert ending.sent == close


async def test_a_refusal_has_the_response(face, transport):
    answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy"
    with RawServer(transport.server) as listening:
        connecting = asyncio.ensure_future(face.connect(listening.uri, ssl=transport.client))
        with (
            await listening.accept(answer),
            pytest.raises(HandshakeRejected, match="503 Service Unavailable") as caught,
        ):
            await within(connecting)
    response = caught.value.response
    assert (response.status, response.headers["Retry-After"], response.body) == (503, "7", b"busy")
    assert caught.value.ending.cause is Cause.HANDSHAKE_REJECTED


UNFINISHED = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\n"
CHUNKED = UNFINISHED + b"Transfer-Encoding: chunked\r\n\r\n5\r\nlog i\r\n"
OF_LENGTH = UNFINISHED + b"Content-Length: 100\r\n\r\nlog i"


@pytest.mark.waits
@pytest.mark.parametrize(
    "answer", [CHUNKED, OF_LENGTH, UNFINISHED + b"\r\nlog i"], ids=["chunked", "length", "fin"]
)
async def test_a_refusal_whose_body_does_not_end_is_told_after_open_timeout(answer, face, transport):
    with RawServer(transport.server) as listening:
        connecting = asyncio.ensure_future(
            face.connect(listening.uri, ssl=transport.client, open_timeout=2.5)
        )
        with await listening.accept(answer), pytest.raises(HandshakeRejected) as caught:
            await within(connecting)
    response, ending = caught.value.response, caught.value.ending
    assert (response.status, response.headers["WWW-Authenticate"], response.body) == (401, "Bearer", b"log i")
    assert (ending.cause, ending.initiator, ending.tcp) == (
        Cause.HANDSHAKE_REJECTED,
        Initiator.PEER,
        TcpEnd.TIMEOUT,
    )


@pytest.mark.parametrize("end", ["fin", "rst", "malformed", "other chunk"])
async def test_a_refusal_whose_body_is_cut_off_is_told(end, face):
    with RawServer() as listening:
        connecting = asyncio.ensure_future(face.connect(listening.uri, open_timeout=None))
        with await listening.accept_tcp() as peer:
            await peer.read_head()
            if end == "other chunk":
                await peer.write(CHUNKED)
                await peer.until_acknowledged()
                await peer.write(b"no size\r\n")
            else:
                await peer.write(CHUNKED + (b"no size\r\n" if end == "malformed" else b""))
            if end == "fin":
                peer.fin()
            elif end == "rst":
                await peer.until_acknowledged()
                peer.reset()
            with pytest.raises(HandshakeRejected) as caught:
                await within(connecting)
    response, ending = caught.value.response, caught.value.ending
    assert (response.status, response.body) == (401, b"log i")
    assert (ending.cause, ending.initiator) == (Cause.HANDSHAKE_REJECTED, Initiator.PEER)


async def test_connection_refused_fails_the_handshake(face):
    with pytest.raises(HandshakeError) as caught:
        await within(face.connect(f"ws://{HOST}:{free_port()}/"))
    assert isinstance(caught.value.ending.exception, ConnectionRefusedError)


@pytest.mark.waits
async def test_connect_fails_after_open_timeout_without_an_answer(face, transport):
    with RawServer(transport.server) as listening:
        began = monotonic()
        with pytest.raises(HandshakeError) as caught:
            await within(face.connect(listening.uri, ssl=transport.client, open_timeout=2.5))
        # 2.49: uvloop's clock counts whole milliseconds.
        assert 2.49 <= monotonic() - began < PROMPT  # not the default
    assert caught.value.ending.tcp is TcpEnd.TIMEOUT


async def test_open_timeout_bounds_all_redirects_together(face):
    """With a new limit for each, ten redirects of half the limit would all be followed."""
    redirect = b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"
    with RawServer() as listening:

        async def send_on():
            while True:
                with await listening.accept_tcp() as peer:
                    await peer.read_head()
                    await asyncio.sleep(0.5)
                    await peer.write(redirect)

        task = asyncio.create_task(send_on())
        with pytest.raises(HandshakeError, match=r"within 1 s \(open_timeout\)") as caught:
            await within(face.connect(listening.uri, open_timeout=1.0))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    # 0.99: uvloop's clock counts whole milliseconds.
    assert caught.value.ending.duration >= 0.99
    assert caught.value.ending.cause is Cause.HANDSHAKE_FAILED


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (
            b"\x15\x03\x01\x00\x02\x02\x46",
            r"b'\x15\x03\x01\x00\x02\x02F'; this looks like TLS: use wss://?",
        ),
        (
            b"SSH-2.0-OpenSSH_9.2p1\r\n",
            "b'SSH-2.0-OpenSSH_'; this looks like SSH",
        ),
        (
            b"",
            "before the server had answered the request; if this is a TLS port, use wss://",
        ),
        (b"HTTP/1.1 101", "the peer ended TCP without a Close before the server had answered the request"),
    ],
    ids=["TLS", "SSH", "nothing", "a part"],
)
async def test_an_invalid_response_fails_at_once_with_url_and_phase(answer, why, face):
    with RawServer() as listening:
        connecting = asyncio.ensure_future(face.connect(listening.uri + "?token=secret", open_timeout=None))
        with await listening.accept_tcp() as peer:
            await peer.read_head()
            await peer.write(answer)
            if b"\r\n" not in answer:
                peer.fin()
            with pytest.raises(HandshakeError) as caught:
                await within(connecting)
    assert str(caught.value).startswith(f"{listening.uri}?...: ")
    assert str(caught.value).endswith(f" {why}")


@pytest.mark.waits
async def test_a_timeout_names_its_phase(face, transport):
    with RawServer(transport.server) as listening, pytest.raises(HandshakeError) as caught:
        await within(face.connect(listening.uri, ssl=transport.client, open_timeout=2.5))
    phase = (
        "the server did not answer the request"
        if transport.server is None
        else "the TLS handshake was not complete"
    )
    assert str(caught.value) == f"{listening.uri}: {phase} within 2.5 s (open_timeout)"


async def test_ws_to_a_tls_port_is_reported_as_such(face):
    server = Server()
    async with server.serving(ssl=wss().server):
        with pytest.raises(HandshakeError, match="use wss://"):
            await within(face.connect(f"ws://{HOST}:{server.port}/"))


async def test_wss_to_a_plain_port_is_reported_as_such(face):
    server = Server()
    async with server.serving():
        url = uri(server, wss())
        with pytest.raises(HandshakeError) as caught:
            await within(face.connect(url, ssl=wss().client))
    assert str(caught.value).startswith(f"{url}: TLS failed: ")
    assert str(caught.value).endswith("; this does not look like TLS: use ws://?")


async def test_an_untrusted_certificate_fails_the_handshake(face):
    server = Server()
    server.websocket("/")(face.handler(idle))
    async with server.serving(ssl=wss().server):
        with pytest.raises(HandshakeError) as caught:
            await within(face.connect(uri(server, wss())))
    assert caught.value.ending.cause is Cause.TLS_ERROR


@pytest.mark.parametrize(
    ("uri", "keywords", "error", "name"),
    [
        ("http://x/", {}, ValueError, "uri"),
        ("ws://x/", {"subprotocols": "chat"}, TypeError, "subprotocols"),
        ("ws://x/", {"nonsense": 1}, TypeError, "nonsense"),
        ("ws://x/", {"max_size": -1}, ValueError, "max_size"),
    ],
)
async def test_a_wrong_argument_raises_at_the_call_and_is_named(uri, keywords, error, name, face):
    with pytest.raises(error, match=name):
        await face.connect(uri, **keywords)

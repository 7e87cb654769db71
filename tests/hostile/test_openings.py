"""Invalid requests of a client, and the response of the running server."""

from __future__ import annotations

import asyncio
import re
from itertools import product

import pytest

from tests.hostile.honest import attacked
from tests.pair import within
from tests.raw import BOUND, NONCE, PROMPT, RawPeer
from tests.selection import MEMORY
from tests.wire.peer import TEXT


def request(*more, line=b"GET / HTTP/1.1", without=()):
    """A WebSocket request, with fields replaced, added or removed."""
    fields = {
        b"Host": b"localhost",
        b"Upgrade": b"websocket",
        b"Connection": b"Upgrade",
        b"Sec-WebSocket-Version": b"13",
        b"Sec-WebSocket-Key": NONCE.encode(),
    }
    given = {name for name, _, _ in (field.partition(b":") for field in more)}
    lines = [name + b": " + value for name, value in fields.items() if name not in {*without, *given}]
    return b"\r\n".join([line, *lines, *more, b"", b""])


GET = b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
HUGE = b"x" * 9000

REFUSED = {
    "no host": (400, request(without=[b"Host"])),
    "two hosts": (400, request(b"Host: localhost", b"Host: localhost")),
    "a host that is none": (400, request(b"Host: a b")),
    "a body with a length": (413, request(b"Content-Length: 5") + b"hello"),
    "a chunked body": (413, request(b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n"),
    "two lengths": (413, request(b"Content-Length: 0", b"Content-Length: 5") + b"hello"),
    "a length and chunks": (413, request(b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"hello"),
    "a length with a sign": (413, request(b"Content-Length: +0")),
    "a bare lf": (400, request().replace(b"\r\n", b"\n")),
    "a folded line": (400, request(b"X: a\r\n b")),
    "a space before a colon": (400, request(b"X : a")),
    "a nul": (400, request(b"X: a\0b")),
    "a field name outside ascii": (400, request(b"X\xff: a")),
    "http/1.0": (426, request(line=b"GET / HTTP/1.0")),
    "http/2.0": (400, request(line=b"GET / HTTP/2.0")),
    "http/2 with prior knowledge": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "no version": (400, b"GET /\r\n\r\n"),
    "a connect": (400, b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "a post": (405, request(line=b"POST / HTTP/1.1")),
    "an unknown method": (501, request(line=b"GETS / HTTP/1.1")),
    "a target with a fragment": (400, request(line=b"GET /#x HTTP/1.1")),
    "a target of another scheme": (400, request(line=b"GET file:///etc/passwd HTTP/1.1")),
    "a target with a space": (400, request(line=b"GET /a b HTTP/1.1")),
    "a path that leads out": (404, b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "a path that is not utf-8": (400, b"GET /%ff HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "another version": (426, request(b"Sec-WebSocket-Version: 8")),
    "two versions": (426, request(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 13")),
    "no upgrade on a websocket's path": (426, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "no key": (400, request(without=[b"Sec-WebSocket-Key"])),
    "a short key": (400, request(b"Sec-WebSocket-Key: abc")),
    "two keys": (400, request(*[b"Sec-WebSocket-Key: " + NONCE.encode()] * 2)),
    "a page of another origin": (403, request(b"Origin: http://evil.example")),
    "the origin null": (403, request(b"Origin: null")),
    "two origins": (400, request(b"Origin: http://localhost", b"Origin: http://evil.example")),
    "a subprotocol outside ascii": (400, request(b"Sec-WebSocket-Protocol: \xc3\xa9")),
    "an extension with an open quote": (400, request(b'Sec-WebSocket-Extensions: a; b="' + b"\\" * 4000)),
    "a line without end": (431, b"GET /" + HUGE),
    "a field without end": (431, request(b"X: " + HUGE)[:-4]),
    "too many fields": (431, request(*[b"X: y"] * 200)),
    "fields without end": (431, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000),
    "empty lines without end": (431, b"\r\n" * 50_000),
    "junk": (400, bytes(range(256)) * 4),
    "tls": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n" * 20),
    "an old client": (
        426,
        request(
            b"Sec-WebSocket-Key1: 1 2",
            b"Sec-WebSocket-Key2: 3 4",
            without=[b"Sec-WebSocket-Version", b"Sec-WebSocket-Key"],
        )
        + b"12345678",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_bad_request_gets_its_status_and_ends_only_its_connection(name, caplog):
    status, octets = REFUSED[name]
    async with attacked() as both:
        with await RawPeer.connect_tcp(both.port) as peer:
            # Data after a refused request is ignored.
            await peer.write(octets + GET + peer.octets(TEXT, b"smuggled"))
            head, rest = await answer_of(peer)
        assert head.startswith(f"HTTP/1.1 {status} "), head
        assert "\r\nConnection: close" in head or status == 426
        assert not re.search(rb"HTTP/1.1 \d", rest)
        if status == 426:
            assert "\r\nSec-WebSocket-Version: 13" in head
            assert "\r\nConnection: close" in head or "Connection: Upgrade, close" in head
        assert not both.handled
    assert not caplog.records


async def answer_of(peer):
    """The head of the response, and all that follows, to the end of TCP by FIN."""
    head = await peer.read_head()
    async with asyncio.timeout(BOUND):
        while await peer.more():
            pass
    assert peer.seen.tcp.name == "FIN"
    peer.fin()
    return head, bytes(peer._received)


MANY = ", ".join(f"x-{n}" for n in range(1000)).encode()

ACCEPTED = {
    "firefox's connection": request(b"Connection: keep-alive, Upgrade"),
    "a target in absolute form": request(line=b"GET http://localhost/ HTTP/1.1"),
    "an empty line first": b"\r\n" + request(),
    "names in odd case": request().replace(b"Upgrade: websocket", b"uPGRADE:WebSocket "),
    "octets outside ascii in a value": request(b"X: \xff\xfe\x80"),
    "an x-forwarded-for without an address": request(b"X-Forwarded-For:", b"X-Forwarded-For: ,,"),
    "an extension named constructor": request(b"Sec-WebSocket-Extensions: constructor"),
    "an extension named __class__": request(b"Sec-WebSocket-Extensions: __class__; __init__=1"),
    "a thousand extensions": request(b"Sec-WebSocket-Extensions: " + MANY),
    "a window of no size": request(
        b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99"
    ),
    "a window twice": request(
        b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9; server_max_window_bits=9"
    ),
    "a thousand subprotocols": request(b"Sec-WebSocket-Protocol: " + MANY),
    "a length of nothing": request(b"Content-Length: 0"),
}


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
@pytest.mark.parametrize("name", ACCEPTED)
async def test_an_odd_but_legal_request_is_accepted_without_hostile_offers(name, bytewise, caplog):
    async with attacked(subprotocols=["constructor", "chat"]) as both:
        with await RawPeer.connect_tcp(both.port, bytewise=bytewise) as peer:
            await peer.write(ACCEPTED[name])
            head = await peer.read_head()
            assert head.startswith("HTTP/1.1 101 "), head
            assert "Sec-WebSocket-Extensions" not in head
            assert "Sec-WebSocket-Protocol" not in head
            await peer.frame(TEXT, b"hello")
            assert (await peer.read_frame()).payload == b"hello"
    assert not caplog.records


@pytest.mark.waits
@pytest.mark.parametrize(
    ("stage", "transport"),
    [
        ("tls", "wss"),
        *product(["nothing", "the request line", "the fields", "octet by octet"], ["ws", "wss", MEMORY]),
    ],
    indirect=["transport"],
)
async def test_open_timeout_is_absolute_for_a_slow_request(stage, transport):
    async with attacked(transport=transport, open_timeout=2.5) as both:
        began = asyncio.get_running_loop().time()
        with await RawPeer.connect_tcp(both.port, transport.client) as peer:
            if stage == "tls":
                octets, send = peer.tls_flight(), peer.send_tcp
            else:
                await peer.tls_handshake()
                octets, send = b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100, peer.write
            sending = asyncio.create_task(dribble(send, octets, stage))
            # All of it would take 30 seconds, or never end.
            async with asyncio.timeout(PROMPT):
                while await peer.more():
                    pass
            assert asyncio.get_running_loop().time() - began > 2.48
            sending.cancel()
            await asyncio.wait([sending])


async def dribble(send, octets, stage):
    start = {"nothing": len(octets), "the request line": 5, "the fields": 300}.get(stage, 0)
    await send(octets[: start % len(octets)])
    if stage != "nothing":
        for at in range(start, len(octets)):
            await asyncio.sleep(0.1)
            await send(octets[at : at + 1])


async def test_hundreds_of_unfinished_handshakes_block_no_other():
    async with attacked(open_timeout=60.0) as both:
        crowd = [await RawPeer.connect_tcp(both.port) for _ in range(300)]
        for peer in crowd:
            peer.send_at_once(b"GET / HTTP/1.1\r\nX: ")
        with await within(RawPeer.connect(both.port)) as peer:
            await peer.frame(TEXT, b"hello")
            assert (await peer.read_frame()).payload == b"hello"
        for peer in crowd:
            peer.drop()

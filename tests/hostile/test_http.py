"""Clients that attack a kept-alive connection, or an application behind it."""

from __future__ import annotations

import asyncio
import gc
from contextlib import asynccontextmanager

import pytest

from endwell import Server
from endwell.wire.body import BodyReader
from tests.http1 import asked, request_of
from tests.pair import nothing_left_behind, until
from tests.raw import BOUND, NONCE, PLAIN

CHUNKED = "Transfer-Encoding: chunked"
#: The constant of aio/exchange.py, which is a C constant in the compiled build.
WINDOW = 16 * 1024
#: What an attacker wants to be read as a request of its own.
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def attacked(transport, **options):
    """A server of an application that reads each body, a connection to it, and the paths of its requests."""
    server, paths = Server(**{"keep_alive_timeout": 4 * BOUND, **options}), []

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        paths.append(scope["path"])
        if scope["path"] != "/unread":
            while (event := await receive())["type"] == "http.request" and event["more_body"]:
                pass
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"%d" % len(paths)})

    server.mount("/", app, lifespan="off")
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        peer.server, peer.paths = server, paths
        yield peer


def post(*fields, body=b"", line=b"POST / HTTP/1.1"):
    return b"\r\n".join([line, b"Host: localhost", *fields, b"", body])


AMBIGUOUS = {
    "both lengths": post(b"Content-Length: 4", CHUNKED.encode(), body=b"0\r\n\r\n"),
    "both lengths, the other way round": post(CHUNKED.encode(), b"Content-Length: 4", body=b"0\r\n\r\n"),
    "two lengths": post(b"Content-Length: 0", b"Content-Length: 44"),
    "a list of lengths": post(b"Content-Length: 0, 0"),
    "a signed length": post(b"Content-Length: +0"),
    "a length with an underscore": post(b"Content-Length: 4_4", body=SMUGGLED),
    "an empty length": post(b"Content-Length: "),
    "a space before the colon": post(b"Content-Length : 44", body=SMUGGLED),
    "a coding that only looks chunked": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "a coding with a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "chunked is not the last coding": post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "chunked twice": post(CHUNKED.encode(), CHUNKED.encode(), body=b"0\r\n\r\n"),
    "chunked in HTTP/1.0": post(
        CHUNKED.encode(), b"Connection: keep-alive", line=b"POST / HTTP/1.0", body=b"0\r\n\r\n"
    ),
    "a folded field": post(b"X: y\r\n Content-Length: 44", body=SMUGGLED),
    "a bare LF": post(b"X: y\nContent-Length: 44", body=SMUGGLED),
    "a bare CR": post(b"X: y\rContent-Length: 44", body=SMUGGLED),
    "a NUL": post(b"X: y\0"),
    "a field without a name": post(b": y"),
    "two hosts": post(b"Host: other", b"Content-Length: 0"),
    "a space at the start": b" " + post(b"Content-Length: 0"),
    "a chunk with 0x": post(CHUNKED.encode(), body=b"0x0\r\n\r\n"),
    "a chunk with a sign": post(CHUNKED.encode(), body=b"+0\r\n\r\n"),
    "a chunk with a space before its size": post(CHUNKED.encode(), body=b" 0\r\n\r\n"),
    "a chunk with an underscore": post(CHUNKED.encode(), body=b"1_0\r\n\r\n"),
    "a chunk that ends with LF": post(CHUNKED.encode(), body=b"0\n\r\n"),
    "an extension with LF": post(CHUNKED.encode(), body=b"0;a\nb\r\n\r\n"),
    "an extension with CR": post(CHUNKED.encode(), body=b"0;a\rb\r\n\r\n"),
    "an extension without end": post(CHUNKED.encode(), body=b"5;" + b"a" * 300),
    "a chunk that is longer than its size": post(CHUNKED.encode(), body=b"1\r\nab\r\n0\r\n\r\n"),
    "a size that overflows": post(CHUNKED.encode(), body=b"10000000000000000\r\n"),
    "a trailer that ends with LF": post(CHUNKED.encode(), body=b"0\r\nX: y\n\r\n"),
}


@pytest.mark.parametrize("octets", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_a_request_that_two_parsers_could_read_differently_ends_its_connection(octets, transport):
    async with attacked(transport) as peer:
        assert (await peer.ask(request_of(path="/before"))).body == b"1"
        answer = await peer.ask(octets + SMUGGLED)
        assert 400 <= answer.status < 500 or answer.status == 501
        assert answer.closes
        assert await peer.rest() == b""
        assert "/smuggled" not in peer.paths


async def test_a_request_within_a_body_is_never_answered(transport):
    async with attacked(transport) as peer:
        bodies = [
            request_of("POST", "/", SMUGGLED),
            request_of("POST", "/unread", SMUGGLED),
            request_of("GET", "/get", SMUGGLED),
            request_of("POST", "/unread", None, CHUNKED)
            + b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED),
        ]
        await peer.send(b"".join(bodies) + request_of(path="/last"))
        assert [(await peer.answer()).status for _ in range(5)] == [200] * 5
        assert peer.paths == ["/", "/unread", "/get", "/unread", "/last"]


@pytest.mark.parametrize(
    "fields",
    [
        ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"],
        [
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 8",
            f"Sec-WebSocket-Key: {NONCE}",
        ],
        ["Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"],
    ],
    ids=["no key", "old version", "h2c"],
)
async def test_what_follows_a_refused_upgrade_never_reaches_an_application(fields, transport):
    async with attacked(transport) as peer:
        answer = await peer.ask(request_of("GET", "/", None, *fields) + SMUGGLED)
        assert answer.closes or "close" in answer.headers["Connection"]
        assert await peer.rest() == b""
        assert "/smuggled" not in peer.paths


async def test_octets_that_only_hixie_76_reads_are_not_the_start_of_a_request(transport):
    """For every other parser, the challenge behind such a head is the next request."""
    async with attacked(transport, legacy=True) as peer:
        keys = ["Sec-WebSocket-Key1: 1 2", "Sec-WebSocket-Key2: 3 4"]
        answer = await peer.ask(request_of("GET", "/", None, *keys) + b"12345678" + SMUGGLED)
        assert answer.closes
        assert await peer.rest() == b""
        assert "/smuggled" not in peer.paths


async def test_what_follows_a_connect_never_reaches_an_application(transport):
    """After a 2xx response, a proxy forwards all bytes blindly."""
    async with attacked(transport) as peer:
        assert (await peer.ask(request_of("CONNECT", "/") + SMUGGLED)).closes
        assert await peer.rest() == b""
        assert "/smuggled" not in peer.paths


@pytest.mark.parametrize(
    "flood",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 200,
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + (b"X: " + b"y" * 4000 + b"\r\n") * 10,
        b"GET /" + b"x" * 9000,
    ],
    ids=["fields", "head", "line"],
)
async def test_a_flood_of_fields_is_refused_on_a_later_request_too(flood, transport):
    async with attacked(transport) as peer:
        assert (await peer.ask(request_of())).status == 200
        answer = await peer.ask(flood)
        assert (answer.status, answer.closes) == (431, True)


async def test_a_flood_of_pipelined_requests_delays_no_other_client():
    async with attacked(PLAIN) as peer, asked(peer.server) as other:
        count = 4000
        await peer.send(request_of(path="/flood") * count)
        await until(lambda: len(peer.paths) > 10)
        assert (await other.ask(request_of(path="/other"))).status == 200
        assert peer.paths.count("/flood") < count
        for _ in range(count):
            await peer.answer()


async def test_what_follows_pipelined_bodies_is_not_kept_for_each_of_them():
    # A request and its body refer to each other, so they live until the next garbage collection.
    gc.collect()
    gc.disable()
    try:
        async with attacked(PLAIN) as peer:
            count = 200
            flood = request_of("POST", "/", b"x") + request_of("POST", "/unread", b"x")
            await peer.send(flood * count)
            for _ in range(2 * count):
                assert (await peer.answer()).status == 200
            readers = [each for each in gc.get_objects() if isinstance(each, BodyReader)]
            assert sum(len(reader.rest) for reader in readers) <= 2 * len(flood)
    finally:
        gc.enable()


@pytest.mark.parametrize("size", [WINDOW - 3, WINDOW, WINDOW + 3, 5 * WINDOW])
async def test_requests_and_bodies_that_cross_the_window_of_the_parser_are_read_as_others(size, transport):
    async with attacked(transport) as peer:
        padding = request_of("POST", "/unread", b"p" * size)
        requests = [padding, request_of(path="/1"), request_of("POST", "/2", b"x" * size), padding]
        requests += [request_of(path=f"/{number}") for number in range(3, 1000)]
        await peer.send(b"".join(requests))
        for _ in requests:
            assert (await peer.answer()).status == 200
        named = [path for path in peer.paths if path != "/unread"]
        assert named == [f"/{number}" for number in range(1, 1000)]


async def test_a_body_that_trickles_is_given_up_although_each_octet_comes_in_time(transport):
    async with attacked(transport, body_timeout=0.3) as peer:
        await peer.send(request_of("POST", "/", None, "Content-Length: 100000"))

        async def trickle():
            while True:
                await peer.send(b"x")
                await asyncio.sleep(0.02)

        trickling = asyncio.create_task(trickle())
        try:
            assert (await peer.answer()).status == 408
        finally:
            trickling.cancel()
            await asyncio.wait([trickling])


async def test_an_endless_body_that_no_application_reads_ends_its_connection(transport):
    async with attacked(transport, close_timeout=0.2) as peer:
        answer = await peer.ask(request_of("POST", "/unread", None, CHUNKED))
        assert (answer.status, answer.closes) == (200, False)

        async def flood():
            while True:
                await peer.send(b"1000\r\n" + bytes(0x1000) + b"\r\n")

        flooding = asyncio.create_task(flood())
        try:
            assert await peer.rest() == b""
        finally:
            flooding.cancel()
            await asyncio.wait([flooding])
        await until(lambda: not peer.server._listener.openings)

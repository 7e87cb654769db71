"""Rate limits: what open connections send, and how fast they open."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest

import endwell
from endwell import Cause, CloseCode, ConnectionClosed, HandshakeRejected, Limit, RetryAdvice, Server
from endwell.aio.syscalls import monotonic
from tests.pair import until, within
from tests.raw import close_of
from tests.wire.peer import CLOSE, TEXT

FAST = {"burst": 3, "per": 3600.0}


async def echo(ws):
    async for message in ws:
        with suppress(ConnectionClosed):
            await ws.send(message)


async def asgi_echo(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": event["text"]})


async def flood(peer, count):
    for number in range(count):
        await peer.frame(TEXT, str(number).encode())


# --- messages ---------------------------------------------------------------------------------


@pytest.mark.current_protocol
async def test_wait_holds_the_peer_back_and_loses_nothing(open_server_pair):
    limit = Limit(messages=50, burst=5)
    began = monotonic()
    async with open_server_pair(handler=echo, limits=limit) as both:
        await flood(both.peer, 30)
        answers = [(await both.peer.read_frame()).payload for _ in range(30)]
        assert answers == [str(number).encode() for number in range(30)]
        # 25 messages more than the burst, at 50 in a second. No timer fires early by more than a millisecond.
        assert monotonic() - began >= 25 / 50 - 0.01
        assert both.ws.dropped_messages == 0


@pytest.mark.current_protocol
async def test_wait_stops_reading_until_the_bucket_has_refilled(open_server_pair):
    async with open_server_pair(handler=echo, limits=Limit(messages=1, **FAST)) as both:
        await flood(both.peer, 9)
        assert [(await both.peer.read_frame()).payload for _ in range(3)] == [b"0", b"1", b"2"]
        await until(both.core.pauses)
        assert not both.core.wants_read()
        assert both.ws.messages_in == 3
        both.face.engine(
            both.ws
        ).abort()  # otherwise the end of the peer would be noticed in an hour, or with a ping


@pytest.mark.current_protocol
async def test_drop_keeps_the_connection_and_counts_what_is_lost(open_server_pair, caplog):
    caplog.set_level(logging.INFO, "endwell.server")
    async with open_server_pair(handler=echo, limits=Limit(messages=1, excess="drop", **FAST)) as both:
        await flood(both.peer, 9)
        assert [(await both.peer.read_frame()).payload for _ in range(3)] == [b"0", b"1", b"2"]
        await until(lambda: both.ws.dropped_messages == 6)
        assert both.ws.is_open
        await both.peer.close(1000)
        both.peer.fin()
        ending = await both.ending()
    assert (ending.dropped_messages, ending.messages_in, ending.ok) == (6, 9, True)
    # One line for the connection, without the messages.
    (line,) = [record.getMessage() for record in caplog.records if "dropping" in record.getMessage()]
    assert line.endswith(" on '/': they are above its limit")


@pytest.mark.current_protocol
async def test_close_answers_what_fits_then_closes_with_1008_and_advice(open_server_pair):
    async with open_server_pair(handler=echo, limits=Limit(messages=1, excess="close", **FAST)) as both:
        await flood(both.peer, 9)
        assert [(await both.peer.read_frame()).payload for _ in range(3)] == [b"0", b"1", b"2"]
        received = await both.peer.read_frame()
        assert received.opcode == CLOSE
        close = close_of(received)
        assert close.code == CloseCode.POLICY_VIOLATION
        advice = RetryAdvice.parse(close.reason)
        assert 3500 <= advice.earliest <= 10800
        both.peer.fin()
        ending = await both.ending()
    assert ending.cause is Cause.POLICY_LIMIT


@pytest.mark.current_protocol
async def test_a_flood_in_one_segment_does_not_exceed_the_limit(open_server_pair):
    """4,000 messages in one read reach the application at the rate of the limit."""
    frame = bytes((0x80 | TEXT, 0x81, 0, 0, 0, 0)) + b"x"
    async with open_server_pair(handler=echo, limits=Limit(messages=1, **FAST)) as both:
        await both.peer.write(frame * 4000)
        for _ in range(3):
            await both.peer.read_frame()
        await until(both.core.pauses)
        assert (both.ws.messages_in, both.core.inbox.waiting()) == (3, 0)
        both.face.engine(both.ws).abort()


# --- keys and routes -------------------------------------------------------------------------------


async def count_until_closed(face, url, **how):
    """The number of messages of a client that the server echoes before it closes with 1008."""
    ws = await within(face.connect(url, **how))
    count = 0
    with suppress(ConnectionClosed):
        while True:
            await ws.send("x")
            if await within(ws.read()) is None:
                break
            count += 1
    assert (await within(ws.closed)).code == CloseCode.POLICY_VIOLATION
    return count


async def test_connections_of_one_user_share_a_limit_over_routes(face):
    limit = Limit(messages=1, excess="close", key=lambda request: request.headers.get("X-User"), **FAST)
    server = Server()
    for path in ("/a", "/b"):
        server.websocket(path, limits=limit)(face.handler(echo))
    server.websocket("/free")(face.handler(echo))
    async with server.serving():
        url = f"ws://127.0.0.1:{server.port}"
        ada, bob = ({"additional_headers": {"X-User": name}} for name in ("ada", "bob"))
        assert await count_until_closed(face, url + "/a", **ada) == 3
        # The bucket outlives the connection.
        assert await count_until_closed(face, url + "/b", **ada) == 0
        assert await count_until_closed(face, url + "/b", **bob) == 3
        # Without a key, each connection has a bucket of its own.
        for _ in range(2):
            assert await count_until_closed(face, url + "/b") == 3
        ws = await within(face.connect(url + "/free"))
        for _ in range(9):
            await ws.send("x")
            assert await within(ws.recv()) == "x"
        await ws.close()


async def test_connections_of_one_address_share_a_limit_behind_a_proxy(face):
    limit = Limit(messages=1, excess="close", key="address", **FAST)
    server = Server(limits=limit, proxy_headers=["127.0.0.1"])
    server.websocket("/")(face.handler(echo))

    def by(address):
        return {"additional_headers": {"X-Forwarded-For": address}}

    async with server.serving():
        url = f"ws://127.0.0.1:{server.port}/"
        assert await count_until_closed(face, url, **by("192.0.2.1")) == 3
        assert await count_until_closed(face, url, **by("192.0.2.1")) == 0
        assert await count_until_closed(face, url, **by("192.0.2.2")) == 3
        assert await count_until_closed(face, url, **by("2001:db8::1")) == 3
        assert await count_until_closed(face, url, **by("2001:db8::2")) == 0
        assert await count_until_closed(face, url, **by("2001:db8:0:1::1")) == 3


async def test_a_key_function_that_raises_is_an_internal_error(caplog):
    def key(request):
        raise KeyError("user")

    server = Server(limits=Limit(messages=1, key=key))
    server.websocket("/")(echo)
    async with server.serving():
        with pytest.raises(HandshakeRejected) as caught:
            await endwell.connect(f"ws://127.0.0.1:{server.port}/")
    assert caught.value.response.status == 500


async def test_a_key_function_that_returns_an_awaitable_is_an_internal_error(caplog):
    async def user(request):
        return request.state["user"]

    def key(request):
        return user(request)

    limits_messages, limits_openings = Server(limits=Limit(messages=1, key=key)), Server()
    limits_openings.rate_limit(1, key=key)
    for server in (limits_messages, limits_openings):
        server.websocket("/")(echo)
        async with server.serving():
            with pytest.raises(HandshakeRejected) as caught:
                await endwell.connect(f"ws://127.0.0.1:{server.port}/")
        assert caught.value.response.status == 500
    assert caplog.text.count("which nothing awaits") == 2


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "text"),
    [
        ((0,), {}, ValueError, "connections must be positive"),
        ((None,), {}, TypeError, "connections must be a number"),
        ((1.5,), {}, TypeError, "connections must be a number"),
        ((1,), {"per": 0}, ValueError, "per must be positive"),
        ((1,), {"burst": 0}, ValueError, "burst must be positive"),
        # A bucket for each connection would limit nothing.
        ((1,), {"key": "connection"}, ValueError, "key must be 'address', 'server' or a function"),
        ((1,), {"key": None}, ValueError, "key must be 'address', 'server' or a function"),
    ],
)
def test_a_wrong_rate_of_openings_is_named(arguments, keywords, error, text):
    with pytest.raises(error, match=f"^{text}"):
        Server().rate_limit(*arguments, **keywords)


@pytest.mark.parametrize("excess", ["drop", "close"])
async def test_an_asgi_application_is_limited_like_a_handler(excess):
    async def app(scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
        ended.append(event)

    ended, server = [], Server()
    server.mount("/", app, lifespan="off", limits=Limit(messages=1, excess=excess, **FAST))
    async with server.serving():
        async with endwell.connect(f"ws://127.0.0.1:{server.port}/") as ws:
            for _ in range(9):
                await ws.send("x")
            assert [await within(ws.recv()) for _ in range(3)] == ["x"] * 3
            if excess == "close":
                assert (await within(ws.closed)).code == 1008
        await until(lambda: ended)


# --- openings -----------------------------------------------------------------------------------------


async def test_openings_above_the_rate_get_429_with_retry_after(face, transport):
    server = Server()
    server.websocket("/")(face.handler(echo))
    server.get("/page")(lambda request: "a page")
    server.rate_limit(1, per=3600, burst=2)
    async with server.serving(ssl=transport.server):
        url = f"{'ws' if transport.server is None else 'wss'}://127.0.0.1:{server.port}/"
        connections = [await within(face.connect(url, ssl=transport.client)) for _ in range(2)]
        for _ in range(3):
            with pytest.raises(HandshakeRejected) as caught:
                await within(face.connect(url, ssl=transport.client))
            assert caught.value.response.status == 429
            assert 3000 <= int(caught.value.response.headers["Retry-After"]) <= 3601
        for ws in connections:
            await ws.close()


@pytest.mark.parametrize("where", ["openings", "server", "route", "mount"])
async def test_a_server_that_serves_again_has_full_buckets(where):
    limits = Limit(messages=1, per=3600, key="address", excess="close")
    server = Server(limits=limits if where == "server" else ())
    own = {"limits": limits} if where in ("route", "mount") else {}
    if where == "mount":
        server.mount("/", asgi_echo, lifespan="off", **own)
    else:
        server.websocket("/", **own)(echo)
    if where == "openings":
        server.rate_limit(1, per=3600)
    for _ in range(2):
        async with server.serving(), endwell.connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("a")
            assert await within(ws.recv()) == "a"


async def test_the_rate_of_openings_is_limited_for_each_key_and_for_the_server():
    server = Server(proxy_headers=["127.0.0.1"])
    server.websocket("/")(echo)
    server.rate_limit(1, per=3600)
    server.rate_limit(2, per=3600, key="server")
    async with server.serving():

        async def status(address):
            headers = {"X-Forwarded-For": address}
            try:
                await (
                    await endwell.connect(f"ws://127.0.0.1:{server.port}/", additional_headers=headers)
                ).close()
            except HandshakeRejected as refusal:
                return refusal.response.status
            return 101

        # A refused opening takes nothing from the server's limit.
        assert [await status(address) for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2")] == [
            101,
            429,
            101,
        ]
        assert await status("192.0.2.3") == 429


async def test_an_ipv4_address_that_is_mapped_to_ipv6_is_the_ipv4_address():
    # The proxy listens on a socket for both versions.
    server = Server(proxy_headers=["127.0.0.1"])
    server.websocket("/")(echo)
    server.rate_limit(1, per=3600)
    async with server.serving():

        def opening(address):
            headers = {"X-Forwarded-For": address}
            return endwell.connect(f"ws://127.0.0.1:{server.port}/", additional_headers=headers)

        for address in ("::ffff:192.0.2.1", "::ffff:192.0.2.2"):
            await (await opening(address)).close()
        with pytest.raises(HandshakeRejected, match="429"):
            await opening("192.0.2.1")


async def test_pages_are_not_limited_by_the_rate_of_openings():
    server = Server()
    server.get("/page")(lambda request: "a page")
    server.rate_limit(1, per=3600)
    async with server.serving():
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()
            await writer.wait_closed()


async def test_many_addresses_need_bounded_memory():
    limit = Limit(messages=1, key="address", max_keys=10, **FAST)
    server = Server(limits=limit, proxy_headers=["127.0.0.1"])
    server.websocket("/")(echo)
    async with server.serving():
        for number in range(30):
            headers = {"X-Forwarded-For": f"192.0.2.{number}"}
            async with endwell.connect(f"ws://127.0.0.1:{server.port}/", additional_headers=headers):
                pass
        assert len(limit._shared) == 10

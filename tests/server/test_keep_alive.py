"""One HTTP request after another on a connection: keep-alive, pipelining, and how it ends."""

from __future__ import annotations

import asyncio
import time

import pytest

from endwell import Response, Server, TcpEnd
from tests.http1 import asked, request_of
from tests.pair import nothing_left_behind, until, within
from tests.raw import BOUND, NONCE, PROMPT

CHUNKED = "Transfer-Encoding: chunked"
UPGRADE = request_of(
    "GET",
    "/ws",
    None,
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {NONCE}",
)


def serving(**options):
    """A server whose pages echo the body of the request."""
    server = Server(**{"keep_alive_timeout": 4 * BOUND, **options})

    @server.route("/", methods=["GET", "POST"])
    async def page(request):
        return await request.body() or request.query_string.encode()

    @server.route("/unread", methods=["POST"])
    async def unread(request):
        return "unread"

    @server.get("/stream")
    async def stream(request):
        async def chunks():
            yield "a"
            yield "b"

        return chunks()

    @server.websocket("/ws")
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    return server


# --- one request after another ----------------------------------------------------


@pytest.mark.parametrize("bytewise", [False, True])
async def test_a_connection_has_one_request_after_another(transport, bytewise):
    server = serving()
    async with (
        nothing_left_behind(),
        server.serving(ssl=transport.server),
        asked(server, transport, bytewise=bytewise) as peer,
    ):
        for request, body in (
            (request_of(path="/?1"), b"1"),
            (request_of("POST", "/", b"hello"), b"hello"),
            (request_of("POST", "/", None, CHUNKED) + b"3\r\nabc\r\n0\r\nX: y\r\n\r\n", b"abc"),
            (request_of(path="/stream"), b"ab"),
            (request_of("POST", "/unread", b"hello"), b"unread"),
            (request_of("POST", "/unread", None, CHUNKED) + b"3\r\nabc\r\n0\r\n\r\n", b"unread"),
            (request_of(path="/?2"), b"2"),
        ):
            answer = await peer.ask(request)
            assert (answer.status, answer.body, answer.closes) == (200, body, False)
        assert (await peer.ask(request_of("HEAD", "/?3"), "HEAD")).headers["Content-Length"] == "1"
        answer = await peer.ask(request_of("GET", "/?4", None, "Connection: close"))
        assert (answer.body, answer.closes) == (b"4", True)
        assert await peer.rest() == b""


@pytest.mark.parametrize("way", ["ws over a transport", "wss over a transport"], indirect=True)
async def test_keep_alive_over_a_transport_of_asyncio(way):
    transport, _ = way
    server = serving()
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        for number in range(3):
            assert (await peer.ask(request_of("POST", "/", b"%d" % number))).body == b"%d" % number
        await peer.send(UPGRADE)
        assert (await peer.answer()).status == 101
        await peer.peer.frame(1, b"hello")
        assert (await peer.peer.read_frame()).payload == b"hello"
        await peer.peer.close()
        assert (await peer.peer.read_close()).code == 1000


async def test_pipelined_requests_are_answered_in_order(transport):
    server, running = serving(), []

    @server.get("/{number}")
    async def page(request, number):
        running.append(number)
        assert len(running) == 1, "the next request has begun before the end of the answer"
        await asyncio.sleep(0)
        running.remove(number)
        return number

    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        numbers = list(map(str, range(20)))
        await peer.send(b"".join(request_of(path=f"/{number}") for number in numbers))
        assert [(await peer.answer()).body.decode() for _ in numbers] == numbers


async def test_requests_behind_a_body_and_behind_an_unread_body_are_answered(transport):
    server = serving()
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        await peer.send(
            request_of("POST", "/", b"one")
            + request_of("POST", "/unread", b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n")
            + request_of("POST", "/unread", None, CHUNKED)
            + b"3\r\nabc\r\n0\r\n\r\n"
            + request_of(path="/?last")
        )
        bodies = [(await peer.answer()).body for _ in range(4)]
        assert bodies == [b"one", b"unread", b"unread", b"last"]


async def test_a_websocket_opens_on_a_connection_that_had_requests(transport):
    server = serving()
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        await peer.send(request_of(path="/?1") + UPGRADE + peer.peer.octets(1, b"early"))
        assert (await peer.answer()).body == b"1"
        assert (await peer.answer()).status == 101
        assert (await peer.peer.read_frame()).payload == b"early"
        (ws,) = server.connections
        await peer.peer.close()
        assert (await peer.peer.read_to_the_end()).close.code == 1000
        peer.peer.fin()
        ending = await within(ws.closed)
        assert (ending.clean, ending.tcp, ending.messages_in) == (True, TcpEnd.FIN, 1)


async def test_http_1_0_keeps_a_connection_only_if_it_asks_for_it():
    server = serving()
    async with nothing_left_behind(), server.serving():
        async with asked(server) as peer:
            for _ in range(2):
                answer = await peer.ask(
                    request_of("GET", "/?1", None, "Connection: Keep-Alive", version="1.0")
                )
                assert (answer.body, answer.headers["Connection"]) == (b"1", "keep-alive")
            # Its end would not be seen.
            answer = await peer.ask(
                request_of("GET", "/stream", None, "Connection: keep-alive", version="1.0")
            )
            assert (answer.body, answer.closes) == (b"ab", True)
        async with asked(server) as peer:
            assert (await peer.ask(request_of(path="/?1", version="1.0"))).closes
            assert await peer.rest() == b""


# --- the end -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_",
    [
        request_of(path="/nowhere"),
        request_of("GET", "/", None, "Upgrade: h2c", "Connection: Upgrade"),
        UPGRADE.replace(b"/ws", b"/nowhere"),
        UPGRADE.replace(b"Version: 13", b"Version: 12"),
        b"GET / HTTP/1.1\r\n\r\n",
        request_of("POST", "/unread", b"", "Expect: 100-continue").replace(b"th: 0", b"th: 5"),
        request_of("POST", "/unread", b"").replace(b"th: 0", b"th: 300000"),
    ],
    ids=["refused", "upgrade", "websocket", "version", "malformed", "expect", "large"],
)
async def test_the_connection_ends_where_the_next_request_could_not_be_found(transport, request_):
    server = serving()
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        await peer.send(request_ + request_of(path="/?smuggled"))
        assert (await peer.answer()).closes
        assert await peer.rest() == b""


async def test_an_idle_connection_is_closed_after_keep_alive_timeout(transport):
    server = serving(keep_alive_timeout=0.05)
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        assert (await peer.ask(request_of(path="/?1"))).body == b"1"
        assert await peer.rest() == b""
        assert peer.peer.seen.tcp is TcpEnd.FIN


async def test_the_head_of_a_later_request_has_open_timeout(transport):
    server = serving(open_timeout=2.5)
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        assert (await peer.ask(request_of(path="/?1"))).body == b"1"
        await peer.send(b"GET / HTT")
        assert await peer.rest() == b""


async def test_none_ends_the_connection_after_one_request():
    server = serving(keep_alive_timeout=None)
    async with nothing_left_behind(), server.serving(), asked(server) as peer:
        assert (await peer.ask(request_of(path="/?1"))).closes
        assert await peer.rest() == b""


async def test_a_client_that_does_not_read_its_answer_is_given_up():
    server = serving(close_timeout=0.3)

    @server.get("/large")
    async def large(request):
        return bytes(2**24)

    async with nothing_left_behind(), server.serving(), asked(server, buffer=4096) as peer:
        await peer.send(request_of(path="/large"))
        await until(lambda: server._listener.openings)
        await until(lambda: not server._listener.openings)


async def test_a_client_that_goes_while_its_request_is_answered_costs_nothing():
    server, told = serving(), asyncio.Event()

    @server.get("/slow")
    async def slow(request):
        told.set()
        await asyncio.sleep(0.1)
        return "late"

    async with nothing_left_behind(), server.serving():
        async with asked(server) as peer:
            await peer.send(request_of(path="/slow"))
            await within(told.wait())
        await until(lambda: not server._listener.openings)


async def test_a_client_that_half_closes_gets_its_answer(transport):
    server = serving()
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        await peer.send(request_of(path="/?1"))
        if transport.server is None:
            peer.peer.fin()
        assert (await peer.answer()).body == b"1"


# --- drains and limits -----------------------------------------------------------------


async def test_a_drain_closes_idle_connections_at_once(transport):
    server = serving()
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        assert (await peer.ask(request_of(path="/?1"))).body == b"1"
        await until(lambda: server._listener.idle)
        began = time.monotonic()
        await server.drain(deadline=6 * PROMPT)
        assert await peer.rest() == b""
        assert time.monotonic() - began < PROMPT


async def test_a_drain_completes_the_request_in_progress_and_then_closes(transport):
    server, told, go = serving(), asyncio.Event(), asyncio.Event()

    @server.get("/slow")
    async def slow(request):
        told.set()
        await go.wait()
        return "complete"

    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        assert (await peer.ask(request_of(path="/?1"))).body == b"1"
        await peer.send(request_of(path="/slow"))
        await within(told.wait())
        draining = asyncio.create_task(server.drain(deadline=BOUND))
        await within(server.draining.wait())
        go.set()
        answer = await peer.answer()
        assert (answer.body, answer.closes) == (b"complete", True)
        assert await peer.rest() == b""
        assert (await draining).stuck == ()


async def test_an_idle_connection_makes_room_for_a_new_one():
    for limits in ({"max_connections": 1}, {"max_connections_per_address": 1}):
        server = serving(**limits)
        async with nothing_left_behind(), server.serving(), asked(server) as first:
            assert (await first.ask(request_of(path="/?1"))).body == b"1"
            await until(lambda server=server: server._listener.idle)
            async with asked(server) as second:
                assert (await second.ask(request_of(path="/?2"))).body == b"2"
                assert await first.rest() == b""
            await until(lambda server=server: not server._listener.openings)
            async with asked(server) as third:  # the share of each was given back once
                assert (await third.ask(request_of(path="/?3"))).body == b"3"
                async with asked(server) as fourth:
                    assert (await fourth.ask(request_of(path="/?4"))).body == b"4"


async def test_a_busy_connection_makes_no_room():
    server, told, go = serving(max_connections=1), asyncio.Event(), asyncio.Event()

    @server.get("/slow")
    async def slow(request):
        told.set()
        await go.wait()
        return Response.text("complete")

    async with nothing_left_behind(), server.serving(), asked(server) as first:
        await first.send(request_of(path="/slow"))
        await within(told.wait())
        async with asked(server) as second:
            assert (await second.ask(request_of(path="/?2"))).status == 503
        go.set()
        assert (await first.answer()).body == b"complete"


async def test_a_pipelining_client_is_read_only_as_fast_as_it_is_answered():
    server, go = serving(), asyncio.Event()

    @server.get("/slow")
    async def slow(request):
        await go.wait()
        return b""

    async with nothing_left_behind(), server.serving(), asked(server) as peer:
        flood = asyncio.create_task(peer.send(request_of(path="/slow") + request_of(path="/?1") * 300_000))
        done, _ = await asyncio.wait([flood], timeout=0.5)
        assert not done, "the server has read 10 MB of requests that it does not answer"
        flood.cancel()
        go.set()
        peer.peer.reset()
        await until(lambda: not server._listener.openings)

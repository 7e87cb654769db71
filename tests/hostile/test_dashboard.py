"""Attacks on the dashboard: docs/explanation/security.md names these tests."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from urllib.parse import quote

import pytest

import endwell
from endwell import HandshakeRejected, RequestRefused, Server
from endwell.server.dashboard import feed as feeds
from endwell.server.dashboard.feed import MAX_ASK, SUBPROTOCOL
from tests.http1 import asked
from tests.pair import nothing_left_behind, until, within
from tests.raw import BOUND, NONCE, PROMPT, RawPeer
from tests.server.dashboard.client import feed, url

#: What an attacker writes into each text that it can choose.
HOSTILE = "</script><img src=x onerror=alert(1)>\u2028\u202e\x1b]0;owned\x07\"'`"
PATHS = ["/_endwell", "/_endwell/", "/_endwell/page.js", "/_endwell/page.css", "/_endwell/endwell.js"]
UPGRADE = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {NONCE}",
    f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
]


def dashboard(authorize=None, **how):
    """A server with a dashboard, and a route whose connections an attacker opens."""
    options = {name: how.pop(name) for name in ("proxy_headers", "proxy_protocol", "origins") if name in how}
    server = Server(**options)
    server.dashboard(authorize=authorize, **how)

    @server.websocket("/app/{name}")
    async def app(ws, name):
        server.sessions.join(name, ws)
        await server.rooms[name].join(ws)
        await ws.send("in")
        async for _ in ws:
            pass

    return server


def has_cookie(request):
    return request.cookies.get("session") == "ours"


async def status(server, path, *fields, transport=None, version="1.1", host="Host: localhost"):
    """The status of a request with these fields, and its header fields."""
    how = {} if transport is None else {"transport": transport}
    async with asked(server, **how) as peer:
        lines = [f"GET {path} HTTP/{version}", *([host] if host else []), *fields, "", ""]
        await peer.send("\r\n".join(lines).encode())
        first, _, head = (await peer.peer.read_head()).partition("\r\n")
        peer.peer.reset()
        return int(first.split(" ")[1]), head


# -- who may see it ---------------------------------------------------------------------------


async def test_a_page_of_another_origin_cannot_open_the_feed_with_the_cookie_of_an_operator(transport):
    # The option of the server is for the pages of its application.
    server = dashboard(has_cookie, origins=["*"])
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        scheme = "http" if transport.server is None else "https"
        for origin, expected in (
            ("http://evil.example", 403),
            (f"{scheme}://localhost.evil.example", 403),
            (f"{scheme}://localhost:81", 403),
            ("null", 403),
            (f"{scheme}://localhost", 101),
        ):
            fields = [*UPGRADE, "Cookie: session=ours", f"Origin: {origin}"]
            assert (await status(server, "/_endwell/feed", *fields, transport=transport))[0] == expected


async def test_without_the_cookie_nothing_is_served(transport):
    server = dashboard(has_cookie)
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        for path in PATHS:
            assert (await status(server, path, transport=transport))[0] == 403
            assert (await status(server, path, "Cookie: session=ours", transport=transport))[0] in (200, 301)
        for cookie, expected in (("session=theirs", 403), ("session=ours", 101)):
            found, _ = await status(
                server, "/_endwell/feed", *UPGRADE, f"Cookie: {cookie}", transport=transport
            )
            assert found == expected


@pytest.mark.parametrize(
    "host",
    [
        "rebound.example",
        "rebound.example:80",
        "127.0.0.1.rebound.example",
        "localhost.rebound.example",
        "10.0.0.1",
    ],
)
async def test_a_name_that_was_pointed_at_this_machine_sees_nothing(host):
    server = dashboard()
    async with nothing_left_behind(), server.serving():
        field = f"Host: {host}"
        for path in PATHS:
            assert (await status(server, path, host=field))[0] == 403
        # The page of this name is of the same origin.
        for origin in ([], [f"Origin: http://{host}"]):
            assert (await status(server, "/_endwell/feed", *UPGRADE, *origin, host=field))[0] == 403
        # The host of an absolute target counts.
        assert (await status(server, f"http://{host}/_endwell/"))[0] == 403
        assert (await status(server, "/_endwell/", host=None, version="1.0"))[0] == 403


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "127.0.0.1", "127.8.9.1:1", "[::1]:80", "LOCALHOST"]
)
async def test_a_program_on_this_machine_sees_it_without_authorize(host):
    server = dashboard()
    async with nothing_left_behind(), server.serving():
        assert (await status(server, "/_endwell/", host=f"Host: {host}"))[0] == 200
        assert (await status(server, "/_endwell/feed", *UPGRADE, host=f"Host: {host}"))[0] == 101


@pytest.mark.parametrize(
    "field",
    [
        "X-Forwarded-For: 127.0.0.1",
        "x-forwarded-for: 203.0.113.7",
        "X-Forwarded-For: ",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Anything: 1",
        "Forwarded: for=127.0.0.1",
        "X-Real-IP: 127.0.0.1",
        "Via: 1.1 proxy",
        "CF-Connecting-IP: 127.0.0.1",
    ],
)
async def test_the_client_of_a_proxy_on_this_machine_sees_nothing(field):
    server = dashboard()
    async with nothing_left_behind(), server.serving():
        for path in PATHS:
            assert (await status(server, path, field))[0] == 403
        assert (await status(server, "/_endwell/feed", *UPGRADE, field))[0] == 403


@pytest.mark.parametrize(
    "options", [{"proxy_headers": ["127.0.0.1"]}, {"proxy_headers": ["10.0.0.1"]}], ids=["trusted", "another"]
)
async def test_a_forged_address_behind_a_trusted_proxy_is_not_loopback(options):
    server = dashboard(**options)
    async with nothing_left_behind(), server.serving():
        for fields in ([], ["X-Forwarded-For: 127.0.0.1"], ["Forwarded: for=127.0.0.1"]):
            assert (await status(server, "/_endwell/", *fields))[0] == 403


async def test_a_preamble_that_names_a_loopback_address_is_not_believed():
    server = dashboard(proxy_protocol=True)
    async with nothing_left_behind(), server.serving():
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(
                b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nGET /_endwell/ HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            assert (await peer.read_head()).startswith("HTTP/1.1 403 ")
            peer.reset()


async def test_a_unix_socket_needs_authorize(tmp_path):
    for authorize, expected in ((None, b"403"), (lambda request: True, b"200")):
        server = dashboard(authorize)
        path = str(tmp_path / "socket")
        async with nothing_left_behind(), server.serving(unix_path=path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"GET /_endwell/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await within(reader.read())).split(b" ")[1] == expected
            writer.close()


# -- authorize --------------------------------------------------------------------------------


def given(kind, decide):
    """``decide`` as a plain function, which may block, or as a coroutine function."""
    if kind == "plain":
        return decide

    async def coroutine(request):
        return decide(request)

    return coroutine


@pytest.fixture(params=["plain", "async"])
def kind(request):
    return request.param


async def test_authorize_that_fails_refuses_and_is_logged_once(kind, caplog):
    def decide(request):
        raise LookupError("no database")

    server = dashboard(given(kind, decide))
    async with nothing_left_behind(), server.serving():
        for _ in range(3):
            assert (await status(server, "/_endwell/"))[0] == 403
            assert (await status(server, "/_endwell/feed", *UPGRADE))[0] == 403
    [record] = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert record.getMessage() == "authorize of the dashboard failed, so the client is refused"
    assert record.exc_info[0] is LookupError


@pytest.mark.parametrize("answer", [None, 0, 1, "yes", object()])
async def test_only_true_lets_a_client_in(kind, answer):
    server = dashboard(given(kind, lambda request: answer))
    async with nothing_left_behind(), server.serving():
        assert (await status(server, "/_endwell/"))[0] == 403


async def test_authorize_may_refuse_with_a_status_of_its_own(kind):
    class Unauthorized(RequestRefused):
        status = 401
        headers = (("WWW-Authenticate", "Basic"),)

    def decide(request):
        raise Unauthorized("log in")

    server = dashboard(given(kind, decide))
    async with nothing_left_behind(), server.serving():
        found, head = await status(server, "/_endwell/")
        assert found == 401
        assert "WWW-Authenticate: Basic" in head
        assert (await status(server, "/_endwell/feed", *UPGRADE))[0] == 401


async def test_a_session_that_has_ended_cannot_act(kind):
    allowed = [True]
    server = dashboard(given(kind, lambda request: allowed[0]))
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        ws = await endwell.connect(url(server, "/app/ann"))
        assert await within(ws.recv()) == "in"
        [row] = (await client.ask("list"))["rows"]
        allowed[0] = False
        for ask in ("close", "drain", "restart"):
            answer = await client.ask(ask, connection=row["connection"], worker=row["worker"])
            assert answer == {"error": "you are no longer authorized"}
        assert ws.is_open
        await within(ws.close())


async def test_a_session_that_has_ended_does_not_watch_on(monkeypatch):
    monkeypatch.setattr(feeds, "AUTHORIZATION_INTERVAL", 0.05)
    asks = []
    server = dashboard(lambda request: asks.append(request) or len(asks) < 4)
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        while await within(client.ws.read()) is not None:
            pass
        assert client.ws.ending.received == endwell.Close(3000, "the authorization has ended")


@pytest.mark.parametrize(
    "error",
    [asyncio.CancelledError, SystemExit],  # from the pool of a database that was closed; from a library
)
async def test_a_feed_is_closed_if_authorize_awaits_what_was_cancelled(error, monkeypatch, caplog):
    monkeypatch.setattr(feeds, "AUTHORIZATION_INTERVAL", 0.05)
    asks = []

    async def decide(request):
        asks.append(request)
        if len(asks) > 1:
            raise error
        return True

    server = dashboard(decide)
    async with nothing_left_behind(), server.serving():
        async with feed(server) as client:
            while await within(client.ws.read()) is not None:
                pass
            assert client.ws.ending.received == endwell.Close(3000, "the authorization has ended")
        assert (await status(server, "/_endwell/"))[0] == 403
    assert [each.exc_info[0] for each in caplog.records if each.exc_info] == [error]


async def test_an_authorize_that_hangs_delays_nothing_but_the_dashboard(transport, tmp_path):
    """A stranger asks for the page again and again while the database of the sessions does not answer."""
    (tmp_path / "app.js").write_text("1")
    asked_for, answers = [], threading.Event()

    def decide(request):
        asked_for.append(request)
        answers.wait(BOUND)
        return False

    server = dashboard(decide)
    server.static("/static", tmp_path)
    server.process_request(lambda request: None)
    server.get("/plain")(lambda request: "here")
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        waiting = [asyncio.create_task(status(server, "/_endwell/", transport=transport)) for _ in range(40)]
        try:
            await until(lambda: len(asked_for) >= 8)
            for path in ("/static/app.js", "/plain"):
                async with asyncio.timeout(PROMPT):
                    assert (await status(server, path, transport=transport))[0] == 200
        finally:
            answers.set()
        assert {found for found, _ in await asyncio.gather(*waiting)} == {403}


async def test_an_authorization_that_is_not_known_in_time_is_none(monkeypatch):
    monkeypatch.setattr(feeds, "AUTHORIZATION_TIME", 0.05)
    asks = []

    async def decide(request):
        asks.append(request)
        if len(asks) > 1:
            await asyncio.Event().wait()
        return True

    server = dashboard(decide)
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        assert await client.ask("restart") == {"error": "you are no longer authorized"}


async def test_a_read_only_dashboard_does_not_act(kind):
    server = dashboard(given(kind, lambda request: True), actions=False)
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        ws = await endwell.connect(url(server, "/app/ann"))
        assert await within(ws.recv()) == "in"
        [row] = (await client.ask("list"))["rows"]
        for ask in ("close", "drain", "restart"):
            answer = await client.ask(ask, connection=row["connection"], worker=row["worker"])
            assert answer == {"error": "this dashboard is read-only: it was made with actions=False"}
        assert ws.is_open
        await within(ws.close())


# -- what a client sends ----------------------------------------------------------------------


@pytest.mark.parametrize("offered", [[], ["endwell.feed.2"], ["chat", "endwell.feed"]])
async def test_a_client_without_the_subprotocol_is_refused(offered):
    server = dashboard()
    async with nothing_left_behind(), server.serving():
        with pytest.raises(HandshakeRejected) as raised:
            await endwell.connect(url(server), subprotocols=offered)
        assert raised.value.response.status == 400


async def test_an_ask_that_is_too_large_ends_the_feed():
    server = dashboard()
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        await client.ws.send(json.dumps({"ask": "list", "search": "x" * MAX_ASK}))
        assert await within(client.ws.read()) is None
        assert client.ws.ending.received.code == 1009


async def test_a_flood_of_asks_delays_nobody_else_and_is_not_queued():
    server = dashboard()
    async with nothing_left_behind(), server.serving(), feed(server) as attacker, feed(server) as client:
        began = asyncio.get_running_loop().time()
        sender = asyncio.create_task(flood(attacker.ws))
        [victim] = [ws for ws in server.connections if ws.remote_address[1] == attacker.ws.local_address[1]]
        # The limit has stopped the reading.
        await until(lambda: victim.messages_in >= 100)
        for _ in range(5):
            assert (await client.ask("list"))["total"] == 0
        # The burst, 50 in a second, and those of one read: not all that were sent.
        seconds = asyncio.get_running_loop().time() - began
        assert victim.messages_in <= 100 + 50 * seconds + 2000
        sender.cancel()
        attacker.ws.abort()
        await within(attacker.ws.closed)


async def flood(ws):
    ask = json.dumps({"ask": "list", "search": "x"})
    for _ in range(100_000):
        await ws.send(ask)
    await asyncio.Event().wait()


async def test_a_client_that_does_not_read_has_a_bounded_queue(monkeypatch):
    monkeypatch.setattr(feeds, "SHORTEST", 0.001)
    server = dashboard()
    async with nothing_left_behind(), server.serving():
        with await RawPeer.connect_tcp(server.port, buffer=4096) as peer:
            fields = "\r\n".join(["GET /_endwell/feed HTTP/1.1", "Host: localhost", *UPGRADE, "", ""])
            await peer.write(fields.encode())
            assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
            await peer.frame(1, b'{"ask": "summary", "every": 0.001}')
            [ws] = server.connections
            made = server._dashboard._knowledge
            calls = []
            summary = made.summary

            async def counted():
                calls.append(1)
                return await summary()

            monkeypatch.setattr(made, "summary", counted)
            monkeypatch.setattr("endwell.server.dashboard.dashboard.SUMMARY_AGE", 0)
            # The queue is full, and no further summary is made. Before that, the kernel may take more than once.
            before = -1
            async with asyncio.timeout(60):
                while len(calls) != before or ws._core.outbox.size <= ws._write_limit:
                    before = len(calls)
                    await asyncio.sleep(0.1)
            size = ws._core.outbox.size
            assert size < ws._write_limit + 65536
            peer.reset()
            await until(lambda: not server.connections)


# -- text of peers ----------------------------------------------------------------------------


async def test_hostile_text_of_peers_stays_text(transport):
    server = dashboard()
    async with (
        nothing_left_behind(),
        server.serving(ssl=transport.server),
        feed(server, ssl=transport.client) as client,
    ):
        # A client can choose its path, its user agent, the reason of its Close, and often a key and a room.
        address = url(server, "/app/" + quote(HOSTILE, safe=""), secure=transport.server is not None)
        agent = "agent <script>alert(1)</script>"
        ws = await endwell.connect(address, ssl=transport.client, additional_headers={"User-Agent": agent})
        assert await within(ws.recv()) == "in"
        await client.ws.send('{"ask": "list", "id": 1}')
        text = await within(client.ws.recv())
        assert text.isascii()
        assert not {"\x1b", "\u2028", "\n", "\r"} & set(text)
        [row] = json.loads(text)["rows"]
        assert row["key"] == HOSTILE
        assert row["rooms"] == [HOSTILE]
        assert row["path"] == f"/app/{HOSTILE}"
        assert row["user_agent"] == agent
        assert row["route"] == "/app/{name}", "the pattern, which the client cannot choose"
        await within(ws.close(4000, HOSTILE))
        await until(lambda: server._dashboard.endings.recent)
        await client.ws.send('{"ask": "endings", "id": 2}')
        text = await within(client.ws.recv())
        assert text.isascii()
        [ending] = json.loads(text)["rows"]
        assert ending["ending"]["received"]["reason"] == HOSTILE
        assert (await client.summary())["by_route"] == {}


async def test_the_page_may_run_only_its_own_scripts_and_no_page_may_frame_it(transport):
    server = dashboard()
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        for path in PATHS:
            _, head = await status(server, path, transport=transport)
            fields = dict(line.split(": ", 1) for line in head.split("\r\n") if line)
            policy = dict(part.split(" ", 1) for part in fields["Content-Security-Policy"].split("; "))
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
            assert fields["X-Frame-Options"] == "DENY"
            assert fields["X-Content-Type-Options"] == "nosniff"
            assert fields["Referrer-Policy"] == "no-referrer"
            assert fields["Cache-Control"] == "no-store"
            assert "Access-Control-Allow-Origin" not in fields


async def test_many_routes_keys_and_codes_of_clients_take_a_bounded_summary():
    server = dashboard()
    log = server._dashboard.endings
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        for code in range(4000, 4060):
            ws = await endwell.connect(url(server, "/app/x"))
            await within(ws.close(code))
        # Those of others are not hidden by them.
        ws = await endwell.connect(url(server, "/app/x"))
        await within(ws.close(1001))
        await until(lambda: len(log.recent) == 61)
        codes = (await client.summary())["endings"]["by_code"]
        assert len(codes) <= 52
        assert sum(codes.values()) == 61
        assert codes["other"] == 10
        assert codes["1001"] == 1


async def test_a_server_without_a_dashboard_has_no_such_page():
    server = Server()
    async with server.serving():
        assert (await status(server, "/_endwell/"))[0] == 404
        assert (await status(server, "/_endwell/feed", *UPGRADE))[0] == 404

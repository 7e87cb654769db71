"""HTTP requests of an ASGI application on endwell's own server."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from contextlib import asynccontextmanager

import pytest

from endwell import Server, TcpEnd
from endwell.asgi import ClientDisconnected
from tests.asgi.events import body, body_of, start
from tests.http1 import asked, request_of
from tests.pair import nothing_left_behind, until, within
from tests.raw import BOUND, HOST, PLAIN

CHUNKED = "Transfer-Encoding: chunked"


@asynccontextmanager
async def serving(app, transport=PLAIN, prefix="/", max_body=None, **options):
    """A server of ``app``, and a connection to it."""
    server = Server(**{"keep_alive_timeout": 4 * BOUND, **options})
    server.mount(prefix, app, lifespan="off", max_body=max_body)
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        peer.server = server
        yield peer


def responding(*events):
    """An application that reads the body and sends ``events``."""

    async def app(scope, receive, send):
        await body_of(receive)
        for event in events:
            await send(event)

    return app


async def echo(scope, receive, send):
    content = await body_of(receive)
    await send(start())
    await send(body(content))


# --- the scope ---------------------------------------------------------------------


async def test_the_scope_is_what_the_specification_asks_for(transport):
    scopes = []

    async def app(scope, receive, send):
        scopes.append(scope)
        await echo(scope, receive, send)

    async with serving(app, transport, "/api") as peer:
        request = request_of("PUT", "/api/a%20b%2Fc/%C3%9F?x=%20&y", b"z", "X-Name: V\u00e4lue", "x-name: 2")
        assert (await peer.ask(request)).body == b"z"
        (scope,) = scopes
        local = peer.peer.sock.getsockname()
        assert scope["type"] == "http"
        assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
        assert (scope["http_version"], scope["method"]) == ("1.1", "PUT")
        assert scope["scheme"] == ("http" if transport.server is None else "https")
        assert (scope["path"], scope["root_path"]) == ("/api/a b/c/\u00df", "/api")
        assert scope["raw_path"] == b"/api/a%20b%2Fc/%C3%9F"
        assert scope["query_string"] == b"x=%20&y"
        assert scope["headers"][:1] == [(b"host", b"localhost")]
        assert [value for name, value in scope["headers"] if name == b"x-name"] == [b"V\xc3\xa4lue", b"2"]
        assert (scope["client"], scope["server"]) == (local, (HOST, peer.server.port))
        assert scope["state"] == {}
        extensions = scope["extensions"]
        assert not extensions["endwell"]["draining"].is_set()
        # Applications write their scope as JSON, for debugging.
        assert json.loads(json.dumps(scope, default=str))["extensions"]["endwell"] == {}
        assert set(json.loads(json.dumps(extensions))) == set(extensions)
        assert ("tls" in extensions) is (transport.server is not None)
        if transport.server is not None:
            assert extensions["tls"]["tls_version"] == 0x0304
            assert extensions["tls"]["client_cert_chain"] == []


async def test_what_an_application_writes_into_a_scope_is_not_in_the_next_one():
    seen = []

    async def app(scope, receive, send):
        seen.append(repr(scope))
        for each in (scope, scope["asgi"], scope["state"], *scope["extensions"].values()):
            each["written"] = True
        scope["headers"].append((b"x-written", b""))
        scope["extensions"]["written"] = {}
        await echo(scope, receive, send)

    async with serving(app) as peer:
        for _ in range(3):
            await peer.ask(request_of("GET", "/"))
    assert seen == [seen[0]] * 3


async def test_the_scope_names_the_client_certificate():
    import trustme

    names, authority = [], trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    for context in (server, client):
        authority.configure_trust(context)
        authority.issue_cert(HOST, common_name='A, "B"').configure_cert(context)
    server.verify_mode = ssl.CERT_REQUIRED

    async def app(scope, receive, send):
        names.append(scope["extensions"]["tls"])
        await echo(scope, receive, send)

    class Mutual:
        pass

    Mutual.server, Mutual.client = server, client
    async with serving(app, Mutual) as peer:
        assert (await peer.ask(request_of())).status == 200
    (tls,) = names
    assert tls["client_cert_name"].startswith('CN=A\\, \\"B\\",')
    assert tls["client_cert_chain"][0].startswith("-----BEGIN CERTIFICATE-----")


async def test_a_unix_socket_has_a_path_and_no_client(tmp_path):
    scopes, path = [], str(tmp_path / "socket")

    async def app(scope, receive, send):
        scopes.append(scope)
        await echo(scope, receive, send)

    server = Server()
    server.mount("/", app, lifespan="off")
    async with server.serving(unix_path=path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(request_of("GET", "/", None, "Connection: close"))
        assert (await within(reader.read())).startswith(b"HTTP/1.1 200 ")
        writer.close()
    assert (scopes[0]["client"], scopes[0]["server"]) == (None, (path, None))


# --- the body of a request ------------------------------------------------------------


@pytest.mark.parametrize("bytewise", [False, True])
async def test_a_body_comes_in_parts_and_its_end_is_told(transport, bytewise):
    server = Server()
    server.mount("/", echo, lifespan="off")
    async with (
        nothing_left_behind(),
        server.serving(ssl=transport.server),
        asked(server, transport, bytewise=bytewise) as peer,
    ):
        assert (await peer.ask(request_of("POST", "/", b"hello"))).body == b"hello"
        chunked = request_of("POST", "/", None, CHUNKED) + b"3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nA: b\r\n\r\n"
        assert (await peer.ask(chunked)).body == b"hello"
        assert (await peer.ask(request_of("DELETE", "/"))).body == b""


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_body_of_get_and_head_is_passed_to_the_application(method, transport):
    bodies = []

    async def app(scope, receive, send):
        bodies.append(await body_of(receive))
        await send(start())
        await send(body())

    async def unread(scope, receive, send):
        await send(start())
        await send(body())

    chunked = request_of(method, "/", None, CHUNKED) + b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    for application in (app, unread):
        async with serving(application, transport, max_body=1000) as peer:
            for request in (request_of(method, "/", b"hello"), chunked, request_of(method, "/", b"")):
                assert (await peer.ask(request, method)).status == 200
            assert (await peer.ask(request_of(method), method)).status == 200
    assert bodies == [b"hello", b"hello", b"", b""]
    async with serving(app, transport, max_body=4) as peer:
        assert (await peer.ask(request_of(method, "/", b"hello"), method)).status == 413
    assert len(bodies) == 4


async def test_an_upgrade_with_a_body_does_not_reach_the_application(transport):
    """What follows its head could be read as frames."""
    called = []

    async def app(scope, receive, send):
        called.append(scope)

    async with serving(app, transport) as peer:
        request = request_of("GET", "/", b"hello", "Connection: Upgrade", "Upgrade: websocket")
        assert (await peer.ask(request)).status == 413
    assert called == []


async def test_a_large_body_is_read_only_as_fast_as_the_application_asks():
    go, sizes = asyncio.Event(), []

    async def app(scope, receive, send):
        await go.wait()
        while True:
            event = await receive()
            sizes.append(len(event["body"]))
            if not event["more_body"]:
                break
        await send(start())
        await send(body(b"%d" % sum(sizes)))

    size = 2**24
    async with serving(app) as peer:
        sending = asyncio.create_task(peer.send(request_of("POST", "/", bytes(size))))
        done, _ = await asyncio.wait([sending], timeout=0.3)
        assert not done
        go.set()
        await within(sending)
        assert (await peer.answer()).body == b"%d" % size
        assert max(sizes) < 2**20


async def test_100_continue_is_sent_when_the_application_asks_for_the_body(transport):
    go = asyncio.Event()

    async def app(scope, receive, send):
        await go.wait()
        await echo(scope, receive, send)

    async with serving(app, transport) as peer:
        for _ in range(2):
            await peer.send(request_of("POST", "/", None, "Content-Length: 5", "Expect: 100-Continue"))
            await peer.peer.is_silent(0.05)
            assert not peer.peer._received  # TLS may send tickets
            go.set()
            assert (await peer.answer()).status == 100
            await peer.send(b"hello")
            assert (await peer.answer()).body == b"hello"
            go.clear()
        # A client that does not wait has sent the body, and needs no 100.
        go.set()
        answer = await peer.ask(request_of("POST", "/", b"hello", "Expect: 100-continue"))
        assert (answer.status, answer.body) == (200, b"hello")


@pytest.mark.parametrize("expects", [False, True])
async def test_a_response_before_the_end_of_the_body(transport, expects):
    async def app(scope, receive, send):
        await send(start(413))
        await send(body(b"too large"))
        assert await receive() == {"type": "http.disconnect"}

    async with serving(app, transport) as peer:
        fields = ["Expect: 100-continue"] if expects else []
        await peer.send(request_of("POST", "/", None, "Content-Length: 5", *fields))
        answer = await peer.answer()
        assert (answer.status, answer.body) == (413, b"too large")
        # Whether a client that waits for a 100 sends the body after another answer is unknown.
        assert answer.closes is expects
        if not expects:
            await peer.send(b"hello" + request_of("POST", "/", b""))
            assert (await peer.answer()).status == 413


async def test_an_application_reads_and_answers_at_the_same_time(transport):
    async def app(scope, receive, send):
        await send(start())
        while True:
            event = await receive()
            await send(body(event["body"], event["more_body"]))
            if not event["more_body"]:
                return

    async with serving(app, transport) as peer:
        for _ in range(2):
            await peer.send(request_of("POST", "/", None, CHUNKED) + b"3\r\nabc\r\n")
            head = await peer.peer.read_head()
            assert "transfer-encoding: chunked" in head
            assert await peer.octets(8) == b"3\r\nabc\r\n"
            await peer.send(b"2\r\nde\r\n0\r\n\r\n")
            assert await peer.octets(12) == b"2\r\nde\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (request_of("POST", "/", None, CHUNKED) + b"5\r\nhello!\r\n", 400),
        (request_of("POST", "/", None, CHUNKED) + b"5\r\nhello\r\n7d0\r\n", 413),
        (request_of("POST", "/", None, "Content-Length: 2000"), 413),
        (request_of("POST", "/", None, "Content-Length: 5") + b"hell", 408),
    ],
    ids=["malformed", "large chunks", "large", "slow"],
)
async def test_a_body_that_breaks_a_rule_is_answered_by_the_server(transport, request_, status):
    told = []

    async def app(scope, receive, send):
        while (event := await receive())["type"] == "http.request":
            pass
        told.append(event)
        await send(start())  # has no effect
        await send(body(b"late"))

    body_timeout = 0.2 if status == 408 else BOUND
    async with serving(app, transport, max_body=1000, body_timeout=body_timeout) as peer:
        await peer.send(request_)
        assert (await peer.answer()).status == status
        assert await peer.rest() == b""
        assert told == [{"type": "http.disconnect"}]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_body_that_fails_behind_what_the_application_has_read_ends_the_connection(begun, transport):
    taken, go = asyncio.Event(), asyncio.Event()

    async def app(scope, receive, send):
        assert (await receive())["body"] == b"abc"
        if begun:
            await send(start())
            await send(body(b"x", True))
        taken.set()
        await go.wait()
        if not begun:
            await send(start())
        await send(body(b"y"))

    async with serving(app, transport) as peer:
        await peer.send(request_of("POST", "/", None, CHUNKED) + b"3\r\nabc\r\n")
        await within(taken.wait())
        await peer.send(b"malformed\r\n" + request_of(path="/smuggled"))
        (exchange,) = peer.server._listener.openings
        await until(lambda: not exchange.request_body().is_arriving)
        go.set()
        assert (await peer.answer()).body == (b"xy" if begun else b"y")
        assert await peer.rest() == b""


@pytest.mark.virtual_clock
async def test_a_slow_body_is_not_judged_while_the_application_does_something_else():
    async def app(scope, receive, send):
        content = b""
        for _ in range(5):
            content += (await receive())["body"]
            await asyncio.sleep(0.15)
        await send(start())
        await send(body(content))

    async with serving(app, body_timeout=0.3) as peer:
        await peer.send(request_of("POST", "/", None, "Content-Length: 5"))
        for octet in b"hello":
            await peer.send(bytes([octet]))
            await asyncio.sleep(0.15)
        assert (await peer.answer()).body == b"hello"


# --- the response -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("events", "fields", "content"),
    [
        ([start(), body(b"abc")], {"content-length": "3"}, b"abc"),
        ([start(), body()], {"content-length": "0"}, b""),
        ([start(), {"type": "http.response.body"}], {"content-length": "0"}, b""),
        ([start(), body(bytearray(b"abc"))], {"content-length": "3"}, b"abc"),
        ([start(), body(b"a", True), body(b"", True), body(b"bc")], {"transfer-encoding": "chunked"}, b"abc"),
        (
            [start(200, (b"Content-Length", b"3")), body(b"a", True), body(b"bc")],
            {"content-length": "3"},
            b"abc",
        ),
        ([start(200, (b"transfer-encoding", b"chunked")), body(b"abc")], {"content-length": "3"}, b"abc"),
        ([start(200, (b"X-A", b"1"), (b"x-a", b" 2 ")), body(b"")], {"x-a": "1"}, b""),
        ([start(200, (b"date", b"now"), (b"server", b"me")), body()], {"date": "now", "server": "me"}, b""),
        ([start(500), body(b"x")], {"server": "endwell"}, b"x"),
    ],
)
async def test_the_framing_of_a_response(events, fields, content, transport):
    async with serving(responding(*events), transport) as peer:
        for _ in range(2):
            answer = await peer.ask(request_of())
            assert (answer.status, answer.body, answer.closes) == (events[0]["status"], content, False)
            assert {name: answer.headers.get(name) for name in fields} == fields
            assert len(answer.headers.get_all("Date")) == len(answer.headers.get_all("Server")) == 1
        head = await peer.ask(request_of("HEAD"), "HEAD")
        assert head.headers.get("Content-Length") == answer.headers.get("Content-Length")
        assert (await peer.ask(request_of())).body == content


@pytest.mark.parametrize("status", [204, 304])
async def test_a_response_without_content_has_no_body(status, transport):
    app = responding(start(status, (b"content-length", b"3")), body(b"abc"))
    async with serving(app, transport) as peer:
        for _ in range(2):
            answer = await peer.ask(request_of())
            assert answer.status == status
            assert answer.headers.get("Content-Length") == (None if status == 204 else "3")


async def test_http_1_0_gets_no_chunks_and_sees_the_end_of_tcp(transport):
    app = responding(start(), body(b"a", True), body(b"bc"))
    async with serving(app, transport) as peer:
        answer = await peer.ask(request_of("GET", "/", None, "Connection: keep-alive", version="1.0"))
        assert (answer.body, answer.closes) == (b"abc", True)
    async with serving(responding(start(), body(b"abc")), transport) as peer:
        for _ in range(2):
            answer = await peer.ask(request_of("GET", "/", None, "Connection: keep-alive", version="1.0"))
            assert (answer.body, answer.headers["Connection"]) == (b"abc", "keep-alive")


async def test_an_application_can_end_the_connection(transport):
    async with serving(responding(start(200, (b"connection", b"close")), body(b"x")), transport) as peer:
        answer = await peer.ask(request_of())
        assert (answer.closes, answer.headers.get_all("Connection")) == (True, ["close"])
        assert await peer.rest() == b""


def refused(caplog):
    return [str(record.exc_info[1]) for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("events", "error"),
    [
        ([body(b"x")], "Expected ASGI message 'http.response.start', but got 'http.response.body'."),
        ([start(99)], "Invalid HTTP status code '99' in response."),
        ([start(101)], "Invalid HTTP status code '101' in response."),
        ([start(200, (b"a b", b"c"))], "header name b'a b' is not a token"),
        ([start(200, (b"", b"c"))], "header name b'' is not a token"),
        ([start(200, (b"a\r\nb", b"c"))], "header name b'a\\r\\nb' is not a token"),
        ([start(200, (b"a", b"b\r\nc: d"))], "value of header a contains CR, LF or NUL"),
        ([start(200, (b"a", b"b\0"))], "value of header a contains CR, LF or NUL"),
        ([start(200, ("a", "b"))], "the names and values of header fields must be bytes"),
        ([start(200, (b"content-length", b"-1"))], "Content-Length must occur once, with a number"),
        ([start(200, *[(b"content-length", b"1")] * 2)], "Content-Length must occur once, with a number"),
        (
            [start(200, (b"transfer-encoding", b"gzip"))],
            "Transfer-Encoding must be chunked: the server encodes the body",
        ),
        ([start(), start()], "Expected ASGI message 'http.response.body', but got 'http.response.start'."),
        ([start(), body("x")], "the body of a response must be bytes, not str"),
        ([start(200, (b"content-length", b"1")), body(b"xy")], "Response content longer than Content-Length"),
        ([start(200, (b"content-length", b"2")), body(b"x")], "Response content shorter than Content-Length"),
        (
            [start(), {"type": "websocket.send"}],
            "Expected ASGI message 'http.response.body', but got 'websocket.send'.",
        ),
    ],
)
async def test_an_event_that_breaks_a_rule_raises_at_the_call_and_nothing_of_it_is_sent(
    events, error, caplog
):
    async with serving(responding(*events)) as peer:
        answer = await peer.ask(request_of())
        assert (answer.status, answer.body) == (500, b"internal error\n")
        assert refused(caplog) == [error]


async def test_an_event_after_the_end_of_the_response_raises(caplog):
    async with serving(responding(start(), body(b"x"), body(b"y"))) as peer:
        assert (await peer.ask(request_of())).body == b"x"
        await until(lambda: refused(caplog))
        assert refused(caplog) == [
            "Unexpected ASGI message 'http.response.body' sent, after response already completed."
        ]
        assert (await peer.ask(request_of())).body == b"x"


@pytest.mark.parametrize("length", [False, True])
async def test_an_application_that_fails_within_its_response_cuts_the_connection(length, transport, caplog):
    async def app(scope, receive, send):
        await send(start(200, *([(b"content-length", b"9")] if length else [])))
        await send(body(b"abc", True))
        raise ValueError("broken")

    async with serving(app, transport) as peer:
        await peer.send(request_of())
        assert (await peer.peer.read_head()).startswith("HTTP/1.1 200 ")
        rest = await peer.rest()
        assert rest == (b"abc" if length else b"3\r\nabc\r\n")  # incomplete
        assert refused(caplog) == ["broken"]


@pytest.mark.parametrize("begun", [False, True])
async def test_an_application_that_returns_without_a_response(begun, transport, caplog):
    async with serving(responding(*[start(), body(b"x", True)] if begun else []), transport) as peer:
        await peer.send(request_of("GET", "/", None, "Connection: close"))
        assert (await peer.peer.read_head()).startswith(f"HTTP/1.1 {200 if begun else 500} ")
        assert not (await peer.rest()).endswith(b"0\r\n\r\n")
        what = "completing" if begun else "starting"
        assert caplog.messages[-1] == f"ASGI callable returned without {what} response."


async def test_a_failure_is_told_to_the_observers_and_logged_with_its_request(caplog):
    async def app(scope, receive, send):
        raise ValueError("broken")

    async with serving(app) as peer:
        told = []
        peer.server.on_refused(lambda request, status, reason: told.append((request.path, status, reason)))
        assert (await peer.ask(request_of(path="/a%0Ab"))).status == 500
        assert told == [("/a\nb", 500, "internal error")]
        port = peer.peer.sock.getsockname()[1]
        assert caplog.messages == [f"answering '/a%0Ab' for 127.0.0.1:{port} failed"]


async def test_send_waits_while_the_client_does_not_read(transport):
    sent = []

    async def app(scope, receive, send):
        await send(start())
        for _ in range(256):
            await send(body(bytes(2**16), True))
            sent.append(2**16)
        await send(body())

    async with serving(app, transport) as peer:
        await peer.send(request_of())
        await peer.peer.read_head()
        await until(lambda: sent)
        seen = -1
        while seen != len(sent):  # until the buffers of the kernel are full
            seen = len(sent)
            await asyncio.sleep(0.1)
        assert len(sent) < 256
        size = 0
        while length := int(await peer.line(), 16):
            size += len(await peer.octets(length))
            await peer.octets(2)
        assert size == 2**24


async def test_a_client_that_reads_nothing_is_cut_after_write_timeout():
    raised = []

    async def app(scope, receive, send):
        await send(start())
        try:
            while True:
                await send(body(bytes(2**20), True))
        except ClientDisconnected as exc:
            raised.append(exc.ending.tcp)

    async with serving(app, write_timeout=0.3) as peer:
        await peer.send(request_of())
        await until(lambda: raised)
        assert raised == [TcpEnd.ABORTED]
        await until(lambda: not peer.server._listener.openings)


async def test_an_application_that_never_waits_lets_other_tasks_run():
    ran = []

    async def app(scope, receive, send):
        asyncio.get_running_loop().call_soon(ran.append, True)
        await send(start())
        for _ in range(1000):
            await send(body(b"x", True))
        ran.append(False)
        await send(body())

    async with serving(app) as peer:
        assert (await peer.ask(request_of())).body == b"x" * 1000
        assert ran == [True, False]


# --- disconnects ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fin", "reset"])
@pytest.mark.parametrize("begun", [False, True])
async def test_a_disconnect_is_told_at_once(how, begun, transport, caplog):
    told, waiting = [], asyncio.Event()

    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        if begun:
            await send(start())
            await send(body(b"x", True))
        waiting.set()
        told.append(await receive())
        if how == "reset":
            with pytest.raises(ClientDisconnected) as raised:
                await send(body(b"y", True) if begun else start())
            assert isinstance(raised.value, OSError)
            assert raised.value.ending.tcp is TcpEnd.RST
            told.append(raised.value.ending)
            await send(body(b"y"))  # raises again, and that is no fault

    async with serving(app, transport) as peer:
        await peer.send(request_of())
        await within(waiting.wait())
        if begun:
            await peer.peer.read_head()
            await peer.octets(6)
        if how == "reset":
            peer.peer.reset()
        else:
            await peer.peer.send_close_notify()
            peer.peer.fin()
        await until(lambda: len(told) == (2 if how == "reset" else 1))
        assert told[0] == {"type": "http.disconnect"}
        await until(lambda: not peer.server._listener.openings)
        if how == "reset":
            assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_client_that_half_closes_gets_its_response():
    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        await send(start())
        await send(body(b"whole"))

    async with serving(app) as peer:
        await peer.send(request_of())
        peer.peer.fin()
        answer = await peer.answer()
        assert (answer.body, answer.closes) == (b"whole", True)
        assert await peer.rest() == b""


async def test_a_task_that_waits_in_receive_is_told_the_end_of_the_response():
    events = []

    async def app(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        waiting = asyncio.create_task(receive())
        await asyncio.sleep(0)
        await send(start())
        await send(body(b"x"))
        events.append(await waiting)
        events.append(await receive())

    async with serving(app) as peer:
        assert (await peer.ask(request_of())).body == b"x"
        await until(lambda: len(events) == 2)
        assert events == [{"type": "http.disconnect"}] * 2


async def test_a_client_that_goes_within_its_body_is_told_as_a_disconnect(transport):
    told = []

    async def app(scope, receive, send):
        told.append(await receive())
        told.append(await receive())

    async with serving(app, transport) as peer:
        await peer.send(request_of("POST", "/", None, "Content-Length: 5") + b"hel")
        await until(lambda: told)
        peer.peer.reset()
        await until(lambda: len(told) == 2)
        assert told[0]["body"] == b"hel"
        assert told[1] == {"type": "http.disconnect"}


# --- extensions -----------------------------------------------------------------------


async def test_trailers_are_sent_to_a_client_that_keeps_them(transport):
    async def app(scope, receive, send):
        assert ("http.response.trailers" in scope["extensions"]) is ((b"te", b"trailers") in scope["headers"])
        await send(start(trailers="http.response.trailers" in scope["extensions"]))
        await send(body(b"abc"))
        if "http.response.trailers" in scope["extensions"]:
            trailers = {"type": "http.response.trailers"}
            await send({**trailers, "headers": [(b"x-sum", b"1")], "more_trailers": True})
            await send({**trailers, "headers": [(b"x-more", b"2")]})

    async with serving(app, transport) as peer:
        answer = await peer.ask(request_of("GET", "/", None, "TE: trailers"))
        assert (answer.body, list(answer.trailers)) == (b"abc", [("x-sum", "1"), ("x-more", "2")])
        assert (await peer.ask(request_of())).body == b"abc"


async def test_early_hints_come_before_the_response(transport):
    async def app(scope, receive, send):
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        await send(start())
        await send(body(b"abc"))

    async with serving(app, transport) as peer:
        hint = await peer.ask(request_of())
        assert (hint.status, hint.headers["Link"]) == (103, "</a.css>; rel=preload")
        assert (await peer.answer()).body == b"abc"


@pytest.mark.parametrize("size", [0, 5, 2**20 + 1])
async def test_a_file_is_sent_by_its_path(transport, tmp_path, size):
    path, content = tmp_path / "file", bytes(range(256)) * (size // 256 + 1)
    path.write_bytes(content[:size])

    async def app(scope, receive, send):
        assert scope["extensions"]["http.response.pathsend"] == {}
        await send(start())
        await send({"type": "http.response.pathsend", "path": str(path)})

    async with serving(app, transport) as peer:
        answer = await peer.ask(request_of())
        assert answer.headers["Content-Length"] == str(size)
        assert answer.body == content[:size]
        assert (await peer.ask(request_of("HEAD"), "HEAD")).headers["Content-Length"] == str(size)
        assert (await peer.ask(request_of())).status == 200


async def test_a_file_that_does_not_exist_gives_500(tmp_path, caplog):
    app = responding(start(), {"type": "http.response.pathsend", "path": str(tmp_path / "none")})
    async with serving(app) as peer:
        assert (await peer.ask(request_of())).status == 500


async def test_the_kernel_is_not_asked_for_events_again_for_each_request():
    """Reading goes on while a request is answered, so two requests cost no system call of epoll."""
    calls = []
    async with serving(echo) as peer:
        assert (await peer.ask(request_of())).status == 200
        reactor = peer.server._listener.reactor
        for name in ("add_reader", "remove_reader"):
            if hasattr(reactor, name):
                method = getattr(reactor, name)
                try:
                    setattr(reactor, name, lambda *args, method=method: (calls.append(args), method(*args)))
                except AttributeError:
                    pytest.skip("the reactor is compiled")
        for _ in range(3):
            assert (await peer.ask(request_of())).status == 200
        assert calls == []

"""Applications below a prefix, beside the routes of the server: routing, lifespan, WebSockets and drains."""

from __future__ import annotations

import asyncio
import functools
import logging
import subprocess
import sys
import time

import pytest

from endwell import Cause, Response, Server
from endwell.asgi import StartupFailed
from tests.cli.process import PATIENCE
from tests.http1 import asked, request_of
from tests.pair import nothing_left_behind, until, within
from tests.raw import BOUND, NONCE, PROMPT


def upgrade(path, *fields):
    handshake = (
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {NONCE}",
    )
    return request_of("GET", path, None, *handshake, *fields)


def named(name):
    """An application that answers with its name and what it was told."""

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": f"{name} {scope['root_path']} {scope['path']}"})
            while (event := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": event["text"]})
            return
        assert scope["type"] == "http"
        while (await receive())["more_body"]:
            pass
        text = f"{name} {scope['root_path']} {scope['path']}"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": text.encode()})

    return app


def mounted(*prefixes, **options):
    server = Server(**options)
    for prefix in prefixes:
        server.mount(prefix, named(prefix), lifespan="off")
    return server


# --- which application ------------------------------------------------------------------


async def test_the_routes_of_the_server_win_and_then_the_longest_prefix(transport):
    server = mounted("/", "/api", "/api/v2/")
    server.get("/api/health")(lambda request: "own")
    server.get("/own/{name}")(lambda request, name: "own")
    server.websocket("/api/ws")(lambda ws: ws.send("own"))
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        for path, body in (
            ("/", "/  /"),
            ("/x", "/  /x"),
            ("/api", "/api /api /api"),
            ("/api/", "/api /api /api/"),
            ("/%61pi/%20", "/api /api /api/ "),
            ("/apix", "/  /apix"),
            ("/api/v2/x", "/api/v2/ /api/v2 /api/v2/x"),
            ("/api/v2%2Fx", "/api /api /api/v2/x"),
            ("/api/health", "own"),
            ("/own/x", "own"),
            ("/own/x/y", "/  /own/x/y"),
            ("/api/ws", "/api /api /api/ws"),  # a plain request for a path that only a WebSocket has
            ("/%ff", "/  /\ufffd"),
        ):
            answer = await peer.ask(request_of(path=path))
            assert (answer.status, answer.body.decode()) == (200, body), path
        assert (await peer.ask(request_of("POST", "/api/health", b""))).status == 405


async def test_a_path_that_a_proxy_has_removed_is_part_of_the_root_path():
    server = Server()
    server.mount("/api", named("x"), lifespan="off", root_path="/site/")
    with pytest.raises(ValueError, match="root_path 'site' must be a path"):
        server.mount("/y", named("y"), root_path="site")
    async with server.serving(), asked(server) as peer:
        assert (await peer.ask(request_of(path="/api/x"))).body == b"x /site/api /site/api/x"


@pytest.mark.parametrize("method", ["PROPFIND", "QUERY", "OPTIONS", "DELETE"])
async def test_a_method_that_no_route_has_reaches_the_application(method):
    server = mounted("/")
    server.get("/own")(lambda request: "own")
    async with server.serving(), asked(server) as peer:
        assert (await peer.ask(request_of(method, "/x", b"<body/>"))).body == b"/  /x"
        assert (await peer.ask(request_of(method, "/own", b""))).status == 405
    async with server.serving(), asked(server) as peer:
        assert (await peer.ask(request_of("BREW", "/x"))).status == 501


@pytest.mark.parametrize("path", ["/api/chat", "/x"])
async def test_a_websocket_reaches_the_application_of_its_path(path, transport):
    server = mounted("/", "/api")
    opened, ended = [], []
    server.on_open(opened.append)
    server.on_close(lambda ws, ending: ended.append(ending))
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        assert (await peer.ask(request_of(path="/api"))).status == 200
        await peer.send(upgrade(path) + peer.peer.octets(1, b"early"))
        assert (await peer.answer()).status == 101
        prefix = "/api" if path.startswith("/api") else "/"
        told = f"{prefix} {prefix.rstrip('/')} {path}".encode()
        assert (await peer.peer.read_frame()).payload == told
        assert (await peer.peer.read_frame()).payload == b"early"
        await peer.peer.close()
        assert (await peer.peer.read_to_the_end()).close.code == 1000
        peer.peer.fin()
        await until(lambda: ended)
        assert (len(opened), ended[0].cause) == (1, Cause.PEER_CLOSED)


async def test_the_handshake_is_checked_before_the_application_is_called():
    server, refused = Server(), []
    server.on_refused(lambda request, status, reason: refused.append(status))

    async def app(scope, receive, send):
        raise AssertionError("called")

    server.mount("/", app, lifespan="off")
    async with server.serving():
        for request, status in (
            (upgrade("/", "Origin: http://evil.example"), 403),
            (upgrade("/").replace(b"Version: 13", b"Version: 12"), 426),
        ):
            async with asked(server) as peer:
                answer = await peer.ask(request)
                assert (answer.status, answer.closes or answer.status == 426) == (status, True)
        assert refused == [403, 426]


async def test_the_options_of_a_mount_are_those_of_its_websockets():
    server = Server()
    server.mount("/", named("x"), lifespan="off", origins=["*"], max_size=10)
    async with server.serving(), asked(server) as peer:
        assert (await peer.ask(upgrade("/", "Origin: http://other.example"))).status == 101
        await peer.peer.read_frame()
        await peer.peer.frame(1, b"x" * 11)
        assert (await peer.peer.read_close()).code == 1009


async def test_a_mount_with_options_has_the_servers_current_ones_for_the_rest():
    server = Server(origins=["https://old.example"])
    server.mount("/", named("x"), lifespan="off", max_size=10)
    server.options = server.options.replace(origins=["https://new.example"])
    async with server.serving(), asked(server) as peer:
        assert (await peer.ask(upgrade("/", "Origin: https://old.example"))).status == 403
    async with server.serving(), asked(server) as peer:
        assert (await peer.ask(upgrade("/", "Origin: https://new.example"))).status == 101


async def test_a_denied_websocket_and_one_whose_client_goes(transport):
    told = asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        if scope["path"] == "/deny":
            await send({"type": "websocket.http.response.start", "status": 402, "headers": [(b"x", b"y")]})
            await send({"type": "websocket.http.response.body", "body": b"pay"})
        else:
            assert (await receive())["code"] == 1006
            told.set()

    server = Server()
    server.mount("/", app, lifespan="off")
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        async with asked(server, transport) as peer:
            answer = await peer.ask(upgrade("/deny"))
            assert (answer.status, answer.body, answer.headers["X"]) == (402, b"pay", "y")
            assert answer.closes
        async with asked(server, transport) as peer:
            await peer.send(upgrade("/wait"))
            await until(lambda: server._dispatcher.tasks)
            peer.peer.reset()
            await within(told.wait())


async def test_hooks_run_before_the_application(transport):
    server = Server(open_timeout=2.5)

    @server.process_request
    async def hook(request):
        if request.path == "/refused":
            return Response.text("no", 401)
        if request.method == "POST":
            assert await request.body() == b"hello"
        return None

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await named("/")(scope, receive, send)
            return
        event = await receive()
        await asyncio.sleep(2.6)  # open_timeout does not limit an application
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": event["body"]})

    server.mount("/", app, lifespan="off")
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        assert (await peer.ask(request_of(path="/refused"))).status == 401
        assert (await peer.ask(request_of("POST", "/", b"hello"))).body == b"hello"
        assert (await peer.ask(upgrade("/"))).status == 101


async def test_allowed_hosts_hold_for_an_application():
    server = mounted("/", allowed_hosts=["chat.example"])
    async with server.serving(), asked(server) as peer:
        assert (await peer.ask(request_of())).status == 421


async def test_a_mount_that_cannot_be_is_refused_at_the_call():
    server = mounted("/api")
    for prefix in ("api", "", "/a//b", "/{x}", "/a?b", "/%61"):
        with pytest.raises(ValueError, match="must be a path"):
            server.mount(prefix, named("x"))
    with pytest.raises(ValueError, match="already mounted at '/api'"):
        server.mount("/api/", named("x"))
    with pytest.raises(TypeError, match="neither an ASGI application"):
        server.mount("/x", lambda: None)
    with pytest.raises(TypeError, match="must be callable"):
        server.mount("/x", "app")
    with pytest.raises(ValueError, match='"auto", "on" or "off"'):
        server.mount("/x", named("x"), lifespan="maybe")
    with pytest.raises(ValueError, match="max_body must be positive"):
        server.mount("/x", named("x"), max_body=0)
    with pytest.raises(ValueError, match="root_path 'api' must be a path"):
        server.mount("/x", named("x"), root_path="api")
    with pytest.raises(TypeError, match="root_path must be a str"):
        server.mount("/x", named("x"), root_path=None)
    with pytest.raises(TypeError, match="unexpected keyword argument 'max_sise'; did you mean 'max_size'"):
        server.mount("/x", named("x"), max_sise=1)
    async with server.serving():
        with pytest.raises(ValueError, match="while the server serves"):
            server.mount("/y", named("y"))


# --- other kinds of applications ----------------------------------------------------------


class Double:
    """An application of ASGI 2."""

    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        assert self.scope["asgi"]["version"] == "2.0"
        await named("double")(self.scope, receive, send)


async def test_an_application_of_asgi_2():
    server = Server()
    server.mount("/class", Double)
    server.mount("/function", functools.partial(Double))
    async with server.serving(), asked(server) as peer:
        assert (await peer.ask(request_of(path="/class/x"))).body == b"double /class /class/x"
        assert (await peer.ask(request_of(path="/function"))).body == b"double /function /function"


async def test_a_wsgi_application_needs_a2wsgi(monkeypatch):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"wsgi"]

    monkeypatch.setitem(sys.modules, "a2wsgi", None)
    with pytest.raises(ImportError, match="pip install a2wsgi"):
        Server().mount("/", app)

    class WSGIMiddleware:
        def __init__(self, app):
            self.app = app

        async def __call__(self, scope, receive, send):
            assert scope["type"] == "http"  # WSGI has no lifespan
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": self.app({}, lambda *_: None)[0]})

    class Module:
        pass

    Module.WSGIMiddleware = WSGIMiddleware
    monkeypatch.setitem(sys.modules, "a2wsgi", Module)
    server = Server()
    server.mount("/", app)
    async with server.serving(), asked(server) as peer:
        assert (await peer.ask(request_of())).body == b"wsgi"


# --- the lifespan ---------------------------------------------------------------------------


class Living:
    """An application that supports the lifespan protocol, and what it was told."""

    def __init__(self, startup="complete", shutdown="complete"):
        self.answers = {"lifespan.startup": startup, "lifespan.shutdown": shutdown}
        self.events = []
        self.states = []

    async def __call__(self, scope, receive, send):
        if scope["type"] != "lifespan":
            self.states.append(scope["state"])
            scope["state"]["own"] = len(self.states)
            await named("living")(scope, receive, send)
            return
        scope["state"]["pool"] = []
        while True:
            event = await receive()
            self.events.append(event["type"])
            answer = self.answers[event["type"]]
            if answer == "raise":
                raise ValueError("broken")
            await send({"type": f"{event['type']}.{answer}", "message": "why"})
            if event["type"] == "lifespan.shutdown":
                return


async def test_the_lifespan_begins_before_the_server_listens_and_ends_after_the_connections():
    app, server = Living(), Server()
    server.mount("/", app, lifespan="on")
    server.on_start(lambda: app.events.append("on_start"))
    async with nothing_left_behind(), server.serving():
        assert app.events == ["lifespan.startup", "on_start"]
        async with asked(server) as peer:
            assert (await peer.ask(request_of())).status == 200
            assert (await peer.ask(upgrade("/"))).status == 101
            first, second = app.states
            assert (first["own"], second["own"], first["pool"] is second["pool"]) == (1, 2, True)
            await peer.peer.read_frame()
            draining = asyncio.create_task(server.drain())
            await peer.peer.read_close()
            assert app.events[-1] == "on_start"
            await peer.peer.close(1001)
            peer.peer.fin()
            await within(draining)
    assert app.events[-1] == "lifespan.shutdown"
    async with server.serving():  # a second time
        assert app.events[-2:] == ["lifespan.startup", "on_start"]


async def test_a_startup_that_fails_keeps_the_server_from_starting():
    server, started = Server(), []
    server.mount("/first", Living())
    server.mount("/second", Living("failed"))
    server.on_start(lambda: started.append(True))
    async with nothing_left_behind():
        with pytest.raises(StartupFailed, match=r"^the application could not start: why$"):
            async with server.serving():
                raise AssertionError("serves")
    assert not started


PROGRAM = """
import endwell

async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})

server = endwell.Server()
server.mount("/", app)
server.run(port=0)
"""


def test_a_process_whose_application_cannot_start_exits_with_status_3():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=False, capture_output=True, text=True, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (3, "the application could not start: no database\n")


@pytest.mark.parametrize("app", [Living("raise"), named("x")], ids=["raises", "asserts"])
async def test_an_application_without_lifespan_is_served_unless_it_must_have_one(app, caplog):
    caplog.set_level(logging.INFO)
    server = Server()
    server.mount("/", app)
    async with nothing_left_behind(), server.serving(), asked(server) as peer:
        assert (await peer.ask(request_of())).status == 200
    # A startup that fails looks the same.
    (line,) = [each for each in caplog.messages if "lifespan" in each]
    assert line.startswith("the application has no lifespan: it raised ")
    server = Server()
    server.mount("/", app, lifespan="on")
    with pytest.raises(StartupFailed, match="does not support the lifespan protocol"):
        async with server.serving():
            raise AssertionError("serves")


async def test_off_sends_no_lifespan_events():
    app, server = Living(), Server()
    server.mount("/", app, lifespan="off")
    async with nothing_left_behind(), server.serving():
        pass
    assert app.events == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("failed", "the application could not shut down: why"),
        ("raise", "Exception in ASGI application at its shutdown"),
    ],
)
async def test_a_shutdown_that_fails_is_logged(answer, message, caplog):
    server = Server()
    server.mount("/", Living(shutdown=answer))
    async with nothing_left_behind(), server.serving():
        pass
    assert message in caplog.messages


# --- drains -----------------------------------------------------------------------------------


async def test_a_drain_completes_requests_refuses_newcomers_and_tells_the_application(transport):
    told, go = [], asyncio.Event()

    async def app(scope, receive, send):
        told.append(scope["extensions"]["endwell"]["draining"])
        await go.wait()
        await named("late")(scope, receive, send)

    server = Server()
    server.mount("/", app, lifespan="off")
    async with (
        nothing_left_behind(),
        server.serving(ssl=transport.server),
        asked(server, transport) as peer,
        asked(server, transport) as second,
    ):
        await peer.send(request_of())
        await until(lambda: told)
        draining = asyncio.create_task(server.drain(deadline=BOUND))
        await within(told[0].wait())
        answer = await second.ask(request_of())
        assert (answer.status, answer.closes) == (503, True)
        assert int(answer.headers["Retry-After"]) >= 0
        go.set()
        answer = await peer.answer()
        assert (answer.body, answer.closes) == (b"late  /", True)
        report = await within(draining)
        assert (report.refused, report.stuck) == (1, ())


@pytest.mark.parametrize("begun", [False, True])
async def test_a_request_that_outlasts_the_drain_is_cancelled(begun):
    told = asyncio.Event()

    async def app(scope, receive, send):
        if begun:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        told.set()
        await asyncio.sleep(3600)

    server = Server()
    server.mount("/", app, lifespan="off")
    async with nothing_left_behind(), server.serving(), asked(server) as peer:
        await peer.send(request_of())
        await within(told.wait())
        began = time.monotonic()
        report = await server.drain(deadline=0.1)
        assert report.refused == (0 if begun else 1), "a response that is cut is not a refusal"
        assert time.monotonic() - began < PROMPT
        if begun:
            await peer.peer.read_head()
            assert await peer.rest() == b"1\r\nx\r\n"
        else:
            assert (await peer.answer()).status == 503


async def test_a_websocket_that_the_application_has_not_accepted_is_refused_by_a_drain():
    events = []

    async def app(scope, receive, send):
        events.append(await receive())
        events.append(await receive())

    server = Server()
    server.mount("/", app, lifespan="off")
    async with nothing_left_behind(), server.serving(), asked(server) as peer:
        await peer.send(upgrade("/"))
        await until(lambda: events)
        await server.drain(deadline=2 * PROMPT)
        assert (await peer.answer()).status == 503
        assert events[1]["type"] == "websocket.disconnect"


async def test_a_drain_closes_the_websockets_of_an_application():
    server = mounted("/")
    async with nothing_left_behind(), server.serving(), asked(server) as peer:
        assert (await peer.ask(upgrade("/"))).status == 101
        await peer.peer.read_frame()
        draining = asyncio.create_task(server.drain())
        assert (await peer.peer.read_close()).code == 1001
        await peer.peer.close(1001)
        peer.peer.fin()
        report = await within(draining)
        assert (report.connections, report.cancelled, report.stuck) == (1, 0, ())

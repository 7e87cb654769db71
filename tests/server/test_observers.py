"""Who is told of a connection that opens, ends, or is refused."""

from __future__ import annotations

import logging
import threading
from contextvars import ContextVar

import pytest

import endwell
from endwell import Server
from endwell.metrics.meter import Meter
from endwell.server.observers import Observers
from tests.http1 import asked, request_of
from tests.pair import nothing_left_behind, until
from tests.raw import RawPeer


async def test_on_open_runs_before_the_handler_and_before_on_close(face, transport):
    server, told = Server(), []

    @server.on_open
    def opened(ws):
        told.append(("open", ws.request.path, ws.is_open, type(ws).__module__))

    server.on_close(lambda ws, ending: told.append("close"))

    async def script(ws):
        told.append("handler")
        await ws.close()

    server.websocket("/")(face.handler(script))
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        with await RawPeer.connect(server.port, transport.client) as peer:
            await peer.read_to_the_end(answer=True)
            peer.fin()
            await until(lambda: "close" in told)
    module = "endwell.aio.websocket" if "asyncio" in type(face).__name__.lower() else "endwell.sync.websocket"
    assert told == [("open", "/", True, module), "handler", "close"]


async def test_on_open_of_a_plain_handler_runs_in_the_handlers_thread():
    server, threads = Server(), []
    server.on_open(lambda ws: threads.append(threading.current_thread()))

    @server.websocket("/")
    def handler(ws):
        threads.append(threading.current_thread())

    async with server.serving():
        with await RawPeer.connect(server.port) as peer:
            await peer.read_to_the_end(answer=True)
    assert len(threads) == 2
    assert threads[0] is threads[1] is not threading.main_thread()


async def test_context_variables_of_on_open_are_those_of_one_connection(face):
    """Its handler and its on_close callbacks see them, and no other connection does."""
    server, seen, user = Server(), [], ContextVar("user", default="nobody")

    @server.on_open
    def opened(ws):
        seen.append(("open", user.get()))
        user.set(ws.request.path)

    server.on_close(lambda ws, ending: seen.append(("close", user.get())))

    async def script(ws, name):
        seen.append(("handler", user.get()))

    server.websocket("/{name}")(face.handler(script))

    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})

    server.mount("/app", application, lifespan="off")
    async with server.serving():
        for path, count in ("/a", 3), ("/b", 6), ("/app/c", 8):
            async with endwell.connect(f"ws://127.0.0.1:{server.port}{path}") as ws:
                await ws.closed
            await until(lambda count=count: len(seen) == count)
    handled = [(step, user) for user in ("/a", "/b") for step in ("open", "handler", "close")]
    mounted = [("open", "/app/c"), ("close", "/app/c")]
    assert seen == [(step, "nobody" if step == "open" else user) for step, user in handled + mounted]


async def test_the_log_line_of_an_exception_is_written_in_the_context_of_the_handler(face):
    server, seen, user = Server(), [], ContextVar("user", default="nobody")

    class Handler(logging.Handler):
        def emit(self, record):
            seen.append(user.get())

    async def script(ws):
        user.set("ada")
        raise ValueError

    server.websocket("/")(face.handler(script))
    handler = Handler()
    logging.getLogger("endwell.server").addHandler(handler)
    try:
        async with server.serving(), endwell.connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.closed
    finally:
        logging.getLogger("endwell.server").removeHandler(handler)
    assert seen == ["ada"]


async def test_the_log_line_of_an_exception_has_the_route_and_the_cause_as_fields(face, caplog):
    server = Server()

    async def script(ws, name):
        raise ValueError(name)

    server.websocket("/handler/{name}")(face.handler(script))

    @server.websocket("/accept/{name}", accept=lambda request: 1 / 0)
    async def never(ws, name):
        pass

    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        raise ValueError

    server.mount("/app", application, lifespan="off")
    async with server.serving():
        url = f"ws://127.0.0.1:{server.port}"
        for path in ("/handler/a", "/app/b"):
            async with endwell.connect(url + path) as ws:
                await ws.closed
        with pytest.raises(endwell.HandshakeRejected):
            await endwell.connect(f"{url}/accept/c")
    fields = [(record.route, getattr(record, "cause", None)) for record in caplog.records if record.exc_info]
    assert fields == [
        ("/handler/{name}", "handler_error"),
        ("/app/{path:path}", "handler_error"),
        ("/accept/{name}", None),
    ]


async def test_a_request_names_its_route_for_the_labels_of_metrics(face, transport):
    server, routes = Server(), []
    server.on_open(lambda ws: routes.append(ws.request.route))
    server.on_refused(lambda request, status, reason: routes.append((status, request.route)))

    @server.process_request
    def not_known_yet(request):
        assert request.route is None

    async def script(ws, room):
        routes.append(ws.request.route)

    server.websocket("/rooms/{room}")(face.handler(script))
    server.get("/pages/{page}")(lambda request, page: f"{request.route} {page}")

    @server.get("/coroutines/{page}")
    async def page(request, page):
        return f"{request.route} {page}"

    async def mounted(scope, receive, send):
        raise ValueError

    server.mount("/app", mounted, lifespan="off")
    async with nothing_left_behind(), server.serving(ssl=transport.server):
        async with asked(server, transport) as peer:
            assert (await peer.ask(request_of(path="/pages/1"))).body == b"/pages/{page} 1"
            assert (await peer.ask(request_of(path="/coroutines/1"))).body == b"/coroutines/{page} 1"
            assert (await peer.ask(request_of(path="/app/1"))).status == 500
        async with asked(server, transport) as peer:
            await peer.send(peer.peer.request("/rooms/1").replace(b"Host", b"Origin: http://evil\r\nHost"))
            assert (await peer.answer()).status == 403
        async with asked(server, transport) as peer:
            await peer.send(peer.peer.request("/rooms/1"))
            assert (await peer.answer()).status == 101
            await peer.peer.read_to_the_end(answer=True)
            peer.peer.fin()
    assert routes == [(500, "/app/{path:path}"), (403, "/rooms/{room}"), "/rooms/{room}", "/rooms/{room}"]


async def test_a_connection_that_is_refused_does_not_open():
    server, told = Server(), []
    server.on_open(told.append)
    server.on_refused(lambda request, status, reason: told.append(status))
    async with server.serving():
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(peer.request("/nowhere"))
            assert (await peer.read_head()).startswith("HTTP/1.1 404 ")
    assert told == [404]


async def test_a_failing_on_open_is_logged_and_the_handler_runs(caplog):
    server, ran = Server(), []
    server.on_open(lambda ws: 1 / 0)

    @server.websocket("/")
    async def handler(ws):
        ran.append(ws)

    async with server.serving():
        with await RawPeer.connect(server.port) as peer:
            await peer.read_to_the_end(answer=True)
    assert len(ran) == 1
    assert [record.msg for record in caplog.records if record.levelname == "ERROR"] == [
        "on_open callback %r failed"
    ]


def test_a_coroutine_function_is_no_observer():
    async def callback(*_):
        pass

    observers = Observers(Meter())
    for add in (observers.add_open, observers.add_close, observers.add_refused):
        with pytest.raises(TypeError, match="must be a plain function"):
            add(callback)

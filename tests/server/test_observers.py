"""Who is told of a connection that opens, ends, or is refused."""

from __future__ import annotations

import threading

import pytest

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

"""Plain functions as handlers: they block a thread, never the event loop."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import AsyncExitStack

import pytest

import endwell
from endwell import Cause, ConnectionClosed
from endwell.server import threads
from tests.cli.process import PATIENCE
from tests.pair import within
from tests.raw import BOUND, PROMPT


async def fetch(server, path="/"):
    """The response to a plain request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
    text = (await within(reader.read())).decode()
    writer.close()
    return text


def url(server, path="/"):
    return f"ws://127.0.0.1:{server.port}{path}"


async def test_plain_and_async_handlers_work_side_by_side():
    server = endwell.Server()
    where = []

    @server.websocket("/plain/{name}")
    def plain(ws, name):
        where.append(threading.current_thread())
        assert isinstance(ws, endwell.sync.WebSocket)
        assert ws.request.params == {"name": name}
        for message in ws:
            ws.send(f"{name}: {message}")

    @server.websocket("/async")
    async def in_the_loop(ws):
        assert isinstance(ws, endwell.WebSocket)
        async for message in ws:
            await ws.send(message)

    @server.get("/page")
    def page(request):
        where.append(threading.current_thread())
        return "a page"

    @server.process_request
    def hook(request):
        where.append(threading.current_thread())
        return endwell.Response.text("no", 403) if request.path == "/forbidden" else None

    async with server.serving():
        async with (
            endwell.connect(url(server, "/plain/one")) as a,
            endwell.connect(url(server, "/async")) as b,
        ):
            await a.send("hello")
            await b.send("hello")
            assert await a.recv() == "one: hello"
            assert await b.recv() == "hello"
        assert "a page" in await fetch(server, "/page")
        assert "403" in await fetch(server, "/forbidden")
    assert len(where) == 6
    assert threading.current_thread() not in where
    await until_gone("endwell handler", "endwell page")


async def until_gone(*names):
    """Until no thread with such a name is left."""
    async with asyncio.timeout(BOUND):
        while any(thread.name.startswith(names) for thread in threading.enumerate()):
            await asyncio.sleep(0.01)


async def test_the_result_of_a_plain_handler_decides_the_ending(caplog):
    server = endwell.Server()
    told = []

    @server.websocket("/returns")
    def returns(ws):
        ws.send("last words")

    @server.websocket("/raises")
    def raises(ws):
        raise RuntimeError("secret")

    @server.websocket("/closes")
    def closes(ws):
        ws.close(4000, "enough")
        ws.recv()  # raises ConnectionClosed, which is no error

    @server.on_close
    def ended(ws, ending):
        told.append((type(ws), ws.request.path, ending.cause, threading.current_thread()))

    async with server.serving():
        ends = {}
        for path in ("/returns", "/raises", "/closes"):
            ws = await endwell.connect(url(server, path))
            words = [message async for message in ws]
            ends[path] = (words, ws.ending.code, ws.ending.reason)
        async with asyncio.timeout(BOUND):
            while len(told) < 3:
                await asyncio.sleep(0.001)
    assert ends == {
        "/returns": (["last words"], 1000, ""),
        "/raises": ([], 1011, ""),
        "/closes": ([], 4000, "enough"),
    }
    # Each in a thread of its own, so in no particular order.
    assert {(kind, path, cause) for kind, path, cause, _ in told} == {
        (endwell.sync.WebSocket, "/returns", Cause.HANDLER_RETURNED),
        (endwell.sync.WebSocket, "/raises", Cause.HANDLER_ERROR),
        (endwell.sync.WebSocket, "/closes", Cause.APP_CLOSED),
    }
    assert threading.current_thread() not in [thread for *_, thread in told]
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "secret" in record.exc_text


@pytest.mark.parametrize("busy", ["sleeps", "computes"])
async def test_pings_and_a_close_are_answered_while_a_handler_is_busy(busy):
    server = endwell.Server()
    release = threading.Event()
    states = []

    @server.websocket("/")
    def handle(ws):
        ws.on_close(lambda ending: states.append((ws.is_open, ending)))
        while not release.is_set():
            if busy == "sleeps":
                time.sleep(0.01)
        states.append("done")

    async with server.serving():
        ws = await endwell.connect(url(server))
        await within(ws.ping())
        ending = await within(ws.close())
        assert ending.clean
        async with asyncio.timeout(BOUND):
            while not states:
                await asyncio.sleep(0.001)
        assert states[0] == (False, states[0][1])
        assert states[0][1].clean
        release.set()
    assert states[1] == "done"


async def test_500_idle_blocking_handlers_delay_no_other():
    server = endwell.Server()

    @server.websocket("/idle")
    def idle(ws):
        ws.read()

    @server.websocket("/async")
    async def echo(ws):
        await ws.send(await ws.recv())

    @server.get("/")
    def page(request):
        return "a page"

    async with server.serving(), AsyncExitStack() as stack:
        for _ in range(10):
            some = [endwell.connect(url(server, "/idle"), ping_interval=None) for _ in range(50)]
            for ws in await asyncio.gather(*(stack.enter_async_context(each) for each in some)):
                assert ws.is_open
        async with endwell.connect(url(server, "/async")) as ws:
            await ws.send("hello")
            assert await within(ws.recv()) == "hello"
        assert "a page" in await fetch(server)
        assert len(server.connections) == 500
    await until_gone("endwell handler")


async def test_above_max_threads_connections_get_503_until_a_thread_is_free():
    server = endwell.Server(max_threads=2)

    @server.websocket("/")
    def idle(ws):
        ws.read()

    @server.websocket("/async")
    async def echo(ws):
        await ws.send("here")

    @server.get("/page")
    def page(request):
        return "a page"

    async with server.serving():
        async with endwell.connect(url(server)), endwell.connect(url(server)):
            with pytest.raises(endwell.HandshakeRejected) as refused:
                await endwell.connect(url(server))
            assert refused.value.response.status == 503
            assert int(refused.value.response.headers["Retry-After"]) >= 1
            async with endwell.connect(url(server, "/async")) as ws:
                assert await within(ws.recv()) == "here"
            assert "a page" in await fetch(server, "/page")
        async with asyncio.timeout(BOUND):
            while True:
                try:
                    ws = await endwell.connect(url(server))
                except endwell.HandshakeRejected:
                    await asyncio.sleep(0.01)
                else:
                    break
        await ws.close()


async def test_pages_beyond_their_threads_wait_in_order(monkeypatch):
    monkeypatch.setattr(threads, "PAGES", 2)
    server = endwell.Server()
    running, most, both = [], [], threading.Barrier(2)

    @server.get("/")
    def slow(request):
        running.append(1)
        most.append(len(running))
        both.wait(BOUND)
        time.sleep(0.05)  # for a third
        running.pop()
        return "a page"

    async with server.serving():
        answers = await asyncio.gather(*(fetch(server) for _ in range(6)))
    assert all("a page" in answer for answer in answers)
    assert max(most) == 2


@pytest.mark.parametrize(("wrong", "error"), [(0, ValueError), (True, TypeError), ("ten", TypeError)])
def test_max_threads_must_be_a_positive_number(wrong, error):
    with pytest.raises(error, match="max_threads"):
        endwell.Server(max_threads=wrong)


async def test_stop_closes_with_1001_and_waits_for_the_threads(transport):
    server = endwell.Server()
    cleaned = []

    @server.websocket("/")
    def handle(ws):
        try:
            ws.recv()
        except ConnectionClosed as exc:
            time.sleep(0.2)
            cleaned.append(exc.ending.cause)

    async with server.serving(ssl=transport.server, grace=2 * BOUND):
        scheme = "ws" if transport.client is None else "wss"
        uri = f"{scheme}://127.0.0.1:{server.port}/"
        ws = await endwell.connect(uri, ssl=transport.client)
        reading = asyncio.ensure_future(ws.read())
        await asyncio.sleep(0.05)
    await reading
    assert ws.ending.code == 1001
    assert cleaned == [Cause.SERVER_DRAINED]


async def test_a_thread_that_never_returns_is_logged_and_left_running(monkeypatch, caplog):
    monkeypatch.setattr("endwell.server.drain.timetable.CLEANUP_TIME", 0.1)
    server = endwell.Server()
    release = threading.Event()

    @server.websocket("/")
    def handle(ws):
        release.wait()

    async with server.serving(grace=0.1):
        ws = await endwell.connect(url(server))
    await within(ws.wait_closed())
    assert re.search("handlers still running: 1 x .*handle", caplog.text)
    release.set()


async def test_a_page_that_outlives_a_stop_takes_no_place_of_a_handler():
    server = endwell.Server(max_threads=1)
    entered, release = threading.Event(), threading.Event()

    @server.get("/page")
    def page(request):
        entered.set()
        release.wait()

    @server.websocket("/")
    def handle(ws):
        ws.send("here")

    async with server.serving(grace=0):
        fetching = asyncio.ensure_future(fetch(server, "/page"))
        await asyncio.to_thread(entered.wait)
    release.set()
    await asyncio.wait([fetching])
    async with server.serving(), endwell.connect(url(server)) as ws:
        assert await within(ws.recv()) == "here"


async def test_a_handler_without_a_thread_fails_and_leaves_nothing(monkeypatch, caplog):
    server = endwell.Server()

    @server.websocket("/")
    def handle(ws):
        pytest.fail("there is no thread")

    def refuse(worker):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("endwell.sync.threads._PoolThread.go", refuse)
    async with server.serving():
        ws = await endwell.connect(url(server))
        assert (await within(ws.closed)).received.code == 1011
        report = await server.drain(deadline=4 * PROMPT)
    assert (report.stuck, report.duration < PROMPT) == ((), True)
    assert "can't start new thread" in caplog.text


def test_run_serves_plain_handlers_until_sigterm_and_joins_them():
    program = """
        import logging, endwell
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        server = endwell.Server()

        @server.websocket("/")
        def handle(ws):
            for message in ws:
                ws.send(message)
            print("cleanup:", ws.ending.cause.name, flush=True)

        server.run("127.0.0.1", 0)
        print("done", flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            port = process.stderr.readline().strip().rpartition(":")[2]
            ws = endwell.sync.connect(f"ws://127.0.0.1:{port}/", open_timeout=PATIENCE)
            ws.send("hello")
            assert ws.recv(PATIENCE) == "hello"
            process.send_signal(signal.SIGTERM)
            assert ws.wait_closed(PATIENCE).code == 1001
            out, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert out == "cleanup: SERVER_DRAINED\ndone\n"
    assert process.returncode == 0

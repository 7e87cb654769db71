"""Handlers and callbacks: which kinds are allowed, and that their errors do not end the process."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys

import pytest

import endwell
from endwell import Cause
from tests.pair import until, within
from tests.raw import PROMPT, RawPeer
from tests.wire.peer import TEXT

#: A test that waits for this fails: it is longer than any wait here (``BOUND``).
TOO_LATE = 60.0


def url(server, path="/"):
    return f"ws://127.0.0.1:{server.port}{path}"


def errors(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


async def status(server, path):
    """The status of the response to a plain request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await within(reader.read())
    writer.close()
    return int(answer.split()[1])


async def test_connection_closed_in_a_task_group_is_no_handler_error(caplog):
    server = endwell.Server()
    endings = []

    async def forward(ws):
        while True:
            await ws.send(await ws.recv())

    @server.websocket("/")
    async def handler(ws):
        async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
            inner.create_task(forward(ws))
            outer.create_task(asyncio.sleep(3600))

    server.on_close(lambda ws, ending: endings.append(ending))
    async with server.serving():
        with await RawPeer.connect(server.port) as peer:
            await peer.frame(TEXT, b"hello")
            assert (await peer.read_frame()).payload == b"hello"
            await peer.close(1000)
            await peer.read_to_the_end()
        await until(lambda: endings and not server._dispatcher.tasks)
    assert endings[0].cause is Cause.PEER_CLOSED
    assert not errors(caplog)


def wrapped(handler):
    """A plain function that returns a coroutine, with ``functools.wraps``."""

    @functools.wraps(handler)
    def wrapper(*args, **params):
        return handler(*args, **params)

    return wrapper


class Wrapper:
    """The same as an object."""

    def __init__(self, handler):
        functools.update_wrapper(self, handler)

    def __call__(self, *args, **params):
        return self.__wrapped__(*args, **params)


WRAPPERS = [wrapped, Wrapper, lambda handler: functools.partial(wrapped(handler))]


@pytest.mark.parametrize("wrap", WRAPPERS)
async def test_a_plain_wrapper_of_an_async_handler_runs_it_in_the_loop(wrap, caplog):
    server = endwell.Server()

    async def handler(ws):
        async for message in ws:
            await ws.send(message)

    async def page(request):
        return asyncio.get_running_loop() is not None and "a page"

    server.websocket("/")(wrap(handler))
    server.websocket("/cancelled", cancel_on_end=True)(wrap(handler))
    server.get("/page")(wrap(page))
    async with server.serving():
        for path in ("/", "/cancelled"):
            async with endwell.connect(url(server, path)) as ws:
                await ws.send("hello")
                assert await within(ws.recv()) == "hello"
        assert await status(server, "/page") == 200
    assert not errors(caplog)


async def test_a_wrapper_may_return_without_calling_its_async_handler():
    server = endwell.Server()

    async def handler(ws):
        pytest.fail("it was not to be called")

    @server.websocket("/")
    @functools.wraps(handler)
    def wrapper(ws):
        return None

    async with server.serving(), endwell.connect(url(server)) as ws:
        assert (await within(ws.closed)).received.code == 1000


async def test_a_plain_handler_that_returns_a_coroutine_is_a_handler_error(caplog):
    server = endwell.Server()

    async def handler(ws):
        pytest.fail("it was given a WebSocket that it cannot await")

    @server.websocket("/")
    def wrapper(ws):
        return handler(ws)

    async with server.serving(), endwell.connect(url(server)) as ws:
        assert (await within(ws.closed)).received.code == 1011
    (record,) = errors(caplog)
    assert "is a plain function, but returned coroutine" in str(record.exc_info[1])


async def test_a_callback_that_returns_a_coroutine_logs_an_error(caplog):
    server = endwell.Server()

    async def told(*_):
        pytest.fail("nothing awaits it")

    def callback(*args):
        return told(*args)

    @server.websocket("/async")
    async def in_the_loop(ws):
        ws.on_close(callback)
        server.sessions.join("async", ws)

    @server.websocket("/plain")
    def plain(ws):
        ws.on_close(callback)
        server.sessions.join("plain", ws)

    server.on_close(callback)
    server.sessions.joined(callback)
    async with server.serving():
        for path in ("/async", "/plain"):
            async with endwell.connect(url(server, path)) as ws:
                await within(ws.closed)
    assert len(errors(caplog)) == 2 * 3
    assert all("which nothing awaits" in str(record.exc_info[1]) for record in errors(caplog))


class Halt(BaseException):
    """A BaseException that is not an Exception, such as pytest.fail() raises."""


UNUSUAL = [SystemExit, Halt]


@pytest.mark.parametrize("kind", UNUSUAL)
async def test_a_base_exception_gives_500_and_the_server_keeps_serving(kind, caplog):
    server = endwell.Server(open_timeout=TOO_LATE)

    @server.process_request
    def hook(request):
        if request.path == "/hook":
            raise kind("in the hook")

    @server.get("/plain")
    def plain(request):
        raise kind("in a thread")

    @server.get("/async")
    async def in_the_loop(request):
        raise kind("in the loop")

    @server.get("/job")
    async def job(request):
        await asyncio.to_thread(sys.exit, "in a job")

    @server.get("/")
    async def page(request):
        return "still here"

    async with server.serving():
        for path in ("/hook", "/plain", "/async", "/job"):
            assert await status(server, path) == 500
        assert await status(server, "/") == 200
    assert len(errors(caplog)) == 4


async def test_a_page_that_awaits_a_cancelled_task_gives_500(caplog):
    server = endwell.Server(open_timeout=TOO_LATE)

    @server.get("/")
    async def page(request):
        job = asyncio.get_running_loop().create_future()
        job.cancel()
        await job

    async with server.serving():
        assert await status(server, "/") == 500
        await until(lambda: not server._listener.openings)
    assert len(errors(caplog)) == 1


async def test_a_page_that_cancels_its_own_task_gives_500(caplog):
    server = endwell.Server(open_timeout=TOO_LATE)

    @server.get("/")
    async def page(request):
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async with server.serving():
        assert await status(server, "/") == 500
        await until(lambda: not server._listener.openings)
    assert len(errors(caplog)) == 1


@pytest.mark.parametrize("how", ["raises", "cancels"])
async def test_a_streamed_body_that_is_cancelled_by_the_application_is_logged(how, caplog):
    server = endwell.Server()

    @server.get("/")
    async def page(request):
        yield "begun"
        if how == "raises":
            raise asyncio.CancelledError
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async with server.serving():
        assert await status(server, "/") == 200
        await until(lambda: not server._listener.openings)
    (record,) = errors(caplog)
    assert record.exc_info[0] is asyncio.CancelledError


async def test_a_handler_that_awaits_a_cancelled_task_closes_with_1011(caplog):
    server = endwell.Server()

    @server.websocket("/")
    async def handler(ws):
        job = asyncio.get_running_loop().create_future()
        job.cancel()
        await job

    async with server.serving():
        with await RawPeer.connect(server.port) as peer:
            assert (await peer.read_to_the_end(answer=True)).close.code == 1011
        await until(lambda: not server._dispatcher.tasks)
    assert len(errors(caplog)) == 1


@pytest.mark.parametrize("kind", UNUSUAL)
async def test_a_handler_that_raises_a_base_exception_closes_with_1011(kind, caplog):
    server = endwell.Server()
    endings = []
    server.on_close(lambda ws, ending: endings.append(ending.cause))

    @server.websocket("/async")
    async def in_the_loop(ws):
        raise kind("in the loop")

    @server.websocket("/plain")
    def plain(ws):
        raise kind("in a thread")

    async with server.serving():
        for path in ("/async", "/plain"):
            async with endwell.connect(url(server, path)) as ws:
                assert (await within(ws.closed)).received.code == 1011
        await until(lambda: len(endings) == 2)
    assert endings == [Cause.HANDLER_ERROR] * 2
    assert len(errors(caplog)) == 2


@pytest.mark.parametrize("kind", UNUSUAL)
async def test_callbacks_about_requests_may_raise_a_base_exception(kind, caplog):
    def fail(*_):
        raise kind("bye")

    server = endwell.Server(origins=fail)
    server.websocket("/")(lambda ws: None)
    server.on_refused(fail)
    async with server.serving():
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(peer.request().replace(b"\r\n\r\n", b"\r\nOrigin: http://localhost\r\n\r\n"))
            assert (await peer.read_head()).startswith("HTTP/1.1 500 ")
        assert await status(server, "/nowhere") == 404
    assert len(errors(caplog)) == 3


@pytest.mark.parametrize("kind", UNUSUAL)
async def test_a_callback_may_raise_a_base_exception(kind, caplog):
    server = endwell.Server()
    loop = asyncio.get_running_loop()
    told = []

    def leave(*_):
        loop.call_soon_threadsafe(told.append, 1)
        raise kind("bye")

    @server.websocket("/async")
    async def in_the_loop(ws):
        ws.on_close(leave)
        server.sessions.join("async", ws)

    @server.websocket("/plain")
    def plain(ws):
        ws.on_close(leave)
        server.sessions.join("plain", ws)

    server.on_close(leave)
    server.on_drain(leave)
    server.sessions.joined(leave)
    server.sessions.left(leave)
    async with server.serving():
        for path in ("/async", "/plain"):
            # More often than there are threads for callbacks.
            for _ in range(10):
                async with endwell.connect(url(server, path)) as ws:
                    assert (await within(ws.closed)).received.code == 1000
        await until(lambda: len(told) == 2 * 10 * 4)
        report = await server.drain(deadline=6 * PROMPT)
    assert report.duration < PROMPT
    assert len(told) == len(errors(caplog)) == 2 * 10 * 4 + 1

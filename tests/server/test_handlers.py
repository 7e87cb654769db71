"""What runs handlers: what they may be, and what they may do without ending the process."""

from __future__ import annotations

import asyncio
import functools
import logging
import sys

import pytest

import endwell
from endwell import Cause
from tests.pair import until, within
from tests.raw import RawPeer
from tests.wire.peer import TEXT


def url(server, path="/"):
    return f"ws://127.0.0.1:{server.port}{path}"


def errors(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


async def status(server, path):
    """That of the answer to a plain request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = await within(reader.read())
    writer.close()
    return int(answer.split()[1])


async def test_the_end_of_a_handler_with_a_task_group_is_an_ordinary_ending(caplog):
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
        await until(lambda: endings and not server._tasks)
    assert endings[0].cause is Cause.PEER_CLOSED
    assert not errors(caplog)


def wrapped(handler):
    """A plain function that returns a coroutine, and says what it wraps."""

    @functools.wraps(handler)
    def wrapper(*args, **params):
        return handler(*args, **params)

    return wrapper


class Wrapper:
    """The same, as an object."""

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


async def test_a_wrapper_of_an_async_handler_may_leave_without_calling_it():
    server = endwell.Server()

    async def handler(ws):
        pytest.fail("it was not to be called")

    @server.websocket("/")
    @functools.wraps(handler)
    def wrapper(ws):
        return None

    async with server.serving(), endwell.connect(url(server)) as ws:
        assert (await within(ws.closed)).received.code == 1000


async def test_a_plain_function_that_returns_a_coroutine_unforeseen_is_an_error_of_the_handler(caplog):
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


async def test_a_callback_that_returns_a_coroutine_is_an_error_in_the_log(caplog):
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


async def test_sys_exit_in_a_page_or_hook_is_answered_with_500_and_the_server_goes_on(caplog):
    server = endwell.Server()

    @server.process_request
    def hook(request):
        return sys.exit("in the hook") if request.path == "/hook" else None

    @server.get("/plain")
    def plain(request):
        sys.exit("in a thread")

    @server.get("/async")
    async def in_the_loop(request):
        sys.exit("in the loop")

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


async def test_sys_exit_in_a_callback_is_logged_and_the_server_goes_on(caplog):
    server = endwell.Server()
    loop = asyncio.get_running_loop()
    told = []

    def leave(*_):
        loop.call_soon_threadsafe(told.append, 1)
        sys.exit("bye")

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
        report = await server.drain(deadline=20)
    assert report.duration < 10
    assert len(told) == len(errors(caplog)) == 2 * 10 * 4 + 1

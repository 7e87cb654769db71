"""Requests, clients and applications that do not behave, on connections that are kept alive."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import sys
import weakref
from contextlib import asynccontextmanager, suppress

import pytest

from endwell import Server
from tests.asgi.events import body, body_of, start
from tests.asgi.serving import mounted
from tests.asgi.serving import serving as on_uvicorn
from tests.http1 import asked, request_of
from tests.pair import nothing_left_behind, until, within
from tests.raw import BOUND, NONCE, PLAIN

UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {NONCE}",
)


@asynccontextmanager
async def serving(app, transport=PLAIN, max_body=None, **options):
    """A server of ``app``, and a connection to it."""
    server = Server(**{"keep_alive_timeout": 4 * BOUND, **options})
    server.mount("/", app, lifespan="off", max_body=max_body)
    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        peer.server = server
        yield peer


async def end_tcp(peer):
    """Half-close, and let the server read it."""
    await peer.peer.send_close_notify()
    peer.peer.fin()
    await read_by_the_server(peer)


async def read_by_the_server(peer):
    """Wait until the server, which runs in this loop, has read what was sent."""
    await peer.peer.until_acknowledged()
    for _ in range(10):
        await asyncio.sleep(0)


# --- what a client has sent is delivered ------------------------------------------------


@pytest.mark.parametrize(
    ("size", "fields"), [(5, ["Connection: close"]), (300_000, [])], ids=["closed", "large"]
)
async def test_a_body_that_is_read_after_the_head_of_the_response_is_complete(size, fields, transport):
    go, got = asyncio.Event(), []

    async def app(scope, receive, send):
        await send(start())
        await send(body(b"x", True))
        await go.wait()
        got.append(len(await body_of(receive)))
        await send(body(b"y"))

    async with serving(app, transport) as peer:
        await peer.send(request_of("POST", "/", None, f"Content-Length: {size}", *fields))
        await peer.peer.read_head()
        await peer.send(bytes(5))
        await read_by_the_server(peer)
        go.set()
        await peer.send(bytes(size - 5))
        await within(peer.rest())
        assert got == [size]


async def test_a_generator_reads_a_body_after_the_head_of_its_response(transport):
    go, server = asyncio.Event(), Server()

    @server.route("/", methods=["POST"])
    async def page(request):
        async def chunks():
            yield "x"
            await go.wait()
            yield await request.body()

        return chunks()

    async with nothing_left_behind(), server.serving(ssl=transport.server), asked(server, transport) as peer:
        await peer.send(request_of("POST", "/", None, "Content-Length: 5", "Connection: close"))
        await peer.peer.read_head()
        await peer.send(b"hello")
        await read_by_the_server(peer)
        go.set()
        assert await peer.rest() == b"1\r\nx\r\n5\r\nhello\r\n0\r\n\r\n"


@pytest.mark.parametrize("content", [None, b"hello"], ids=["get", "post"])
async def test_the_request_of_a_client_that_half_closes_is_delivered(content, transport):
    go, events = asyncio.Event(), []

    async def app(scope, receive, send):
        await go.wait()
        events.extend([await receive(), await receive()])
        await send(start())
        await send(body(b"answer"))

    async with serving(app, transport) as peer:
        await peer.send(request_of("GET" if content is None else "POST", "/", content))
        await end_tcp(peer)
        go.set()
        await until(lambda: events)
        assert events == [
            {"type": "http.request", "body": content or b"", "more_body": False},
            {"type": "http.disconnect"},
        ]
        if transport.server is None:
            assert (await peer.answer()).body == b"answer"


async def test_a_client_that_half_closes_within_its_body_is_no_fault_of_the_application(transport, caplog):
    go, events = asyncio.Event(), []

    async def app(scope, receive, send):
        await go.wait()
        while (event := await receive())["type"] == "http.request":
            pass
        events.append(event)

    async with serving(app, transport) as peer:
        await peer.send(request_of("POST", "/", None, "Content-Length: 5") + b"hel")
        await end_tcp(peer)
        go.set()
        await until(lambda: events and not peer.server._dispatcher.tasks)
        assert not [record for record in caplog.records if record.levelno > logging.WARNING]


@pytest.mark.parametrize("more", [b"", b"GET / HT"], ids=["whole", "with a part"])
async def test_requests_before_a_half_close_are_all_answered(more):
    go = asyncio.Event()

    async def app(scope, receive, send):
        await go.wait()
        await send(start())
        await send(body(b"x"))

    async with serving(app, open_timeout=4 * BOUND) as peer:
        await peer.send(request_of() * 3 + more)
        await end_tcp(peer)
        go.set()
        answers = [await peer.answer() for _ in range(3)]
        assert [answer.body for answer in answers] == [b"x"] * 3
        assert answers[-1].closes or more
        assert await peer.rest() == b""


# --- calls that last too long, or keep something ------------------------------------------


@pytest.mark.parametrize("fields", [[], ["Connection: close"]], ids=["kept", "closed"])
async def test_send_returns_when_the_client_has_read_a_large_last_part(fields, transport):
    done = asyncio.Event()

    async def app(scope, receive, send):
        await send(start())
        await send(body(bytes(2**24)))
        done.set()

    async with serving(app, transport, write_timeout=4 * BOUND) as peer:
        assert len((await peer.ask(request_of("GET", "/", None, *fields))).body) == 2**24
        await within(done.wait())


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_cancelled_receive_leaves_nothing(kind):
    """Starlette's ``Request.is_disconnected()`` cancels a call of ``receive`` each time."""
    alive = []

    async def app(scope, receive, send):
        await receive()
        awaited = []
        for _ in range(10):
            task = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            awaited.append(weakref.ref(task._fut_waiter))
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        task = None
        gc.collect()
        alive.append(sum(each() is not None for each in awaited))
        if kind == "http":
            await send(start())
            await send(body(b"x"))
        else:
            await send({"type": "websocket.close"})

    async with serving(app) as peer:
        answer = await peer.ask(request_of("GET", "/", None, *(UPGRADE if kind == "websocket" else ())))
        assert answer.status == (200 if kind == "http" else 403)
        assert alive[0] <= 1  # the last one may still be referred to by its exception


# --- faults that are told as what they are -----------------------------------------------


async def test_an_application_that_awaits_something_cancelled_has_failed(caplog):
    async def app(scope, receive, send):
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        await cancelled

    async with serving(app) as peer:
        for _ in range(2):
            answer = await peer.ask(request_of())
            assert (answer.status, answer.body) == (500, b"internal error\n")
        assert len(caplog.messages) == 2


@pytest.mark.parametrize("begun", [False, True])
async def test_an_application_that_cancels_its_own_task_has_failed(begun, caplog):
    async def app(scope, receive, send):
        if begun:
            await send(start())
            await send(body(b"x", True))
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    async with serving(app) as peer:
        await peer.send(request_of())
        if begun:
            await peer.peer.read_head()
            assert await peer.rest() == b"1\r\nx\r\n"
        else:
            answer = await peer.answer()
            assert (answer.status, answer.body) == (500, b"internal error\n")
        await until(lambda: not peer.server._dispatcher.tasks)
        assert len(caplog.messages) == 1


@pytest.mark.parametrize("way", ["mounted", "uvicorn"])
async def test_a_websocket_of_an_application_that_awaits_something_cancelled_closes_with_1011(way, caplog):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        await cancelled

    async with mounted(app) if way == "mounted" else on_uvicorn(app) as served:
        with await served.connect() as peer:
            assert (await peer.read_to_the_end(answer=True)).close.code == 1011
        await until(lambda: not served.is_busy)
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


async def test_a_refused_client_that_leaves_is_no_fault_of_the_application(caplog):
    go = asyncio.Event()

    async def app(scope, receive, send):
        while (await receive())["type"] == "http.request":
            pass
        await go.wait()
        await send(start())

    async with serving(app, max_body=10) as peer:
        await peer.send(request_of("POST", "/", None, "Content-Length: 100"))
        assert (await peer.answer()).status == 413
        peer.peer.reset()
        await until(lambda: not peer.server._listener.openings)
        go.set()
        await until(lambda: not peer.server._dispatcher.tasks)
        assert not [record for record in caplog.records if record.levelno > logging.WARNING]


@pytest.mark.parametrize("last", ["return", "raise", "str"])
@pytest.mark.parametrize("way", ["mounted", "uvicorn"])
async def test_a_denial_that_the_application_does_not_complete_is_answered_with_500(last, way, caplog):
    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.http.response.start", "status": 402})
        await send({"type": "websocket.http.response.body", "body": b"x", "more_body": True})
        if last == "raise":
            raise ValueError("broken")
        if last == "str":
            await send({"type": "websocket.http.response.body", "body": "y"})

    if way == "mounted":
        async with serving(app) as peer:
            answer = await peer.ask(request_of("GET", "/", None, *UPGRADE))
    else:
        async with on_uvicorn(app) as server, asked(server) as peer:
            answer = await peer.ask(request_of("GET", "/", None, *UPGRADE))
    assert (answer.status, len(caplog.messages)) == (500, 1)


async def test_a_lifespan_that_fails_after_the_startup_is_logged(caplog):
    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            raise ValueError("broken")
        await send(start())
        await send(body(b"x"))

    server = Server()
    server.mount("/", app)
    async with nothing_left_behind(), server.serving(), asked(server) as peer:
        assert (await peer.ask(request_of())).status == 200
        assert caplog.messages == ["Exception in the lifespan of the ASGI application"]


# --- floods -------------------------------------------------------------------------------


async def test_pipelined_requests_do_not_recurse_where_tasks_begin_at_once(monkeypatch):
    """Python 3.12 has asyncio.eager_task_factory."""
    frames = []

    async def app(scope, receive, send):
        frame, depth = sys._getframe(), 0
        while frame is not None:
            frame, depth = frame.f_back, depth + 1
        frames.append(depth)
        await send(start())
        await send(body(b"x"))

    def begin(coroutine):
        done = asyncio.get_running_loop().create_future()
        with pytest.raises(StopIteration):
            contextvars.copy_context().run(coroutine.send, None)
        done.set_result(None)
        return done

    async with serving(app) as peer:
        monkeypatch.setattr(peer.server._dispatcher, "_create_task", begin)
        await peer.send(request_of() * 20)
        for _ in range(20):
            assert (await peer.answer()).body == b"x"
        assert max(frames) <= min(frames) + 5

"""What a client gets if the application does not catch that the bus is away."""

from __future__ import annotations

import asyncio
import logging

import pytest

import endwell
from endwell import Cause, Close
from endwell.rooms import BusUnavailable
from tests.asgi.serving import mounted, protocol, serving
from tests.pair import within

CLOSE = Close(1013, "a service is not available")
AWAY = "the bus is away"


def make():
    server = endwell.Server()
    endings = []

    @server.websocket("/coroutine")
    async def coroutine(ws):
        raise BusUnavailable(AWAY)

    @server.websocket("/plain")
    def plain(ws):
        raise BusUnavailable(AWAY)

    @server.websocket("/group")
    async def group(ws):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(coroutine(ws))

    @server.websocket("/other")
    async def other(ws):
        raise ExceptionGroup("two", [BusUnavailable(AWAY), KeyError("x")])

    @server.get("/page")
    def page(request):
        raise BusUnavailable(AWAY)

    async def accept(request):
        raise BusUnavailable(AWAY)

    server.websocket("/accept", accept=accept)(coroutine)
    server.on_close(lambda ws, ending: endings.append(ending))
    return server, endings


def problems(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("path", ["/coroutine", "/plain", "/group"])
async def test_a_handler_that_does_not_catch_it_closes_with_1013_and_logs_no_traceback(path, caplog):
    server, endings = make()
    async with server.serving():
        ws = await endwell.connect(f"ws://127.0.0.1:{server.port}{path}")
        assert (await within(ws.closed)).received == CLOSE
    assert [ending.cause for ending in endings] == [Cause.HANDLER_ERROR]
    (record,) = problems(caplog)
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert AWAY in record.getMessage()


async def test_another_exception_beside_it_closes_with_1011(caplog):
    server, _ = make()
    async with server.serving():
        ws = await endwell.connect(f"ws://127.0.0.1:{server.port}/other")
        assert (await within(ws.closed)).received == Close(1011)
    (record,) = problems(caplog)
    assert record.exc_info


@pytest.mark.parametrize("path", ["/page", "/accept"])
async def test_a_request_is_answered_with_503(path, caplog):
    server, _ = make()
    async with server.serving():
        if path == "/accept":
            with pytest.raises(endwell.HandshakeRejected) as caught:
                await endwell.connect(f"ws://127.0.0.1:{server.port}{path}")
            answer = caught.value.response
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            head = (await within(reader.read())).decode()
            writer.close()
            assert head.startswith("HTTP/1.1 503 ")
            assert "\r\nRetry-After: 5\r\n" in head
    (record,) = problems(caplog)
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert AWAY in record.getMessage()


@pytest.mark.parametrize("host", ["uvicorn", "endwell"])
async def test_an_asgi_application_that_does_not_catch_it_closes_with_1013(host, caplog):
    async def application(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        raise BusUnavailable(AWAY)

    served = mounted(application) if host == "endwell" else serving(application, protocol())
    async with served as running:
        port = running.server.port if host == "endwell" else running.port
        ws = await endwell.connect(f"ws://127.0.0.1:{port}/")
        assert (await within(ws.closed)).received == CLOSE
    (record,) = problems(caplog)
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)

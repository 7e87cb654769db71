"""The page with the metrics in an application that uvicorn serves."""

# Without `from __future__ import annotations`: FastAPI looks at the types.

import asyncio
import gc
import http.client
import logging
import time

import fastapi
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute

import endwell
from endwell.aio.reactor import reactor_of
from endwell.metrics.exposition import OPEN_METRICS, PROMETHEUS
from endwell.uvicorn import Protocol, metrics_page
from tests.pair import until, within
from tests.raw import HOST
from tests.server.test_metrics import ACCEPTED, value, values

from .serving import serving


async def echo(ws):
    await ws.accept()
    async for text in ws.iter_text():
        if text == "fail":
            raise ValueError
        await ws.send_text(text)


def on_fastapi(**keywords):
    app = fastapi.FastAPI()
    rooms = fastapi.APIRouter(prefix="/room")

    @rooms.websocket("/{name}")
    async def room(ws: fastapi.WebSocket, name: str):
        if name == "closed":
            await ws.close()
        else:
            await echo(ws)

    app.include_router(rooms)
    app.add_route("/metrics", metrics_page(**keywords))
    return app


def on_starlette(**keywords):
    async def room(ws):
        if ws.path_params["name"] == "closed":
            await ws.close()
        else:
            await echo(ws)

    return Starlette(
        routes=[WebSocketRoute("/room/{name}", room), Mount("/metrics", metrics_page(**keywords))]
    )


async def page(running, method="GET", path="/metrics/", **headers):
    """The response of a request, and its body."""

    def get():
        if running.transport.client is None:
            connection = http.client.HTTPConnection(HOST, running.port)
        else:
            connection = http.client.HTTPSConnection(HOST, running.port, context=running.transport.client)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response, response.read().decode()
        finally:
            connection.close()

    return await within(asyncio.to_thread(get))


async def connected(running, name):
    scheme = "ws" if running.transport.client is None else "wss"
    url = f"{scheme}://{HOST}:{running.port}/room/{name}"
    return await endwell.connect(url, ssl=running.transport.client)


@pytest.mark.parametrize(("framework", "path"), [(on_fastapi, "/metrics"), (on_starlette, "/metrics/")])
async def test_the_websockets_are_counted_by_route_and_ending(framework, path, transport, caplog):
    caplog.set_level(logging.INFO, "endwell.endings")
    async with serving(framework(), transport=transport) as running:
        before = values((await page(running, path=path))[1])

        async def counted(name, **labels):
            found = values((await page(running, path=path))[1])
            return value(found, name, **labels) - value(before, name, **labels)

        route = {"route": "/room/{name}"}
        first, second = await connected(running, "a"), await connected(running, "b")
        await first.send("one")
        assert await within(first.recv()) == "one"
        assert await counted("endwell_connections", **route, state="open") == 2
        assert await counted("endwell_messages_total", **route, direction="in") == 1
        await first.close(4001, "done")
        await second.send("fail")
        await within(second.closed)
        with pytest.raises(endwell.HandshakeRejected):
            await connected(running, "closed")
        await until(lambda: not running.connections)
        endings = {**route, "clean": "true"}
        assert await counted("endwell_endings_total", **endings, cause="peer_closed", initiator="peer") == 1
        assert await counted("endwell_endings_total", **endings, cause="handler_error", code="1011") == 1
        assert await counted("endwell_endings_total") == 2
        assert await counted("endwell_connections") == 0
        assert await counted("endwell_messages_total", **route, direction="in") == 2
        assert await counted("endwell_messages_total", **route, direction="out") == 1
        assert await counted(ACCEPTED, outcome="accepted", status="101") == 2
        assert await counted(ACCEPTED, outcome="refused", status="403") == 1
    records = [record for record in caplog.records if record.name == "endwell.endings"]
    assert [each.route for each in records if each.role == "server"] == ["/room/{name}"] * 2


async def test_requests_that_endwell_refuses_are_counted(caplog):
    class Limited(Protocol):
        __slots__ = ()

    def fail(request):
        raise ValueError

    class Failing(Protocol):
        __slots__ = ()

    Limited.rate_limit(1, per=3600, key="server")
    Failing.rate_limit(1, key=fail)
    for cls, status, opened in ((Limited, "429", 1), (Failing, "500", 0)):
        async with serving(on_fastapi(), cls) as running:
            before = values((await page(running, path="/metrics"))[1])
            for _ in range(opened):
                await (await connected(running, "a")).close()
            for _ in range(2):
                with pytest.raises(endwell.HandshakeRejected, match=status):
                    await connected(running, "a")
            found = values((await page(running, path="/metrics"))[1])
            labels = {"outcome": "refused", "status": status}
            assert value(found, ACCEPTED, **labels) - value(before, ACCEPTED, **labels) == 2


async def test_the_seconds_of_stalls_do_not_go_back_when_all_connections_or_a_server_have_ended():
    name = "endwell_stalled_seconds_total"

    async def stalled(running):
        gc.collect()
        return value(values((await page(running, path="/metrics"))[1]), name)

    async with serving(on_fastapi()) as running:
        before = await stalled(running)
        client = await connected(running, "a")
        time.sleep(3.5)  # noqa: ASYNC251  (stalls the loop)
        await until(lambda: reactor_of(asyncio.get_running_loop()).seconds_stalled >= 2.4)
        during = await stalled(running)
        assert during > before
        await client.close()
        del client
        await until(lambda: not running.connections)
        assert await stalled(running) >= during
    async with serving(on_fastapi()) as running:
        assert await stalled(running) >= during


async def test_the_page_has_two_formats_and_answers_only_to_get_and_head():
    async with serving(on_starlette()) as running:
        response, body = await page(running, Accept="application/openmetrics-text;version=1.0.0")
        assert (response.headers["Content-Type"], body[-6:]) == (OPEN_METRICS, "# EOF\n")
        assert any(family.name == "endwell_handshakes" for family in parse_open_metrics(body))
        response, body = await page(running)
        assert (response.status, response.headers["Content-Type"]) == (200, PROMETHEUS)
        assert response.headers["Cache-Control"] == "no-store"
        assert int(response.headers["Content-Length"]) == len(body.encode())
        assert (await page(running, "HEAD"))[0].status == 200
        response, body = await page(running, "POST")
        assert (response.status, response.headers["Allow"], body) == (405, "GET, HEAD", "")
        with pytest.raises(endwell.HandshakeRejected, match="403"):
            await endwell.connect(f"ws://{HOST}:{running.port}/metrics/")


async def test_only_this_machine_gets_the_page_unless_allow_says_otherwise():
    # uvicorn believes a proxy on this machine.
    other = {"X-Forwarded-For": "203.0.113.9"}
    for allow, statuses in (
        ({}, [200, 403]),
        ({"allow": ["203.0.113.0/24"]}, [403, 200]),
        ({"allow": None}, [200, 200]),
    ):
        async with serving(on_fastapi(**allow)) as running:
            found = [(await page(running, path="/metrics", **fields))[0].status for fields in ({}, other)]
        assert found == statuses
    with pytest.raises(ValueError, match="allow must be addresses or networks"):
        metrics_page(allow=["nowhere"])


async def test_a_unix_socket_gets_the_page(tmp_path):
    path = str(tmp_path / "socket")
    async with serving(on_fastapi(), uds=path):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head, _, body = (await within(reader.read())).partition(b"\r\n\r\n")
        writer.close()
    assert head.startswith(b"HTTP/1.1 200")
    assert b"endwell_handshakes_total" in body

"""The callbacks for each answer: every way to answer a request calls them once."""

from __future__ import annotations

import asyncio
import http.client

import pytest

import endwell
from endwell import Response, Server, connect


def create() -> tuple[Server, list[tuple[str, int]]]:
    server = Server()
    answers: list[tuple[str, int]] = []
    for _ in range(2):
        server._answer_callbacks.append(
            lambda exchange, status: answers.append((exchange.request.target, status))
        )

    @server.get("/page")
    async def page(request):
        return "page"

    @server.get("/stream")
    async def stream(request):
        yield "a"
        yield "b"

    @server.get("/fails")
    async def fails(request):
        raise RuntimeError

    @server.websocket("/ws")
    async def handler(ws):
        pass

    @server.websocket("/refused", accept=lambda request: Response(401))
    async def refused(ws):
        pass

    async def app(scope, receive, send):
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close" if scope["path"].endswith("no") else "websocket.accept"})
            return
        if scope["path"] == "/app/nothing":
            return
        await send({"type": "http.response.start", "status": 203})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b"})

    server.mount("/app", app, lifespan="off")
    return server, answers


def fetch(port: int, paths: list[str]) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        for path in paths:
            connection.request("GET", path)
            connection.getresponse().read()
    finally:
        connection.close()


async def test_each_answer_calls_the_callbacks_once():
    server, answers = create()
    statuses = {
        "/page": 200,
        "/stream": 200,
        "/missing": 404,
        "/app/x": 203,
        "/app/nothing": 500,
        "/fails": 500,
    }
    async with server.serving():
        await asyncio.to_thread(fetch, server.port, list(statuses))
        url = f"ws://127.0.0.1:{server.port}"
        for path in ("/ws", "/app/ws"):
            async with connect(url + path):
                pass
        for path in ("/refused", "/app/no", "/nowhere"):
            with pytest.raises(endwell.HandshakeError):
                await connect(url + path)
    expected = [*statuses.items(), ("/ws", 101), ("/app/ws", 101)]
    expected += [("/refused", 401), ("/app/no", 403), ("/nowhere", 404)]
    assert answers == [each for each in expected for _ in range(2)]

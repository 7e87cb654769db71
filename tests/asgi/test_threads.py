"""``send()`` called in another thread, as synchronous consumers of Channels do: it sends when it is awaited."""

from __future__ import annotations

import asyncio
from urllib.request import urlopen

import pytest
from asgiref.sync import async_to_sync, sync_to_async

import endwell
from tests.asgi.serving import mounted, serving


async def call_elsewhere(send, event):
    """Call ``send()`` in a thread, and return what it returns."""
    sending = await asyncio.to_thread(send, event)
    assert asyncio.iscoroutine(sending)
    return sending


async def app(scope, receive, send):
    if scope["type"] == "http":
        await (await call_elsewhere(send, {"type": "http.response.start", "status": 200}))
        later = await call_elsewhere(send, {"type": "http.response.body", "body": b"second"})
        await send({"type": "http.response.body", "body": b"first ", "more_body": True})
        await later
        return
    await receive()
    await (await call_elsewhere(send, {"type": "websocket.accept"}))
    later = await call_elsewhere(send, {"type": "websocket.send", "text": "second"})
    await send({"type": "websocket.send", "text": "first"})
    await later
    await (await call_elsewhere(send, {"type": "websocket.close", "code": 4000}))


async def test_a_response_is_sent_in_the_order_of_the_awaits():
    server = endwell.Server()
    server.mount("/", app, lifespan="off")
    async with server.serving():
        with await asyncio.to_thread(urlopen, f"http://127.0.0.1:{server.port}/") as answer:
            assert await asyncio.to_thread(answer.read) == b"first second"


async def test_messages_are_sent_in_the_order_of_the_awaits():
    server = endwell.Server()
    server.mount("/", app, lifespan="off")
    async with server.serving(), endwell.connect(f"ws://127.0.0.1:{server.port}/") as ws:
        assert [await ws.recv(), await ws.recv()] == ["first", "second"]
        assert (await ws.closed).received.code == 4000


@pytest.mark.parametrize("host", [mounted, serving], ids=["endwell", "uvicorn"])
async def test_async_to_sync_takes_send_without_a_warning(host):
    sent = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        # A warning would be an error here.
        await sync_to_async(async_to_sync(send))({"type": "websocket.send", "text": "from a thread"})
        sent.append(async_to_sync(receive))

    async with host(app) as server, endwell.connect(f"ws://127.0.0.1:{server.port}/") as ws:
        assert await ws.recv() == "from a thread"
        assert (await ws.closed).received.code == 1000
    assert sent

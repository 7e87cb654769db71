"""A raw ASGI application, served by uvicorn in this process with one of its WebSocket classes."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from .program import Ports, Serving

HELLO, DOCUMENT = b"Hello, world!", json.dumps({"text": "x" * 1012}).encode()
#: The fields and the body of the answer to each path.
ANSWERS = {
    "/": ([(b"content-type", b"text/plain"), (b"content-length", b"13")], HELLO),
    "/json": ([(b"content-type", b"application/json"), (b"content-length", b"1024")], DOCUMENT),
}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Echo a WebSocket's messages; answer an HTTP request with 13 B, or with 1 KiB of JSON."""
    if scope["type"] == "http":
        headers, body = ANSWERS[scope["path"]]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (event := await receive())["type"] == "websocket.receive":
        data = event.get("bytes")
        if data is not None:
            await send({"type": "websocket.send", "bytes": data})
        else:
            await send({"type": "websocket.send", "text": event["text"]})


def serving_by(ws: Any) -> Serving:
    """What ``run`` wants of a server; ``ws`` is the WebSocket class."""

    @asynccontextmanager
    async def serving(context: ssl.SSLContext | None) -> Ports:
        config = uvicorn.Config(
            app,
            "127.0.0.1",
            0,
            ws=ws,
            http="httptools",
            lifespan="off",
            log_level="warning",
            access_log=False,
            ws_ping_interval=None,  # under valgrind, a row may take longer
            ssl_context_factory=(lambda *_: context) if context else None,
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
        server.should_exit = True
        await task

    return serving

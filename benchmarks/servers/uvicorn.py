"""uvicorn with starlette, with its fastest WebSocket implementation."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from .program import Ports, run

everybody: set[WebSocket] = set()


async def echo(ws: WebSocket) -> None:
    await ws.accept()
    while (message := await ws.receive())["type"] == "websocket.receive":
        if (text := message.get("text")) is not None:
            await ws.send_text(text)
        else:
            await ws.send_bytes(message["bytes"])


async def broadcast(ws: WebSocket) -> None:
    await ws.accept()
    everybody.add(ws)
    try:
        async for message in ws.iter_bytes():
            for each in list(everybody):
                await each.send_bytes(message)
    except WebSocketDisconnect:
        pass  # another implementation
    finally:
        everybody.discard(ws)


@asynccontextmanager
async def serving(context: ssl.SSLContext | None) -> Ports:
    app = Starlette(routes=[WebSocketRoute("/echo", echo), WebSocketRoute("/broadcast", broadcast)])
    config = uvicorn.Config(
        app,
        "127.0.0.1",
        0,
        ws="websockets-sansio",
        log_level="warning",
        ssl_context_factory=(lambda *_: context) if context else None,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    await task


if __name__ == "__main__":
    run(serving)

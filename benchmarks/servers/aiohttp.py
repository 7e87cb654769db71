"""aiohttp."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager

from aiohttp import WSMsgType, web

from .program import Ports, run

everybody: set[web.WebSocketResponse] = set()


async def echo(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        if message.type is WSMsgType.TEXT:
            await ws.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await ws.send_bytes(message.data)
    return ws


async def broadcast(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    everybody.add(ws)
    try:
        async for message in ws:
            for each in list(everybody):
                await each.send_bytes(message.data)
    finally:
        everybody.discard(ws)
    return ws


@asynccontextmanager
async def serving(context: ssl.SSLContext | None) -> Ports:
    app = web.Application()
    app.add_routes([web.get("/echo", echo), web.get("/broadcast", broadcast)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    yield runner.addresses[0][1]


if __name__ == "__main__":
    run(serving)

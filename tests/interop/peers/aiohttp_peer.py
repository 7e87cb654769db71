"""aiohttp, both roles, with compression enabled."""

from __future__ import annotations

import asyncio
import os
import sys

import aiohttp
from aiohttp import WSMsgType, web


def tell(ws: object, message: aiohttp.WSMessage | None = None) -> None:
    # Only the last message has the reason, and only if the peer closes first.
    reason = f" {message.extra!r}" if message is not None and message.type is WSMsgType.CLOSE else ""
    print(f"{ws.close_code}{reason}", flush=True)


async def client(url: str, scenario: str) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(url, compress=15, max_msg_size=0) as ws:
        message = None
        if scenario == "client-closes":
            for sent in ["hello", "é" * 2**19, os.urandom(2**20)]:
                await (ws.send_str if isinstance(sent, str) else ws.send_bytes)(sent)
                assert (await ws.receive()).data == sent
            await ws.close(code=3001, message=b"bye")
        else:
            await ws.send_str(scenario)
            message = await ws.receive()
        tell(ws, message)


async def handler(request: web.Request) -> web.WebSocketResponse:
    ws = web.WebSocketResponse(max_msg_size=0)
    await ws.prepare(request)
    while (message := await ws.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
        if message.data == "server-closes":
            await ws.close(code=4001, message=b"srv")
        elif message.data == "server-stops":
            # The recipe of its documentation for a graceful shutdown.
            await ws.close(code=1001, message=b"Server shutdown")
        else:
            await (ws.send_str if message.type is WSMsgType.TEXT else ws.send_bytes)(message.data)
    tell(ws, message)
    return ws


async def server() -> None:
    app = web.Application()
    app.router.add_get("/", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


match sys.argv[1:]:
    case ["version"]:
        print(aiohttp.__version__)
    case ["client", url, scenario]:
        asyncio.run(client(url, scenario))
    case ["server"]:
        asyncio.run(server())

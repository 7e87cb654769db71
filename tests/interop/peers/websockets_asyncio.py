"""The asyncio implementation of websockets."""

from __future__ import annotations

import asyncio
import os
import sys

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve


def tell(ws: object) -> None:
    print(ws.close_code, repr(ws.close_reason), flush=True)


async def client(url: str, scenario: str) -> None:
    async with connect(url) as ws:
        if scenario == "client-closes":
            for message in ["hello", "é" * 2**19, os.urandom(2**20)]:
                await ws.send(message)
                assert await ws.recv() == message
            await ws.close(3001, "bye")
        else:
            await ws.send(scenario)
            await ws.wait_closed()
    tell(ws)


async def server() -> None:
    async def handler(ws: object) -> None:
        try:
            async for message in ws:
                if message == "server-closes":
                    await ws.close(4001, "srv")
                elif message == "server-stops":
                    listener.close()
                else:
                    await ws.send(message)
        except websockets.ConnectionClosed:
            pass
        tell(ws)

    async with serve(handler, "127.0.0.1", 0) as listener:
        print(listener.sockets[0].getsockname()[1], flush=True)
        await listener.wait_closed()


match sys.argv[1:]:
    case ["version"]:
        print(websockets.__version__)
    case ["client", url, scenario]:
        asyncio.run(client(url, scenario))
    case ["server"]:
        asyncio.run(server())

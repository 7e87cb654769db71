"""The server under test: it echoes every message, and prints its port."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import endwell

#: Above the 16 MiB of Autobahn's largest message.
MAX_SIZE = 64 * 2**20

server = endwell.Server(max_size=MAX_SIZE)


@server.websocket("/")
async def echo(ws: endwell.WebSocket) -> None:
    with suppress(endwell.ConnectionClosed):
        async for message in ws:
            await ws.send(message)


async def main() -> None:
    async with server.serving("127.0.0.1", 0):
        print(server.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())

"""Send a picture, and receive messages of both types: python examples/picture.py FILE [port]."""

import asyncio
import json
import logging
import sys
from pathlib import Path

import endwell

server = endwell.Server(max_size=16 * 2**20)
picture = Path(sys.argv[1] if len(sys.argv) > 1 else "picture.png")


@server.websocket("/image")
async def image(ws: endwell.WebSocket) -> None:
    """A text message describes the binary message that follows."""
    data = await asyncio.to_thread(picture.read_bytes)
    await ws.send(json.dumps({"name": picture.name, "size": len(data)}))
    await ws.send(data)


@server.websocket("/upload")
async def upload(ws: endwell.WebSocket) -> None:
    """A binary message is bytes, a text message is str."""
    async for message in ws:
        if isinstance(message, bytes):
            await ws.send(f"binary: {len(message)} bytes")
        else:
            await ws.send(f"text: {len(message)} characters")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 8080)

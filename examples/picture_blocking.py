"""Send a picture, and receive messages of both types, in blocking style: python examples/picture_blocking.py FILE [port]."""

import json
import logging
import sys
from pathlib import Path

import endwell
from endwell import sync

server = endwell.Server(max_size=16 * 2**20)
picture = Path(sys.argv[1] if len(sys.argv) > 1 else "picture.png")


@server.websocket("/image")
def image(ws: sync.WebSocket) -> None:
    """A text message describes the binary message that follows."""
    data = picture.read_bytes()
    ws.send(json.dumps({"name": picture.name, "size": len(data)}))
    ws.send(data)


@server.websocket("/upload")
def upload(ws: sync.WebSocket) -> None:
    """A binary message is bytes, a text message is str."""
    for message in ws:
        if isinstance(message, bytes):
            ws.send(f"binary: {len(message)} bytes")
        else:
            ws.send(f"text: {len(message)} characters")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 8080)

"""Clean up after every ending, and close with any code, in blocking style: python examples/closing_blocking.py [port]."""

import logging
import sys

import endwell
from endwell import sync

server = endwell.Server()
users: set[object] = set()


@server.websocket("/chat")
def chat(ws: sync.WebSocket) -> None:
    """The last two lines run however the connection ends."""
    users.add(ws.remote_address)
    try:
        while (message := ws.read()) is not None:
            print("message:", message, flush=True)
    finally:
        users.discard(ws.remote_address)
        print("disconnected:", ws.ending, flush=True)


@server.websocket("/close/{code}")
def close(ws: sync.WebSocket, code: str) -> None:
    """Close with the code in the path."""
    try:
        ws.close(int(code), "as you wish")
    except ValueError as exc:
        ws.send(str(exc))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)

"""Clean up after every ending, and close with any code: python examples/closing.py [port]."""

import logging
import sys

import endwell

server = endwell.Server()
users: set[object] = set()


@server.websocket("/chat")
async def chat(ws: endwell.WebSocket) -> None:
    """The last two lines run however the connection ends."""
    users.add(ws.remote_address)
    try:
        while (message := await ws.read()) is not None:
            print("message:", message, flush=True)
    finally:
        users.discard(ws.remote_address)
        print("disconnected:", ws.ending, flush=True)


@server.websocket("/close/{code}")
async def close(ws: endwell.WebSocket, code: str) -> None:
    """Close with the code in the path."""
    try:
        await ws.close(int(code), "as you wish")
    except ValueError as exc:
        await ws.send(str(exc))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)

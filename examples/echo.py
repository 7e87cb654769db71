"""Echo every message with its type, on any path: python examples/echo.py [port]."""

import logging
import sys

import endwell

server = endwell.Server()


@server.websocket("/{path:path}")
async def echo(ws: endwell.WebSocket, path: str) -> None:
    """Send each message back: text as text, binary as binary."""
    async for message in ws:
        await ws.send(message)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)

"""Step 1, a server that sends back what it gets: python examples/tutorial/echo.py [port]."""

import logging
import sys

import endwell

server = endwell.Server()


@server.websocket("/echo")
async def echo(ws: endwell.WebSocket) -> None:
    """Send back each message."""
    async for message in ws:
        await ws.send(message)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)

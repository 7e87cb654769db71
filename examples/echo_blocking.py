"""Echo every message with its type, in blocking style: python examples/echo_blocking.py [port]."""

import logging
import sys

import endwell
from endwell import sync

server = endwell.Server()


@server.websocket("/{path:path}")
def echo(ws: sync.WebSocket, path: str) -> None:
    """Send each message back: text as text, binary as binary."""
    while (message := ws.read()) is not None:  # None: the connection has ended, cleanly or not
        ws.send(message)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)

"""A tiny chat with /quit, in blocking style: python examples/quit_blocking.py [port]."""

import logging
import sys

import endwell
from endwell import sync

server = endwell.Server()


@server.websocket("/chat")
def chat(ws: sync.WebSocket) -> None:
    """Echo each message until the user sends /quit."""
    while (message := ws.read()) is not None:
        if message == "/quit":
            ws.send("goodbye")
            ws.close(endwell.CloseCode.NORMAL_CLOSURE, "user quit")
            break
        ws.send(f"echo: {message}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)

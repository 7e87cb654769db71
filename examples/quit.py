"""A tiny chat with /quit: python examples/quit.py [port]."""

import logging
import sys

import endwell

server = endwell.Server()


@server.websocket("/chat")
async def chat(ws: endwell.WebSocket) -> None:
    """Echo each message until the user sends /quit."""
    while (message := await ws.read()) is not None:
        if message == "/quit":
            await ws.send("goodbye")
            await ws.close(endwell.CloseCode.NORMAL_CLOSURE, "user quit")
            break
        await ws.send(f"echo: {message}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)

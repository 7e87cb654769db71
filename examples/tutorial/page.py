"""Steps 4 to 6, the chat with its page: python examples/tutorial/page.py [port]."""

import logging
import sys
from pathlib import Path

import endwell

server = endwell.Server()
server.static("/", Path(__file__).parent / "static")
server.browser_module()


@server.websocket("/chat")
async def chat(ws: endwell.WebSocket) -> None:
    """Send each message, with its author, to every user who is connected."""
    name = ws.request.query.get("name", "somebody")
    server.sessions.join(name, ws)
    async for message in ws:
        say(f"{name}: {message}")


def say(line: str) -> None:
    """Send a line to every user who is connected."""
    server.broadcast(server.sessions.values(), line, slow="close")


@server.sessions.joined
def joined(name: str, ws: endwell.WebSocket) -> None:
    """A user who had no connection has connected."""
    say(f"* {name} joined")


@server.sessions.left
def left(name: str, ending: endwell.Ending) -> None:
    """A user has had no connection for 10 s, or will not reconnect."""
    say(f"* {name} left")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)

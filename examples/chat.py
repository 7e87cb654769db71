"""A chat with rooms; /quit says goodbye: python examples/chat.py [port]."""

import logging
import sys
from collections import defaultdict

import endwell

server = endwell.Server()
rooms: defaultdict[str, set[endwell.WebSocket]] = defaultdict(set)


@server.websocket("/chat/{room}")
async def chat(ws: endwell.WebSocket, room: str) -> None:
    """Pass every message on to everybody in the room."""
    rooms[room].add(ws)
    try:
        async for message in ws:
            if message == "/quit":
                await ws.send("goodbye")
                await ws.close(endwell.CloseCode.NORMAL_CLOSURE, "user quit")
                break
            # Nobody waits for a slow member: that one is closed, and may come back.
            server.broadcast(rooms[room], message, slow="close")
    finally:
        rooms[room].discard(ws)


@server.on_close
def left(ws: endwell.WebSocket, ending: endwell.Ending) -> None:
    """A clean close and a lost connection both arrive here."""
    logging.getLogger("chat").info("left %s: %s", ws.request.path, ending)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)

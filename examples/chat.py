"""A chat with rooms and /quit: python examples/chat.py [port]."""

import logging
import sys
from collections import defaultdict

import endwell

server = endwell.Server()
rooms: defaultdict[str, set[endwell.WebSocket]] = defaultdict(set)


@server.websocket("/chat/{room}")
async def chat(ws: endwell.WebSocket, room: str) -> None:
    """Send each message to every connection in the room."""
    rooms[room].add(ws)
    try:
        async for message in ws:
            if message == "/quit":
                await ws.send("goodbye")
                await ws.close(endwell.CloseCode.NORMAL_CLOSURE, "user quit")
                break
            # broadcast() does not wait for a slow client: it closes that connection.
            server.broadcast(rooms[room], message, slow="close")
    finally:
        rooms[room].discard(ws)


@server.on_close
def left(ws: endwell.WebSocket, ending: endwell.Ending) -> None:
    """Called for every ending: a clean close, a lost connection."""
    logging.getLogger("chat").info("left %s: %s", ws.request.path, ending)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)

"""Steps 2 and 3, rooms and their endings: python examples/tutorial/rooms.py [port]."""

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
            server.broadcast(rooms[room], message, slow="close")
    finally:
        rooms[room].discard(ws)


@server.on_close
def ended(ws: endwell.WebSocket, ending: endwell.Ending) -> None:
    """Print the ending of each connection."""
    print(ending, flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)

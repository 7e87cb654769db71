"""A drawing board that may skip pointers, but no strokes: python examples/broadcast.py [port]."""

import logging
import sys
from itertools import count

import endwell

# A broadcast is compressed once, not once for each connection.
server = endwell.Server(compression=endwell.Deflate(server_no_context_takeover=True))
numbers = count(1)
names: dict[endwell.WebSocket, str] = {}


@server.websocket("/board")
async def board(ws: endwell.WebSocket) -> None:
    """Send ``at X,Y`` (a pointer) and ``draw X,Y X,Y`` (a stroke) to all artists."""
    names[ws] = f"artist {next(numbers)}"
    async for message in ws:
        text = f"{names[ws]} {message}"
        if text.split()[2:3] == ["draw"]:
            # A slow client is closed, so every connected client has seen every stroke.
            server.broadcast(names, text, slow="close")
        else:
            # A slow client misses this message; the next one replaces it.
            server.broadcast(names.keys() - {ws}, text)


@server.on_close
def left(ws: endwell.WebSocket, ending: endwell.Ending) -> None:
    """Tell the other artists, however the connection ended."""
    name = names.pop(ws, None)
    if name is not None:
        server.broadcast(names, f"{name} left", slow="close")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)

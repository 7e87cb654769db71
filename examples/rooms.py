"""A chat whose rooms span all workers, and whose clients miss nothing: python examples/rooms.py [port] [workers].

A client that returns with ``?since=POSITION`` is sent what it has missed.
"""

import json
import sys

import endwell
from endwell.rooms import Gap, History, Present, Room

server = endwell.Server()
server.rooms.configure("*", history=History(messages=1000, seconds=3600))


@server.websocket("/chat/{name}")
async def chat(ws: endwell.WebSocket, name: str) -> None:
    """Send each message to every member of the room, in whatever process it is."""
    room, query = server.rooms[name], ws.request.query
    async with room.join(ws, since=query.get("since"), key=query.get("user")) as membership:
        if isinstance(membership.arrived, Gap):
            await ws.send(json.dumps({"missed": membership.arrived.lost}))
        await ws.send(json.dumps({"position": str(membership.position)}))
        async for message in ws:
            # "close": a member that cannot keep up returns, and reads what it has missed.
            await room.publish(json.dumps({"text": str(message)}), slow="close")


@server.rooms.joined
async def joined(room: Room, present: Present) -> None:
    """Called once for each user, not for each tab or reload."""
    await room.publish(json.dumps({"joined": present.key}))


if __name__ == "__main__":
    port, workers = (*map(int, sys.argv[1:]), *(8080, 2)[len(sys.argv) - 1 :])
    server.run("127.0.0.1", port, workers=workers)

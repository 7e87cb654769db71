"""A chat on several machines, which Redis connects: python examples/rooms_redis.py [port].

ENDWELL_BUS is the URL of Redis. Start the program twice, with two ports. /healthz is 503 while Redis is away.
"""

import json
import os
import sys

import endwell
from endwell.errors import BusUnavailable
from endwell.rooms import Gap, History, Room

server = endwell.Server(bus=os.environ.get("ENDWELL_BUS", "redis://127.0.0.1:6379/0"))
server.rooms.configure("*", history=History(messages=1000, seconds=3600))
server.health()


@server.websocket("/chat/{name}")
async def chat(ws: endwell.WebSocket, name: str) -> None:
    """Send each message to every member of the room, on whatever machine it is."""
    room = server.rooms[name]
    async with room.join(ws, since=ws.request.query.get("since")) as membership:
        await ws.send(json.dumps({"position": str(membership.position)}))
        async for message in ws:
            try:
                await room.publish(json.dumps({"text": str(message)}), slow="close")
            except BusUnavailable as error:
                await ws.send(json.dumps({"failed": str(error)}))


@server.rooms.on_gap
async def tell(room: Room, gap: Gap) -> None:
    """Tell the members on this machine that messages are lost, and how many if it is known."""
    server.broadcast([member.ws for member in room.members], json.dumps({"lost": gap.lost}))


if __name__ == "__main__":
    server.run("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8080)

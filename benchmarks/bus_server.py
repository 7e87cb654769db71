"""The servers of buses.py: rooms in several workers, which only the bus connects.

    python -m benchmarks.bus_server NAME URL

The sockets are endwell's in all of them. A client of /publish orders publications in a room; the others are members.

- endwell: server.rooms, by the bus of the URL, or by the supervisor without one.
- loop: the loop that tutorials show. Each worker subscribes to the channel of the room with redis-py, and sends
  what it hears to its members, by server.broadcast(). It numbers nothing, and notices no loss.
- socketio: python-socketio's AsyncServer and AsyncRedisManager, mounted as the ASGI application that it is.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from statistics import median

import endwell

WORKERS = 4
#: The rooms, by the number of members in each worker.
ROOMS = {"one": 1, "some": 16, "many": 64}

Publish = Callable[[str, str], Awaitable[object]]


def endwell_rooms(server: endwell.Server, url: str) -> Publish:
    rooms = {name: server.rooms[name] for name in ROOMS}

    @server.websocket("/join/{room}")
    async def join(ws: endwell.WebSocket, room: str) -> None:
        async with rooms[room].join(ws):
            await ws.send(str(os.getpid()))
            await ws.wait_closed()

    async def publish(room: str, message: str) -> None:
        receipt = await rooms[room].publish(message, slow="queue")
        assert receipt.workers == WORKERS, receipt

    return publish


def redis_loop(server: endwell.Server, url: str) -> Publish:
    from redis.asyncio import from_url
    from redis.asyncio.client import PubSub

    client = from_url(url)
    members: defaultdict[str, set[endwell.WebSocket]] = defaultdict(set)
    tasks: set[asyncio.Task[None]] = set()

    @server.on_start
    async def start() -> None:
        pubsub = client.pubsub()
        await pubsub.subscribe(*ROOMS)
        tasks.add(asyncio.create_task(listen(pubsub)))

    async def listen(pubsub: PubSub) -> None:
        async for message in pubsub.listen():
            if message["type"] == "message":
                room = members[message["channel"].decode()]
                server.broadcast(room, message["data"].decode(), slow="queue")

    @server.websocket("/join/{room}")
    async def join(ws: endwell.WebSocket, room: str) -> None:
        members[room].add(ws)
        await ws.send(str(os.getpid()))
        try:
            await ws.wait_closed()
        finally:
            members[room].discard(ws)

    async def publish(room: str, message: str) -> None:
        await client.publish(room, message)

    return publish


def python_socketio(server: endwell.Server, url: str) -> Publish:
    import socketio

    sio = socketio.AsyncServer(client_manager=socketio.AsyncRedisManager(url), async_mode="asgi")

    @sio.event
    async def join(sid: str, room: str) -> None:
        await sio.enter_room(sid, room)
        await sio.emit("m", str(os.getpid()), to=sid, ignore_queue=True)

    server.mount("/", socketio.ASGIApp(sio))

    async def publish(room: str, message: str) -> None:
        await sio.emit("m", message, room=room)

    return publish


async def measure(publish: Publish, room: str, count: int, size: int, flight: int) -> float:
    """Publish ``count`` messages in a room, ``flight`` at a time; returns the median of the seconds of a call."""
    message, times, left = "x" * size, [], count

    async def some() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.perf_counter()
            await publish(room, message)
            times.append(time.perf_counter() - began)

    await asyncio.gather(*(some() for _ in range(flight)))
    return median(times)


KINDS = {"endwell": endwell_rooms, "loop": redis_loop, "socketio": python_socketio}


def main(kind: str, url: str = "") -> None:
    bus = url if kind == "endwell" and url else None
    server = endwell.Server(compression=None, ping_interval=None, bus=bus)
    publish = KINDS[kind](server, url)

    @server.websocket("/publish")
    async def order(ws: endwell.WebSocket) -> None:
        async for order in ws:
            room, *numbers = str(order).split()
            await ws.send(str(await measure(publish, room, *map(int, numbers))))

    server.run("127.0.0.1", 0, workers=WORKERS)


if __name__ == "__main__":
    main(*sys.argv[1:])

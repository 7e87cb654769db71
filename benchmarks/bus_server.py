"""The servers of buses.py: one room in several workers, which only the bus connects.

    python -m benchmarks.bus_server NAME URL

The sockets are endwell's in all of them. A client of /publish orders publications; the others are members.

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
from collections.abc import Awaitable, Callable
from statistics import median

import endwell

WORKERS = 4

Publish = Callable[[str], Awaitable[object]]


def endwell_rooms(server: endwell.Server, url: str) -> Publish:
    room = server.rooms["room"]

    @server.websocket("/join")
    async def join(ws: endwell.WebSocket) -> None:
        async with room.join(ws):
            await ws.send(str(os.getpid()))
            await ws.wait_closed()

    async def publish(message: str) -> None:
        receipt = await room.publish(message, slow="queue")
        assert receipt.workers == WORKERS, receipt

    return publish


def redis_loop(server: endwell.Server, url: str) -> Publish:
    from redis.asyncio import from_url
    from redis.asyncio.client import PubSub

    client = from_url(url)
    members: set[endwell.WebSocket] = set()
    tasks: set[asyncio.Task[None]] = set()

    @server.on_start
    async def start() -> None:
        pubsub = client.pubsub()
        await pubsub.subscribe("room")
        tasks.add(asyncio.create_task(listen(pubsub)))

    async def listen(pubsub: PubSub) -> None:
        async for message in pubsub.listen():
            if message["type"] == "message":
                server.broadcast(members, message["data"].decode(), slow="queue")

    @server.websocket("/join")
    async def join(ws: endwell.WebSocket) -> None:
        members.add(ws)
        await ws.send(str(os.getpid()))
        try:
            await ws.wait_closed()
        finally:
            members.discard(ws)

    async def publish(message: str) -> None:
        await client.publish("room", message)

    return publish


def python_socketio(server: endwell.Server, url: str) -> Publish:
    import socketio

    sio = socketio.AsyncServer(client_manager=socketio.AsyncRedisManager(url), async_mode="asgi")

    @sio.event
    async def connect(sid: str, environment: object) -> None:
        await sio.enter_room(sid, "room")

    @sio.event
    async def worker(sid: str) -> None:
        await sio.emit("m", str(os.getpid()), to=sid, ignore_queue=True)

    server.mount("/", socketio.ASGIApp(sio))

    async def publish(message: str) -> None:
        await sio.emit("m", message, room="room")

    return publish


async def measure(publish: Publish, count: int, size: int, flight: int) -> float:
    """Publish ``count`` messages, ``flight`` at a time; returns the median of the seconds of a call."""
    message, times, left = "x" * size, [], count

    async def some() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.perf_counter()
            await publish(message)
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
            await ws.send(str(await measure(publish, *map(int, order.split()))))

    server.run("127.0.0.1", 0, workers=WORKERS)


if __name__ == "__main__":
    main(*sys.argv[1:])

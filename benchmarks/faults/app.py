"""The program of the processes that the checker disturbs: members, publishers, and the state of the bus.

A member sends ``{"room": ..., "since": ...}`` first. It gets the publications, and JSON lists with what it is told:
how it has arrived, and each gap. Half of the processes have no ``on_gap``, so their members are closed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from typing import Any

import endwell
from endwell.errors import BusUnavailable
from endwell.rooms import Gap, History, Membership, Resumed, Room, Rooms, broker
from endwell.server.process import backoff

#: Rooms whose history reaches back far, not at all, and not far enough.
HISTORIES = {
    "long": History(messages=100_000, seconds=3600, bytes=100 << 20),
    "none": None,
    "short": History(messages=3),
}

SETTINGS: dict[str, Any] = json.loads(os.environ.get("ENDWELL_FAULTS", "{}"))

logging.basicConfig(level=logging.INFO, format="%(process)d %(message)s")
if "max_queue" in SETTINGS:
    broker.MAX_QUEUE = SETTINGS["max_queue"]
# The checker kills each worker several times a minute.
backoff.FORGIVEN = 0.0

rooms = Rooms(max_history=SETTINGS.get("max_history", 256 << 20), bus=SETTINGS.get("bus"))
server = endwell.Server(compression=None, rooms=rooms, write_timeout=10)
for name, history in HISTORIES.items():
    rooms.configure(f"{name}*", history=history)


def tell(membership: Membership, *what: Any) -> None:
    """Send a member a word, at its place between the publications."""
    server.broadcast([membership.ws], json.dumps([*what, str(membership.position)]), slow="queue")


@server.websocket("/member")
async def member(ws: endwell.WebSocket) -> None:
    wanted = json.loads(await ws.recv())
    async with server.rooms[wanted["room"]].join(ws, since=wanted["since"]) as membership:
        arrived = membership.arrived
        match arrived:
            case Gap():
                tell(membership, "arrived", os.getpid(), arrived.replayed, arrived.lost)
            case Resumed():
                tell(membership, "arrived", os.getpid(), arrived.replayed, 0)
            case _:
                tell(membership, "arrived", os.getpid(), 0, "fresh")
        await ws.wait_closed()


if os.getpid() % 2:

    @server.rooms.on_gap
    def on_gap(room: Room, gap: Gap) -> None:
        for membership in room.members:
            tell(membership, "gap", gap.lost)


@server.websocket("/publish")
async def publish(ws: endwell.WebSocket) -> None:
    """Publish what the checker orders. It may order more before it has the answer."""
    async with asyncio.TaskGroup() as group:
        async for order in ws:
            group.create_task(_publish(ws, *json.loads(order)))


async def _publish(ws: endwell.WebSocket, call: int, room: str, message: str, size: int) -> None:
    answer: list[Any]
    try:
        receipt = await server.rooms[room].publish(message.ljust(size), slow="close")
        answer = [call, receipt.position.epoch, receipt.position.sequence]
    except BusUnavailable as error:
        answer = [call, None, str(error)]
    try:
        await ws.send(json.dumps(answer))
    except endwell.ConnectionClosed:
        pass


@server.websocket("/watch")
async def watch(ws: endwell.WebSocket) -> None:
    """Say when the bus is connected, and when it is not."""
    before = None
    while ws.is_open:
        if (now := server.rooms.is_connected) != before:
            before = now
            await ws.send(json.dumps([time.monotonic(), now]))
        await asyncio.sleep(0.01)


@server.websocket("/block")
async def block(ws: endwell.WebSocket) -> None:
    """Block the event loop."""
    time.sleep(float(await ws.recv()))  # noqa: ASYNC251 (the fault)


@server.websocket("/flood")
async def flood(ws: endwell.WebSocket) -> None:
    """Publish as fast as possible, with some calls in flight."""
    name, room, count, size = json.loads(await ws.recv())
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await server.rooms[room].publish(f"{name}:{number}".ljust(size), slow="close")

    await asyncio.gather(*(some() for _ in range(32)))
    await ws.send("done")


if __name__ == "__main__":
    server.run(
        "127.0.0.1",
        SETTINGS.get("port", 0),
        workers=SETTINGS.get("workers", 1),
        drain=endwell.Drain(window=1, deadline=5),
    )

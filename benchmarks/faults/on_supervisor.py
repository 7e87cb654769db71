"""The faults of workers, of their clients, and of the supervisor's bounds."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path

import endwell

from .play import PROCESSES, ROOMS, Fault, Play
from .site import SupervisorSite, eventually, signal_to

__all__ = ["FAULTS", "Stage"]


class Stage(SupervisorSite):
    """The workers, for one fault."""

    def __init__(self, folder: Path, fault: Fault) -> None:
        super().__init__(folder, **fault.settings)


def _stage(play: Play) -> Stage:
    assert isinstance(play.site, Stage)
    return play.site


async def _all_up(play: Play) -> float:
    """Wait until there are as many workers again as there should be."""
    await eventually(lambda: len(play.site.pids()) == PROCESSES, "all workers run")
    return time.monotonic()


async def _kill_one(play: Play, number: int) -> float:
    before = play.site.pids()
    signal_to(before[number % len(before)], signal.SIGKILL)
    await eventually(lambda: before != play.site.pids(), "the worker has ended")
    return await _all_up(play)


async def _kill_half(play: Play, number: int) -> float:
    before = play.site.pids()
    for pid in random.sample(before, len(before) // 2):
        signal_to(pid, signal.SIGKILL)
    await eventually(lambda: before != play.site.pids(), "the workers have ended")
    return await _all_up(play)


async def _restart(play: Play, number: int) -> float:
    supervisor = _stage(play).supervisor
    os.kill(supervisor.pid, signal.SIGHUP)
    await supervisor.logged("workers exited:")
    return time.monotonic()


async def _drain_one(play: Play, number: int) -> float:
    before = play.site.pids()
    signal_to(before[number % len(before)], signal.SIGTERM)
    await eventually(lambda: before != play.site.pids(), "the worker has ended")
    return await _all_up(play)


async def _stop_one(play: Play, number: int) -> float:
    pids = play.site.pids()
    pid = pids[number % len(pids)]
    signal_to(pid, signal.SIGSTOP)
    try:
        flood = asyncio.create_task(_many(play, number, 150, 20_000))
        await asyncio.sleep(2)
    finally:
        signal_to(pid, signal.SIGCONT)
    back = time.monotonic()
    await flood
    return back


async def _many(play: Play, number: int, count: int, size: int) -> None:
    await asyncio.gather(
        *(play.publish((number + each) % PROCESSES, random.choice(ROOMS), size) for each in range(count))
    )


async def _block(play: Play, number: int) -> float:
    ws = await play.site.connect(number, "block")
    await ws.send("3")
    await asyncio.sleep(3)
    back = time.monotonic()
    await ws.close()
    return back


async def _flood(play: Play, number: int) -> float:
    works = [play.publish(number % PROCESSES, room) for room in ROOMS for _ in range(300)]
    await asyncio.gather(*works)
    return time.monotonic()


async def _slow_member(play: Play, number: int) -> float:
    """A member that reads nothing, while large messages are published."""
    ws = await endwell.connect(f"{play.site.url(0)}/member", compression=None, max_queue=1)
    await ws.send(json.dumps({"room": "long", "since": None}))
    for _ in range(60):
        await play.publish(number % PROCESSES, "long", 100_000)
    ws.abort()
    return time.monotonic()


def reset(ws: endwell.WebSocket) -> None:
    """Cut a connection with RST."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if not descriptor.readlink().name.startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(descriptor.name))) as sock:
                if sock.family == socket.AF_INET and sock.getsockname() == ws.local_address:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ws.abort()


async def _vanish(play: Play, number: int) -> float:
    """All clients are gone at once, with RST."""
    for member in play.members:
        if member.ws is not None:
            reset(member.ws)
    await asyncio.sleep(0.3)
    return time.monotonic()


async def _fill(play: Play, number: int) -> float:
    await _many(play, number, 60, 4000)
    return time.monotonic()


async def _join_in_restart(play: Play, number: int) -> float:
    restart = asyncio.create_task(_restart(play, number))
    while not restart.done():
        for member in random.sample(play.members, 8):
            if member.ws is not None:
                member.ws.abort()
        await asyncio.sleep(0.3)
    return await restart


async def _large(play: Play, number: int) -> float:
    """Messages of 1 MiB, while a worker stands still for a second."""
    pids = play.site.pids()
    pid = pids[number % len(pids)]
    signal_to(pid, signal.SIGSTOP)
    try:
        work = asyncio.gather(*(play.publish(each, "short", 1 << 20) for each in range(4)))
        await asyncio.sleep(1)
    finally:
        signal_to(pid, signal.SIGCONT)
    back = time.monotonic()
    await work
    return back


SMALL_QUEUE = {"max_queue": 200_000}
FAULTS = [
    Fault("a worker is killed", _kill_one),
    Fault("half of the workers are killed", _kill_half),
    Fault("a rolling restart (SIGHUP)", _restart),
    Fault("a worker is drained (SIGTERM)", _drain_one),
    Fault("a worker stands still until its queue is full", _stop_one, settings=SMALL_QUEUE),
    Fault("the event loop of a worker is blocked for 3 s", _block, settings=SMALL_QUEUE),
    Fault("a worker floods the others", _flood, settings=SMALL_QUEUE),
    Fault("a member reads nothing", _slow_member),
    Fault("all clients are reset at once", _vanish),
    Fault("the memory of the histories is full", _fill, keeps=False, settings={"max_history": 100_000}),
    Fault("members join with since during a restart", _join_in_restart),
    Fault("messages of 1 MiB, and a worker stands still", _large, settings={"max_queue": 2_000_000}),
]

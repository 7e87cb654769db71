"""The faults of Redis, of the way to it, and of the processes that use it."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.redis.server import RedisServer

from .play import Fault, Play
from .site import RedisSite, signal_to
from .wire import Cable

__all__ = ["FAULTS", "Stage"]


class Stage(RedisSite):
    """The processes and their Redis, for one fault."""

    def __init__(self, folder: Path, fault: Fault) -> None:
        self.cable = Cable() if fault is PARTITION else None
        self.redis = (
            RedisServer(prefix=self.cable.prefix, host=self.cable.address) if self.cable else RedisServer()
        )
        super().__init__(folder, self.redis.url)

    async def start(self) -> None:
        """See :class:`Site`."""
        await asyncio.to_thread(self.redis.start)
        await super().start()

    async def stop(self) -> None:
        """See :class:`Site`."""
        await super().stop()
        self.redis.close()
        if self.cable is not None:
            self.cable.close()


def _redis(play: Play) -> RedisServer:
    assert isinstance(play.site, Stage)
    return play.site.redis


async def _crash(play: Play, number: int) -> float:
    redis = _redis(play)
    redis.kill()
    await asyncio.sleep(random.uniform(0.1, 1.0))
    await asyncio.to_thread(redis.start)
    return time.monotonic()


async def _crash_without_data(play: Play, number: int) -> float:
    redis = _redis(play)
    redis.kill(data=False)
    await asyncio.sleep(random.uniform(0.1, 1.0))
    await asyncio.to_thread(redis.start)
    return time.monotonic()


def _command(*words: str) -> Callable[[Play, int], Awaitable[float]]:
    async def ask(play: Play, number: int) -> float:
        await asyncio.to_thread(_redis(play).ask, *words)
        return time.monotonic()

    return ask


async def _fail_over(play: Play, number: int) -> float:
    """A replica takes over: the address moves to it."""
    assert isinstance(play.site, Stage)
    primary, replica = play.site.redis, RedisServer()
    await asyncio.to_thread(replica.start, "--replicaof", "127.0.0.1", str(primary.port))
    while b"master_link_status:up" not in await asyncio.to_thread(replica.ask, "INFO", "replication"):
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    play.began = time.monotonic()
    primary.kill()
    await asyncio.sleep(random.uniform(0.1, 0.5))
    replica.ask("REPLICAOF", "NO", "ONE")
    replica.move(primary.port)
    play.site.redis = replica
    primary.close()
    return time.monotonic()


async def _stand_still(play: Play, number: int) -> float:
    redis = _redis(play)
    redis.pause()
    await asyncio.sleep(10)
    redis.go_on()
    return time.monotonic()


async def _overflow(play: Play, number: int) -> float:
    """The output buffers of the subscribers are too small for a message."""
    redis = _redis(play)
    limit = "CONFIG", "SET", "client-output-buffer-limit"
    await asyncio.to_thread(redis.ask, *limit, "pubsub 200kb 0 0")
    await asyncio.gather(*(play.publish(number % 8, room, 900_000) for room in ("long", "none", "short")))
    await asyncio.to_thread(redis.ask, *limit, "pubsub 32mb 8mb 60")
    return time.monotonic()


async def _partition(play: Play, number: int) -> float:
    assert isinstance(play.site, Stage)
    assert play.site.cable is not None
    play.site.cable.cut()
    await asyncio.sleep(random.uniform(3, 7))
    play.site.cable.heal()
    return time.monotonic()


async def _stop_a_process(play: Play, number: int) -> float:
    pid = play.site.pids()[number % 8]
    signal_to(pid, signal.SIGSTOP)
    try:
        # More than the socket takes, so that Redis has to keep it for the subscriber.
        for _ in range(20):
            await play.publish((number + 1) % 8, "long", 200_000)
        await asyncio.sleep(3)
    finally:
        signal_to(pid, signal.SIGCONT)
    return time.monotonic()


async def _kill_a_process(play: Play, number: int) -> float:
    assert isinstance(play.site, Stage)
    server = play.site.servers[number % 8]
    await server.kill()
    await server.start()
    return time.monotonic()


PARTITION = Fault("the network is cut for 3 to 7 s", _partition, deaf=True)
FAULTS = [
    Fault("Redis is killed", _crash, deaf=True, keeps=False),
    Fault("Redis is killed, and its data is lost", _crash_without_data, deaf=True, keeps=False),
    Fault("FLUSHALL", _command("FLUSHALL"), keeps=False),
    Fault("SCRIPT FLUSH", _command("SCRIPT", "FLUSH")),
    Fault("CLIENT KILL of the subscribers", _command("CLIENT", "KILL", "TYPE", "pubsub"), deaf=True),
    Fault("CLIENT KILL of all connections", _command("CLIENT", "KILL", "SKIPME", "yes"), deaf=True),
    Fault("a replica takes over", _fail_over, deaf=True, keeps=False),
    Fault("Redis stands still for 10 s", _stand_still, deaf=True),
    Fault("client-output-buffer-limit", _overflow, deaf=True),
    PARTITION,
    Fault("a process stands still for 3 s", _stop_a_process),
    Fault("a process is killed", _kill_a_process),
]

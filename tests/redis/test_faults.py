"""Four processes publish while Redis fails in every way: each loss is told with its exact size, and nothing repeats."""

from __future__ import annotations

from endwell.rooms.redis import RedisBus
from tests.rooms.witness import Witnesses

FAULTS = {
    "the subscribers are killed": lambda redis: redis.ask("CLIENT", "KILL", "TYPE", "pubsub"),
    "all connections are killed": lambda redis: redis.ask("CLIENT", "KILL", "TYPE", "normal"),
    "a crash with its data": lambda redis: (redis.kill(), redis.start()),
    "a crash without its data": lambda redis: (redis.kill(data=False), redis.start()),
    "all data is deleted": lambda redis: redis.ask("FLUSHALL"),
    "all scripts are deleted": lambda redis: redis.ask("SCRIPT", "FLUSH"),
}


async def test_no_fault_of_redis_loses_or_repeats_a_publication_silently(redis):
    witnesses = Witnesses([RedisBus(redis.url) for _ in range(4)])
    await witnesses.start()
    for name, fault in FAULTS.items():
        await witnesses.progress()
        fault(redis)
        witnesses.check(name)
    await witnesses.end()

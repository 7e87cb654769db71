"""Four processes publish while Redis fails in every way: each loss is told with its exact size, and nothing repeats."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from endwell.errors import BusUnavailable
from endwell.rooms import History
from endwell.rooms.redis import RedisBus
from tests.pair import until

from .witness import Witness

#: Rooms whose history reaches back far, not at all, and not far enough.
ROOMS = {"long": History(messages=10_000), "none": None, "short": History(messages=3)}

FAULTS = {
    "the subscribers are killed": lambda redis: redis.ask("CLIENT", "KILL", "TYPE", "pubsub"),
    "all connections are killed": lambda redis: redis.ask("CLIENT", "KILL", "TYPE", "normal"),
    "a crash with its data": lambda redis: (redis.kill(), redis.start()),
    "a crash without its data": lambda redis: (redis.kill(data=False), redis.start()),
    "all data is deleted": lambda redis: redis.ask("FLUSHALL"),
    "all scripts are deleted": lambda redis: redis.ask("SCRIPT", "FLUSH"),
}


async def publish(bus, name, room, done):
    number = 0
    while not done.is_set():
        with suppress(BusUnavailable):
            await bus.publish(room, f"{name}:{number}", ROOMS[room], "skip", None)
        number += 1
        await asyncio.sleep(0.002)


async def test_no_fault_of_redis_loses_or_repeats_a_publication_silently(redis):
    buses = [RedisBus(redis.url) for _ in range(4)]
    witnesses = [Witness() for _ in buses]
    for bus, witness in zip(buses, witnesses, strict=True):
        await bus.start(witness)
        for room in ROOMS:
            witness.positions[room] = await bus.listen(room)
    done = asyncio.Event()
    tasks = [
        asyncio.create_task(publish(bus, number, room, done))
        for number, bus in enumerate(buses)
        for room in ROOMS
    ]
    for name, fault in FAULTS.items():
        counts = [witness.delivered for witness in witnesses]
        await until(
            lambda counts=counts: all(
                each.delivered > before + 50 for each, before in zip(witnesses, counts, strict=True)
            )
        )
        fault(redis)
        assert [witness.faults for witness in witnesses] == [[]] * 4, name
    done.set()
    await asyncio.gather(*tasks)
    await until(lambda: all(bus.is_connected for bus in buses))
    for room, history in ROOMS.items():
        position, _ = await buses[0].publish(room, "last", history, "skip", None)
        await until(
            lambda room=room, position=position: all(each.positions[room] == position for each in witnesses)
        )
    assert [witness.faults for witness in witnesses] == [[]] * 4
    for bus in buses:
        await bus.stop()

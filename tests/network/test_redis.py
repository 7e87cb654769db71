"""The network between a process and Redis is cut silently: the process notices it, and nothing arrives late."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from endwell.errors import BusUnavailable
from endwell.rooms import History
from endwell.rooms.redis import RedisBus
from tests.network.namespaces import Network
from tests.pair import until
from tests.redis.server import RedisServer
from tests.rooms.witness import Witness

KEPT = History(messages=100)
#: The column of the state in /proc/net/tcp, and the state of a socket that was closed with unsent data.
STATE, FIN_WAIT1 = 3, "04"


def sends_after_its_close() -> bool:
    """Whether the kernel goes on to send what a closed socket had to send."""
    lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[STATE] == FIN_WAIT1 for line in lines)


async def cut_and_heal(network: Network, redis: RedisServer) -> None:
    bus, witness = RedisBus(redis.url), Witness()
    await bus.start(witness)
    witness.positions["a"] = await bus.listen("a")
    await bus.publish("a", "before", KEPT, "skip", None)
    network.cut()
    with pytest.raises(BusUnavailable, match="may have been sent"):
        await bus.publish("a", "given up", KEPT, "skip", None)
    assert not bus.is_connected
    network.heal()
    await until(lambda: bus.is_connected)
    await bus.publish("a", "after", KEPT, "skip", None)
    await until(lambda: not sends_after_its_close())
    await bus.publish("a", "last", KEPT, "skip", None)
    assert witness.faults == []
    assert [*witness.seen["a"]] == ["before", "after", "last"]
    await bus.stop()


def test_a_publication_that_was_given_up_does_not_arrive_when_the_network_is_back():
    with Network() as network, network.inside(network.client):
        redis = RedisServer(network.address, network.server_prefix)
        try:
            redis.start()
            asyncio.run(cut_and_heal(network, redis))
        finally:
            redis.close()

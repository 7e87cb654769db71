"""The network between a process and the server of its bus is cut silently: the process notices it, and nothing arrives late."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from endwell.errors import BusUnavailable
from endwell.rooms import History
from endwell.rooms.rooms import make_bus
from tests.nats.server import NatsServer
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


async def cut_and_heal(network: Network, url: str) -> None:
    """One process is beside the server, where it hears all the time. The network of the other one is cut."""
    buses, witnesses = [make_bus(url, 1 << 20) for _ in range(2)], [Witness(), Witness()]
    for bus, witness, side in zip(buses, witnesses, (network.server, network.client), strict=True):
        with network.inside(side):
            await bus.start(witness)
        witness.positions["a"] = await bus.listen("a")
    there, bus = buses
    await bus.publish("a", "before", KEPT, "skip", None)
    network.cut()
    with pytest.raises(BusUnavailable, match="may have been sent"):
        await bus.publish("a", "given up", KEPT, "skip", None)
    assert (there.is_connected, bus.is_connected) == (True, False)
    network.heal()
    await until(lambda: bus.is_connected)
    await bus.publish("a", "after", KEPT, "skip", None)
    await until(lambda: not sends_after_its_close())
    await bus.publish("a", "last", KEPT, "skip", None)
    await until(lambda: all("last" in each.seen["a"] for each in witnesses))
    for witness in witnesses:
        assert (witness.faults, [*witness.seen["a"]]) == ([], ["before", "after", "last"])
    for each in buses:
        await each.stop()


@pytest.mark.parametrize("kind", [RedisServer, NatsServer])
def test_a_publication_that_was_given_up_does_not_arrive_when_the_network_is_back(kind):
    with Network() as network, network.inside(network.client):
        server = kind(network.address, network.server_prefix)
        try:
            server.start()
            asyncio.run(cut_and_heal(network, server.url))
        finally:
            server.close()

"""A Redis Cluster: three primaries, one of which may have a replica."""

from __future__ import annotations

import atexit
import functools
import time
from collections.abc import Callable

from .server import START_TIME, RedisServer

__all__ = ["RedisCluster", "shared_cluster"]

PRIMARIES = 3
SLOTS = 16384
#: Milliseconds after which the others take a node for dead that does not answer: it may be one of a busy machine, or
#: one that does not come back.
PATIENT, SOON = "15000", "2000"


class RedisCluster:
    """Nodes with an equal number of slots each. Each node is a server of its own, which a test may kill.

    Args:
        replica: Whether the first primary has a replica, which is the last one of the nodes.
    """

    def __init__(self, *, replica: bool = False) -> None:
        self.nodes = [RedisServer() for _ in range(PRIMARIES + replica)]
        for node in self.nodes:
            node.start(
                *("--cluster-enabled", "yes", "--cluster-node-timeout", PATIENT),
                *("--cluster-config-file", f"nodes-{node.port}.conf"),
                *("--cluster-replica-validity-factor", "0"),
            )
        primaries, first = self.nodes[:PRIMARIES], self.nodes[0]
        for number, node in enumerate(primaries):
            slots = _slots(number)
            assert node.ask("CLUSTER", "ADDSLOTSRANGE", slots[0], slots[-1]) == b"+OK"
            # Two nodes with the same epoch would have to agree first.
            assert node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1) == b"+OK"
        for node in self.nodes[1:]:
            assert first.ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port) == b"+OK"
        self.wait(self._all_know_all, "the nodes know each other")
        if replica:
            replicate = "CLUSTER", "REPLICATE", self.id_of(first)
            assert self.nodes[-1].ask(*replicate) == b"+OK"
            self.wait(self._has_replica, "the replica is up")
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        self.url = f"redis+cluster://{hosts}/0"

    def wait(self, condition: Callable[[], bool], text: str) -> None:
        """Wait until the cluster has changed."""
        end = time.monotonic() + START_TIME
        while time.monotonic() < end:
            if condition():
                return
            time.sleep(0.02)
        raise TimeoutError(f"not in time: {text}")

    def _all_know_all(self) -> bool:
        infos = [node.ask("CLUSTER", "INFO") for node in self.nodes]
        known = b"cluster_known_nodes:%d\r" % len(self.nodes)
        return all(b"cluster_state:ok" in each and known in each for each in infos)

    def _has_replica(self) -> bool:
        # The others vote for it.
        known = [node.ask("CLUSTER", "NODES") for node in self.nodes]
        up = b"master_link_status:up" in self.nodes[-1].ask("INFO", "replication")
        return up and all(b"slave" in each for each in known)

    def notice(self) -> None:
        """Make the others notice soon that a node was killed. Call it after its end."""
        for node in self.nodes:
            if node.process is not None:
                assert node.ask("CONFIG", "SET", "cluster-node-timeout", SOON) == b"+OK"

    def first_owner(self, slot: int) -> RedisServer:
        """The primary that owns a slot at the start."""
        return next(node for number, node in enumerate(self.nodes) if slot in _slots(number))

    def id_of(self, node: RedisServer) -> str:
        """The name of a node in the cluster."""
        return node.ask("CLUSTER", "MYID").decode()

    def close(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.close()


def _slots(number: int) -> range:
    return range(SLOTS * number // PRIMARIES, SLOTS * (number + 1) // PRIMARIES)


@functools.cache
def shared_cluster() -> RedisCluster:
    """The cluster of the tests that do it no harm. Each test has a prefix."""
    cluster = RedisCluster()
    atexit.register(cluster.close)
    return cluster

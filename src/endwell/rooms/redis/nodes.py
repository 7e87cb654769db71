"""Which node of a Redis Cluster owns a slot: the nodes are asked."""

from __future__ import annotations

import asyncio
import random
from math import inf
from typing import Any

from redis.exceptions import RedisError

from .. import returning
from ..returning import end_tasks
from ..stalls import timeout_without_stalls
from .place import Place, ask_all

__all__ = ["SLOTS", "Nodes"]

#: Number of slots of every cluster.
SLOTS = 16384
#: Maximum number of nodes that are asked at the same time. The first answer counts.
ASKED = 3
#: Maximum seconds for the answer of a node.
ANSWER_TIME = 1.0
#: Seconds for which the files of certificates are not read again. To read those of the system takes some 50 ms.
TLS_TIME = 60.0
#: Maximum seconds from a question to a call that uses its answer, too: the partitions of a process look for their
#: nodes at the same time.
FRESH_TIME = 0.02

Address = tuple[str, int]
#: The first and the last slot of each range, and its nodes, the primary first.
Slots = list[tuple[int, int, list[Address]]]


class Nodes:
    """The nodes of a cluster, as far as they are known, and the map of the slots.

    A node may be wrong about the others, so the node that it names has to be asked as well.

    Args:
        place: The cluster. Its nodes are the first that are known.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._known: set[Address] = {*place.nodes}
        #: The first and the last slot of each range, and its owner.
        self._ranges: list[tuple[int, int, Address]] = []

    def start(self) -> None:
        """Called in the event loop, before everything else."""
        self._lock = asyncio.Lock()
        self._asked = -inf
        #: What redis-py has made of the files of certificates, and when.
        self._tls: tuple[Any, float] = (None, -inf)

    def connection(self, address: Address) -> Any:
        """A connection to a node, which is not connected yet."""
        made = self._place.connection(address)
        if hasattr(made, "ssl_context"):
            now = asyncio.get_running_loop().time()
            if now - self._tls[1] > TLS_TIME:
                self._tls = made.ssl_context, now
            made.ssl_context = self._tls[0]
        return made

    async def owner(self, slot: int) -> Address:
        """The address of the primary that owns a slot.

        Raises:
            OSError: No node answers, or the slot has no owner.
        """
        now = asyncio.get_running_loop().time
        called = now()
        async with self._lock:
            if called - self._asked > FRESH_TIME:
                asked = now()
                await self._ask_some()
                self._asked = asked
        for first, last, address in self._ranges:
            if first <= slot <= last:
                return address
        raise OSError(f"no node of the cluster owns the slot {slot}")

    async def _ask_some(self) -> None:
        asked = random.sample(sorted(self._known), min(ASKED, len(self._known)))
        asking = [asyncio.ensure_future(self._ask(address)) for address in asked]
        reasons = []
        try:
            for answer in asyncio.as_completed(asking):
                slots = await answer
                if not isinstance(slots, str):
                    self._learn(slots)
                    return
                reasons.append(slots)
        finally:
            await end_tasks(*asking)
        raise OSError(f"no node of the cluster answers ({'; '.join(reasons)})")

    async def _ask(self, address: Address) -> Slots | str:
        """What a node says, or why it says nothing."""
        connection = self.connection(address)
        try:
            async with timeout_without_stalls(ANSWER_TIME):
                await connection.connect()
                # A node that is separated from the others has an old map, and says so here after some time.
                info, ranges = await ask_all(connection, ("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))
                if b"cluster_state:ok" not in info:
                    return f"{address[0]}:{address[1]} says that the cluster is down"
        except (RedisError, OSError, EOFError, TimeoutError) as error:
            return str(error) or f"{address[0]}:{address[1]} does not answer"
        finally:
            if connection._writer is not None:
                returning.abort(connection._writer)
                connection._writer = connection._reader = None
        # A node without a name of its own is the one that was asked, or is at the same host.
        return [
            (first, last, [((node[0] or b"").decode() or address[0], node[1]) for node in nodes])
            for first, last, *nodes in ranges
        ]

    def _learn(self, slots: Slots) -> None:
        self._ranges = [(first, last, nodes[0]) for first, last, nodes in slots]
        # The others may have been removed from the cluster.
        self._known = {address for _, _, nodes in slots for address in nodes} | {*self._place.nodes}

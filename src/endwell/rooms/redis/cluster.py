"""The bus by a Redis Cluster: a fixed number of partitions, each of which is a bus by the owner of one slot."""

from __future__ import annotations

import asyncio
from itertools import count
from zlib import crc32

from ...aio.broadcast import Slow
from ..bus import Bus, Receiver
from ..history import History, Page
from ..position import Message, Position
from ..present import Info, Present
from .bus import RedisBus
from .link import Link
from .nodes import SLOTS, Nodes
from .place import Place
from .scripts import PUBLISH_SHARDED
from .shard import ShardLink, slot_of

__all__ = ["PARTITIONS", "ClusterBus", "partitions"]

#: Number of partitions. All processes must have the same number. Each has two connections for each of them.
PARTITIONS = 16


def partitions(place: Place) -> list[Place]:
    """The places of the partitions. Each has a hash tag whose slot is in another sixteenth of all slots.

    So an even distribution of the slots is an even distribution of the partitions.
    """
    found: dict[int, str] = {}
    for number in count():
        prefix = f"{{{place.prefix}{number}}}:"
        found.setdefault(slot_of(prefix) * PARTITIONS // SLOTS, prefix)
        if len(found) == PARTITIONS:
            break
    return [
        place._replace(prefix=prefix, address=f"{place.address} (slot {slot_of(prefix)})")
        for _, prefix in sorted(found.items())
    ]


class _Partition(RedisBus):
    """The bus of some of the rooms."""

    _publish_script = PUBLISH_SHARDED

    def __init__(self, place: Place, nodes: Nodes) -> None:
        self._nodes = nodes
        super().__init__(place)

    def _make_link(self) -> Link:
        return ShardLink(self._place, self._on_message, self._deliver_all, self._on_change, self._nodes)


class ClusterBus(Bus):
    """Connects processes of one or more machines by the nodes of a cluster.

    The name of a room chooses its partition. All that belongs to the partition is in one slot: the rooms, their
    channels, their presence, and the leases of the processes. So each script is atomic, and if a node fails, only
    the partitions in its slots begin another epoch.

    Args:
        url: See :class:`endwell.Server`.

    Raises:
        ValueError: The URL is wrong.
    """

    name = "redis"
    can_reserve = True

    def __init__(self, url: str) -> None:
        self._place = Place.parse(url)
        self._nodes = Nodes(self._place)
        self._partitions = [_Partition(place, self._nodes) for place in partitions(self._place)]

    @property
    def is_connected(self) -> bool:
        """Whether all partitions are connected."""
        return all(each.is_connected for each in self._partitions)

    @property
    def disconnections(self) -> int:
        """See :attr:`Bus.disconnections`: the sum of all partitions."""
        return sum(each.disconnections for each in self._partitions)

    @property
    def lag(self) -> float:
        """See :attr:`Bus.lag`: the longest of all partitions."""
        return max(each.lag for each in self._partitions)

    def _of(self, room: str) -> RedisBus:
        return self._partitions[crc32(room.encode()) % len(self._partitions)]

    async def start(self, receiver: Receiver) -> None:
        """See :meth:`Bus.start`."""
        self._nodes.start()
        await asyncio.gather(*(each.start(receiver) for each in self._partitions))

    async def stop(self) -> None:
        """See :meth:`Bus.stop`."""
        await asyncio.gather(*(each.stop() for each in self._partitions))

    async def listen(self, room: str) -> Position:
        """See :meth:`Bus.listen`."""
        return await self._of(room).listen(room)

    def ignore(self, room: str) -> None:
        """See :meth:`Bus.ignore`."""
        self._of(room).ignore(room)

    async def publish(
        self, room: str, message: Message, history: History | None, slow: Slow, call: object
    ) -> tuple[Position, int]:
        """See :meth:`Bus.publish`."""
        return await self._of(room).publish(room, message, history, slow, call)

    async def position(self, room: str) -> Position:
        """See :meth:`Bus.position`."""
        return await self._of(room).position(room)

    async def page(self, room: str, after: Position | None, limit: int | None) -> Page:
        """See :meth:`Bus.page`."""
        return await self._of(room).page(room, after, limit)

    def enter(self, room: str, connection: int, key: str, info: Info, grace: float) -> None:
        """See :meth:`Bus.enter`."""
        self._of(room).enter(room, connection, key, info, grace)

    def leave(self, room: str, connection: int, key: str, grace: float) -> None:
        """See :meth:`Bus.leave`."""
        self._of(room).leave(room, connection, key, grace)

    async def presence(self, room: str) -> list[Present]:
        """See :meth:`Bus.presence`."""
        return await self._of(room).presence(room)

    async def flush(self) -> None:
        """See :meth:`Bus.flush`."""
        await asyncio.gather(*(each.flush() for each in self._partitions))

    async def reserve(self, held: int, wanted: int, limit: int) -> tuple[int, int]:
        """See :meth:`Bus.reserve`. One partition counts for all."""
        return await self._partitions[0].reserve(held, wanted, limit)

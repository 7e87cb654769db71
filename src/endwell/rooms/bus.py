"""What rooms ask of a bus, and what a bus tells the rooms."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any, Protocol

from ..aio.broadcast import Slow
from ..errors import BusUnavailable
from .history import History, Page
from .keys import RESERVED
from .position import Message, Position, Publication
from .present import Info, Present

__all__ = ["Arrival", "Bus", "Receiver", "RoomReceiver", "listen_when_connected"]

#: Seconds until the next attempt to listen, while the bus is not available.
RETRY_INTERVAL = 1.0
#: The number of a publication, its message, what happens to slow members, and the call of publish() or None.
Arrival = tuple[int, Message, Slow, Any]


class RoomReceiver(Protocol):
    """What is told of a room, in the event loop. None of these may raise.

    A subclass that is not interested in keys inherits the methods that do nothing.
    """

    def published(
        self, room: str, position: Position, publication: Publication, slow: Slow, call: Any
    ) -> None:
        """A room to which this process listens has a publication. ``call`` is that of :meth:`Bus.publish`.

        It is None if another process has published. The publications of a room come in order, without holes
        and repetitions.
        """

    def lost(self, room: str, lost: int | None, position: Position) -> None:
        """Publications of a room to which this process listens are lost for it.

        Args:
            room: The name.
            lost: Their number; None if it cannot be known, because the room has another epoch.
            position: The position after them.
        """

    def came(self, room: str, present: Present) -> None:
        """A key has come into a room, with a connection of this process."""
        return

    def went(self, room: str, present: Present) -> None:
        """A key has left a room; its last connection was one of this process, or of a process that has ended."""
        return


class Receiver(RoomReceiver, Protocol):
    """What a bus calls, in the event loop. None of these may raise."""

    def arrived(self, room: str, epoch: str, batch: list[Arrival], alone: bool) -> None:
        """:meth:`published` for publications that have arrived together.

        Args:
            room: The name.
            epoch: Their epoch.
            batch: The publications, in order.
            alone: Whether no other room has publications that have arrived with them.
        """


class Bus(ABC):
    """Connects the rooms of several processes. A bus belongs to one event loop.

    The rooms of each process call these methods, for each room in the order of the calls.
    """

    #: What kind of bus it is, for metrics.
    name = "other"
    #: Whether it connects several processes.
    is_shared = True
    #: Whether it counts the connections of all processes, by :meth:`reserve`. Otherwise the limit of their number
    #: holds for each process.
    can_reserve = False
    #: Number of keys of which the receiver was told that they have come or left, if each is to be confirmed.
    _told = 0

    @property
    def is_connected(self) -> bool:
        """Whether the other processes can be reached."""
        return True

    @property
    def disconnections(self) -> int:
        """How often the other processes could no longer be reached."""
        return 0

    @property
    def lag(self) -> float:
        """Seconds that the last message of this process to itself took; 0 if it is not known."""
        return 0.0

    @abstractmethod
    async def start(self, receiver: Receiver) -> None:
        """Connect. Called once, before all other methods. If it is cancelled, :meth:`stop` is called."""

    @abstractmethod
    async def stop(self) -> None:
        """Disconnect. The connections of this process have left their rooms before."""

    def end_graces(self) -> None:  # noqa: B027 (most buses have nothing to do)
        """All connections of this process have ended. Keys leave now if nothing of the bus outlives the process.

        Default: nothing, because other processes are connected.
        """

    @abstractmethod
    async def listen(self, room: str) -> Position:
        """Have the publications of a room delivered, from the returned position on."""

    @abstractmethod
    def ignore(self, room: str) -> None:
        """End :meth:`listen`."""

    @abstractmethod
    def publish(
        self, room: str, message: Message, history: History | None, slow: Slow, call: object
    ) -> Awaitable[tuple[Position, int]]:
        """Publish a message. The caller awaits the result at once.

        If this process listens to the room, the publication was delivered before the call returns.

        Returns:
            The position after the message, and the number of processes that listen.
        """

    @abstractmethod
    async def position(self, room: str) -> Position:
        """The position of a room."""

    @abstractmethod
    async def page(self, room: str, after: Position | None, limit: int | None) -> Page:
        """Read the history of a room."""

    @abstractmethod
    def enter(self, room: str, connection: int, key: str, info: Info, grace: float) -> None:
        """A connection of this process has come into a room. ``grace`` applies if this process ends first."""

    @abstractmethod
    def leave(self, room: str, connection: int, key: str, grace: float) -> None:
        """A connection of this process has left a room. The key leaves ``grace`` seconds after its last one."""

    async def reserve(self, held: int, wanted: int, limit: int) -> tuple[int, int]:
        """Ask for ``wanted`` more connections, so that all processes together have at most ``limit``.

        One call at a time. What this process had before the call, beyond ``held``, is given back. If the process
        ends, all is given back. Default: not implemented, and :attr:`can_reserve` is False.

        Args:
            held: Number of connections that this process has.
            wanted: Number of connections that it wants in addition.
            limit: The limit for all processes.

        Returns:
            How many more this process may have, and how many all processes have then.

        Raises:
            BusUnavailable: The bus is not available. What was asked for may count until the next call.
        """
        raise NotImplementedError

    @abstractmethod
    async def presence(self, room: str) -> list[Present]:
        """The keys that are present in a room, in all processes."""

    async def flush(self) -> None:
        """Wait until the receiver was told what :meth:`enter` and :meth:`leave` have caused.

        Default: its answers come in the order of the calls.
        """
        told = -1
        while told != self._told:
            # There may be more, which is told when that was confirmed.
            told = self._told
            await self.presence(RESERVED)


async def listen_when_connected(bus: Bus, room: str) -> None:
    """Listen to a room as soon as the bus is available."""
    while True:
        try:
            await bus.listen(room)
        except BusUnavailable:
            await asyncio.sleep(RETRY_INTERVAL)
        else:
            return

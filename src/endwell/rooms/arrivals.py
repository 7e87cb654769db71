"""Publications that arrive together: a member gets those of one read of the bus in one system call."""

from __future__ import annotations

from typing import Any

from ..aio.broadcast import Slow
from .bus import Arrival, Receiver
from .position import Message

__all__ = ["Arrivals"]


class Arrivals:
    """What a bus has read and not delivered yet. The order stays, between the rooms, too."""

    def __init__(self) -> None:
        #: Publications of one room and one epoch that follow each other.
        self._groups: list[tuple[str, str, list[Arrival]]] = []
        #: Those of the last group.
        self._room = self._epoch = ""
        self._last: list[Arrival] = []

    def add(self, room: str, epoch: str, sequence: int, message: Message, slow: Slow, call: Any) -> None:
        """Add a publication; :meth:`deliver` delivers it."""
        if not self._groups or room != self._room or epoch != self._epoch:
            self._room, self._epoch, self._last = room, epoch, []
            self._groups.append((room, epoch, self._last))
        self._last.append((sequence, message, slow, call))

    def deliver(self, receiver: Receiver) -> None:
        """Deliver everything."""
        groups = self._groups
        if not groups:
            return
        self._groups = []
        alone = len(groups) == 1
        for room, epoch, batch in groups:
            receiver.arrived(room, epoch, batch, alone)

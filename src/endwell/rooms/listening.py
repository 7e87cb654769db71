"""A room to which this process listens: what it has heard, and what it has missed. Without I/O."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from ..aio.waiters import Waiters
from .frames import Shared
from .position import Position

__all__ = ["Heard", "Listening", "Missed"]

#: Maximum number of publications, and of their bytes, that wait until the history was read.
MAX_BUFFER = 10_000
MAX_BUFFER_BYTES = 8 << 20


class Heard(NamedTuple):
    """A publication that has arrived."""

    position: Position
    shared: Shared


class Missed(NamedTuple):
    """What :meth:`Listening.catch_up` has found."""

    #: How many publications are lost; None if it is unknown.
    lost: int | None
    #: The position after them.
    position: Position
    #: The publications that follow.
    heard: list[Heard]


class Listening:
    """The state of one room."""

    def __init__(self, room: str) -> None:
        self.room = room
        #: What was delivered last. None until the first position is known.
        self.position: Position | None = None
        #: Whether the history has to be read before the next delivery.
        self.reads = True
        #: Done when the first position is known.
        self.ready: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        #: The task that reads the history.
        self.task: asyncio.Task[None] | None = None
        #: Whether publications were dropped, because too many waited.
        self.overflowed = False
        self._buffer: list[Heard] = []
        self._bytes = 0
        self._waiters = Waiters()

    def follows(self, heard: Heard) -> bool | None:
        """Whether a publication is the next one. None if it is a repetition."""
        assert self.position is not None
        if heard.position.epoch != self.position.epoch:
            return False
        step = heard.position.sequence - self.position.sequence
        return None if step <= 0 else step == 1

    def keep(self, heard: Heard, size: int) -> None:
        """Keep a publication until the history was read."""
        self._buffer.append(heard)
        self._bytes += size
        if len(self._buffer) > MAX_BUFFER or self._bytes > MAX_BUFFER_BYTES:
            self.take()
            self.overflowed = True

    @property
    def kept(self) -> int:
        """The number of publications that were kept."""
        return len(self._buffer)

    def take(self) -> list[Heard]:
        """The publications that were kept."""
        kept, self._buffer, self._bytes = self._buffer, [], 0
        return kept

    def catch_up(self, base: int, position: Position, history: list[Heard]) -> Missed:
        """Compare with the history, which was read after :attr:`position`, when the room was at ``position``.

        ``base`` is the number before the first one of the epoch. What was heard meanwhile counts, too, because
        a room without a history has nothing else.
        """
        assert self.position is not None
        same = self.position.epoch == position.epoch
        start = self.position.sequence if same else base
        known = {each.position.sequence: each for each in history}
        known |= {
            each.position.sequence: each for each in self._buffer if each.position.epoch == position.epoch
        }
        if same and start > position.sequence:
            return Missed(0, self.position, [])
        first = position.sequence + 1
        while first - 1 > start and first - 1 in known:
            first -= 1
        heard = [known[number] for number in range(first, position.sequence + 1)]
        return Missed(first - start - 1 if same else None, Position(position.epoch, first - 1), heard)

    def advance(self, position: Position) -> None:
        """Publications up to ``position`` are delivered, or known to be lost."""
        self.position = position
        self._waiters.wake()

    def end(self) -> None:
        """This process listens no more: wake what waits for a publication."""
        self._waiters.wake()

    def reached(self, position: Position) -> bool:
        """Whether a position is behind."""
        own = self.position
        return own is not None and own.epoch == position.epoch and own.sequence >= position.sequence

    async def change(self) -> None:
        """Wait until the position changes."""
        await self._waiters.wait()

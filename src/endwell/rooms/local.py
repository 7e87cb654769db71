"""The bus of a single process."""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf

from ..aio.broadcast import Slow
from .bus import Bus, Receiver
from .history import History, Page
from .hub import MAX_KNOWN_ROOMS, Hub
from .position import Message, Position
from .present import PART, Connection, Info, Left, Part, Present, read_parts

__all__ = ["LocalBus"]


class LocalBus(Bus):
    """Connects no other process. Its methods do not wait."""

    name = "local"
    is_shared = False

    def __init__(self, max_history: int, max_known_rooms: int = MAX_KNOWN_ROOMS) -> None:
        self._hub: Hub = Hub(max_history, max_known_rooms)
        self._timer: asyncio.Handle | None = None
        #: When the timer is due. A handle of uvloop does not say so if that was in the past.
        self._due = inf

    async def start(self, receiver: Receiver) -> None:
        """See :meth:`Bus.start`."""
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()

    async def stop(self) -> None:
        """See :meth:`Bus.stop`."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = None, inf

    def end_graces(self) -> None:
        """See :meth:`Bus.end_graces`."""
        self._tell(self._hub.end_graces(self._loop.time()))

    async def listen(self, room: str) -> Position:
        """See :meth:`Bus.listen`."""
        return self._hub.listen(room, self, self._loop.time())

    def ignore(self, room: str) -> None:
        """See :meth:`Bus.ignore`."""
        self._hub.ignore(room, self, self._loop.time())
        self._set_timer()

    async def publish(
        self, room: str, message: Message, history: History | None, slow: Slow, call: object
    ) -> tuple[Position, int]:
        """See :meth:`Bus.publish`."""
        position, publication, listeners = self._hub.publish(room, message, history, self._loop.time())
        if listeners:
            self._receiver.published(room, position, publication, slow, call)
        else:
            self._set_timer()
        return position, len(listeners)

    async def position(self, room: str) -> Position:
        """See :meth:`Bus.position`."""
        position = self._hub.position(room, self._loop.time())
        self._set_timer()
        return position

    async def page(self, room: str, after: Position | None, limit: int | None) -> Page:
        """See :meth:`Bus.page`."""
        page = self._hub.page(room, after, limit, self._loop.time())
        self._set_timer()
        return page

    def enter(self, room: str, connection: int, key: str, info: Info, grace: float) -> None:
        """See :meth:`Bus.enter`."""
        present = self._hub.enter(room, Connection(self, connection), key, info, grace, self._loop.time())
        if present is not None:
            self._receiver.came(room, present)

    def leave(self, room: str, connection: int, key: str, grace: float) -> None:
        """See :meth:`Bus.leave`."""
        self._tell(self._hub.leave(room, Connection(self, connection), key, grace, self._loop.time()))
        self._set_timer()

    async def presence(self, room: str) -> list[Present]:
        """See :meth:`Bus.presence`."""
        return await read_parts(partial(self._read_present, room))

    async def _read_present(self, room: str, after: int) -> Part:
        if after:
            await asyncio.sleep(0)
        return self._hub.presence(room, after, PART)

    def _tell(self, left: list[Left]) -> None:
        for room, present, _ in left:
            self._receiver.went(room, present)

    def _set_timer(self) -> None:
        """Call :meth:`_tick` at the deadline of the hub, at the latest."""
        due = self._hub.deadline
        if due >= self._due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._due = self._loop.call_at(due, self._tick), due

    def _tick(self) -> None:
        self._timer, self._due = None, inf
        self._tell(self._hub.tick(self._loop.time()))
        self._set_timer()

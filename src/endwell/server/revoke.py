"""Closes the connections of a user whose authorization has ended, in all processes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, Self

from ..aio.broadcast import Slow
from ..aio.websocket import WebSocket, begin_close, stop_delivery
from ..codes import CloseCode
from ..ending import Cause
from ..errors import Forbidden
from ..http.accept import check_subject
from ..rooms.bus import RoomReceiver, listen_when_connected
from ..rooms.history import History
from ..rooms.keys import REVOKED
from ..rooms.position import Position, Publication
from ..rooms.registry import Registry
from ..rooms.rooms import Rooms, registry_of

__all__ = ["Deciding", "Revocations", "Revoked", "close_revoked"]

logger = logging.getLogger("endwell.server")

#: The revocations that a process reads which has lost its connection to the bus.
KEPT = History(messages=1000, seconds=3600, bytes=1 << 20)


def close_revoked(ws: WebSocket) -> None:
    """Close the connection of a subject that is revoked."""
    stop_delivery(ws)
    begin_close(ws, Cause.AUTH_REVOKED, CloseCode.FORBIDDEN, "authorization revoked")


class Revoked(Forbidden):
    """The subject was revoked while the application decided about it. Status: 403."""


class Deciding:
    """The application decides about a subject, while the block runs. It may have begun before a revocation."""

    __slots__ = ("_began", "_revocations")

    def __init__(self, revocations: Revocations) -> None:
        self._revocations = revocations
        self._began = 0

    def __enter__(self) -> Self:
        self._began = self._revocations._number
        self._revocations._deciding[self] = self._began
        return self

    def __exit__(self, *_: object) -> None:
        del self._revocations._deciding[self]
        self._revocations._forget()

    def is_revoked(self, subject: str) -> bool:
        """Whether ``subject`` was revoked since the block began, so that the decision may be outdated."""
        return self._revocations._revoked.get(subject, 0) > self._began


class Revocations(RoomReceiver):
    """The revocations that close connections of this process. The receiver of a reserved room."""

    def __init__(self, connections: Collection[WebSocket]) -> None:
        self._connections = connections
        self._registry: Registry | None = None
        #: Whether this process hears those of others.
        self.listens = False
        # The number of the last revocation; those of subjects that were revoked during a decision, oldest first;
        # and the decisions that run, oldest first, with the number at their begin.
        self._number = 0
        self._revoked: dict[str, int] = {}
        self._deciding: dict[Deciding, int] = {}

    def deciding(self) -> Deciding:
        """A block of code in which the application decides about a subject, before the connection has it."""
        return Deciding(self)

    def _forget(self) -> None:
        """Forget the revocations that no running decision needs to know."""
        oldest = next(iter(self._deciding.values()), self._number)
        while self._revoked and self._revoked[subject := next(iter(self._revoked))] <= oldest:
            del self._revoked[subject]

    @asynccontextmanager
    async def connected(self, rooms: Rooms) -> AsyncIterator[None]:
        """Connect them with those of other processes by the bus of the rooms, while the block runs.

        Of several servers with the same rooms, those of the first one are connected.
        """
        registry = registry_of(rooms)
        if not registry.bus.is_shared or REVOKED in registry.reserved:
            yield
            return
        self._registry, registry.reserved[REVOKED] = registry, self
        listening = asyncio.create_task(self._listen(registry))
        try:
            yield
        finally:
            listening.cancel()
            self._registry, self.listens = None, False
            del registry.reserved[REVOKED]
            registry.bus.ignore(REVOKED)

    async def _listen(self, registry: Registry) -> None:
        await listen_when_connected(registry.bus, REVOKED)
        self.listens = True

    async def revoke(self, subject: str) -> int:
        """See :meth:`Server.revoke`."""
        if subject is None:
            raise TypeError("subject must be a str, not None")
        check_subject(subject)
        closed = self._close(subject)
        if self._registry is not None:
            await self._registry.bus.publish(REVOKED, subject, KEPT, "skip", None)
        return closed

    def _close(self, subject: str) -> int:
        if self._deciding:
            self._number += 1
            self._revoked.pop(subject, None)
            self._revoked[subject] = self._number
        chosen = [ws for ws in self._connections if ws.subject == subject and ws.is_open]
        for ws in chosen:
            close_revoked(ws)
        return len(chosen)

    # -- the bus calls --------------------------------------------------------------------

    def published(
        self, room: str, position: Position, publication: Publication, slow: Slow, call: Any
    ) -> None:
        """See :class:`endwell.rooms.bus.Receiver`."""
        if isinstance(publication.message, str):
            self._close(publication.message)

    def lost(self, room: str, lost: int | None, position: Position) -> None:
        """See :class:`endwell.rooms.bus.Receiver`."""
        if all(ws.subject is None for ws in self._connections):
            return  # a revocation would close none of them
        number = "an unknown number of" if lost is None else lost
        logger.error("this process has lost %s revocations of other processes", number)

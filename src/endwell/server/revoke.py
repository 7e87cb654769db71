"""Closes the connections of a user whose authorization has ended, in all processes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from ..aio.broadcast import Slow
from ..aio.websocket import WebSocket, begin_close, stop_delivery
from ..codes import CloseCode
from ..ending import Cause
from ..http.accept import check_subject
from ..rooms.bus import RoomReceiver, listen_when_connected
from ..rooms.history import History
from ..rooms.keys import REVOKED
from ..rooms.position import Position, Publication
from ..rooms.registry import Registry
from ..rooms.rooms import Rooms, registry_of

__all__ = ["Revocations"]

logger = logging.getLogger("endwell.server")

#: The revocations that a process reads which has lost its connection to the bus.
KEPT = History(messages=1000, seconds=3600, bytes=1 << 20)


class Revocations(RoomReceiver):
    """The revocations that close connections of this process. The receiver of a reserved room."""

    def __init__(self, connections: Collection[WebSocket]) -> None:
        self._connections = connections
        self._registry: Registry | None = None
        #: Whether this process hears those of others.
        self.listens = False

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
        chosen = [ws for ws in self._connections if ws.subject == subject and ws.is_open]
        for ws in chosen:
            stop_delivery(ws)
            begin_close(ws, Cause.AUTH_REVOKED, CloseCode.FORBIDDEN, "authorization revoked")
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

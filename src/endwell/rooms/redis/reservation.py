"""How many connections all processes have, in Redis: the part of one process."""

from __future__ import annotations

import asyncio
import logging

from ...errors import BusUnavailable
from . import presence
from .leases import RESERVE
from .link import Link

__all__ = ["Reservation"]

logger = logging.getLogger("endwell.rooms")


class Reservation:
    """Says in Redis how many connections this process has, and repeats it, because it is true for some time only."""

    def __init__(self, link: Link, process: str) -> None:
        self._link = link
        self._process = process
        #: What Redis was told last; None before the first call.
        self._held: int | None = None
        self._limit = 0
        #: Whether a call is in progress.
        self._asks = False

    async def ask(self, held: int, wanted: int, limit: int) -> tuple[int, int]:
        """See :meth:`endwell.rooms.bus.Bus.reserve`."""
        self._held, self._limit, self._asks = held, limit, True
        try:
            granted, total = await self._call(held, wanted, limit)
            self._held = held + granted
        finally:
            self._asks = False
        return granted, total

    async def _call(self, held: int, wanted: int, limit: int) -> tuple[int, int]:
        keys = [f"{self._link.place.prefix}connections", presence.clock_key(self._link.place)]
        numbers = held, wanted, limit, *presence.lease_times()
        granted, total = await self._link.call(RESERVE, keys, self._process, *numbers)
        return granted, total

    async def run(self) -> None:
        """Repeat it at intervals. Runs while connected."""
        while True:
            try:
                # A call in progress says the same, and a number that is sent behind it would be too low.
                if self._held and not self._asks:
                    await self._call(self._held, 0, self._limit)
            except BusUnavailable:
                pass  # repeated when Redis is back
            except Exception:
                logger.exception("renewing the number of connections of this process failed")
            await asyncio.sleep(presence.RENEW_INTERVAL)

    async def stop(self) -> None:
        """Give everything back, for good."""
        held, self._held = self._held, None
        if held is not None and self._link.connected:
            await self._call(0, 0, self._limit)

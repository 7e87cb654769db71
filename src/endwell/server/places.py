"""``max_connections`` of all processes together: each connection has a place, which the bus of the rooms gives."""

from __future__ import annotations

import asyncio
import logging
from collections import deque

from ..errors import BusUnavailable
from ..rooms.bus import Bus

__all__ = ["SharedPlaces"]

logger = logging.getLogger("endwell.server")

#: Seconds until a place is asked for again that was not free: the end of a connection of another process may be
#: on its way, such as that of a client that has reconnected.
RECHECK_TIME = 0.05
#: Seconds until the bus is told again how many places are in use, after it was not available.
RETRY_INTERVAL = 1.0


class SharedPlaces:
    """The places of one process.

    A place is asked for when a connection is accepted, and given back at its end. No process keeps places that it
    does not use, so the limit is exact, and can be reached whichever process accepts the connections. One call is
    in progress at a time. It has all places that were asked for and given back meanwhile.
    """

    def __init__(self, bus: Bus, limit: int) -> None:
        self._bus = bus
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._used = 0
        #: What the bus was told last; None if that is not known.
        self._reserved: int | None = 0
        #: Number of connections of all processes at the last answer of the bus.
        self.total = 0
        self._waiters: deque[asyncio.Future[bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def waiting(self) -> int:
        """Number of connections that wait for a place."""
        return len(self._waiters)

    async def take(self) -> bool:
        """Take a place. Returns False if none is free, or if the bus is not available."""
        if await self._take():
            return True
        await asyncio.sleep(RECHECK_TIME)
        return await self._take()

    def give(self) -> None:
        """Give a place back."""
        self._used -= 1
        self.total -= 1
        self._tell()

    def stop(self) -> None:
        """The server has stopped. Its connections have ended."""
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
        self._answer(len(self._waiters), 0)

    async def _take(self) -> bool:
        future: asyncio.Future[bool] = self._loop.create_future()
        self._waiters.append(future)
        self._tell()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.result():
                self.give()
            raise

    def _tell(self) -> None:
        if self._stopped:
            self._answer(len(self._waiters), 0)
        elif self._task is None or self._task.done():
            self._task = self._loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._waiters or self._used != self._reserved:
                held, wanted = self._used, len(self._waiters)
                self._reserved = None
                granted, self.total = await self._bus.reserve(held, wanted, self._limit)
                self._reserved = held + granted
                self._answer(wanted, granted)
        except BusUnavailable:
            self._retry()
        except Exception:  # of whatever kind: the connections that wait must get an answer
            logger.exception("asking for the places of connections failed")
            self._retry()

    def _retry(self) -> None:
        self._answer(len(self._waiters), 0)
        self._loop.call_later(RETRY_INTERVAL, self._tell)

    def _answer(self, wanted: int, granted: int) -> None:
        for _ in range(wanted):
            future = self._waiters.popleft()
            if not future.done():
                future.set_result(granted > 0)
                self._used += granted > 0
                granted -= granted > 0

"""Closes a share of the connections of a server that goes on serving, so that other servers get their share."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection
from functools import partial
from math import floor, inf

from ...advice import RetryAdvice
from ...aio.syscalls import monotonic
from ...aio.websocket import WebSocket, end_delivery, last_message_at
from ...codes import CloseCode
from ...ending import Cause, Ending
from .closings import Closings
from .report import counted

__all__ = ["ShedRun", "check_shed"]

logger = logging.getLogger("endwell.server")

#: Seconds that a handler may stay busy before its connection is closed nevertheless. It is that of a drain with
#: the default deadline.
BUSY_TIME = 5.0
#: Minimum seconds between two checks of the schedule.
TICK = 0.05
REASON = RetryAdvice(0, 1).reason("moving to another server")


def check_shed(fraction: float, over: float) -> None:
    """Check the arguments of :meth:`Server.shed`.

    Raises:
        TypeError: An argument is not a number.
        ValueError: An argument is out of range.
    """
    for name, value in (("fraction", fraction), ("over", over)):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} must be a number, not {value!r}")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, not {fraction!r}")
    if not 0 <= over < inf:
        raise ValueError(f"over must be a finite number of seconds, not {over!r}")


class ShedRun:
    """Closes ``fraction`` of the open ``connections`` within ``over`` seconds, idle ones first."""

    def __init__(self, connections: Collection[WebSocket], fraction: float, over: float) -> None:
        idle_first = sorted((ws for ws in connections if ws.is_open), key=last_message_at)
        # Rounded at random, so that many workers with one connection each close the right share together.
        count = floor(fraction * len(idle_first) + random.random())  # noqa: S311  (not a secret)
        self._chosen = set(idle_first[:count])
        self._closings = Closings(BUSY_TIME, self._send_close)
        self._closed = 0
        self._finished = asyncio.Event()
        for index, ws in enumerate(idle_first[:count]):
            moment = over * (index + random.random()) / count  # noqa: S311  (not a secret)
            self._closings.schedule(moment, ws)
            ws.on_close(partial(self._ended, ws))
        logger.info("shed: %d of %s will close", count, counted(len(idle_first), "connection"))

    async def run(self) -> int:
        """Close them; returns how many were closed, when all of them have ended."""
        began = monotonic()
        try:
            while self._chosen:
                now = monotonic() - began
                due = self._closings.close_due(now)
                try:
                    async with asyncio.timeout(None if due == inf else max(due - now, TICK)):
                        await self._finished.wait()
                except TimeoutError:
                    pass
        finally:
            self.stop()
            logger.info("shed: %d closed in %.1f s", self._closed, monotonic() - began)
        return self._closed

    def stop(self) -> None:
        """Leave the connections open that are not closed yet. :meth:`run` returns."""
        self._closings.cancel()
        self._chosen.clear()
        self._finished.set()

    def _send_close(self, ws: WebSocket) -> None:
        # The clients come back at once: the closings are spread already.
        end_delivery(ws, Cause.SHED, CloseCode.SERVICE_RESTART, REASON)

    def _ended(self, ws: WebSocket, ending: Ending) -> None:
        self._chosen.discard(ws)
        self._closed += ending.cause is Cause.SHED
        self._closings.ended(ws, ending)
        if not self._chosen:
            self._finished.set()

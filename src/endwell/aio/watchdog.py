"""Noticing that we ourselves stood still: a blocked event loop, a stopped process, a machine that slept."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextvars import Context

from ..protocol.deadline import LATE
from .syscalls import monotonic

__all__ = ["StallDetector"]

logger = logging.getLogger("endwell")

#: Seconds from one beat to the next, and so the time after a sleep within which it is noticed.
CHECK_INTERVAL = 1.0


def clock() -> float:
    """Seconds on a clock that goes on while the machine sleeps, as ``time.monotonic`` does not.

    Where there is only the wall clock for that, a step of it looks like a sleep, and costs a ping.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time()


class StallDetector:
    """Beats on an event loop while that has connections, and so notices when it has stood still."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tell: Callable[[float, float], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = self._ahead = 0.0

    def start(self, tell: Callable[[float, float], None]) -> None:
        """Begin. After a standstill ``tell(since, seconds)`` is called, before the timers that were due meanwhile."""
        now = monotonic()
        self._tell = tell
        self._ahead = clock() - now
        self._set(now)

    def stop(self) -> None:
        """End, and refer to nobody."""
        assert self._timer is not None
        self._timer.cancel()
        self._timer = self._tell = None

    def _set(self, now: float) -> None:
        self._due = now + CHECK_INTERVAL
        # In a context of nobody's, as all that connections share.
        self._timer = self._loop.call_later(CHECK_INTERVAL, self._check, context=Context())

    def _check(self) -> None:
        now = monotonic()
        due, ahead = self._due, self._ahead
        self._ahead = clock() - now
        self._set(now)
        assert self._tell is not None
        late, slept = now - due, self._ahead - ahead
        if slept > LATE:
            # While a machine sleeps its monotonic clock stands still: so does ``since``.
            logger.info("this machine slept for %.1f s", slept)
            self._tell(now, slept)
        elif late > LATE:
            logger.info("the event loop stood still for %.1f s", late)
            self._tell(due, late)

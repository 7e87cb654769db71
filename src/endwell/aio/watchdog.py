"""Detects that this process was stalled: a blocked event loop, a stopped process, a sleeping machine."""

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

#: Seconds between checks, and so the time after a sleep within which it is noticed.
CHECK_INTERVAL = 1.0


def clock() -> float:
    """Return the seconds of a clock that runs while the machine sleeps, unlike ``time.monotonic``.

    Where only the wall clock does, a step of it looks like a sleep, and costs one ping.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time()


class StallDetector:
    """Runs a periodic timer on an event loop that has connections, and reports when it is late."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._callback: Callable[[float, float], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = self._offset = 0.0

    def start(self, callback: Callable[[float, float], None]) -> None:
        """Start. After a stall, call ``callback(since, seconds)`` before the timers that are overdue."""
        now = monotonic()
        self._callback = callback
        self._offset = clock() - now
        self._set(now)

    def stop(self) -> None:
        """Stop, and drop all references."""
        assert self._timer is not None
        self._timer.cancel()
        self._timer = self._callback = None

    def _set(self, now: float) -> None:
        self._due = now + CHECK_INTERVAL
        # In an empty context, like everything that connections share.
        self._timer = self._loop.call_later(CHECK_INTERVAL, self._check, context=Context())

    def _check(self) -> None:
        now = monotonic()
        due, offset = self._due, self._offset
        self._offset = clock() - now
        self._set(now)
        assert self._callback is not None
        late, slept = now - due, self._offset - offset
        if slept > LATE:
            # The monotonic clock does not advance while the machine sleeps, so the stall begins and ends now.
            logger.info("this machine slept for %.1f s", slept)
            self._callback(now, slept)
        elif late > LATE:
            logger.info("the event loop was stalled for %.1f s", late)
            self._callback(due, late)

"""How long calls wait for an answer. Time in which this process stood still does not count: see :mod:`.stalls`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from . import returning
from .stalls import PARTS

__all__ = ["Overdue"]


class Overdue:
    """Says which of many calls have waited for :data:`~endwell.rooms.returning.WAIT_TIME`.

    Args:
        expire: Called while calls wait, with a number: the calls with that number or a lower one, which
            :meth:`begin` has given to them, have waited too long. Returns whether others wait.
    """

    def __init__(self, expire: Callable[[int], bool]) -> None:
        self._expire = expire
        self._now = 0
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> int:
        """A call begins to wait. Returns its number."""
        if self._timer is None:
            self._start()
            return self._now + PARTS
        return self._now + PARTS + 1  # this part has begun already

    def stop(self) -> None:
        """No call waits any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(returning.WAIT_TIME / PARTS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._now += 1
        if self._expire(self._now):
            self._start()

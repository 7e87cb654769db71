"""How long calls wait for an answer. Time in which this process stood still does not count.

The answer may have arrived meanwhile, and this process has not read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from . import returning

__all__ = ["Overdue", "timeout_without_stalls"]

#: The number of parts in which a limit is waited for. A part that is late, because this process stood still,
#: counts as one.
_PARTS = 20


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
            return self._now + _PARTS
        return self._now + _PARTS + 1  # this part has begun already

    def stop(self) -> None:
        """No call waits any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(returning.WAIT_TIME / _PARTS, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._now += 1
        if self._expire(self._now):
            self._start()


@asynccontextmanager
async def timeout_without_stalls(seconds: float) -> AsyncIterator[None]:
    """Like ``asyncio.timeout(seconds)``, for the time in which this process runs."""
    loop = asyncio.get_running_loop()
    left = _PARTS
    timer: asyncio.TimerHandle | None = None

    def tick() -> None:
        nonlocal left, timer
        left -= 1
        if left:
            timer = loop.call_later(seconds / _PARTS, tick)
        else:
            limit.reschedule(loop.time())

    async with asyncio.timeout(None) as limit:
        timer = loop.call_later(seconds / _PARTS, tick)
        try:
            yield
        finally:
            timer.cancel()

"""Limits of time in which time does not count for which this process stood still, or its event loop was busy.

What the process waits for may have arrived meanwhile, and it has not read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["PARTS", "timeout_without_stalls"]

#: The number of parts in which a limit is waited for. A part that is late, because this process stood still,
#: counts as one.
PARTS = 20


@asynccontextmanager
async def timeout_without_stalls(seconds: float, parts: int = PARTS) -> AsyncIterator[None]:
    """Like ``asyncio.timeout(seconds)``, for the time in which this process runs.

    The event loop has at least ``parts`` turns.
    """
    loop = asyncio.get_running_loop()
    left = parts
    timer: asyncio.TimerHandle | None = None

    def tick() -> None:
        nonlocal left, timer
        left -= 1
        if left:
            timer = loop.call_later(seconds / parts, tick)
        else:
            limit.reschedule(loop.time())

    async with asyncio.timeout(None) as limit:
        timer = loop.call_later(seconds / parts, tick)
        try:
            yield
        finally:
            timer.cancel()

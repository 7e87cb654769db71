"""The ``on_start`` and ``on_stop`` callbacks of a server."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable
from time import monotonic

__all__ = ["start", "stop"]

logger = logging.getLogger("endwell.server")

Callback = Callable[[], object]


async def start(callbacks: Iterable[Callback]) -> None:
    """Call and await ``callbacks`` in order; stop at the first exception, which is raised."""
    for callback in callbacks:
        await _call(callback)


async def stop(callbacks: Iterable[Callback], seconds: float) -> None:
    """Call and await all ``callbacks`` in order, even if some fail, within ``seconds`` in total.

    A callback that exceeds the time is cancelled. If it ignores the cancellation, it is abandoned.
    """
    until = monotonic() + seconds
    for callback in callbacks:
        task = asyncio.ensure_future(_stop(callback))
        try:
            await asyncio.wait([task], timeout=max(0.0, until - monotonic()))
        finally:
            task.cancel()
        if not task.done():
            logger.warning("on_stop callback %r still runs after %.1f s: it is cancelled", callback, seconds)


async def _stop(callback: Callback) -> None:
    try:
        await _call(callback)
    except (Exception, SystemExit):
        logger.exception("on_stop callback %r failed", callback)


async def _call(callback: Callback) -> None:
    returned = callback()
    if inspect.isawaitable(returned):
        await returned

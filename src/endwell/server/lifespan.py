"""What an application does before its server serves, and after it has stopped."""

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
    """Call and await ``callbacks`` in order; the first that raises is the last."""
    for callback in callbacks:
        await _call(callback)


async def stop(callbacks: Iterable[Callback], seconds: float) -> None:
    """Call and await ``callbacks``, each whatever becomes of the others, within ``seconds`` in all.

    One that takes longer is cancelled, and left alone if it goes on even so.
    """
    until = monotonic() + seconds
    for callback in callbacks:
        task = asyncio.ensure_future(_stop(callback))
        try:
            await asyncio.wait([task], timeout=max(0.0, until - monotonic()))
        finally:
            task.cancel()
        if not task.done():
            logger.warning("on_stop callback %r still runs after %.1f s, and is cancelled", callback, seconds)


async def _stop(callback: Callback) -> None:
    try:
        await _call(callback)
    except (Exception, SystemExit):
        logger.exception("on_stop callback %r failed", callback)


async def _call(callback: Callback) -> None:
    returned = callback()
    if inspect.isawaitable(returned):
        await returned

"""The ``on_start`` and ``on_stop`` callbacks of a server. Plain functions run in a thread, because they may block."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextvars import Context, copy_context
from typing import cast

from ..aio.syscalls import monotonic
from .router import blocks
from .threads import HandlerThreads, result_of

__all__ = ["start", "stop"]

logger = logging.getLogger("endwell.server")

Callback = Callable[[], object]


async def start(callbacks: Iterable[Callback], threads: HandlerThreads) -> None:
    """Call and await ``callbacks`` in order; stop at the first exception, which is raised."""
    for callback in callbacks:
        await _call(callback, threads)


async def stop(callbacks: Iterable[Callback], seconds: float, threads: HandlerThreads) -> None:
    """Call and await all ``callbacks`` in order, even if some fail, within ``seconds`` in total.

    A callback that exceeds the time is cancelled. If it ignores the cancellation, or runs in a thread, it is
    abandoned.
    """
    until = monotonic() + seconds
    for callback in callbacks:
        task = asyncio.ensure_future(_stop(callback, threads))
        try:
            await asyncio.wait([task], timeout=max(0.0, until - monotonic()))
        finally:
            task.cancel()
        if not task.done():
            fate = "its thread is abandoned" if blocks(callback) else "it is cancelled"
            logger.warning("on_stop callback %r still runs after %.1f s: %s", callback, seconds, fate)


async def _stop(callback: Callback, threads: HandlerThreads) -> None:
    try:
        await _call(callback, threads)
    except (Exception, SystemExit):
        logger.exception("on_stop callback %r failed", callback)


async def _call(callback: Callback, threads: HandlerThreads) -> None:
    if not blocks(callback):
        # A wrapper that is not a coroutine function may return None instead of a coroutine.
        if (coroutine := callback()) is not None:
            await cast("Awaitable[object]", coroutine)
        return
    context = copy_context()
    try:
        await result_of(threads.start(callback, context=context))
    finally:
        _adopt(context)


def _adopt(context: Context) -> None:
    """Set the context variables that a callback has set in its thread, so that handlers see them."""
    for variable, value in context.items():
        if variable.get(_adopt) is not value:
            variable.set(value)

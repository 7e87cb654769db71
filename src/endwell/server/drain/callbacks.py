"""Calls the ``on_drain`` callbacks."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import copy_context
from functools import partial
from typing import Any, cast

from ..router import blocks
from ..threads import HandlerThreads, result_of
from .timetable import Drain

__all__ = ["call_on_drain"]

logger = logging.getLogger("endwell.server")


def call_on_drain(
    callback: Callable[[Drain], object], drain: Drain, threads: HandlerThreads
) -> Coroutine[Any, Any, None]:
    """Start an ``on_drain`` callback, a plain one in a thread. Returns a coroutine that the caller must run."""
    if blocks(callback):
        # Started here, because a second signal may cancel the coroutine before its first step.
        return _await_callback(
            callback, partial(result_of, threads.start(callback, drain, context=copy_context()))
        )
    return _await_callback(callback, partial(callback, drain))


async def _await_callback(callback: object, call: Callable[[], object]) -> None:
    try:
        # A wrapper that is not a coroutine function may return None instead of a coroutine.
        if (awaitable := call()) is not None:
            await cast("Awaitable[object]", awaitable)
    except (Exception, SystemExit):
        logger.exception("on_drain callback %r failed", callback)

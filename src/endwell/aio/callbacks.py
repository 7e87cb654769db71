"""What is called when a connection ends."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextvars import Context

from ..ending import Ending

__all__ = ["call_back", "check_callback"]

logger = logging.getLogger("endwell")


def check_callback(callback: object) -> None:
    """Raise TypeError for what ``on_close`` cannot call."""
    if not callable(callback) or inspect.iscoroutinefunction(callback):
        raise TypeError(f"callback must be a plain function, not {callback!r}")


def call_back(callback: Callable[[Ending], object], context: Context, ending: Ending) -> None:
    """Call what was given to ``on_close``, in the context of that."""
    try:
        context.run(callback, ending)
    except Exception:
        logger.exception("on_close callback %r failed", callback)

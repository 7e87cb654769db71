"""What is called when a connection ends."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextvars import Context

from ..ending import Ending

__all__ = ["call_back", "check_callback", "check_returned"]

logger = logging.getLogger("endwell")


def check_callback(callback: object) -> None:
    """Raise TypeError for what ``on_close`` cannot call."""
    if not callable(callback) or inspect.iscoroutinefunction(callback):
        raise TypeError(f"callback must be a plain function, not {callback!r}")


def check_returned(returned: object, function: object) -> None:
    """Raise TypeError if a plain ``function`` has returned what has to be awaited: then nothing of it has run."""
    if returned is not None and inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise TypeError(
            f"{getattr(function, '__qualname__', repr(function))} is a plain function, but returned "
            f"{type(returned).__name__} {returned!r}, which nothing awaits"
        )


def call_back(callback: Callable[[Ending], object], context: Context, ending: Ending) -> None:
    """Call what was given to ``on_close``, in the context of that."""
    try:
        check_returned(context.run(callback, ending), callback)
    except KeyboardInterrupt:
        raise
    except BaseException:  # sys.exit() too: a callback ends neither the loop nor a thread of the library
        logger.exception("on_close callback %r failed", callback)

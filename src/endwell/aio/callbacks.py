"""Callbacks that are called when a connection ends."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol

from ..ending import Ending

if TYPE_CHECKING:
    from ..protocol.connection import Connection

__all__ = ["Counter", "Observer", "call_back", "check_arguments", "check_callback", "check_returned"]

logger = logging.getLogger("endwell")


class Observer(Protocol):
    """What a part of the library is, to be told of the ends of many connections."""

    def ended(self, ws: Any, ending: Ending) -> None:
        """A connection has ended. Must not raise."""


class Counter(Protocol):
    """What counts the connections of a route."""

    def ended(self, core: Connection, /) -> None:
        """A connection has ended. Must not raise."""

    def answered(self, latency: float, /) -> None:
        """A ping was answered after ``latency`` seconds. Must not raise."""

    def lagged(self, slow: str, /) -> None:
        """A connection was slow when a broadcast came, and was treated according to ``slow``. Must not raise."""


def check_callback(callback: object) -> None:
    """Raise TypeError for an object that ``on_close`` cannot call."""
    if not callable(callback) or inspect.iscoroutinefunction(callback):
        raise TypeError(f"callback must be a plain function, not {callback!r}")


def check_arguments(function: Callable[..., object], *names: str) -> None:
    """Raise TypeError for a function that cannot be called with positional arguments of these names."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some builtins have no signature
    try:
        signature.bind(*names)
    except TypeError as error:
        name = getattr(function, "__qualname__", repr(function))
        raise TypeError(
            f"{name}({', '.join(names)}) will be called, but {name}{signature}: {error}"
        ) from None


def check_returned(returned: object, function: object) -> None:
    """Raise TypeError if a plain ``function`` has returned an awaitable: then its code has not run."""
    if returned is not None and inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise TypeError(
            f"{getattr(function, '__qualname__', repr(function))} is a plain function, but returned "
            f"{type(returned).__name__} {returned!r}, which nothing awaits"
        )


def call_back(callback: Callable[[Ending], object], context: Context, ending: Ending) -> None:
    """Call an ``on_close`` callback, in the context of its registration."""
    try:
        check_returned(context.run(callback, ending), callback)
    except KeyboardInterrupt:
        raise
    except BaseException:  # includes sys.exit(): a callback must not end the loop or a thread of the library
        logger.exception("on_close callback %r failed", callback)

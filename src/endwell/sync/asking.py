"""Functions of the application that a blocking client calls before an attempt: in a thread, because they may block."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

from .portal import Portal

__all__ = ["in_a_thread"]

T = TypeVar("T")


def in_a_thread(name: str, argument: T, portal: Portal) -> T:
    """Return ``argument``; if it is a function, a coroutine function that calls it in a thread.

    Raises TypeError for a coroutine function: a blocking program has no loop for it. ``name`` is that of the
    argument.
    """
    if not callable(argument):
        return argument
    if inspect.iscoroutinefunction(argument):
        raise TypeError(f"{name} must not be a coroutine function in endwell.sync, but {argument!r} is one")
    return _Call(argument, portal).result  # type: ignore[return-value]


class _Call:
    """Calls one function, in one thread at a time."""

    def __init__(self, function: Callable[[], Any], portal: Portal) -> None:
        self._function = function
        self._portal = portal
        self._context = copy_context()
        self._running: asyncio.Future[tuple[Any, BaseException | None]] | None = None

    async def result(self) -> Any:
        """Return the result of the call, or raise its exception.

        A call cannot be interrupted. If that of an earlier attempt still runs, this waits for it, so that a
        function that hangs occupies one thread, not one for each attempt.
        """
        if self._running is None or self._running.done():
            self._running = self._begin()
        value, exc = await asyncio.shield(self._running)
        if exc is None:
            return value
        if isinstance(exc, Exception):
            raise exc
        # SystemExit and KeyboardInterrupt would end the event loop of all blocking clients.
        raise RuntimeError(f"{exc!r} was raised") from exc

    def _begin(self) -> asyncio.Future[tuple[Any, BaseException | None]]:
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

        def call() -> None:
            result: tuple[Any, BaseException | None]
            try:
                result = self._context.run(self._function), None
            except BaseException as exc:
                result = None, exc
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(outcome.set_result, result)

        self._portal.reconnecting_callbacks.submit(call)
        return outcome

"""A timer for what a peer has to do, outside of a core: stalls of this process do not count."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .reactor import Reactor
from .syscalls import monotonic

__all__ = ["Patience"]


class Patience:
    """Calls ``over()`` in ``seconds``, and later by as much as this process was stalled meanwhile."""

    __slots__ = ("_before", "_began", "_granted", "_handle", "_over", "_reactor")

    def __init__(self, reactor: Reactor, seconds: float, over: Callable[[], object]) -> None:
        self._reactor = reactor
        self._over = over
        self._began = monotonic()
        # The stalls before the start, and those for which the timer was moved.
        self._before, self._granted = reactor.seconds_stalled, 0.0
        self._handle: asyncio.Handle = reactor.loop.call_later(seconds, self._due)

    def passed(self) -> float:
        """Seconds since the start, without stalls."""
        return max(0.0, monotonic() - self._began - self._stalled())

    def cancel(self) -> None:
        """Never call ``over()``."""
        self._handle.cancel()

    def _stalled(self) -> float:
        return self._reactor.seconds_stalled - self._before

    def _due(self) -> None:
        # After a stall, this timer may run before the one that notices the stall, and before what has come is read:
        # uvloop runs overdue timers, and then what they have scheduled, before it asks the kernel.
        self._handle = self._reactor.loop.call_soon(self._soon)

    def _soon(self) -> None:
        self._handle = self._reactor.loop.call_soon(self._judge)

    def _judge(self) -> None:
        stalled = self._stalled()
        if stalled > self._granted:
            self._handle = self._reactor.loop.call_later(stalled - self._granted, self._due)
            self._granted = stalled
        else:
            self._over()

"""An event loop with a virtual clock, whose connections are in memory: for tests of applications.

No socket and no real time is involved, so a test of a timeout takes milliseconds and always has the same result.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
from typing import Any

from .memory import Memory

__all__ = ["VirtualLoop"]

#: The virtual time at which each loop starts, in seconds.
START = 1000.0
#: Seconds that a turn of the loop takes, so that an answer comes later than its question.
TURN = 1e-6


class _Selector(selectors.DefaultSelector):
    """Advances the clock of its loop instead of waiting."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        """Return what is ready. If nothing is, it is the time of the next timer."""
        self.loop._pass_time(TURN)
        ready: list[Any] = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None or self.loop._holding:
            return super().select(None)  # only a thread can wake the loop
        self.loop._pass_time(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still while something runs, and jumps to the next timer when nothing does.

    Servers and clients of endwell on it are connected in memory. `time.monotonic()` and `time.sleep()` are not
    virtual, and neither are sockets: a timeout of other I/O expires before any data arrives.
    """

    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self._virtual_time = START
        self._holding = 0
        # The compiled modules and the plain ones read a clock each.
        modules = (sys.modules.get(f"endwell.aio.{name}") for name in ("syscalls", "_syscalls"))
        self._set_clocks = [module.set_clock for module in modules if module is not None]
        super().__init__(selector)
        self._endwell_memory = Memory(self)

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._virtual_time

    def _pass_time(self, seconds: float) -> None:
        self._virtual_time += seconds
        self._set_clock(self._virtual_time)

    def hold(self, future: asyncio.Future[Any]) -> None:
        """Do not let time pass until ``future`` is done, because a thread computes its result."""
        self._holding += 1
        future.add_done_callback(self._release)

    def _release(self, _: object) -> None:
        self._holding -= 1

    def run_forever(self) -> None:
        """Run until `stop()`; the clock that endwell reads in this thread is virtual meanwhile."""
        self._set_clock(self._virtual_time)
        try:
            super().run_forever()
        finally:
            self._set_clock(None)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """Run a function in a thread; time does not pass meanwhile."""
        future = super().run_in_executor(executor, func, *args)
        self.hold(future)
        return future

    async def shutdown_default_executor(self, *args: Any, **kwargs: Any) -> None:
        """Wait for the threads of the executor; time does not pass meanwhile.

        Since Python 3.13, asyncio has a limit for it in time of the loop. A thread takes real time.
        """
        self._holding += 1
        try:
            await super().shutdown_default_executor(*args, **kwargs)
        finally:
            self._holding -= 1

    def _set_clock(self, now: float | None) -> None:
        for set_clock in self._set_clocks:
            set_clock(now)

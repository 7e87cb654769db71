"""Calls to an application's functions, which may block: one after the other, in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from .threads import Threads

__all__ = ["SerialExecutor"]


class SerialExecutor:
    """Calls made by ``threads``, one at a time, in the order in which they were asked for."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        #: The one that is being made, and those after it.
        self._calls: deque[Callable[[], object]] = deque()

    def add(self, call: Callable[[], object]) -> None:
        """Make ``call``, which raises nothing, after those before it; waits for nobody."""
        with self._lock:
            self._calls.append(call)
            if len(self._calls) > 1:
                return
        self._threads.submit_or_run(self._run)

    async def flushed(self) -> None:
        """Wait until all that have been asked for are made."""
        loop, made = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(made.set)

        self.add(tell)
        await made.wait()

    def _run(self) -> None:
        while True:
            self._calls[0]()
            with self._lock:
                self._calls.popleft()
                if not self._calls:
                    return

"""Calls of application functions, which may block: one after the other, in a thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from .threads import Threads

__all__ = ["SerialExecutor"]

logger = logging.getLogger("endwell")


class SerialExecutor:
    """Runs calls in a thread of ``threads``, one at a time, in the order of :meth:`add`."""

    def __init__(self, threads: Threads) -> None:
        self._threads = threads
        self._lock = threading.Lock()
        #: The running call, and the calls after it.
        self._calls: deque[Callable[[], object]] = deque()

    def add(self, call: Callable[[], object]) -> None:
        """Run ``call`` after the earlier calls. Returns without waiting. An exception is logged."""
        with self._lock:
            self._calls.append(call)
            if len(self._calls) > 1:
                return
        self._threads.submit_or_run(self._run)

    async def flushed(self) -> None:
        """Wait until all calls that were added so far have returned."""
        loop, made = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed, so no task waits
                loop.call_soon_threadsafe(made.set)

        self.add(tell)
        await made.wait()

    def _run(self) -> None:
        while True:
            call = self._calls[0]
            try:
                call()
            except BaseException:  # includes sys.exit(): without this, no later call would ever run
                logger.exception("%r failed", call)
            del call  # and the references that it holds
            with self._lock:
                self._calls.popleft()
                if not self._calls:
                    return

"""Ends the process when a stop takes longer than it may, because something blocks the event loop."""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
from collections.abc import Callable
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic

__all__ = ["Watchdog"]

logger = logging.getLogger("endwell.server")

#: Seconds to say where it hangs. The log may hang too: whatever blocks the loop may hold a lock of it.
LAST_WORDS = 1.0


class Watchdog:
    """Ends the process with status 1 at the earliest of the times that it is given.

    Its threads are started with it, because at the moment of a stop the system may have no thread to give.
    """

    def __init__(self) -> None:
        self._threads = [_Alarm(0.0, _report), _Alarm(LAST_WORDS, lambda: None)]

    def limit(self, seconds: float) -> None:
        """End the process in ``seconds``; may be called in a signal handler."""
        for each in self._threads:
            each.due.put(monotonic() + seconds)

    def dismiss(self) -> None:
        """The stop is over: end nothing."""
        for each in self._threads:
            each.due.put(-inf)


class _Alarm:
    """A thread that calls ``last`` and ends the process, ``delay`` seconds after the first time that it is told."""

    def __init__(self, delay: float, last: Callable[[], object]) -> None:
        #: Times; -inf: never. Its put() is the one of the standard library that a signal handler may call at
        #: any moment: "put() ... is reentrant".
        self.due: SimpleQueue[float] = SimpleQueue()
        self._delay = delay
        self._last = last
        threading.Thread(target=self._wait, name="endwell watchdog", daemon=True).start()

    def _wait(self) -> None:
        due = inf
        while (left := due + self._delay - monotonic()) > 0:
            try:
                told = self.due.get(timeout=min(left, threading.TIMEOUT_MAX))
            except Empty:
                continue
            if told == -inf:
                return
            due = min(due, told)
        try:
            self._last()
        finally:
            os._exit(1)


def _report() -> None:
    logger.critical("something blocks the event loop, so the process ends without it; this is where:")
    faulthandler.dump_traceback()
    logging.shutdown()

"""Exits the process when a stop exceeds its time limit because the event loop is blocked."""

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

#: Seconds for the report. Logging may hang, too, because the code that blocks the loop may hold a logging
#: lock.
REPORT_TIME = 1.0


class Watchdog:
    """Exits the process with status 1 at the earliest of the limits.

    The threads start in the constructor, because the system may be unable to start a thread at the stop.
    """

    def __init__(self) -> None:
        self._threads = [_Alarm(0.0, _report), _Alarm(REPORT_TIME, lambda: None)]

    def limit(self, seconds: float) -> None:
        """Exit the process in ``seconds``; may be called in a signal handler."""
        for each in self._threads:
            each.due.put(monotonic() + seconds)

    def cancel(self) -> None:
        """Cancel all limits and end the threads."""
        for each in self._threads:
            each.due.put(-inf)


class _Alarm:
    """A thread that calls ``last`` and exits the process, ``delay`` seconds after the earliest time in ``due``."""

    def __init__(self, delay: float, last: Callable[[], object]) -> None:
        #: Times of the monotonic clock; -inf ends the thread. SimpleQueue, because a signal handler may call
        #: its put() at any time: "put() ... is reentrant".
        self.due: SimpleQueue[float] = SimpleQueue()
        self._delay = delay
        self._last = last
        threading.Thread(target=self._wait, name="endwell watchdog", daemon=True).start()

    def _wait(self) -> None:
        due = inf
        while (left := due + self._delay - monotonic()) > 0:
            try:
                limit = self.due.get(timeout=min(left, threading.TIMEOUT_MAX))
            except Empty:
                continue
            if limit == -inf:
                return
            due = min(due, limit)
        try:
            self._last()
        finally:
            os._exit(1)


def _report() -> None:
    logger.critical("the event loop is blocked: the process exits; these are the stacks of its threads:")
    faulthandler.dump_traceback()
    logging.shutdown()

"""Exits the process when a stop exceeds its time limit because the event loop is blocked."""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic, sleep

__all__ = ["Watchdog"]

logger = logging.getLogger("endwell.server")

#: Seconds for the report. Logging may hang, too, because the code that blocks the loop may hold a logging
#: lock.
REPORT_TIME = 1.0
#: Number of parts in which they pass. A part in which this process stands still counts as one.
PARTS = 10


class Watchdog:
    """Exits the process with status 1 at the earliest of the limits.

    The threads start in the constructor, because the system may be unable to start a thread at the stop.
    """

    def __init__(self) -> None:
        #: Times of the monotonic clock; -inf cancels all. SimpleQueue, because a signal handler may call
        #: its put() at any time: "put() ... is reentrant".
        self._due: SimpleQueue[float] = SimpleQueue()
        #: Whether the report begins; False if all limits are cancelled.
        self._reports: SimpleQueue[bool] = SimpleQueue()
        for work in (self._wait, self._bound):
            threading.Thread(target=work, name="endwell watchdog", daemon=True).start()

    def limit(self, seconds: float) -> None:
        """Exit the process in ``seconds``; may be called in a signal handler."""
        self._due.put(monotonic() + seconds)

    def cancel(self) -> None:
        """Cancel all limits and end the threads."""
        self._due.put(-inf)

    def _wait(self) -> None:
        """Exit after a report at the earliest time."""
        due = inf
        while (left := due - monotonic()) > 0:
            try:
                limit = self._due.get(timeout=min(left, threading.TIMEOUT_MAX))
            except Empty:
                continue
            if limit == -inf:
                self._reports.put(False)
                return
            due = min(due, limit)
        self._reports.put(True)
        try:
            _report()
        finally:
            os._exit(1)

    def _bound(self) -> None:
        """Exit if the report takes too long."""
        if self._reports.get():
            for _ in range(PARTS):
                sleep(REPORT_TIME / PARTS)
            os._exit(1)


def _report() -> None:
    logger.critical("the event loop is blocked: the process exits; these are the stacks of its threads:")
    faulthandler.dump_traceback()
    logging.shutdown()

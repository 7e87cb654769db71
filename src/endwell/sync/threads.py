"""Threads that work: as many as there is work, up to a bound, and gone when there is none."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep

from .waiting import acquired_lock

__all__ = ["Threads"]

logger = logging.getLogger("endwell")

#: Seconds without work after which a thread ends.
IDLE_TIME = 5.0


class Threads:
    """A pool of daemon threads.

    Not ``concurrent.futures``: its threads stay for ever, a process waits for them at
    its exit, and it has no way to refuse.
    """

    def __init__(self, bound: int, name: str) -> None:
        self.bound = bound
        #: Threads that work.
        self.busy = 0
        self._name = name
        self._lock = threading.Lock()
        self._idle: list[_PoolThread] = []
        self._jobs: deque[Callable[[], object]] = deque()
        self._started = 0
        self._dismissed = False
        self._kept = 0

    def submit(self, job: Callable[[], object]) -> None:
        """Run ``job`` in a thread, as soon as there is one.

        Raises RuntimeError if the system gives no thread.
        """
        with self._lock:
            self._dismissed = False
            if self._idle:
                worker = self._idle.pop()
            elif self.busy < self.bound:
                self._started += 1
                worker = _PoolThread(self, f"{self._name} {self._started}")
            else:
                self._jobs.append(job)
                return
            self.busy += 1
        worker.job = job
        try:
            worker.go()
        except RuntimeError:
            with self._lock:
                self.busy -= 1
            raise

    def submit_or_run(self, job: Callable[[], object]) -> None:
        """The same, or run ``job`` here if there is no thread to be had, such as at the exit of the interpreter.

        If the system gives no further thread, the job waits for one that works.
        """
        try:
            self.submit(job)
        except RuntimeError:
            with self._lock:
                self._jobs.append(job)
                jobs = [] if self.busy else [self._jobs.popleft() for _ in range(len(self._jobs))]
            for each in jobs:
                each()

    def keep(self) -> None:
        """Start a thread now, and have it stay until :meth:`release`: later the system may have none to give."""
        with self._lock:
            self._kept += 1
            if self._kept > 1:
                return
        with suppress(RuntimeError):
            self.submit(lambda: None)

    def release(self) -> None:
        """Take back one :meth:`keep`."""
        with self._lock:
            self._kept -= 1
            if self._kept:
                return
        self.dismiss()

    def finish(self, seconds: float) -> None:
        """Wait until there is no work left, but not longer than that."""
        end = monotonic() + seconds
        while self.busy and monotonic() < end:
            sleep(0.001)

    def dismiss(self) -> None:
        """Let those go that have no work, and the others when theirs is done, until there is more."""
        with self._lock:
            self._dismissed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.job = None
            worker.go()

    def _next(self, worker: _PoolThread) -> bool:
        """Whether ``worker`` has another job, or may go; else it is idle."""
        with self._lock:
            if self._jobs:
                worker.job = self._jobs.popleft()
                return True
            self.busy -= 1
            if self._dismissed:
                return True
            self._idle.append(worker)
            return False

    def _retire(self, worker: _PoolThread) -> bool:
        """Whether ``worker`` may go: False if it has been given a job this moment, or is to stay."""
        with self._lock:
            if worker not in self._idle or (self._kept and len(self._idle) == 1):
                return False
            self._idle.remove(worker)
            return True


class _PoolThread:
    """One thread."""

    def __init__(self, threads: Threads, name: str) -> None:
        self.job: Callable[[], object] | None = None
        self._threads = threads
        self._bell = acquired_lock()
        self._thread: threading.Thread | None = None
        self._name = name

    def go(self) -> None:
        """There is a job, or None: the end."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        else:
            self._bell.release()

    def _work(self) -> None:
        while self.job is not None:
            try:
                self.job()
            except BaseException:  # sys.exit() too: this thread is not the job's to end
                logger.exception("%r failed", self.job)
            self.job = None  # nothing of it outlives it here
            if self._threads._next(self):
                continue
            if not self._bell.acquire(timeout=IDLE_TIME):
                if self._threads._retire(self):
                    return
                self._bell.acquire()

"""A thread pool: it starts threads on demand, up to a bound, and ends idle threads."""

from __future__ import annotations

import _thread
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep

from .waiting import acquired_lock

__all__ = ["Threads"]

logger = logging.getLogger("endwell")

#: What starts a thread. If gevent or eventlet replaces it after this import, the locks of this library are still
#: real ones: they would block the one thread in which all greenlets run.
_START = _thread.start_new_thread
#: Seconds after which an idle thread ends.
IDLE_TIME = 5.0


class Threads:
    """A pool of at most ``bound`` daemon threads.

    Why not ``concurrent.futures``: its threads never end, a process waits for them at its exit, and it
    cannot refuse a job.
    """

    def __init__(self, bound: int, name: str) -> None:
        self.bound = bound
        #: Number of threads that run a job.
        self.busy = 0
        self._name = name
        self._lock = threading.Lock()
        self._idle: list[_PoolThread] = []
        self._jobs: deque[Callable[[], object]] = deque()
        self._started = 0
        self._dismissed = False
        self._kept = 0

    def submit(self, job: Callable[[], object]) -> None:
        """Run ``job`` in a thread, as soon as one is free.

        Raises RuntimeError if the system cannot start a thread.
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
        """Like :meth:`submit`, but run ``job`` in this thread if no thread exists and none can be started.

        That happens at the exit of the interpreter, for example. If only a further thread cannot be started,
        the job waits for a busy one.
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
        """Start a thread and keep it until :meth:`release`, because the system may refuse a later start."""
        with self._lock:
            self._kept += 1
            if self._kept > 1:
                return
        with suppress(RuntimeError):
            self.submit(lambda: None)

    def release(self) -> None:
        """Undo one :meth:`keep`."""
        with self._lock:
            self._kept -= 1
            if self._kept:
                return
        self.dismiss()

    def finish(self, seconds: float) -> None:
        """Wait until all jobs are done, for at most ``seconds``."""
        end = monotonic() + seconds
        while self.busy and monotonic() < end:
            sleep(0.001)

    def dismiss(self) -> None:
        """End the idle threads now and the others after their jobs, until there is a new job."""
        with self._lock:
            self._dismissed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.job = None
            worker.go()

    def _next(self, worker: _PoolThread) -> bool:
        """Return True if ``worker`` has a new job or shall end; False if it becomes idle."""
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
        """Return whether ``worker`` may end: False if it has just got a job, or has to be kept."""
        with self._lock:
            if worker not in self._idle or (self._kept and len(self._idle) == 1):
                return False
            self._idle.remove(worker)
            return True


class _PoolThread:
    """One thread of the pool."""

    def __init__(self, threads: Threads, name: str) -> None:
        self.job: Callable[[], object] | None = None
        self._threads = threads
        self._wakeup = acquired_lock()
        self._thread: threading.Thread | None = None
        self._name = name

    def go(self) -> None:
        """Start or wake the thread: it runs ``job``, or ends if ``job`` is None."""
        if self._thread is None:
            if _thread.start_new_thread is not _START:
                raise RuntimeError(
                    "threads were monkey-patched (gevent or eventlet) after the import of endwell; patch them before"
                )
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        else:
            self._wakeup.release()

    def _work(self) -> None:
        while self.job is not None:
            try:
                self.job()
            except BaseException:  # includes sys.exit(): a job must not end a thread of the pool
                logger.exception("%r failed", self.job)
            self.job = None  # drop the references that the job holds
            if self._threads._next(self):
                continue
            if not self._wakeup.acquire(timeout=IDLE_TIME):
                if self._threads._retire(self):
                    return
                self._wakeup.acquire()

"""Threads that wait for something."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import TIMEOUT_MAX, Lock

from .locks import allocate, hand_over

__all__ = ["Waiting", "acquired_lock", "remaining"]


def acquired_lock() -> Lock:
    """A lock that is held, for its holder to wait on until another releases it."""
    lock = allocate()
    lock.acquire()
    return lock


def remaining(deadline: float | None, now: float) -> float:
    """Seconds left, as ``Lock.acquire`` wants them: -1 for ever."""
    if deadline is None:
        return -1
    return min(max(0.0, deadline - now), TIMEOUT_MAX)


class Waiting:
    """Threads that wait, in the order in which they came.

    It takes no lock of its own: the steps of a deque are atomic. What is waited for has
    to be true *before* :meth:`wake` is called, and whoever waits looks again after each
    :meth:`wait`.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: deque[Lock] = deque()

    def __len__(self) -> int:
        return len(self._locks)

    def wait(self, ready: Callable[[], object], seconds: float) -> None:
        """Wait until woken, or so long (-1: for ever), or not at all if ``ready()``; perhaps for nothing."""
        lock = acquired_lock()
        self._locks.append(lock)
        try:
            # Asked again now that whoever makes it true can see us.
            if not ready():
                lock.acquire(True, seconds)
        except BaseException:
            # Ctrl-C. If we were woken, what we were woken for is somebody else's now.
            if not self._withdraw(lock):
                self.wake(1)
            raise
        self._withdraw(lock)

    def _withdraw(self, lock: Lock) -> bool:
        try:
            self._locks.remove(lock)
        except ValueError:
            return False
        return True

    def wake(self, count: int) -> None:
        """Wake so many, at most; the first first."""
        for lock in self._next(count):
            lock.release()

    def hand_over(self, count: int) -> None:
        """The same, and let them run first, if they can at once."""
        hand_over(self._next(count))

    def wake_all(self) -> None:
        """Wake everybody."""
        self.wake(len(self._locks))

    def _next(self, count: int) -> list[Lock]:
        locks: list[Lock] = []
        while len(locks) < count:
            try:
                locks.append(self._locks.popleft())
            except IndexError:
                break
        return locks

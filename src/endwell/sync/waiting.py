"""Threads that wait for a condition."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import TIMEOUT_MAX, Lock

from .locks import allocate, hand_over

__all__ = ["Waiting", "acquired_lock", "remaining"]


def acquired_lock() -> Lock:
    """Return a locked lock, on which the caller waits until another thread releases it."""
    lock = allocate()
    lock.acquire()
    return lock


def remaining(deadline: float | None, now: float) -> float:
    """Return the seconds until ``deadline``, as ``Lock.acquire`` expects them: -1 without a deadline."""
    if deadline is None:
        return -1
    return min(max(0.0, deadline - now), TIMEOUT_MAX)


class Waiting:
    """A first-in-first-out queue of waiting threads: a condition variable without a lock.

    Single operations of a deque are atomic. The condition must be true *before* :meth:`wake` is called, and
    a thread must check it again after each :meth:`wait`, which may return spuriously.
    """

    __slots__ = ("_locks",)

    def __init__(self) -> None:
        self._locks: deque[Lock] = deque()

    def __len__(self) -> int:
        return len(self._locks)

    def wait(self, ready: Callable[[], object], seconds: float) -> None:
        """Wait until woken, for at most ``seconds`` (-1: no limit), or not at all if ``ready()`` is true."""
        lock = acquired_lock()
        self._locks.append(lock)
        try:
            # Checked after the append: a thread that makes the condition true now also sees this lock.
            if not ready():
                lock.acquire(True, seconds)
        except BaseException:
            # Ctrl-C. If this thread was woken, the wake-up passes to the next thread.
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
        """Wake at most ``count`` threads, in the order in which they came."""
        for lock in self._next(count):
            lock.release()

    def hand_over(self, count: int) -> None:
        """Wake at most ``count`` threads, and yield to them."""
        hand_over(self._next(count))

    def wake_all(self) -> None:
        """Wake all threads."""
        self.wake(len(self._locks))

    def _next(self, count: int) -> list[Lock]:
        locks: list[Lock] = []
        while len(locks) < count:
            try:
                locks.append(self._locks.popleft())
            except IndexError:
                break
        return locks

"""The lock that a thread waits on until another thread releases it.

The compiled build uses ``_locks.pyx`` instead: a lock with the same methods, and a way to release
locks without holding the GIL. A thread that is woken while the waking thread holds the GIL has to
wait again, for the GIL, which costs as much as the message.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

__all__ = ["allocate", "hand_over"]


def allocate() -> Lock:
    """Return an unlocked lock."""
    return Lock()


def hand_over(locks: Iterable[Lock]) -> None:
    """Release the locks, and yield to the threads that waited for them."""
    for lock in locks:
        lock.release()

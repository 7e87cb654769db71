"""The lock that a thread waits on until another lets it go on.

Compiled, ``_locks.pyx`` stands in: a lock with the same methods, and a way to let go
without holding the interpreter meanwhile. A thread that is woken by one that holds it
only wakes to wait again, for the interpreter; that costs as much as the message.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Lock

__all__ = ["allocate", "hand_over"]


def allocate() -> Lock:
    """A lock that is free."""
    return Lock()


def hand_over(locks: Iterable[Lock]) -> None:
    """Release them, and let those who waited for them run, if they can at once."""
    for lock in locks:
        lock.release()

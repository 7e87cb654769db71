"""An event for threads that can be read as a bool."""

from __future__ import annotations

import threading

__all__ = ["ThreadFlag"]


class ThreadFlag(threading.Event):
    """A threading.Event that is also a truth value."""

    def __bool__(self) -> bool:
        return self.is_set()

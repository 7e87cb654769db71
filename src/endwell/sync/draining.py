"""What handlers in threads learn of their server's stopping."""

from __future__ import annotations

import threading

__all__ = ["ThreadDrainEvent"]


class ThreadDrainEvent(threading.Event):
    """An event that is also a truth value: set when the server begins to drain."""

    def __bool__(self) -> bool:
        return self.is_set()

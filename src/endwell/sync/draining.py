"""The drain event of handlers in threads."""

from __future__ import annotations

import threading

__all__ = ["ThreadDrainEvent"]


class ThreadDrainEvent(threading.Event):
    """A threading.Event that is also a truth value: set when the server begins to drain."""

    def __bool__(self) -> bool:
        return self.is_set()

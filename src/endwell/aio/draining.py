"""The drain event of coroutine handlers."""

from __future__ import annotations

import asyncio

__all__ = ["DrainEvent"]


class DrainEvent(asyncio.Event):
    """An asyncio.Event that is also a truth value: set when the server begins to drain."""

    def __bool__(self) -> bool:
        return self.is_set()

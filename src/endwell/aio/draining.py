"""What handlers learn of their server's stopping."""

from __future__ import annotations

import asyncio

__all__ = ["DrainEvent"]


class DrainEvent(asyncio.Event):
    """An event that is also a truth value: set when the server begins to drain."""

    def __bool__(self) -> bool:
        return self.is_set()

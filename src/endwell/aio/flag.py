"""An event for coroutines that can be read as a bool."""

from __future__ import annotations

import asyncio

__all__ = ["Flag"]


class Flag(asyncio.Event):
    """An asyncio.Event that is also a truth value."""

    def __bool__(self) -> bool:
        return self.is_set()

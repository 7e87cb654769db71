"""Counts the requests of a worker."""

from __future__ import annotations

from collections.abc import Callable
from random import randint

__all__ = ["RequestCount"]


class RequestCount:
    """Calls ``reached()`` after every ``limit`` requests, the first time up to ``jitter`` requests later."""

    def __init__(self, limit: int, jitter: int, reached: Callable[[], object]) -> None:
        self._limit = limit
        self._left = limit + randint(0, jitter)  # noqa: S311  (jitter)
        self._reached = reached

    def answered(self, _exchange: object, _status: int) -> None:
        """The callback for each answer to a request."""
        self._left -= 1
        if not self._left:
            self._left = self._limit
            self._reached()

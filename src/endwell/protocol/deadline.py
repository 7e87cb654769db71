"""Deadlines: times on a monotonic clock, in seconds."""

from __future__ import annotations

from math import inf

__all__ = ["NEVER", "after"]

#: The deadline of what may take as long as it likes: later than any time.
NEVER = inf


def after(start: float, seconds: float | None) -> float:
    """``seconds`` after ``start``; never, if there is no limit."""
    return NEVER if seconds is None else start + seconds

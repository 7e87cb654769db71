"""Deadlines: times on a monotonic clock, in seconds."""

from __future__ import annotations

from math import inf

__all__ = ["LATE", "NEVER", "after"]

#: The deadline of what may take as long as it likes: later than any time.
NEVER = inf
#: Seconds by which a clock may be looked at late before the lateness is taken for a standstill
#: of our own: a blocked event loop, a stopped process.
LATE = 1.0


def after(start: float, seconds: float | None) -> float:
    """``seconds`` after ``start``; never, if there is no limit."""
    return NEVER if seconds is None else start + seconds

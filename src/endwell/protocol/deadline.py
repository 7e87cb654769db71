"""Deadlines: times on a monotonic clock, in seconds."""

from __future__ import annotations

from math import inf

__all__ = ["LATE", "NEVER", "after"]

#: No deadline: later than every time.
NEVER = inf
#: Seconds by which a timer may fire late. A longer delay counts as a stall of this process: a blocked event
#: loop, a stopped process.
LATE = 1.0


def after(start: float, seconds: float | None) -> float:
    """The time ``seconds`` after ``start``; NEVER if ``seconds`` is None."""
    return NEVER if seconds is None else start + seconds

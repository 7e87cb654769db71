"""Deadlines: a time on a monotonic clock, in seconds, or None for never."""

from __future__ import annotations

__all__ = ["after", "due", "earliest"]


def after(start: float, seconds: float | None) -> float | None:
    """``seconds`` after ``start``; never, if there is no limit."""
    return None if seconds is None else start + seconds


def due(deadline: float | None, now: float) -> bool:
    """Whether it has come."""
    return deadline is not None and now >= deadline


def earliest(*deadlines: float | None) -> float | None:
    """The first of them to come; never, if none will."""
    return min((deadline for deadline in deadlines if deadline is not None), default=None)

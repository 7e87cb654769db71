"""Until when a connection is authorized, and for whom."""

from __future__ import annotations

import time
from datetime import datetime

from ..protocol.deadline import NEVER
from .syscalls import monotonic

__all__ = ["check_subject", "deadline_of"]


def deadline_of(until: datetime | None) -> float:
    """Convert a time of the wall clock into one of the monotonic clock. None: never.

    A later step of the wall clock does not move it.
    """
    if until is None:
        return NEVER
    if not isinstance(until, datetime):
        raise TypeError(f"until must be a datetime or None, not {until!r}")
    if until.tzinfo is None or until.utcoffset() is None:
        raise ValueError(f"until must have a time zone, such as datetime.now(UTC), but {until!r} has none")
    return monotonic() + until.timestamp() - time.time()


def check_subject(subject: str | None) -> None:
    """Raise if ``subject`` cannot name a user or account."""
    if not isinstance(subject, str | None):
        raise TypeError(f"subject must be a str or None, not {subject!r}")
    if subject == "":
        raise ValueError("subject must not be empty")

"""Until when a connection is authorized."""

from __future__ import annotations

import time
from datetime import datetime

from ..http.accept import check_until
from ..protocol.deadline import NEVER
from .syscalls import monotonic

__all__ = ["deadline_of"]


def deadline_of(until: datetime | None) -> float:
    """Convert a time of the wall clock into one of the monotonic clock. None: never. A time in the past is now.

    A later step of the wall clock does not move it. Raises TypeError, and ValueError without a time zone.
    """
    check_until(until)
    if until is None:
        return NEVER
    # A deadline that passed long ago would look like a stall of this process.
    return monotonic() + max(0.0, until.timestamp() - time.time())

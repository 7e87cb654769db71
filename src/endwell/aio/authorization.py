"""Until when a connection is authorized."""

from __future__ import annotations

import time
from datetime import datetime

from ..http.accept import check_until
from ..protocol.deadline import NEVER
from .syscalls import monotonic

__all__ = ["deadline_of"]


def deadline_of(until: datetime | None) -> float:
    """Convert a time of the wall clock into one of the monotonic clock. None: never.

    A later step of the wall clock does not move it. Raises TypeError, and ValueError without a time zone.
    """
    check_until(until)
    return NEVER if until is None else monotonic() + until.timestamp() - time.time()

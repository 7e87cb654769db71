"""The delay before a crashed worker is replaced. The caller reads the clock."""

from __future__ import annotations

__all__ = ["Backoff"]

#: Seconds before a worker is replaced, after one, two, three ... crashes in a row; the last value repeats.
#: The first delay is 0, because the clients of the crashed worker reconnect immediately.
DELAYS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
#: A worker that ran for this number of seconds before its crash resets the count. Precedent: Kubernetes
#: resets its back-off after 10 minutes; but its longest delay is 5 minutes, ours 30 s.
FORGIVEN = 60.0


class Backoff:
    """The crashes in a row of the worker with a certain number."""

    def __init__(self) -> None:
        #: Crashes in a row.
        self.crashes = 0

    def crashed(self, lived: float) -> float:
        """Record a crash after ``lived`` seconds; returns the seconds to wait before the replacement starts."""
        if lived >= FORGIVEN:
            self.crashes = 0
        self.crashes += 1
        return DELAYS[min(self.crashes, len(DELAYS)) - 1]

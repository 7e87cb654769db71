"""When a worker that crashed is replaced: no clock in here."""

from __future__ import annotations

__all__ = ["Backoff"]

#: Seconds before a worker is replaced, by how many crashes there were in a row; then always the
#: last. The first is an accident, and its clients are coming back now.
DELAYS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
#: Seconds after which a crash is the first again. Precedent: Kubernetes forgets what a container
#: did before 10 minutes of running well; but nobody waits 5 minutes for the next start here.
FORGIVEN = 60.0


class Backoff:
    """Of one place among the workers."""

    def __init__(self) -> None:
        #: Crashes in a row.
        self.crashes = 0

    def crashed(self, lived: float) -> float:
        """A worker has, after so many seconds; returns how many to wait before the next one starts."""
        if lived >= FORGIVEN:
            self.crashes = 0
        self.crashes += 1
        return DELAYS[min(self.crashes, len(DELAYS)) - 1]

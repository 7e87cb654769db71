"""How a server stops, and when it does what: no clock, no dice, no connection in here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from math import ceil, inf, sqrt
from typing import TypedDict, Unpack

from ..advice import MAX_SECONDS, RetryAdvice
from ..codes import CloseCode
from ..options import check_keywords
from ..wire.frames import close_payload

__all__ = ["CLEANUP_TIME", "Drain", "DrainKeywords", "Phase", "Timetable"]

#: Seconds of the window for each connection: a server with few of them stops at once.
SPACING = 0.01
#: Seconds that a server which comes back on the same address is taken to need for it.
RESTART_TIME = 1.0
#: Seconds that a peer has to take something more, or to answer its Close, whatever the deadline.
ANSWER_TIME = 2.0
#: Seconds that a cancelled handler has for its cleanup at least, whatever the deadline.
CLEANUP_TIME = 1.0


class Phase(Enum):
    """What a drain is doing, in the order of time."""

    CLOSE = "connections are closed, each when its handler is idle"
    LAST_CALL = "those whose handler has stayed busy are closed all the same"
    WAIT = "closing handshakes and handlers are waited for"
    CANCEL = "handlers are cancelled and run their cleanup"
    ABORT = "what is left is cut"
    OVER = "what is left is left alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """How a server stops. Times are in seconds.

    Raises ValueError for a time or rate that is negative or not finite, for a code that may
    not be sent, and for a reason above 103 bytes of UTF-8.
    """

    #: Over so long the closings are spread, at random moments; less where there are few
    #: connections (10 ms for each), and at most 2/5 of the deadline.
    window: float = 10.0
    #: When all is over, at the latest. Precedent: Kubernetes kills after 30 s. A busy handler
    #: has 1/5 of it before its connection is closed all the same. Handlers are cancelled at
    #: 4/5 of it, and have 1 s for their cleanup even if that is later. 0: at once.
    deadline: float = 25.0
    #: The code of the Close; 1012 (``CloseCode.SERVICE_RESTART``) announces a restart.
    code: int = CloseCode.GOING_AWAY
    #: The text of its reason, before the advice when to come back. None: what the code means.
    reason: str | None = None
    #: Clients that obey the advice come back at no more than this many in a second, and at
    #: 4/5 of it on average for the default. None: no advice.
    rate: float | None = 500.0
    #: Whether to go on listening meanwhile, and refuse newcomers with 503 and Retry-After. For
    #: a server whose address nobody else serves. False leaves them to who does.
    listen: bool = True

    def __post_init__(self) -> None:
        for name in ("window", "deadline", "rate"):
            value = getattr(self, name)
            if value is None and name == "rate":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, not {value!r}")
            if not 0 <= value < inf or (name == "rate" and not value):
                raise ValueError(f"{name} must be positive and finite, not {value!r}")
        close_payload(self.code, RetryAdvice(0, MAX_SECONDS).reason(self.text))

    @property
    def text(self) -> str:
        """The text of the reason."""
        if self.reason is not None:
            return self.reason
        return "server restarting" if self.code == CloseCode.SERVICE_RESTART else "server stopping"

    def replace(self, **changes: Unpack[DrainKeywords]) -> Drain:
        """A copy with ``changes``. Raises TypeError for a name that is no field, with the nearest one."""
        check_keywords("Drain.replace", changes, DrainKeywords.__optional_keys__)
        return replace(self, **changes) if changes else self


class DrainKeywords(TypedDict, total=False):
    """The fields of :class:`Drain` as keywords (a test keeps the two equal)."""

    window: float
    deadline: float
    code: int
    reason: str | None
    rate: float | None
    listen: bool


@dataclass(frozen=True, slots=True)
class Timetable:
    """When what happens, in seconds from the beginning of a drain; no clock and no dice in it."""

    drain: Drain
    #: How many connections there are.
    count: int

    @property
    def window(self) -> float:
        """When the last connection is asked to close."""
        return min(self.drain.window, self.count * SPACING, 0.4 * self.drain.deadline)

    @property
    def patience(self) -> float:
        """How long after that a busy one is closed all the same: each in its turn, not all in one moment.

        From half of it on its peer is held back, in case that it is busy for having always
        the next message there.
        """
        return 0.2 * self.drain.deadline

    @property
    def silence(self) -> float:
        """How long after its Close a connection is cut whose peer does not answer it and takes nothing of what waits."""
        return max(ANSWER_TIME, 0.2 * self.drain.deadline)

    def moment(self, index: int, jitter: float) -> float:
        """When connection ``index`` is asked to close; ``jitter`` is in [0, 1).

        Each at random within a slot of its own: never many in one moment, whatever falls.
        """
        return self.window * (index + jitter) / self.count

    def begins(self, phase: Phase) -> float:
        """When ``phase`` does, at the latest."""
        deadline = self.drain.deadline
        cancel = 0.8 * deadline
        # What is left of the deadline is for the process to end.
        over = max(0.95 * deadline, cancel + CLEANUP_TIME)
        return {
            Phase.CLOSE: 0.0,
            Phase.LAST_CALL: self.window,
            Phase.WAIT: self.window + self.patience,
            Phase.CANCEL: cancel,
            # Halfway: a handler's cleanup may wait for the end of its connection.
            Phase.ABORT: (cancel + over) / 2 if deadline else 0.0,
            Phase.OVER: over,
        }[phase]

    def away(self, at: float) -> float:
        """Seconds from ``at`` until there may be a server for those who come back.

        If nobody else serves this address, not before this one has left it: whoever came
        earlier would be refused.
        """
        return max(0.0, self.window - at) + RESTART_TIME if self.drain.listen else 0.0

    def spread(self) -> float:
        """Seconds over which they come back, such that the rate is kept, whatever falls."""
        if self.drain.rate is None:
            return 0.0
        # Of many dice, m of which fall on each second on average, m + 5 sqrt(m) fall on
        # one in the worst case: more has a chance of 1 to 3 millions. That is the rate.
        root = (sqrt(25 + 4 * self.drain.rate) - 5) / 2
        return max(1.0, self.count / root**2)

    def reason(self, at: float) -> str:
        """The reason of a Close that is sent at ``at``."""
        if self.drain.rate is None:
            return self.drain.text
        earliest = min(int(self.away(at)), MAX_SECONDS)
        return RetryAdvice(earliest, min(earliest + ceil(self.spread()), MAX_SECONDS)).reason(self.drain.text)

    def retry_after(self, at: float, jitter: float) -> int:
        """For whoever is refused at ``at``: seconds (RFC 9110 §10.2.3); ``jitter`` is in [0, 1)."""
        return max(1, ceil(self.away(at) + jitter * self.spread()))

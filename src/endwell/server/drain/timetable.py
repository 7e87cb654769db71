"""The options of a drain and its schedule: pure functions of time, without a clock, randomness or I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from math import ceil, inf, sqrt
from typing import TypedDict, Unpack

from ...advice import MAX_SECONDS, RetryAdvice
from ...codes import CloseCode
from ...ending import Close
from ...options import check_keywords

__all__ = ["CLEANUP_TIME", "Drain", "DrainKeywords", "Phase", "Timetable"]

#: Seconds of the window for each connection, so that a server with few connections stops at once.
SPACING = 0.01
#: Assumed seconds between the end of this server and the start of the next one on the same address.
RESTART_TIME = 1.0
#: Minimum seconds that a peer has to read more data or to answer the Close, whatever the deadline.
ANSWER_TIME = 2.0
#: Minimum seconds that a cancelled handler has for its cleanup, whatever the deadline.
CLEANUP_TIME = 1.0


class Phase(Enum):
    """The phases of a drain, in order."""

    CLOSE = "each connection is sent a Close as soon as its handler is idle"
    LAST_CALL = "connections whose handler is still busy are sent a Close, too"
    WAIT = "the server waits for closing handshakes and handlers"
    CANCEL = "handlers are cancelled and run their cleanup"
    ABORT = "the remaining connections are aborted"
    OVER = "the drain is over; handlers that still run are abandoned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """How a server stops: the options of :meth:`Server.drain`. All times are in seconds.

    Raises:
        ValueError: A time or the rate is negative or not finite, the code may not be sent, or the
            reason is longer than 103 bytes of UTF-8.
        TypeError: A time or the rate is not a number.

    Example:
        ```python
        import asyncio
        from endwell import Drain, Server

        server = Server()

        async def main():
            async with server.serving(port=0):
                print(await server.drain(Drain(window=2, deadline=5)))

        asyncio.run(main())
        ```
    """

    #: Seconds over which the Close frames are spread, each at a random moment. The window is shorter with
    #: few connections (10 ms for each connection), and at most 2/5 of ``deadline``. Default: 10.
    window: float = 10.0
    #: Seconds until the drain is over. A connection whose handler stays busy is closed after 1/5 of this
    #: time. Handlers are cancelled at 4/5 of it, and have at least 1 s for their cleanup, even if that
    #: exceeds the deadline. 0 stops immediately. Default: 25. Precedent: Kubernetes sends SIGKILL after 30 s.
    deadline: float = 25.0
    #: The close code. 1012 (``CloseCode.SERVICE_RESTART``) announces a restart. Default: 1001.
    code: int = CloseCode.GOING_AWAY
    #: The text of the close reason; the retry advice follows it. Default: None, the meaning of ``code``.
    reason: str | None = None
    #: Maximum number of clients that reconnect per second, if they obey the retry advice. With the default
    #: of 500, the average is 4/5 of it. None: send no advice.
    rate: float | None = 500.0
    #: Whether the server keeps listening during the drain, and refuses new connections with 503 and
    #: Retry-After. Use False if another process serves the same address: new connections then go to it.
    #: Default: True.
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
        Close(self.code, RetryAdvice(0, MAX_SECONDS).reason(self.text))

    @property
    def text(self) -> str:
        """The text of the close reason, without the retry advice."""
        if self.reason is not None:
            return self.reason
        return "server restarting" if self.code == CloseCode.SERVICE_RESTART else "server stopping"

    def replace(self, **changes: Unpack[DrainKeywords]) -> Drain:
        """Return a copy with ``changes``.

        Raises:
            TypeError: A name is not a field; the message suggests the nearest one.
        """
        check_keywords("Drain.replace", changes, DrainKeywords.__optional_keys__)
        return replace(self, **changes) if changes else self


class DrainKeywords(TypedDict, total=False):
    """The fields of :class:`Drain` as keyword arguments. A test checks that both have the same fields."""

    window: float
    deadline: float
    code: int
    reason: str | None
    rate: float | None
    listen: bool


@dataclass(frozen=True, slots=True)
class Timetable:
    """The schedule of a drain. All times are seconds since its start; the caller reads the clock."""

    drain: Drain
    #: Number of connections at the start of the drain.
    count: int

    @property
    def window(self) -> float:
        """The time at which the last connection becomes due for closing."""
        return min(self.drain.window, self.count * SPACING, 0.4 * self.drain.deadline)

    @property
    def busy_time(self) -> float:
        """Seconds from the due time of a connection until it is closed although its handler is busy.

        The time counts for each connection separately, so the late closings are spread, too. After half
        of it, reading from the peer is paused, because the handler may be busy only because the next
        message is always there.
        """
        return 0.2 * self.drain.deadline

    @property
    def abort_delay(self) -> float:
        """Seconds from the Close until the abort of a connection whose peer neither answers nor reads."""
        return max(ANSWER_TIME, 0.2 * self.drain.deadline)

    def close_time(self, index: int, jitter: float) -> float:
        """The time at which connection ``index`` becomes due for closing; ``jitter`` is in [0, 1).

        Each connection has its own slot of the window and a random time within it. This bounds the number
        of closings in any interval, whatever the random numbers are.
        """
        return self.window * (index + jitter) / self.count

    def begins(self, phase: Phase) -> float:
        """The latest start time of ``phase``."""
        deadline = self.drain.deadline
        cancel = 0.8 * deadline
        # The last 5 % of the deadline are for the exit of the process.
        over = max(0.95 * deadline, cancel + CLEANUP_TIME)
        return {
            Phase.CLOSE: 0.0,
            Phase.LAST_CALL: self.window,
            Phase.WAIT: self.window + self.busy_time,
            Phase.CANCEL: cancel,
            # Halfway, because a handler's cleanup may wait for the end of its connection.
            Phase.ABORT: (cancel + over) / 2 if deadline else 0.0,
            Phase.OVER: over,
        }[phase]

    def downtime(self, at: float) -> float:
        """Seconds from ``at`` until the next server may accept connections on this address.

        If this server keeps listening, it refuses every client until its window has passed, so a client
        should not return earlier.
        """
        return max(0.0, self.window - at) + RESTART_TIME if self.drain.listen else 0.0

    def return_window(self) -> float:
        """Seconds over which the clients return, long enough to stay below the rate in every second."""
        if self.drain.rate is None:
            return 0.0
        # If m random arrivals fall into each second on average, at most m + 5 sqrt(m) fall into one
        # second, except with a probability of 1 in 3 million. We solve m + 5 sqrt(m) = rate for m.
        root = (sqrt(25 + 4 * self.drain.rate) - 5) / 2
        return max(1.0, self.count / root**2)

    def reason(self, at: float) -> str:
        """The reason of a Close that is sent at time ``at``."""
        if self.drain.rate is None:
            return self.drain.text
        earliest = min(int(self.downtime(at)), MAX_SECONDS)
        return RetryAdvice(earliest, min(earliest + ceil(self.return_window()), MAX_SECONDS)).reason(
            self.drain.text
        )

    def retry_after(self, at: float, jitter: float) -> int:
        """Seconds for the Retry-After field (RFC 9110 §10.2.3) of a refusal at ``at``; ``jitter`` is in [0, 1)."""
        return max(1, ceil(self.downtime(at) + jitter * self.return_window()))

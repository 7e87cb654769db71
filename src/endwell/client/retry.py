"""When to come back: a pure function of what happened so far, how it ended, and a die.

No clock, no sleep and no randomness in here: time and dice are arguments, so that
a year of endings is simulated in a moment.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from email.utils import parsedate
from enum import Enum
from math import inf
from typing import Any

from ..advice import RetryAdvice
from ..codes import CloseCode, Retry, describe
from ..ending import Cause, Ending
from ..errors import HandshakeError, HandshakeRejected, InvalidHandshake
from ..http import Response

__all__ = ["History", "RetryPolicy", "StopReason", "retry_of_status"]

#: RFC 9110 §15.5 and §15.6, RFC 6585, RFC 8470: the refusals whose class says the
#: opposite. 408, 425 and 429 are about this moment; 501 and 505 about the server's build.
_PASSING = frozenset({408, 425, 429})
_LASTING = frozenset({501, 505})


class StopReason(Enum):
    """Why a client does not come back."""

    DONE = "it ended in an ordinary way, for good"
    STOPPED = "the application left the loop"
    REFUSED = "coming back would end the same way"
    RETRIES = "max_retries is used up"
    TIME = "max_time is used up"


@dataclass(frozen=True, slots=True)
class History:
    """What the decision needs to know of the past."""

    #: Endings and failed handshakes in a row, none of them after a stable connection
    #: but perhaps the first.
    tries: int = 0
    #: When the first of them came, on the clock of ``now``.
    since: float = 0.0


def _limit(default: Any, unit: str, consequence: str) -> Any:
    """A field whose documentation travels with it: ``docs/reference/retry.md`` is made from these."""
    return field(default=default, metadata={"unit": unit, "consequence": consequence})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a client comes back, and when it gives up. Frozen: one object can serve many clients.

    Times are in seconds. After the n-th ending or failed handshake in a row it waits
    for a random time between 0 and ``min(max_delay, base * 2**(n - 1))``: exponential
    back-off with full jitter. It waits ``base`` on top of that, unless this is the
    first one in the row and its code or cause says :attr:`Retry.NOW`. The code or HTTP
    status decides whether to come back at all; the server's own words (``Retry-After``,
    or :class:`~endwell.advice.RetryAdvice` in the Close) move the wait.

    Raises ValueError for a limit that is not positive and finite, and for a key of ``codes``
    that no ending and no answer can have.
    """

    # Precedent: websockets draws its first wait from 0 to 5 s. As the least wait it holds
    # a client of a server that accepts and closes again to 6 connections in 30 s.
    base: float = _limit(5.0, "s", "the scale of the back-off; and the least wait, except for the first NOW")
    # Precedent: 90 s in websockets, 120 s in gRPC; somebody who looks at a page waits a minute.
    max_delay: float = _limit(60.0, "s", "where the back-off stops growing")
    stable_after: float = _limit(
        10.0, "s", "a connection that lasted so long was stable: counting begins anew"
    )
    max_advised: float = _limit(3600.0, "s", "the longest wait that a server can ask for; more is cut to it")
    max_retries: int | None = _limit(None, "tries", "in a row; then it gives up")
    max_time: float | None = _limit(
        None, "s", "for the tries in a row; it gives up as soon as the next wait would exceed it"
    )
    #: Your own word on close codes (the server's, that of your own ``close()``, and 1006 for an end
    #: without any Close) and on HTTP statuses, before this package's: ``{4001: Retry.NEVER, 404: Retry.LATER}``.
    codes: Mapping[int, Retry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not limit.metadata or (value is None and limit.default is None):
                continue
            number = int if limit.metadata["unit"] == "tries" else int | float
            if isinstance(value, bool) or not isinstance(value, number):
                raise TypeError(f"{limit.name} must be a number of {limit.metadata['unit']}, not {value!r}")
            if not 0 < value < inf:
                raise ValueError(f"{limit.name} must be positive and finite, not {value!r}")
        for code, retry in self.codes.items():
            if isinstance(code, bool) or not isinstance(code, int):
                raise TypeError(f"codes must have numbers as keys, not {code!r}")
            if not _can_match(code):
                raise ValueError(f"codes[{code}] is neither a close code that can come nor an HTTP status")
            if not isinstance(retry, Retry):
                raise TypeError(f"codes[{code!r}] must be a Retry, not {retry!r}")

    def after(self, history: History, last: Ending | HandshakeError, now: float) -> History:
        """The history with ``last``, which came at ``now``."""
        stable = isinstance(last, Ending) and last.duration >= self.stable_after
        return History(1, now) if stable or not history.tries else History(history.tries + 1, history.since)

    def decide(
        self, history: History, last: Ending | HandshakeError, now: float, jitter: float
    ) -> float | StopReason:
        """Seconds to wait, or why to stop; ``history`` has ``last`` in it, ``jitter`` is in [0, 1)."""
        retry = self.retry(last)
        if retry is Retry.NEVER:
            return StopReason.DONE if _ordinary(last) else StopReason.REFUSED
        if self.max_retries is not None and history.tries > self.max_retries:
            return StopReason.RETRIES
        first = history.tries == 1
        ceiling = min(self.max_delay, self.base * 2.0 ** min(history.tries - 1, 64))
        floor, spread = (0.0 if retry is Retry.NOW and first else self.base), ceiling
        asked = self._asked(last)
        if asked is not None:
            # The server's word holds as it is the first time. If it does not help, it is
            # the least: a server that always says "retry 0-0s" would get a storm.
            floor = asked[0] if first else max(floor, asked[0])
            spread = (asked[1] - asked[0]) if first else max(spread, asked[1] - asked[0])
        wait = floor + jitter * spread
        if self.max_time is not None and now + wait - history.since > self.max_time:
            return StopReason.TIME
        return wait

    def retry(self, last: Ending | HandshakeError) -> Retry:
        """Whether to come back: what :attr:`codes` says, else the status, the close code, the cause."""
        if isinstance(last, HandshakeRejected):
            status = last.response.status
            return self.codes.get(status) or retry_of_status(status)
        if isinstance(last, HandshakeError):
            # Not a server that is down: another one, or one that is set up wrong.
            if isinstance(last.ending.exception, InvalidHandshake):
                return Retry.NEVER
            # NOW is for a connection that was open until a moment ago.
            return Retry.LATER
        own = self.codes.get(last.code)
        if last.cause is Cause.PEER_CLOSED:
            return own or describe(last.code).retry
        # What the library itself sent for a fault is no word of the server's.
        if last.cause is Cause.APP_CLOSED or (
            last.code == CloseCode.ABNORMAL_CLOSURE and last.cause is not Cause.CANCELLED
        ):
            return own or last.cause.retry
        return last.cause.retry

    def _asked(self, last: Ending | HandshakeError) -> tuple[float, float] | None:
        """The window in which the server wants us back, if it said so."""
        if isinstance(last, HandshakeRejected):
            seconds = _retry_after(last.response, last.ending)
            if seconds is None:
                return None
            # It is one moment for everybody; the jitter keeps the crowd from it.
            earliest, latest = seconds, seconds + self.base
        elif (
            isinstance(last, Ending)
            and last.cause is Cause.PEER_CLOSED
            and (advice := RetryAdvice.parse(last.reason))
        ):
            earliest, latest = advice
        else:
            return None
        return min(earliest, self.max_advised), min(latest, self.max_advised + self.base)


def retry_of_status(status: int) -> Retry:
    """Whether to come back after an HTTP answer other than 101.

    RFC 9110 §15: "a client MUST understand the class of any status code"; 5xx is the
    server's trouble and passes, the rest will be the same next time. Precedent:
    websockets comes back after 500, 502, 503 and 504.
    """
    passing = status in _PASSING or (500 <= status <= 599 and status not in _LASTING)
    return Retry.LATER if passing else Retry.NEVER


def _can_match(code: int) -> bool:
    """Whether an ending has such a code, or an answer such a status."""
    if code < 1000:
        return code >= 200
    local = code in (CloseCode.NO_STATUS_RCVD, CloseCode.ABNORMAL_CLOSURE)
    return local or (code < 5000 and describe(code).may_receive)


def _ordinary(last: Ending | HandshakeError) -> bool:
    """Whether there is nothing to complain about: a good ending, or our own."""
    return isinstance(last, Ending) and (last.ok or last.cause in {Cause.APP_CLOSED, Cause.CANCELLED})


def _retry_after(response: Response, ending: Ending) -> float | None:
    """Seconds until ``Retry-After``, or None. RFC 9110 §10.2.3: a date, or a number of seconds."""
    value = response.headers.get("Retry-After") or ""
    if value.isascii() and value.isdigit():
        return float(value)
    then = _http_date(value)
    if then is None:
        return None
    # By the server's own clock, which set the date; ours may be off.
    now = _http_date(response.headers.get("Date") or "")
    return max(0.0, then - (ending.opened_at + ending.duration if now is None else now))


def _http_date(value: str) -> float | None:
    """RFC 9110 §5.6.7, in any of its three formats; they are all in GMT."""
    try:
        parsed = parsedate(value)
        return None if parsed is None else float(calendar.timegm(parsed))
    except (ValueError, TypeError, IndexError, OverflowError):  # what the standard library has for nonsense
        return None

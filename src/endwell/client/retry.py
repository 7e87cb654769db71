"""When to reconnect: a pure function of the history, the ending and a random number.

This module uses no clock, sleeps nowhere and draws no random numbers: time and jitter are
arguments. So a test simulates a year of endings in a moment.
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
from ..errors import HandshakeError, HandshakeRejected, InvalidHandshake, ProxyError, StopReconnecting
from ..http import Response

__all__ = ["History", "RetryPolicy", "StopReason", "retry_of_status"]

#: The statuses that differ from the rest of their class (RFC 9110 §15.5 and §15.6, RFC 6585, RFC 8470).
#: 408, 425 and 429 are about the moment; 501 and 505 are about the server's implementation.
_PASSING = frozenset({408, 425, 429})
_LASTING = frozenset({501, 505})


class StopReason(Enum):
    """Why a client does not reconnect. The value is a sentence for logs.

    Example:
        ```python
        import endwell

        reason = endwell.StopReason.RETRIES
        print(f"not reconnecting: {reason.value}")
        ```
    """

    DONE = "the connection ended in an ordinary way"
    STOPPED = "the application left the loop"
    REFUSED = "a new connection would end in the same way"
    RETRIES = "max_retries is used up"
    TIME = "max_time is used up"


@dataclass(frozen=True, slots=True)
class History:
    """What the reconnect policy remembers of the failures in a row.

    Example:
        ```python
        import endwell

        history = endwell.History(tries=3, since=120.0)
        print(history.tries)
        ```
    """

    #: Number of endings and failed handshakes since the last stable connection; that connection's own ending
    #: counts. Default 0.
    tries: int = 0
    #: The time of the first of them, in seconds of the caller's clock. Default 0.0.
    since: float = 0.0


def _limit(default: Any, unit: str, consequence: str) -> Any:
    """A field with its documentation, from which ``docs/reference/retry.md`` is made."""
    return field(default=default, metadata={"unit": unit, "consequence": consequence})


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a client reconnects, and when it gives up. Frozen, so one object can serve many clients.

    After the n-th ending or failed handshake in a row the client waits for a random time between 0
    and ``min(max_delay, base * 2**(n - 1))``: exponential back-off with full jitter. It waits ``base``
    on top of that, except after the first ending in the row if its code or cause is
    :attr:`Retry.NOW`.

    The close code, the HTTP status or the cause decides whether the client reconnects at all. A
    server can move the wait: with ``Retry-After`` in a refusal, or with :class:`RetryAdvice` in the
    reason of its Close.

    Raises:
        ValueError: If a limit is not positive and finite, or a key of ``codes`` can be neither a close
            code nor an HTTP status.
        TypeError: If a limit is not a number, or ``codes`` is not a mapping to :class:`Retry`.

    Example:
        ```python
        import endwell

        policy = endwell.RetryPolicy(max_retries=10, codes={4001: endwell.Retry.NEVER})
        client = endwell.reconnecting("wss://example.com/", policy=policy)
        ```
    """

    # Precedent: websockets draws its first wait from 0 to 5 s. As the least wait, 5 s limits
    # a client of a server that accepts and closes again to 6 connections in 30 s.
    base: float = _limit(
        5.0,
        "s",
        "scale of the back-off, and the shortest wait (except after the first ending in a row with NOW)",
    )
    # Precedent: 90 s in websockets, 120 s in gRPC. A user who looks at a page waits for about a minute.
    max_delay: float = _limit(60.0, "s", "maximum of the random wait")
    stable_after: float = _limit(
        10.0,
        "s",
        "a connection that lasted at least this long was stable: its ending is the first in a new row",
    )
    max_advised: float = _limit(
        3600.0, "s", "longest wait that a server can ask for; a longer one is shortened to it"
    )
    max_retries: int | None = _limit(
        None, "tries", "retries in a row before the client gives up; None: no limit"
    )
    max_time: float | None = _limit(
        None,
        "s",
        "from the first ending in a row to the next attempt; the client gives up when the wait would exceed it; "
        "None: no limit",
    )
    #: Overrides by close code or HTTP status: ``{4001: Retry.NEVER, 404: Retry.LATER}``. Default: empty.
    #: The close codes are the server's, those of your own ``close()``, and 1006 for an end without a Close.
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
        if not isinstance(self.codes, Mapping):
            raise TypeError(f"codes must be a mapping, not {self.codes!r}")
        for code, retry in self.codes.items():
            if isinstance(code, bool) or not isinstance(code, int):
                raise TypeError(f"codes must have numbers as keys, not {code!r}")
            if not _can_match(code):
                raise ValueError(f"codes[{code}] is neither a close code that can come nor an HTTP status")
            if not isinstance(retry, Retry):
                raise TypeError(f"codes[{code!r}] must be a Retry, not {retry!r}")

    def after(self, history: History, last: Ending | HandshakeError, now: float) -> History:
        """Return the history after an ending.

        Args:
            history: The history before it; ``History()`` at the beginning.
            last: The ending, or the failed handshake.
            now: When it came, in seconds of the caller's clock.
        """
        stable = isinstance(last, Ending) and self.is_stable(last)
        return History(1, now) if stable or not history.tries else History(history.tries + 1, history.since)

    def is_stable(self, ending: Ending) -> bool:
        """Return whether the connection was stable: its ending is the first in a new row.

        Args:
            ending: The ending of an open connection.
        """
        return ending.duration >= self.stable_after

    def decide(
        self, history: History, last: Ending | HandshakeError, now: float, jitter: float
    ) -> float | StopReason:
        """Decide what follows an ending.

        Args:
            history: The history, which includes ``last`` (see :meth:`after`).
            last: The ending, or the failed handshake.
            now: The time, in seconds of the clock of ``history.since``.
            jitter: A random number in [0, 1).

        Returns:
            Seconds until the next attempt, or the reason not to reconnect.
        """
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
            # The window that the server asked for applies unchanged after the first ending in a row. Later it
            # is only a minimum: clients of a server that always says "retry 0-0s" would form a storm.
            floor = asked[0] if first else max(floor, asked[0])
            spread = (asked[1] - asked[0]) if first else max(spread, asked[1] - asked[0])
        wait = floor + jitter * spread
        if self.max_time is not None and now + wait - history.since > self.max_time:
            return StopReason.TIME
        return wait

    def retry(self, last: Ending | HandshakeError) -> Retry:
        """Return whether to reconnect after ``last``.

        ``codes`` decides first, then the HTTP status, the close code or the cause.

        Args:
            last: The ending, or the failed handshake.
        """
        if isinstance(last, HandshakeRejected):
            status = last.response.status
            return self.codes.get(status) or retry_of_status(status)
        if isinstance(last, HandshakeError):
            exc = last.ending.exception
            # InvalidHandshake: the answer is not from a stopped server, but from another one or a
            # misconfigured one.
            if isinstance(exc, InvalidHandshake | StopReconnecting):
                return Retry.NEVER
            if isinstance(exc, ProxyError):
                return exc.retry
            # NOW applies only to a connection that was open a moment ago.
            return Retry.LATER
        own = self.codes.get(last.code)
        if last.cause is Cause.PEER_CLOSED:
            return own or describe(last.code).retry
        # A code that this library sent because of a fault is not the server's decision.
        if last.cause is Cause.APP_CLOSED or (
            last.code == CloseCode.ABNORMAL_CLOSURE and last.cause is not Cause.CANCELLED
        ):
            return own or last.cause.retry
        return last.cause.retry

    def _asked(self, last: Ending | HandshakeError) -> tuple[float, float] | None:
        """Return the window in seconds in which the server wants the client back, or None."""
        if isinstance(last, HandshakeRejected):
            seconds = _retry_after(last.response, last.ending)
            if seconds is None:
                return None
            # Retry-After names the same moment for all clients; the jitter spreads them.
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
    """Return whether to reconnect after an HTTP answer other than 101.

    RFC 9110 §15: "a client MUST understand the class of any status code". A 5xx fault of the server
    passes; every other refusal would be repeated. Precedent: websockets reconnects after 500, 502, 503
    and 504.
    """
    passing = status in _PASSING or (500 <= status <= 599 and status not in _LASTING)
    return Retry.LATER if passing else Retry.NEVER


def _can_match(code: int) -> bool:
    """Return whether an ending can have this close code, or an answer this status."""
    if code < 1000:
        return code >= 200
    local = code in (CloseCode.NO_STATUS_RCVD, CloseCode.ABNORMAL_CLOSURE)
    return local or (code < 5000 and describe(code).may_receive)


def _ordinary(last: Ending | HandshakeError) -> bool:
    """Return whether this is no failure: a clean ending, or one that this application caused."""
    return isinstance(last, Ending) and (last.ok or last.cause in {Cause.APP_CLOSED, Cause.CANCELLED})


def _retry_after(response: Response, ending: Ending) -> float | None:
    """Return the seconds until ``Retry-After`` (RFC 9110 §10.2.3: a date or a number of seconds), or None."""
    value = response.headers.get("Retry-After") or ""
    if value.isascii() and value.isdigit():
        return float(value)
    then = _http_date(value)
    if then is None:
        return None
    # Relative to the server's clock, which set the date; the local clock may differ.
    now = _http_date(response.headers.get("Date") or "")
    return max(0.0, then - (ending.opened_at + ending.duration if now is None else now))


def _http_date(value: str) -> float | None:
    """Parse a date of RFC 9110 §5.6.7, in any of its three formats; all are in GMT."""
    try:
        parsed = parsedate(value)
        return None if parsed is None else float(calendar.timegm(parsed))
    except (ValueError, TypeError, IndexError, OverflowError):  # what parsedate raises for malformed input
        return None

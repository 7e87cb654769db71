"""The times of a connection: keepalive, stalls of this process, the idle and lifetime limits, one deadline.

:class:`Liveness` decides what is due. It sends nothing and changes no state: the subclasses do.
"""

from __future__ import annotations

from enum import Enum

from ..options import Options
from .deadline import LATE, NEVER, after
from .outbox import Outbox

__all__ = ["Liveness", "Verdict"]

#: The weight of a new round-trip time in the smoothed one. RFC 6298 §2.3: "alpha=1/8", as in TCP.
_WEIGHT = 1 / 8
#: The share of ``max_lifetime`` by which a connection may end sooner, so that connections that opened
#: together do not close together. Precedent: gRPC's MAX_CONNECTION_AGE varies by a tenth.
_LIFETIME_JITTER = 0.1


class Verdict(Enum):
    """The result of :meth:`Liveness.check`."""

    NOTHING = "nothing is due"
    PING = "send a ping"
    SILENT = "the peer is dead: end the connection"
    STUCK = "the peer accepts no data: end the connection"
    EXPIRED = "the connection has reached its maximum lifetime"
    UNAUTHORIZED = "the authorization of the connection has expired"
    IDLE = "no message went either way for too long"
    STALE = "no message came for too long"


# Module globals, because Python 3.11 looks up an Enum member with a call.
_NOTHING = Verdict.NOTHING


class Liveness:
    """The times of one connection, in seconds on a monotonic clock.

    A ping is sent every ``ping_interval`` seconds, even while messages flow. Proxies have a timeout for each
    direction, and the latency should be recent. *Any* data from the peer proves that it is alive, not only a
    pong: a pong cannot overtake a large message that the peer is still sending. The peer counts as dead when
    nothing arrives within ``ping_timeout`` of a ping and within ``ping_interval + ping_timeout`` of the last
    data.

    Precedent for the defaults (20 s and 20 s): websockets. Common proxies cut at 60 s.
    """

    def __init__(self, options: Options, now: float) -> None:
        self._init_liveness(options, now)

    # Not super().__init__(), which costs a compiled class thousands of instructions.
    def _init_liveness(self, options: Options, now: float) -> None:
        # size: every attribute of the class, in one place
        self.options = options
        #: It knows when the peer has accepted no data for too long.
        self.outbox = Outbox(options.write_timeout)
        #: When something is due at the earliest; set by :meth:`rearm`.
        self.deadline = NEVER
        #: When the connection opened.
        self.opened = now
        #: When the peer was last known to be alive.
        self.last_heard = 0.0
        #: When the last keepalive ping was sent; before the first one, when the connection opened.
        self.last_ping = 0.0
        #: The last round-trip time, in seconds.
        self.latency: float | None = None
        #: The round-trip time in seconds, smoothed over about eight round trips; -1 if it is unknown.
        self.smoothed_latency = -1.0
        #: Payload and round-trip time in seconds of each ping answered since the caller last cleared the
        #: list.
        self.answered: list[tuple[bytes, float]] | None = None
        #: The payload of the last keepalive ping. Older ones are forgotten, because a peer may send data
        #: for ever and never answer a ping.
        self.last_payload: bytes | None = None
        # Whether the connection is open: between begin() and stop().
        self._live = False
        # Whether data is still awaited since the last keepalive ping. Updated only by check().
        self._awaiting = False
        # When check() has to look at keepalive next.
        self._keepalive_at = NEVER
        self._unanswered: dict[bytes, float] | None = None
        self._serial = 0
        # Whether the unanswered ping replaces one whose answer time fell into a stall of this process.
        self._reprobed = False
        # The earlier of the end of the lifetime and of the authorization.
        self._expires_at = NEVER
        self._authorized_until = self._lifetime_ends_at = NEVER
        # When reading resumes that a rate limit has paused.
        self._resume_at = NEVER
        #: When the last message came or went; before the first one, when the connection opened.
        self.last_message_at = self._last_received_at = now
        # Set by the closing machine: when the time of its state is over, and when the ending is reported even
        # if TCP has not ended.
        self._state_deadline = after(now, options.open_timeout)
        self._report_at = NEVER
        # Start and end of the last stall of this process, and the stalled seconds since the peer's last data.
        self._stalled_since = self._stalled_until = self._stalled_for = 0.0

    def begin(self, now: float, pings: bool = True) -> None:
        """The connection has opened; ``pings``: the protocol has pings."""
        self._live = True
        self.opened = self.last_message_at = self._last_received_at = now
        if pings:
            self.last_heard = self.last_ping = now
            self._keepalive_at = after(now, self.options.ping_interval)
        self.rearm()

    def stop(self) -> None:
        """The connection is not open any more."""
        if self._live:
            self._live = False
            self._keepalive_at = NEVER
            self.rearm()

    def limit_lifetime(self, now: float, jitter: float) -> None:
        """Limit the lifetime to ``max_lifetime``, shortened by a share that ``jitter``, in [0, 1), determines."""
        if self.options.max_lifetime is not None:
            self._lifetime_ends_at = now + self.options.max_lifetime * (1 - _LIFETIME_JITTER * jitter)
            self._expires_at = min(self._lifetime_ends_at, self._authorized_until)

    def authorize(self, until: float) -> None:
        """The connection is authorized until this time. It replaces the one of the last call."""
        self._authorized_until = until
        self._expires_at = min(self._lifetime_ends_at, until)
        self.rearm()

    def rearm(self) -> None:
        """Set ``deadline`` to the earliest of all deadlines."""
        if self._live:
            self.deadline = min(
                self._state_deadline,
                self._keepalive_at,
                self.outbox.stuck_at,
                after(self.last_message_at, self.options.idle_timeout),
                after(self._last_received_at, self.options.stale_after),
                self._expires_at,
                self._resume_at,
            )
        else:
            self.deadline = min(self._state_deadline, self._report_at)

    def check(self, now: float, not_reading: bool) -> Verdict:
        """Decide what is due at ``now`` on an open connection.

        ``not_reading``: this side has paused reading, so no data from the peer can arrive.
        """
        if now >= self.outbox.stuck_at:
            return Verdict.STUCK
        if now >= self._expires_at:
            return Verdict.UNAUTHORIZED if now >= self._authorized_until else Verdict.EXPIRED
        if now >= after(self.last_message_at, self.options.idle_timeout):
            return Verdict.IDLE
        if now >= after(self._last_received_at, self.options.stale_after):
            return Verdict.STALE
        verdict = self._check_keepalive(now, not_reading)
        self.rearm()
        return verdict

    def _check_keepalive(self, now: float, not_reading: bool) -> Verdict:
        interval, timeout = self.options.ping_interval, self.options.ping_timeout
        if now < self._keepalive_at or interval is None:
            return _NOTHING
        if self._awaiting and timeout is not None and self.last_heard <= self.last_ping:
            # A peer whose application is busy does not answer pings, but it sends its own, usually at the
            # same interval. So its last data counts as well: the limit is interval + timeout after that.
            give_up = max(self.last_ping, self.last_heard + interval) + timeout
            if now < give_up:
                self._keepalive_at = give_up
                return _NOTHING
            # While reading is paused, silence proves nothing: send another ping.
            return self.probe(now) if not_reading else Verdict.SILENT
        self._awaiting = False
        if self.last_heard > self.last_ping:
            self._reprobed = False
        due = self.last_ping + interval
        if now >= due:
            return self.probe(now)
        self._keepalive_at = due
        return _NOTHING

    def probe(self, now: float) -> Verdict:
        """Start a new round: the caller sends a ping now, and its answer decides."""
        interval, timeout = self.options.ping_interval, self.options.ping_timeout
        assert interval is not None
        if self.last_payload is not None and self._unanswered is not None:
            self._unanswered.pop(self.last_payload, None)
        self.last_ping = now
        self._awaiting = True
        self._keepalive_at = now + (interval if timeout is None else min(interval, timeout))
        self.rearm()
        return Verdict.PING

    # -- pings ----------------------------------------------------------------

    def new_payload(self) -> bytes:
        """A payload that is unique among the pings of this connection."""
        self._serial += 1
        return self._serial.to_bytes(4, "big")

    def ping_sent(self, payload: bytes, now: float) -> None:
        """A ping was queued. Raises ValueError for a payload that is still unanswered."""
        if self._unanswered is None:
            self._unanswered = {}
        elif payload in self._unanswered:
            raise ValueError("payload must differ from that of every unanswered ping")
        self._unanswered[payload] = now

    def pong_received(self, payload: bytes, now: float) -> None:
        """A pong arrived. It answers its ping and all earlier ones.

        RFC 6455 §5.5.3: a peer "MAY elect to send a Pong frame for only the most recently processed Ping
        frame". An unsolicited pong is "a unidirectional heartbeat".
        """
        if self._unanswered is None or payload not in self._unanswered:
            return
        if self.answered is None:
            self.answered = []
        for earlier in list(self._unanswered):
            self.latency = latency = now - self._unanswered.pop(earlier)
            smoothed = self.smoothed_latency
            self.smoothed_latency = latency if smoothed < 0.0 else smoothed + _WEIGHT * (latency - smoothed)
            self.answered.append((earlier, latency))
            if earlier == payload:
                break
        if not self._unanswered:
            self._unanswered = None

    # -- stalls ---------------------------------------------------------------

    def shift(self, since: float, seconds: float, now: float) -> bool:
        """This process was stalled for ``seconds``, from ``since`` on: move all deadlines by that amount.

        True if a ping should be sent now, to find out whether the peer is still there.
        """
        if since < self._stalled_until:  # two timers reported the same stall
            seconds -= self._stalled_until - since
            since = self._stalled_until
        if seconds <= LATE:
            return False
        if self.last_heard > self._stalled_since:
            self._stalled_for = 0.0
        self._stalled_since, self._stalled_until = since, now
        self._stalled_for += seconds
        self._state_deadline += now - since
        self._report_at += now - since
        self.outbox.stuck_at += now - since
        self._last_received_at += now - since
        ping = self._shift_keepalive(now - since)
        self.rearm()
        return ping

    def _shift_keepalive(self, seconds: float) -> bool:
        """Move the times of keepalive. True if the unanswered ping is void and the next ping decides.

        Only one ping in a row can become void. Otherwise a loop that is always late would never detect a
        dead peer.
        """
        interval = self.options.ping_interval
        if interval is None or self._keepalive_at == NEVER:
            return False
        unanswered = self._awaiting and self.last_heard <= self.last_ping
        self.last_heard = -NEVER  # the last data arrived before the stall
        if unanswered and self._reprobed:
            self.last_ping += seconds
            self._keepalive_at += seconds
            return False
        self._reprobed = self._reprobed or unanswered
        self._awaiting = False
        self._keepalive_at = self.last_ping + interval
        return True

    def seconds_stalled(self) -> float:
        """Seconds for which this process was stalled after the last data from the peer."""
        return self._stalled_for if self.last_heard <= self._stalled_since else 0.0

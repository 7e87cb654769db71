"""Keepalive: when to send a ping, when the peer counts as dead, and how long a round trip took."""

from __future__ import annotations

from enum import Enum

from .deadline import NEVER, after

__all__ = ["Keepalive", "Verdict"]

#: The weight of a new round-trip time in the smoothed one. RFC 6298 §2.3: "alpha=1/8", as in TCP.
_WEIGHT = 1 / 8


class Verdict(Enum):
    """The result of :meth:`Keepalive.tick`."""

    NOTHING = "nothing is due"
    PING = "send a ping"
    SILENT = "the peer is dead: end the connection"


class Keepalive:
    """The pings of one connection.

    A ping is sent every ``interval`` seconds, even while messages flow. Proxies have a timeout for each
    direction, and the latency should be recent. *Any* data from the peer proves that it is alive, not only a
    pong: a pong cannot overtake a large message that the peer is still sending. The peer counts as dead when
    nothing arrives within ``timeout`` of a ping and within ``interval + timeout`` of the last data.

    Precedent for the defaults (20 s and 20 s): websockets. Common proxies cut at 60 s.
    """

    __slots__ = (
        "_reprobed",
        "_serial",
        "_unanswered",
        "answered",
        "awaiting",
        "deadline",
        "interval",
        "last_heard",
        "last_payload",
        "last_ping",
        "latency",
        "smoothed",
        "timeout",
    )

    def __init__(self, interval: float | None, timeout: float | None) -> None:
        self.interval = interval
        self.timeout = timeout
        #: When the peer was last known to be alive.
        self.last_heard = 0.0
        #: When the last ping was sent; before the first one, when the connection opened.
        self.last_ping = 0.0
        #: Whether data is still awaited since that ping. Updated only by :meth:`tick`.
        self.awaiting = False
        #: When :meth:`tick` has to be called next.
        self.deadline = NEVER
        #: The last round-trip time, in seconds.
        self.latency: float | None = None
        #: The round-trip time in seconds, smoothed over about eight round trips.
        self.smoothed: float | None = None
        #: Payload and round-trip time in seconds of each ping answered since the caller last cleared the
        #: list.
        self.answered: list[tuple[bytes, float]] | None = None
        #: The payload of the last automatic ping. Older ones are forgotten, because a peer may send data
        #: for ever and never answer a ping.
        self.last_payload: bytes | None = None
        self._unanswered: dict[bytes, float] | None = None
        self._serial = 0
        # Whether the unanswered ping replaces one whose answer time fell into a stall of this process.
        self._reprobed = False

    def start(self, now: float) -> None:
        """The connection has opened."""
        self.last_heard = self.last_ping = now
        self.deadline = after(now, self.interval)

    def stop(self) -> None:
        """The connection is not open any more."""
        self.deadline = NEVER

    def stalled(self, seconds: float) -> bool:
        """This process was stalled for ``seconds``, which do not count against the peer.

        True if the unanswered ping is void and the next ping decides. Only one ping in a row can become void.
        Otherwise a loop that is always late would never detect a dead peer.
        """
        if self.interval is None or self.deadline == NEVER:
            return False
        unanswered = self.awaiting and self.last_heard <= self.last_ping
        self.last_heard = -NEVER  # the last data arrived before the stall
        if unanswered and self._reprobed:
            self.last_ping += seconds
            self.deadline += seconds
            return False
        self._reprobed = self._reprobed or unanswered
        self.awaiting = False
        self.deadline = self.last_ping + self.interval
        return True

    def tick(self, now: float, not_reading: bool) -> Verdict:
        """Decide what is due at ``now``.

        ``not_reading``: this side has paused reading, so no data from the peer can arrive.
        """
        if now < self.deadline or self.interval is None:
            return Verdict.NOTHING
        if self.awaiting and self.timeout is not None and self.last_heard <= self.last_ping:
            # A peer whose application is busy does not answer pings, but it sends its own, usually at the
            # same interval. So its last data counts as well: the limit is interval + timeout after that.
            give_up = max(self.last_ping, self.last_heard + self.interval) + self.timeout
            if now < give_up:
                self.deadline = give_up
                return Verdict.NOTHING
            # While reading is paused, silence proves nothing: send another ping.
            return self.probe(now) if not_reading else Verdict.SILENT
        self.awaiting = False
        if self.last_heard > self.last_ping:
            self._reprobed = False
        due = self.last_ping + self.interval
        if now >= due:
            return self.probe(now)
        self.deadline = due
        return Verdict.NOTHING

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
            self.smoothed = (
                latency if self.smoothed is None else (self.smoothed + _WEIGHT * (latency - self.smoothed))
            )
            self.answered.append((earlier, latency))
            if earlier == payload:
                break
        if not self._unanswered:
            self._unanswered = None

    def probe(self, now: float) -> Verdict:
        """Start a new round: the caller sends a ping now, and its answer decides."""
        assert self.interval is not None
        if self.last_payload is not None and self._unanswered is not None:
            self._unanswered.pop(self.last_payload, None)
        self.last_ping = now
        self.awaiting = True
        wait = self.interval if self.timeout is None else min(self.interval, self.timeout)
        self.deadline = now + wait
        return Verdict.PING

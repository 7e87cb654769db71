"""When to ping, when to give up, and how long a round trip took."""

from __future__ import annotations

from enum import Enum

from .deadline import NEVER, after

__all__ = ["Keepalive", "Verdict"]

#: What a round trip weighs in the smoothed one. RFC 6298 §2.3: "alpha=1/8", as TCP's own.
_WEIGHT = 1 / 8


class Verdict(Enum):
    """What :meth:`Keepalive.tick` asks for."""

    NOTHING = "not yet"
    PING = "send a ping"
    SILENT = "give the peer up"


class Keepalive:
    """One connection's pings.

    A ping goes out every ``interval`` seconds whatever else flows, because proxies
    time each direction by itself and because the latency should be fresh. Not only a
    pong but *anything* that is heard proves the peer alive: a pong cannot overtake a large
    message that the peer is still sending. Who says nothing for ``interval + timeout`` seconds,
    and nothing for ``timeout`` after a ping, is given up.

    Precedent for the defaults (20 s and 20 s): websockets. Common proxies cut at 60 s.
    """

    __slots__ = (
        "_asked_anew",
        "_serial",
        "_waiting",
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
        #: When the last ping went out, or the connection opened.
        self.last_ping = 0.0
        #: Whether nothing has been heard since that ping, as far as was looked.
        self.awaiting = False
        #: When :meth:`tick` has something to say.
        self.deadline = NEVER
        #: The last round trip, in seconds.
        self.latency: float | None = None
        #: The same, smoothed over some eight of them.
        self.smoothed: float | None = None
        #: Pings answered since somebody looked: payload and round trip in seconds.
        self.answered: list[tuple[bytes, float]] | None = None
        #: The last ping that went out by itself. Only that one is remembered, for the sake
        #: of a peer that talks and never answers.
        self.last_payload: bytes | None = None
        self._waiting: dict[bytes, float] | None = None
        self._serial = 0
        # Whether the ping on its way stands for one that was lost in a standstill of ours.
        self._asked_anew = False

    def start(self, now: float) -> None:
        """The connection is open."""
        self.last_heard = self.last_ping = now
        self.deadline = after(now, self.interval)

    def stop(self) -> None:
        """The connection is open no longer."""
        self.deadline = NEVER

    def stalled(self, seconds: float) -> bool:
        """We stood still for so long, which does not count. True if the ping on its way says nothing any more.

        Then the next one decides. That goes for one ping only, or else a loop that is always late
        would never give anybody up.
        """
        if self.interval is None or self.deadline == NEVER:
            return False
        unanswered = self.awaiting and self.last_heard <= self.last_ping
        self.last_heard = -NEVER  # whatever was heard, it was before
        if unanswered and self._asked_anew:
            self.last_ping += seconds
            self.deadline += seconds
            return False
        self._asked_anew = self._asked_anew or unanswered
        self.awaiting = False
        self.deadline = self.last_ping + self.interval
        return True

    def tick(self, now: float, not_reading: bool) -> Verdict:
        """The time is ``now``; ``not_reading`` says that the peer cannot be heard, by our own doing."""
        if now < self.deadline or self.interval is None:
            return Verdict.NOTHING
        if self.awaiting and self.timeout is not None and self.last_heard <= self.last_ping:
            # A peer whose application is busy answers no ping, but sends its own, and most often
            # as seldom as we do: so whoever was heard lately has the whole time from then on.
            give_up = max(self.last_ping, self.last_heard + self.interval) + self.timeout
            if now < give_up:
                self.deadline = give_up
                return Verdict.NOTHING
            # Nobody is declared dead for our own deafness: a fresh ping first.
            return self.probe(now) if not_reading else Verdict.SILENT
        self.awaiting = False
        if self.last_heard > self.last_ping:
            self._asked_anew = False
        due = self.last_ping + self.interval
        if now >= due:
            return self.probe(now)
        self.deadline = due
        return Verdict.NOTHING

    def new_payload(self) -> bytes:
        """A payload that no other ping of this connection has."""
        self._serial += 1
        return self._serial.to_bytes(4, "big")

    def ping_sent(self, payload: bytes, now: float) -> None:
        """A ping goes out. Raises ValueError for a payload that is still unanswered."""
        if self._waiting is None:
            self._waiting = {}
        elif payload in self._waiting:
            raise ValueError("payload is that of a ping which is not answered yet")
        self._waiting[payload] = now

    def pong_received(self, payload: bytes, now: float) -> None:
        """A pong came: it answers its ping and the earlier ones.

        RFC 6455 §5.5.3: a peer "MAY elect to send a Pong frame for only the most
        recently processed Ping frame", and a pong that nobody asked for is "a
        unidirectional heartbeat".
        """
        if self._waiting is None or payload not in self._waiting:
            return
        if self.answered is None:
            self.answered = []
        for earlier in list(self._waiting):
            self.latency = latency = now - self._waiting.pop(earlier)
            self.smoothed = (
                latency if self.smoothed is None else (self.smoothed + _WEIGHT * (latency - self.smoothed))
            )
            self.answered.append((earlier, latency))
            if earlier == payload:
                break
        if not self._waiting:
            self._waiting = None

    def probe(self, now: float) -> Verdict:
        """A ping goes out now, and decides."""
        assert self.interval is not None
        if self.last_payload is not None and self._waiting is not None:
            self._waiting.pop(self.last_payload, None)
        self.last_ping = now
        self.awaiting = True
        wait = self.interval if self.timeout is None else min(self.interval, self.timeout)
        self.deadline = now + wait
        return Verdict.PING

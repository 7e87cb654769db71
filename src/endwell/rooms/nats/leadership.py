"""Which process leads: it numbers the publications of all rooms.

The leader gives signs of life. A process that hears none for a time begins to lead, with a higher term. Two leaders
at once are possible: each has its own epochs, so nobody takes the numbers of one for those of the other. The
one with the lower rank stops as soon as it hears the other.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Callable

from ...aio.waiters import Waiters
from ..frames import pack_word
from .heritage import Heritage
from .link import Link
from .place import Place
from .sequencer import NO, Sequencer
from .words import Rank, pack_beat, pack_resignation, unpack

__all__ = ["Leadership"]

logger = logging.getLogger("endwell.rooms")

#: Seconds between two signs of life.
BEAT_INTERVAL = 0.5
#: Seconds after which a leader that has not heard itself stops numbering. Less than FOLLOW_TIME, so that the next
#: one begins after it.
LEAD_TIME = 2.0
#: Seconds without a sign of life of the leader after which another process begins to lead.
FOLLOW_TIME = 3.0
#: Maximum seconds before a process begins to lead, so that not all do at the same time.
SPREAD_TIME = 0.1
#: Seconds between the claim of a process and the first number that it gives, for claims of a higher rank.
SETTLE_TIME = 0.1
#: Maximum seconds for which a leader that stops waits until the next one leads.
HAND_OVER_TIME = 3.0


class Leadership:
    """The part of one process.

    Args:
        place: Where NATS is.
        link: The connection.
        process: The name of this process.
        limits: ``max_history`` and ``max_known_rooms`` of :class:`endwell.rooms.Rooms`.
        heard: Called at each sign of life of the leader, and whether it may have missed what it was told.
    """

    def __init__(
        self,
        place: Place,
        link: Link,
        process: str,
        limits: tuple[int, int],
        heard: Callable[[bool], None],
    ) -> None:
        #: The highest rank that is known.
        self.rank = Rank(0, "")
        self._place = place
        self._link = link
        self._process = process
        self._limits = limits
        self._heard = heard
        #: The session of the leader; empty while none is known to serve.
        self._session = ""
        #: The state of all rooms, if this process leads, or led until it was interrupted.
        self._sequencer: Sequencer | None = None
        #: Its session, while it serves.
        self._serves = ""
        #: Whether this process receives what a leader is asked. If it does not lead, it says so.
        self._is_asked = False
        self._heritage: Heritage | None = None
        self._stepped_down = Waiters()
        #: When the leader was heard.
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        #: Whether :meth:`_go_on` is called in the next turn of the loop.
        self._goes_on = False
        self._loop = asyncio.get_running_loop()

    @property
    def leader(self) -> str | None:
        """The subject where the leader is asked; None while none is known."""
        return self._place.subject("ask", self.rank.process) if self._session else None

    # -- the connection ------------------------------------------------------------------

    def connected(self) -> None:
        """The connection is there."""
        self._heard_at = self._loop.time()
        self._link.subscribe(self._place.subject("leader"), self._on_beat)
        self._ask_who()

    def disconnected(self) -> None:
        """The connection is lost."""
        self._session = self._serves = ""
        self._is_asked = False
        self._heritage = None
        self._cancel_timer()

    async def stop(self) -> None:
        """Let another process lead, if this one does."""
        self._cancel_timer()
        if not self._may_serve() or self._sequencer is None:
            return
        self._pause()
        # From here on the numbers belong to the next leader. If the connection comes back, this one gives none.
        sequencer, self._sequencer = self._sequencer, None
        left = sequencer.leave_all(self._loop.time(), self._link.max_payload)
        if left is not None:
            heir, parts = left
            for part in parts:
                self._send(heir, "heritage", part)
            self._send(heir, "lead", pack_word("lead", *self.rank, len(parts)))
            try:
                async with asyncio.timeout(HAND_OVER_TIME):
                    await self._stepped_down.wait()
            except TimeoutError:
                pass  # it has exited, too
            else:
                return
        self._link.send(self._place.subject("leader"), pack_resignation(self.rank))

    def on_heritage(self, part: bytes) -> None:
        """The leader stops, and leaves this process the state of the rooms."""
        if self._heritage is None:
            self._heritage = Heritage(self._loop.time())
        self._heritage.add(part)

    def on_lead(self, term: int, process: str, count: int) -> None:
        """The leader has sent all parts. This process leads now."""
        heritage, self._heritage = self._heritage, None
        if (term, process) != self.rank or heritage is None or heritage.count != count:
            return
        self._begin()
        assert self._sequencer is not None
        self._sequencer.inherit(heritage, self._loop.time())
        self._serve()

    def _ask_who(self) -> None:
        """Only a leader answers. NATS reports that there is none."""
        self._link.send(self._place.subject("who"), b"", f"{self._link.inbox}.who")

    def on_answer(self, data: bytes, nobody: bool) -> None:
        """The answer to the question who leads."""
        if not nobody:
            self._on_beat("", "", data, False)
            _, term, process, _ = unpack(data)
            if Rank(term, process) >= self.rank or self._serves:
                return
            # It has just started, has found nobody, and claims to lead.
        if self._sequencer is not None:
            self._sequencer.extend_leases(self._loop.time())
            self._serve()
        elif not self.rank.term:
            self._claim_soon()

    # -- signs of life ---------------------------------------------------------------------

    def _on_beat(self, token: str, reply: str, data: bytes, nobody: bool) -> None:
        word, term, process, session = unpack(data)
        rank = Rank(term, process)
        if word == "resign":
            if rank == self.rank and process != self._process:
                self._session = ""
                self._claim_soon()
        elif rank < self.rank:
            self._contest(rank)
        else:
            if rank > self.rank:
                if self._sequencer is not None:
                    self._pause()
                    self._sequencer = None
                self._follow(rank)
                self._stepped_down.wake()
            if process != self._process:
                self._cancel_timer()
            self._heard_at = self._loop.time()
            missed = session != self._session
            self._session = session
            if session:
                self._heard(missed)

    def _follow(self, rank: Rank) -> None:
        """Another process leads, or this one begins to."""
        self.rank = rank
        # If the last leader has ended while it handed over, its parts are not those of this one.
        self._heritage = None

    def _contest(self, rank: Rank) -> None:
        """Another process leads, with a lower rank."""
        if self._serves and rank.process != self._process and self._sequencer is not None:
            logger.warning(
                "two processes have numbered the publications of rooms: all rooms have a new epoch"
            )
            self._sequencer.renew_all()
            self._beat()

    def tick(self) -> None:
        """Give a sign of life, or begin to lead. Call it every :data:`BEAT_INTERVAL`."""
        if not self._link.connected:
            return
        if self._may_serve() and self._sequencer is not None:
            if not self._goes_on:
                self._go_on()
            self._beat()
        elif self._loop.time() - self._heard_at > FOLLOW_TIME and self._link.silence <= LEAD_TIME:
            # The leader is not heard, and this process hears.
            self._claim_soon()

    def _beat(self) -> None:
        self._link.send(self._place.subject("leader"), pack_beat(self.rank, self._serves))

    # -- leading -----------------------------------------------------------------------------

    def _claim_soon(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(random.uniform(0, SPREAD_TIME), self._claim)  # noqa: S311

    def _begin(self) -> None:
        self._cancel_timer()
        self._follow(Rank(self.rank.term + 1, self._process))
        self._session = ""
        self._sequencer = Sequencer(self.rank, self._limits, self._send, self._spread)

    def _claim(self) -> None:
        self._begin()
        self._link.subscribe(self._place.subject("who"), self._on_who)
        self._beat()
        self._heard_at = self._loop.time()
        self._timer = self._loop.call_later(SETTLE_TIME, self._settle, self.rank)

    def _settle(self, rank: Rank) -> None:
        self._timer = None
        if self.rank == rank:
            self._serve()

    def _serve(self) -> None:
        self._serves = secrets.token_urlsafe(6)
        self._link.subscribe(self._place.subject("who"), self._on_who)
        if not self._is_asked:
            self._link.subscribe(self._place.subject("ask", self._process), self._on_ask)
            self._is_asked = True
        self._beat()

    def _may_serve(self) -> bool:
        """Whether this process leads, and certainly no other one does."""
        if self._serves and self._link.silence > LEAD_TIME:
            # This process stood still. Another one may have begun to lead.
            self._pause()
            self._heard_at = self._loop.time()
            self._ask_who()
        return bool(self._serves)

    def _pause(self) -> None:
        self._serves = self._session = ""
        self._link.unsubscribe(self._place.subject("who"))

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- the leader is asked -------------------------------------------------------------------

    def _on_who(self, token: str, reply: str, data: bytes, nobody: bool) -> None:
        self._link.send(reply, pack_beat(self.rank, self._serves))

    def _on_ask(self, token: str, reply: str, data: bytes, nobody: bool) -> None:
        if self._may_serve() and self._sequencer is not None:
            process, call = data[:8].decode(), reply.rpartition(".")[2]
            self._sequencer.handle(process, call, data[8:], self._loop.time(), self._link.max_payload)
            self._go_on_soon()
        elif reply:
            self._link.send(reply, NO)

    def _go_on(self) -> None:
        """Do some of what is due."""
        self._goes_on = False
        if self._may_serve() and self._sequencer is not None:
            self._sequencer.tick(self._loop.time())
            self._go_on_soon()

    def _go_on_soon(self) -> None:
        """Do more in the next turn of the loop, if there is more to do."""
        if not self._goes_on and self._sequencer is not None:
            self._goes_on = self._sequencer.deadline <= self._loop.time()
            if self._goes_on:
                self._loop.call_soon(self._go_on)

    def _send(self, process: str, token: str, data: bytes) -> None:
        self._link.send(self._place.subject("to", process, token), data)

    def _spread(self, room: str, data: bytes) -> None:
        self._link.send(self._place.room(room), data)

"""The members of one room in this process, and the publications that are on the way to them."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from ..advice import RetryAdvice
from ..aio.broadcast import BroadcastReport, Slow, deliver, deliver_together
from ..aio.websocket import WebSocket, begin_close
from ..codes import CloseCode
from ..ending import Cause
from ..sync.websocket import WebSocket as BlockingWebSocket
from .bus import Arrival
from .membership import Membership, queue_staged
from .position import Position, Publication
from .records import fill, members_of

__all__ = ["Call", "Members", "Receipt"]

#: Maximum number of members that get a publication in one turn of the event loop. 500 members take 1 to 4 ms;
#: other connections are served between two turns.
BATCH = 500
#: Maximum number of publications that these members get in one turn of the loop, and the length of their messages above
#: which there is not another one. Without them together, a room with more than BATCH members would get one for each turn.
MAX_TOGETHER = 16
MAX_TOGETHER_SIZE = 1 << 14
#: When the members come back that were closed because messages were lost.
LOST = RetryAdvice(0, 5)


@dataclass(frozen=True, slots=True, init=False)
class Receipt:
    """The result of :meth:`Room.publish`. Members of other processes are not counted in it.

    Example:
        ```python
        import asyncio
        import endwell

        server = endwell.Server()

        async def main():
            async with server.serving(port=0):
                receipt = await server.rooms["lobby"].publish("hello")
                print(receipt.position.sequence, receipt.sent, receipt.workers)  # 1 0 0

        asyncio.run(main())
        ```
    """

    #: The position of the room after this message.
    position: Position
    #: Number of processes that got the message, because they have members in the room.
    workers: int
    #: Number of members in this process that were sent the message.
    sent: int = 0
    #: The members in this process that were slow: see :meth:`endwell.Server.broadcast`.
    slow: tuple[Any, ...] = ()
    #: Number of members in this process whose connection was closing.
    gone: int = 0
    #: The members in this process whose old protocol has no binary messages.
    unsupported: tuple[Any, ...] = ()

    # As in Position.
    def __init__(
        self,
        position: Position,
        workers: int,
        sent: int = 0,
        slow: tuple[Any, ...] = (),
        gone: int = 0,
        unsupported: tuple[Any, ...] = (),
    ) -> None:
        fill(self, _receipt, (position, workers, sent, slow, gone, unsupported))


_receipt = members_of(Receipt)
_NOTHING = BroadcastReport(0, (), 0)


class Call:
    """A call of :meth:`Room.publish`."""

    __slots__ = ("delivered", "exclude", "report")

    def __init__(self, exclude: WebSocket | None) -> None:
        self.exclude = exclude
        self.report = _NOTHING
        #: Set while the delivery to the members takes several turns of the loop.
        self.delivered: asyncio.Future[None] | None = None

    def add(self, report: BroadcastReport) -> None:
        """Add what has become of the message for some of the members."""
        self.report = report if self.report is _NOTHING else _sum(self.report, report)


class _Delivery:
    """What is sent to the same members in several turns of the loop. Each turn sends all of it to some of them."""

    __slots__ = ("batch", "engines", "members", "size")

    def __init__(self, members: list[Membership], engines: list[WebSocket]) -> None:
        self.members = members
        #: Their connections.
        self.engines = engines
        #: The publications. Empty: the connections are closed instead.
        self.batch: list[Arrival] = []
        #: The sum of the lengths of the messages.
        self.size = 0

    @property
    def has_room(self) -> bool:
        """Whether another publication can be added."""
        return 0 < len(self.batch) < MAX_TOGETHER and self.size < MAX_TOGETHER_SIZE

    def add(self, arrival: Arrival) -> None:
        """Add a publication."""
        self.batch.append(arrival)
        self.size += len(arrival[1])


class Members:
    """The members of one room in this process."""

    def __init__(self) -> None:
        self._members: dict[WebSocket, Membership] = {}
        #: The members and their connections as lists, which a change replaces.
        self._listed: list[Membership] | None = None
        self._engines: list[WebSocket] = []
        #: Number of members that are blocking WebSockets.
        self._blocking = 0
        self._deliveries: deque[_Delivery] = deque()
        #: Number of members that were sent the first one of the deliveries.
        self._delivered = 0
        #: Whether the next turn of the loop goes on with the deliveries.
        self._scheduled = False

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, membership: Membership) -> bool:
        return self._members.get(membership._engine) is membership

    def get(self, engine: WebSocket) -> Membership | None:
        """The membership of a connection."""
        return self._members.get(engine)

    def all(self) -> list[Membership]:
        """The members, in the order in which they joined."""
        return [*self._members.values()]

    def add(self, membership: Membership) -> None:
        """Add a member. It gets the publications that :meth:`send` is called with from now on."""
        self._members[membership._engine] = membership
        self._blocking += isinstance(membership.ws, BlockingWebSocket)
        self._listed = None

    def remove(self, membership: Membership) -> None:
        """Remove a member."""
        del self._members[membership._engine]
        self._blocking -= isinstance(membership.ws, BlockingWebSocket)
        self._listed = None

    def position_of(self, membership: Membership, position: Position) -> Position | None:
        """The position after what a member was sent, in a room at ``position``; None if it is being closed."""
        if not membership._engine.is_open:
            return None  # it is not known when it began to close
        for number, delivery in enumerate(self._deliveries):
            done = delivery.members[: self._delivered] if number == 0 else []
            if membership in delivery.members and membership not in done:
                if not delivery.batch:
                    return None
                return Position(position.epoch, delivery.batch[0][0] - 1)
        return position

    def send(self, publication: Publication, slow: Slow, call: Call | None) -> None:
        """Send a publication to all members, in several turns of the event loop if they are many."""
        if self._listed is None:
            self._listed, self._engines = self.all(), list(self._members)
        engines = self._engines
        if not self._deliveries and len(engines) <= BATCH:
            report = self._send(_without(engines, call), publication, slow)
            if call is not None:
                call.add(report)
            return
        if call is not None:
            call.delivered = asyncio.get_running_loop().create_future()
        arrival = publication.sequence, publication.message, slow, call
        # The first one has begun.
        if len(self._deliveries) > 1:
            last = self._deliveries[-1]
            if last.members is self._listed and last.has_room:
                last.add(arrival)
                return
        delivery = _Delivery(self._listed, engines)
        delivery.add(arrival)
        self._begin(delivery)

    def send_all(self, batch: list[Arrival], alone: bool) -> None:
        """:meth:`send` for publications that have arrived together. ``alone``: no other room has such ones."""
        if self._listed is None:
            self._listed, self._engines = self.all(), list(self._members)
        if not self._deliveries and len(self._engines) <= BATCH:
            self._send_together(self._engines, batch, alone)
            return
        for sequence, message, slow, call in batch:
            self.send(Publication(sequence, message), slow, call)

    def close_all(self) -> None:
        """Close all members after a gap, in several turns of the event loop. They get no publication after it."""
        self._begin(_Delivery(self.all(), list(self._members)))

    def finish(self) -> None:
        """Send now what would take several turns of the event loop."""
        while self._deliveries:
            self._deliver()

    def _begin(self, delivery: _Delivery) -> None:
        self._deliveries.append(delivery)
        if len(self._deliveries) == 1:
            self._go_on()

    def _go_on(self) -> None:
        self._deliver()
        # One call for each turn of the loop, also after finish(): otherwise they would multiply.
        if self._deliveries and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._scheduled = False
        if self._deliveries:  # finish() may have been called
            self._go_on()

    def _deliver(self) -> None:
        """Send the first of the deliveries to the next members."""
        delivery, begin = self._deliveries[0], self._delivered
        end = begin + BATCH
        engines = delivery.engines[begin:end]
        if delivery.members is not self._listed:
            now = delivery.members[begin:end]
            engines = [each._engine for each in now if self._members.get(each._engine) is each]
        if delivery.batch:
            self._send_together(engines, delivery.batch, False)
        else:
            _close(engines)
        self._delivered = end
        if end < len(delivery.members):
            return
        self._delivered = 0
        self._deliveries.popleft()
        for *_, call in delivery.batch:
            if call is not None and not call.delivered.done():
                call.delivered.set_result(None)

    def _send_together(self, engines: list[WebSocket], batch: list[Arrival], alone: bool) -> None:
        """Send publications to some of the members, each of them all in one piece."""
        if self._blocking:
            for engine in engines:
                queue_staged(self._members[engine])
        messages, calls, queues = [], [], True
        for _, message, slow, call in batch:
            messages.append(message)
            queues = queues and slow == "queue"
            if call is not None:
                calls.append(call)
        some, excluded = engines, []
        for call in calls:
            if call.exclude in self._members and call.exclude not in excluded:
                excluded.append(call.exclude)
        if excluded:
            some = [each for each in engines if each not in excluded]
            excluded = [each for each in engines if each in excluded]
        report, others = deliver_together(some, messages, queues and not calls, alone)
        for call in calls:
            call.add(report)
        others += excluded
        if not others:
            return
        for sequence, message, slow, call in batch:
            report = self._send(_without(others, call), Publication(sequence, message), slow)
            if call is not None:
                call.add(report)

    def _send(self, engines: list[WebSocket], publication: Publication, slow: Slow) -> BroadcastReport:
        if self._blocking:
            for engine in engines:
                queue_staged(self._members[engine])
        # The message was checked when it was published.
        report = deliver(engines, publication.message, slow)
        if not report.slow and not report.unsupported:
            return report
        for engine in (*(report.slow if slow == "skip" else ()), *report.unsupported):
            self._members[engine].missed += 1
        return BroadcastReport(
            report.sent,
            tuple(self._members[each].ws for each in report.slow),
            report.gone,
            tuple(self._members[each].ws for each in report.unsupported),
        )


def _without(engines: list[WebSocket], call: Call | None) -> list[WebSocket]:
    """The connections without the one that a call of publish() excludes."""
    if call is None or call.exclude is None:
        return engines
    return [each for each in engines if each is not call.exclude]


def _close(engines: list[WebSocket]) -> None:
    cause = Cause.ROOM_GAP
    for engine in engines:
        begin_close(engine, cause, CloseCode.TRY_AGAIN_LATER, LOST.reason(cause.meaning))


def _sum(one: BroadcastReport, two: BroadcastReport) -> BroadcastReport:
    return BroadcastReport(
        one.sent + two.sent, one.slow + two.slow, one.gone + two.gone, one.unsupported + two.unsupported
    )

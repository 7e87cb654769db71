"""The bus of a worker: its supervisor connects the workers of one machine."""

from __future__ import annotations

import asyncio
import json
import socket
from itertools import count
from typing import Any

from ..aio.broadcast import Slow
from ..errors import BusUnavailable, RoomLimit
from .arrivals import Arrivals
from .bus import Bus, Receiver
from .frames import (
    OWN,
    PUBLICATION,
    PUBLISHED,
    SENT,
    Decoder,
    load,
    pack_publish,
    pack_word,
    unpack_arrival,
    unpack_published,
)
from .history import History, Page
from .hub import Info, Present
from .position import Message, Position, Publication

__all__ = ["SupervisorBus"]

#: A call of publish(): its answer, the room, the message, what happens to slow members, and the caller's object.
_Publishing = tuple[asyncio.Future[tuple[Position, int]], str, Message, Slow, object]


class SupervisorBus(Bus, asyncio.Protocol):
    """Connects the workers of one supervisor. No other software is needed.

    The numbers and the history are in the supervisor's process, so they outlive every worker.
    """

    name = "supervisor"

    def __init__(self, sock: socket.socket, *, can_reserve: bool = True) -> None:
        self._sock = sock
        self.can_reserve = can_reserve
        self._decoder = Decoder()
        self._numbers = count(1)
        #: The calls that wait for an answer.
        self._calls: dict[int, asyncio.Future[Any]] = {}
        #: The calls of publish() that wait for an answer, and what they publish.
        self._publishing: dict[int, _Publishing] = {}
        #: The answer whose publication is the next one.
        self._own: tuple[asyncio.Future[tuple[Position, int]], Position, int, object] | None = None
        #: The rooms to which this process listens, each with the position that was delivered.
        self._delivered: dict[str, Position] = {}
        #: The policy of the last publication of each room. The history does not have it.
        self._slow: dict[str, Slow] = {}
        #: The rooms of which publications were missed, and the calls that read their history.
        self._healing: dict[str, int] = {}
        self._healed: dict[int, str] = {}
        self._arrivals = Arrivals()
        self._queue: list[bytes] = []
        #: None until it is connected.
        self._transport: Any = None
        self._ended = False

    @property
    def is_connected(self) -> bool:
        """See :attr:`Bus.is_connected`."""
        return not self._ended

    @property
    def disconnections(self) -> int:
        """See :attr:`Bus.disconnections`. A supervisor that has exited does not come back."""
        return int(self._ended)

    async def start(self, receiver: Receiver) -> None:
        """See :meth:`Bus.start`."""
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._transport, _ = await self._loop.create_connection(lambda: self, sock=self._sock)
        # A supervisor of an older version ignores it, and sends each publication back.
        self._send(pack_word("keeps own"))

    async def stop(self) -> None:
        """See :meth:`Bus.stop`."""
        if self._transport is not None:  # otherwise, start() was cancelled
            self._flush()
            self._transport.close()

    # -- calls ---------------------------------------------------------------------

    async def listen(self, room: str) -> Position:
        """See :meth:`Bus.listen`."""
        number, answer = self._call()
        self._send(pack_word("listen", number, room))
        position: Position = await answer
        return position

    def ignore(self, room: str) -> None:
        """See :meth:`Bus.ignore`."""
        self._delivered.pop(room, None)
        self._slow.pop(room, None)
        if (number := self._healing.pop(room, None)) is not None:
            del self._healed[number]
        self._send(pack_word("ignore", room))

    async def publish(
        self, room: str, message: Message, history: History | None, slow: Slow, call: object
    ) -> tuple[Position, int]:
        """See :meth:`Bus.publish`."""
        self._check()
        number = next(self._numbers)
        frame = pack_publish(number, room, message, history, slow)
        answer: asyncio.Future[tuple[Position, int]] = self._loop.create_future()
        alone = not self._publishing and not self._queue
        self._publishing[number] = answer, room, message, slow, call
        if alone:
            # Waiting for more would take another turn of the loop.
            self._transport.write(frame)
        else:
            self._send(frame)
        return await answer

    async def position(self, room: str) -> Position:
        """See :meth:`Bus.position`."""
        number, answer = self._call()
        self._send(pack_word("position", number, room))
        epoch, sequence = await answer
        return Position(epoch, sequence)

    async def page(self, room: str, after: Position | None, limit: int | None) -> Page:
        """See :meth:`Bus.page`."""
        number, answer = self._call()
        self._ask_page(number, room, after, limit)
        return _page(await answer)

    def enter(self, room: str, connection: int, key: str, info: Info, grace: float) -> None:
        """See :meth:`Bus.enter`."""
        self._send(pack_word("enter", room, connection, key, info, grace))

    def leave(self, room: str, connection: int, key: str, grace: float) -> None:
        """See :meth:`Bus.leave`."""
        self._send(pack_word("leave", room, connection, key, grace))

    async def presence(self, room: str) -> list[Present]:
        """See :meth:`Bus.presence`."""
        number, answer = self._call()
        self._send(pack_word("presence", number, room))
        return [Present(*each) for each in await answer]

    async def reserve(self, held: int, wanted: int, limit: int) -> tuple[int, int]:
        """See :meth:`Bus.reserve`."""
        number, answer = self._call()
        self._send(pack_word("reserve", number, held, wanted, limit))
        granted, total = await answer
        return granted, total

    # -- the way out ---------------------------------------------------------------

    def _check(self) -> None:
        if self._ended:
            raise BusUnavailable("the supervisor has exited; nothing was sent")

    def _call(self) -> tuple[int, asyncio.Future[Any]]:
        self._check()
        number = next(self._numbers)
        answer = self._calls[number] = self._loop.create_future()
        return number, answer

    def _send(self, frame: bytes) -> None:
        if not self._queue:
            # All frames of one turn of the loop leave in one system call.
            self._loop.call_soon(self._flush)
        self._queue.append(frame)

    def _flush(self) -> None:
        if self._queue and not self._ended:
            self._transport.write(b"".join(self._queue))
        self._queue.clear()

    # -- the way in ----------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """See :meth:`asyncio.Protocol.data_received`."""
        arrivals = self._arrivals
        try:
            for kind, body in self._decoder.feed(data):
                if kind == PUBLICATION:
                    self._publication(body)
                elif kind == PUBLISHED:
                    self._published(body)
                else:
                    arrivals.deliver(self._receiver)
                    self._word(*json.loads(body))
        finally:
            arrivals.deliver(self._receiver)

    def connection_lost(self, exc: Exception | None) -> None:
        """See :meth:`asyncio.Protocol.connection_lost`."""
        self._ended = True
        error = BusUnavailable("the supervisor has exited; the message may have been sent")
        waiting = [*self._calls.values(), *(each[0] for each in self._publishing.values())]
        if self._own is not None:
            waiting.append(self._own[0])
        for answer in waiting:
            if not answer.done():
                answer.set_exception(error)
        self._calls.clear()
        self._publishing.clear()

    def _published(self, body: bytes) -> None:
        number, sequence, workers, listens, epoch = unpack_published(body)
        answer, room, message, slow, call = self._publishing.pop(number)
        position = Position(epoch, sequence)
        if listens == SENT:
            self._own = answer, position, workers, call
            return
        if not answer.done():
            answer.set_result((position, workers))
        if listens == OWN:
            self._deliver(room, position, message, slow, call)

    def _publication(self, body: bytes) -> None:
        room, epoch, sequence, message, slow = unpack_arrival(body)
        position = Position(epoch, sequence)
        call = None
        if self._own is not None:
            answer, own, workers, call = self._own
            self._own = None
            assert own == position
            if not answer.done():
                answer.set_result((position, workers))
        self._deliver(room, position, message, slow, call)

    def _deliver(self, room: str, position: Position, message: Message, slow: Slow, call: object) -> None:
        if room in self._delivered and room not in self._healing:
            self._delivered[room] = position
            self._slow[room] = slow
            self._arrivals.add(room, position.epoch, position.sequence, message, slow, call)

    def _word(self, word: str, *values: Any) -> None:
        if word == "answer":
            number, value = values
            if (healed := self._healed.pop(number, None)) is not None:
                self._heal(healed, _page(value))
            elif (answer := self._calls.pop(number, None)) is not None and not answer.done():
                answer.set_result(value)
            # Otherwise, this process has ended `listen` while it read what was missed.
        elif word == "listening":
            number, room, *numbers = values
            position = Position(*numbers)
            if not (answer := self._calls.pop(number)).done():
                self._delivered[room] = position
                answer.set_result(position)
        elif word == "behind":
            (room,) = values
            if room in self._delivered and room not in self._healing:
                number = self._healing[room] = next(self._numbers)
                self._healed[number] = room
                self._ask_page(number, room, self._delivered[room], None)
        elif word == "refused":
            number, text = values
            publishing = self._publishing.pop(number, None)
            answer = self._calls.pop(number, None) if publishing is None else publishing[0]
            if answer is not None and not answer.done():
                answer.set_exception(RoomLimit(text))
        elif word == "failed":
            (number,) = values
            if (answer := self._calls.pop(number, None)) is not None and not answer.done():
                answer.set_exception(BusUnavailable("the supervisor has failed to answer; nothing was sent"))
        elif word in ("came", "went"):
            room, key, info, connections, *numbers = values
            tell = self._receiver.came if word == "came" else self._receiver.went
            tell(room, Present(key, info, connections))
            if numbers:
                # Without this, the supervisor would tell another worker when this one has ended.
                self._send(pack_word("told", *numbers))

    def _ask_page(self, number: int, room: str, after: Position | None, limit: int | None) -> None:
        start = None if after is None else [after.epoch, after.sequence]
        self._send(pack_word("page", number, room, start, limit))

    def _heal(self, room: str, page: Page) -> None:
        """Deliver what was missed, as far as the history has it.

        Publications that arrived before the page are dropped, because they are part of it. Slow members are
        treated as for the last publication that was delivered: where members return to a position, none is
        skipped.
        """
        del self._healing[room]
        slow = self._slow.get(room, "skip")
        self._delivered[room] = page.position
        if page.lost != 0:
            first = page.publications[0].sequence if page.publications else page.position.sequence + 1
            self._receiver.lost(room, page.lost, Position(page.position.epoch, first - 1))
        for publication in page.publications:
            position = Position(page.position.epoch, publication.sequence)
            self._receiver.published(room, position, publication, slow, None)


def _page(answer: list[Any]) -> Page:
    position, lost, publications = answer
    return Page(Position(*position), lost, [Publication(each, load(it)) for each, it in publications])

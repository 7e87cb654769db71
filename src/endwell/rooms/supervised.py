"""The bus of a worker: its supervisor connects the workers of one machine."""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from itertools import count
from typing import Any

from ..aio.broadcast import Slow
from ..errors import BusUnavailable, RoomLimit
from . import returning
from .bus import Bus, Receiver
from .frames import load, pack_word
from .history import History, Page, page_after
from .incoming import Incoming
from .overdue import Overdue
from .position import Message, Position, Publication
from .present import Info, Part, Present, read_parts

__all__ = ["SupervisorBus"]

logger = logging.getLogger("endwell.rooms")


class SupervisorBus(Bus, asyncio.Protocol):
    """Connects the workers of one supervisor. No other software is needed.

    The numbers and the history are in the supervisor's process, so they outlive every worker.
    """

    name = "supervisor"

    def __init__(self, sock: socket.socket, *, can_reserve: bool = True) -> None:
        self._sock = sock
        self.can_reserve = can_reserve
        self._numbers = count(1)
        #: The calls that wait for an answer: of :class:`Overdue`, when each is given up, and its answer.
        self._calls: dict[int, tuple[int, asyncio.Future[Any]]] = {}
        #: The rooms whose history the calls read.
        self._healed: dict[int, str] = {}
        self._queue: list[bytes] = []
        #: None until it is connected.
        self._transport: Any = None
        self._ended = False
        #: How often it has not answered a call in time.
        self._silences = 0
        self._overdue = Overdue(self._expire)
        self._incoming = Incoming(self._word, self._numbers, self._overdue)
        # Not a method, which would take 560 instructions for each read.
        self.data_received = self._incoming.feed  # type: ignore[method-assign]
        self._publishing, self._delivered = self._incoming.publishing, self._incoming.delivered
        self._healing = self._incoming.healing

    @property
    def is_connected(self) -> bool:
        """See :attr:`Bus.is_connected`."""
        return not (self._ended or self._incoming.silent)

    @property
    def disconnections(self) -> int:
        """See :attr:`Bus.disconnections`. A supervisor that has exited does not come back."""
        return self._silences + self._ended

    async def start(self, receiver: Receiver) -> None:
        """See :meth:`Bus.start`."""
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._incoming.start(receiver, self._loop)
        self._transport, _ = await self._loop.create_connection(lambda: self, sock=self._sock)
        # A supervisor of an older version ignores it, and sends each publication back.
        self._send(pack_word("keeps own"))
        # Such a supervisor answers with a whole history, too.
        self._send(pack_word("asks on"))

    async def stop(self) -> None:
        """See :meth:`Bus.stop`."""
        self._overdue.stop()
        if self._transport is not None:  # otherwise, start() was cancelled
            self._flush()
            self._transport.close()

    # -- calls ---------------------------------------------------------------------

    async def listen(self, room: str) -> Position:
        """See :meth:`Bus.listen`."""
        number, answer = self._call()
        self._send(pack_word("listen", number, room))
        try:
            position: Position = await answer
        except BusUnavailable:
            self.ignore(room)
            raise
        return position

    def ignore(self, room: str) -> None:
        """See :meth:`Bus.ignore`."""
        self._delivered.pop(room, None)
        if (number := self._healing.pop(room, None)) is not None:
            del self._healed[number]
        self._send(pack_word("ignore", room))

    def publish(
        self, room: str, message: Message, history: History | None, slow: Slow, call: object
    ) -> asyncio.Future[tuple[Position, int]]:
        """See :meth:`Bus.publish`."""
        self._check()
        incoming = self._incoming
        alone = not incoming.publishing and not self._queue
        if not alone:
            self._check_size()
        frame, answer = incoming.begin(room, message, history, slow, call)
        if alone:
            # Waiting for more would take another turn of the loop.
            self._transport.write(frame)
        else:
            self._send(frame)
        return answer

    async def position(self, room: str) -> Position:
        """See :meth:`Bus.position`."""
        number, answer = self._call()
        self._send(pack_word("position", number, room))
        epoch, sequence = await answer
        return Position(epoch, sequence)

    async def page(self, room: str, after: Position | None, limit: int | None) -> Page:
        """See :meth:`Bus.page`."""
        start, end = after, None
        found: list[Publication] = []
        while True:
            number, answer = self._call()
            left = limit - len(found) if found and limit is not None else limit
            self._ask_page(number, room, after, left)
            page = _page(await answer)
            if page.lost != 0:
                # Of an answer before: meanwhile, publications have left the history, or the epoch has changed.
                found.clear()
            found += page.publications
            position = page.position
            if not _has_more(page) or len(found) == limit:
                break
            after = Position(position.epoch, found[-1].sequence)
            if end is None or end.epoch != position.epoch:
                end = position
            if after.sequence >= end.sequence:
                # What is published meanwhile could go on for ever.
                position = after
                break
        return page_after(position, lambda _: found, start, limit)

    def enter(self, room: str, connection: int, key: str, info: Info, grace: float) -> None:
        """See :meth:`Bus.enter`."""
        self._send(pack_word("enter", room, connection, key, info, grace))

    def leave(self, room: str, connection: int, key: str, grace: float) -> None:
        """See :meth:`Bus.leave`."""
        self._send(pack_word("leave", room, connection, key, grace))

    async def presence(self, room: str) -> list[Present]:
        """See :meth:`Bus.presence`."""
        return await read_parts(partial(self._read_present, room))

    async def _read_present(self, room: str, after: int) -> Part:
        number, answer = self._call()
        self._send(pack_word("presence", number, room, *([after] if after else [])))
        present, following = await answer, 0
        if present and isinstance(present[-1], int):
            # An older supervisor sends all at once.
            following = present.pop()
        return [Present(*each) for each in present], following

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

    def _check_size(self) -> None:
        if (size := self._transport.get_write_buffer_size()) > returning.MAX_QUEUE:
            raise BusUnavailable(f"{size} bytes wait for the supervisor already; nothing was sent")

    def _call(self) -> tuple[int, asyncio.Future[Any]]:
        self._check()
        number = next(self._numbers)
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._calls[number] = self._overdue.begin(), answer
        return number, answer

    def _take(self, number: int) -> asyncio.Future[Any] | None:
        """The answer of a call that still waits for it. Its caller may have given up."""
        _, answer = self._calls.pop(number, (0, None))
        return None if answer is None or answer.done() else answer

    def _send(self, frame: bytes) -> None:
        if not self._queue:
            # All frames of one turn of the loop leave in one system call.
            self._loop.call_soon(self._flush)
        self._queue.append(frame)

    def _flush(self) -> None:
        if self._queue and not self._ended:
            self._transport.write(b"".join(self._queue))
        self._queue.clear()

    def _expire(self, now: int) -> bool:
        """Give up the calls that have waited too long."""
        late = [number for number, (due, _) in self._calls.items() if due <= now]
        failed = [(self._take(number), "nothing was sent") for number in late]
        # These stay here: the members get the message when the answer comes.
        published = [
            answer for answer, *_, due in self._publishing.values() if due <= now and not answer.done()
        ]
        failed += [(answer, "the message may have been sent") for answer in published]
        text = f"the supervisor has not answered for {returning.WAIT_TIME:g} s"
        for answer, what in failed:
            if answer is not None:
                answer.set_exception(BusUnavailable(f"{text}; {what}"))
                if not self._incoming.silent:
                    self._incoming.silent = True
                    self._silences += 1
                    logger.warning("the supervisor has not answered for %g s", returning.WAIT_TIME)
        return bool(self._calls or self._publishing)

    # -- the way in ----------------------------------------------------------------

    def connection_lost(self, exc: Exception | None) -> None:
        """See :meth:`asyncio.Protocol.connection_lost`."""
        self._ended = True
        error = BusUnavailable("the supervisor has exited; the message may have been sent")
        for answer in (*(answer for _, answer in self._calls.values()), *self._incoming.waiting()):
            if not answer.done():
                answer.set_exception(error)
        self._calls.clear()
        self._publishing.clear()

    def _word(self, word: str, *values: Any) -> None:
        if word == "answer":
            number, value = values
            if (healed := self._healed.pop(number, None)) is not None:
                self._heal(healed, _page(value))
            elif (answer := self._take(number)) is not None:
                answer.set_result(value)
            # Otherwise, this process has ended `listen` while it read what was missed.
        elif word == "listening":
            number, room, epoch, sequence = values
            # Otherwise, the caller has given up, and `ignore` is on its way.
            if (answer := self._take(number)) is not None:
                self._delivered[room] = epoch, sequence, "skip"
                answer.set_result(Position(epoch, sequence))
        elif word == "behind":
            (room,) = values
            if room in self._delivered and room not in self._healing:
                self._ask_missed(room)
        elif word == "refused":
            number, text = values
            publishing = self._publishing.pop(number, None)
            answer = self._take(number) if publishing is None else publishing[0]
            if answer is not None and not answer.done():
                answer.set_exception(RoomLimit(text))
        elif word == "failed":
            (number,) = values
            if (answer := self._take(number)) is not None:
                answer.set_exception(BusUnavailable("the supervisor has failed to answer; nothing was sent"))
        elif word in ("came", "went"):
            room, key, info, connections, *numbers = values
            tell = self._receiver.came if word == "came" else self._receiver.went
            self._told += 1
            tell(room, Present(key, info, connections))
            if numbers:
                # Until then, the supervisor does not tell what follows of the key, and if this process ends, it
                # tells another one.
                self._send(pack_word("told", *numbers))

    def _ask_page(self, number: int, room: str, after: Position | None, limit: int | None) -> None:
        start = None if after is None else [after.epoch, after.sequence]
        self._send(pack_word("page", number, room, start, limit))

    def _ask_missed(self, room: str) -> None:
        number = self._healing[room] = next(self._numbers)
        self._healed[number] = room
        epoch, sequence, _ = self._delivered[room]
        self._ask_page(number, room, Position(epoch, sequence), None)

    def _heal(self, room: str, page: Page) -> None:
        """Deliver what was missed, as far as the history has it.

        Publications that arrived before the page are dropped, because they are part of it. Slow members are
        treated as for the last publication that was delivered: where members return to a position, none is
        skipped.
        """
        del self._healing[room]
        *_, slow = self._delivered[room]
        position = page.position
        if _has_more(page):
            position = Position(position.epoch, page.publications[-1].sequence)
        self._delivered[room] = position.epoch, position.sequence, slow
        if page.lost != 0:
            first = page.publications[0].sequence if page.publications else page.position.sequence + 1
            self._receiver.lost(room, page.lost, Position(page.position.epoch, first - 1))
        for publication in page.publications:
            position = Position(page.position.epoch, publication.sequence)
            self._receiver.published(room, position, publication, slow, None)
        # A receiver may have ignored the room meanwhile.
        if _has_more(page) and room in self._delivered:
            self._ask_missed(room)


def _has_more(page: Page) -> bool:
    """Whether the history has more than the supervisor has put into one answer."""
    return bool(page.publications) and page.publications[-1].sequence < page.position.sequence


def _page(answer: list[Any]) -> Page:
    position, lost, publications = answer
    return Page(Position(*position), lost, [Publication(each, load(it)) for each, it in publications])

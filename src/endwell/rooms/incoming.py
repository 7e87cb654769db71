"""What a worker gets from its supervisor for each publication: the publication itself, or the answer to its publish()."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

from ..aio.broadcast import Slow
from .arrivals import Arrivals
from .bus import Receiver
from .frames import (
    OWN,
    PUBLICATION,
    PUBLISHED,
    SENT,
    Decoder,
    pack_publish,
    unpack_arrival,
    unpack_published,
)
from .history import History
from .overdue import Overdue
from .position import Message, Position

__all__ = ["Incoming", "Publishing"]

#: A call of publish(): its answer, the room, the message, what happens to slow members, the caller's object, and when
#: the caller gives up.
Publishing = tuple[asyncio.Future[tuple[Position, int]], str, Message, Slow, object, int]


class Incoming:
    """The calls of publish(), and the stream of frames from the supervisor.

    Args:
        word: Called with each word and its values. All publications before it are delivered.
        numbers: The numbers of the calls.
        overdue: Says when a call is given up.
    """

    def __init__(self, word: Callable[..., None], numbers: Iterator[int], overdue: Overdue) -> None:
        self._word = word
        self._numbers = numbers
        self._overdue = overdue
        self._decoder = Decoder()
        self._arrivals = Arrivals()
        #: The answer whose publication is the next one: it, the epoch, the number, the processes and the call.
        self._own: tuple[asyncio.Future[tuple[Position, int]], str, int, int, object] | None = None
        #: Whether a call was given up, and nothing has arrived since then.
        self.silent = False
        #: The calls of publish() that wait for an answer, by their numbers.
        self.publishing: dict[int, Publishing] = {}
        #: The rooms to which this process listens: the epoch and the number of what was delivered last, and its
        #: policy, which the history does not have.
        self.delivered: dict[str, tuple[str, int, Slow]] = {}
        #: The rooms of which publications were missed, and the calls that read their history.
        self.healing: dict[str, int] = {}

    def start(self, receiver: Receiver, loop: asyncio.AbstractEventLoop) -> None:
        """Set what the publications are delivered to, and the event loop."""
        self._receiver = receiver
        self._new_future = loop.create_future

    def begin(
        self, room: str, message: Message, history: History | None, slow: Slow, call: object
    ) -> tuple[bytes, asyncio.Future[tuple[Position, int]]]:
        """Begin a call of publish(). Returns the frame for the supervisor, and the answer."""
        number = next(self._numbers)
        frame = pack_publish(number, room, message, history, slow)
        answer: asyncio.Future[tuple[Position, int]] = self._new_future()
        self.publishing[number] = answer, room, message, slow, call, self._overdue.begin()
        return frame, answer

    def feed(self, data: bytes) -> None:
        """Handle what has arrived."""
        self.silent = False
        arrivals, receiver = self._arrivals, self._receiver
        try:
            for kind, body in self._decoder.feed(data):
                if kind == PUBLICATION:
                    self._publication(body)
                elif kind == PUBLISHED:
                    self._published(body)
                else:
                    arrivals.deliver(receiver)
                    self._word(*json.loads(body))
        finally:
            arrivals.deliver(receiver)

    def waiting(self) -> list[asyncio.Future[Any]]:
        """The answers that have not come."""
        own = [] if self._own is None else [self._own[0]]
        return own + [each[0] for each in self.publishing.values()]

    def _published(self, body: bytes) -> None:
        number, sequence, workers, listens, epoch = unpack_published(body)
        answer, room, message, slow, call, _ = self.publishing.pop(number)
        if listens == SENT:
            self._own = answer, epoch, sequence, workers, call
            return
        if not answer.done():
            answer.set_result((Position(epoch, sequence), workers))
        if listens == OWN:
            self._deliver(room, epoch, sequence, message, slow, call)

    def _publication(self, body: bytes) -> None:
        room, epoch, sequence, message, slow = unpack_arrival(body)
        call = None
        if self._own is not None:
            answer, term, number, workers, call = self._own
            self._own = None
            assert term == epoch
            assert number == sequence
            if not answer.done():
                answer.set_result((Position(epoch, sequence), workers))
        self._deliver(room, epoch, sequence, message, slow, call)

    def _deliver(
        self, room: str, epoch: str, sequence: int, message: Message, slow: Slow, call: object
    ) -> None:
        if room in self.delivered and not (self.healing and room in self.healing):
            self.delivered[room] = epoch, sequence, slow
            self._arrivals.add(room, epoch, sequence, message, slow, call)

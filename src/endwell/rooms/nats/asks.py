"""What this process asks the leader, until it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

from ...errors import BusUnavailable, RoomLimit
from .. import returning
from ..frames import WORD, Decoder, pack_word
from ..overdue import Overdue
from .leadership import Leadership
from .link import Link
from .sequencer import NO
from .words import OVERHEAD, SOME, unpack_word

__all__ = ["Asks"]

#: Seconds for which an answer is awaited that a leader may have sent before it was interrupted.
DOUBT_TIME = 1.0

#: How the body of a refusal begins, which has the text of a RoomLimit.
REFUSED = b'["refused"'

Frames = list[tuple[int, bytes]]
#: Called with a future that is done. Its callbacks are called later, when other messages may have been handled that have
#: arrived behind the answer.
Then = Callable[["asyncio.Future[Any]"], None]


class _Ask:
    """One call."""

    __slots__ = ("due", "frame", "future", "parts", "repeats", "sent", "then", "waits")

    def __init__(self, frame: bytes, due: int, repeats: bool, waits: bool, then: Then | None) -> None:
        self.frame = frame
        #: Of :class:`Overdue`: when it is given up.
        self.due = due
        #: Whether it may be sent twice.
        self.repeats = repeats
        #: Whether it waits for a leader.
        self.waits = waits
        self.then = then
        self.future: asyncio.Future[Frames] = asyncio.get_running_loop().create_future()
        #: Whether the leader may have it.
        self.sent = False
        #: What has come of an answer in several parts.
        self.parts: Frames = []

    def end(self, result: Frames | Exception) -> None:
        """The answer is there, or is not awaited any more."""
        if self.future.done():
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
            self.future.exception()  # the caller may be cancelled
        else:
            self.future.set_result(result)
        if self.then is not None:
            self.then(self.future)


class Asks:
    """Sends calls to the leader, as soon as there is one, in their order.

    Args:
        link: The connection.
        leadership: Knows who leads.
        process: The name of this process.
    """

    def __init__(self, link: Link, leadership: Leadership, process: bytes) -> None:
        self._link = link
        self._leadership = leadership
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._numbers = count(1)
        self._asks: dict[int, _Ask] = {}
        self._size = 0
        self._overdue = Overdue(self._expire)

    # -- calls ---------------------------------------------------------------------

    def send(
        self, frame: bytes, *, repeats: bool, waits: bool = True, then: Then | None = None
    ) -> asyncio.Future[Frames]:
        """Send a frame. The future has the frames of the answer, or raises BusUnavailable.

        Args:
            frame: What is sent.
            repeats: Whether it is sent again if the answer may be lost.
            waits: Whether it waits for a leader.
            then: Called when the future is done, unless it was cancelled.
        """
        ask = _Ask(frame, self._overdue.begin(), repeats, waits, then)
        if self._size + len(frame) > returning.MAX_QUEUE:
            text = f"{self._size} bytes wait for NATS already; nothing was sent"
            ask.end(BusUnavailable(text))
            return ask.future
        number = next(self._numbers)
        self._asks[number] = ask
        self._size += len(frame)
        self._try(number, ask)
        return ask.future

    def ask(
        self, word: str, *values: Any, repeats: bool = False, then: Then | None = None
    ) -> asyncio.Future[Any]:
        """Ask a word with its values. The future has the word of the answer and its values.

        With ``repeats``, it waits for a leader, and is sent to the next one if this one does not answer.
        Otherwise it fails then. ``then`` is called when the future is done, unless it was cancelled.
        """
        answer: asyncio.Future[Any] = self._loop.create_future()

        def answered(future: asyncio.Future[Frames]) -> None:
            if answer.done():
                return
            if (error := future.exception()) is not None:
                answer.set_exception(error)
                answer.exception()  # many callers do not wait
            else:
                answer.set_result(unpack_word(future.result()[0]))
            if then is not None:
                then(answer)

        asked = self.send(pack_word(word, *values), repeats=repeats, waits=repeats, then=answered)
        answer.add_done_callback(lambda _: asked.cancel())  # without effect, unless the caller was cancelled
        return answer

    def tell(self, word: str) -> None:
        """Tell the leader a word, if there is one. There is no answer."""
        if (leader := self._leadership.leader) is not None:
            self._link.send(leader, self._process + pack_word(word))

    def stop(self) -> None:
        """All calls fail."""
        self._overdue.stop()
        self._fail(list(self._asks))

    # -- on their way ------------------------------------------------------------------

    def _try(self, number: int, ask: _Ask) -> None:
        if ask.future.cancelled():
            # Its caller has given up, and may publish again.
            self._end(number, [])
            return
        leader = self._leadership.leader
        if leader is None or not self._link.connected:
            if not ask.waits:
                self._fail([number])
            return
        size, limit = len(self._process) + len(ask.frame), self._link.max_payload
        if size + OVERHEAD > limit:
            text = f"with its room, the message has {size} bytes, and NATS takes {limit - OVERHEAD} (max_payload)"
            self._end(number, RoomLimit(text))
            return
        ask.sent = True
        self._link.send(leader, self._process + ask.frame, f"{self._link.inbox}.{number}")

    def send_waiting(self) -> None:
        """There is a leader. It is asked what no leader has got."""
        for number, ask in list(self._asks.items()):
            if not ask.sent:
                self._try(number, ask)

    def interrupted(self) -> None:
        """There is another leader, or the same one may have missed calls, or lost answers."""
        # The leader may be about to answer, if it got them after its interruption.
        doubtful = [number for number, ask in self._asks.items() if ask.sent and not ask.repeats]
        if doubtful:
            self._loop.call_later(DOUBT_TIME, self._fail, doubtful)
        asks, self._asks = self._asks, {}
        for number, ask in asks.items():
            if ask.repeats:
                ask.sent = False
                ask.parts = []
            # An answer to the old number may be that of a leader that leads no more.
            self._asks[next(self._numbers) if ask.repeats else number] = ask

    def lost(self) -> None:
        """The connection is lost, and with it all answers."""
        self._fail([number for number, ask in self._asks.items() if ask.sent and not ask.repeats])
        for ask in self._asks.values():
            ask.sent = False
            ask.parts = []

    def answered(self, number: int, data: bytes, nobody: bool) -> None:
        """An answer has come."""
        if (ask := self._asks.get(number)) is None:
            return
        if nobody or data == NO:
            # Nothing was done. It is sent again at the next sign of life.
            ask.sent = False
            if not ask.waits:
                self._fail([number])
            return
        frames = Decoder().feed(data)
        if data.startswith(SOME):
            ask.parts += frames[1:]
            return
        if frames and frames[0][0] == WORD and frames[0][1].startswith(REFUSED):
            self._end(number, RoomLimit(unpack_word(frames[0])[1]))
        else:
            self._end(number, ask.parts + frames)

    def _end(self, number: int, result: Frames | Exception) -> None:
        if (ask := self._asks.pop(number, None)) is None:
            return
        self._size -= len(ask.frame)
        ask.end(result)

    def _fail(self, numbers: list[int]) -> None:
        for number in numbers:
            if (ask := self._asks.get(number)) is not None:
                self._end(number, BusUnavailable(self._link.unavailable(sent=ask.sent and not ask.repeats)))

    def _expire(self, now: int) -> bool:
        self._fail([number for number, ask in self._asks.items() if ask.due <= now])
        return bool(self._asks)

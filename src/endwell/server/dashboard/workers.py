"""Asks the dashboards of other processes, by the bus of the rooms."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from ...aio.broadcast import Slow
from ...errors import BusUnavailable, RoomLimit
from ...rooms.bus import Bus, RoomReceiver, listen_when_connected
from ...rooms.keys import DASHBOARD
from ...rooms.position import Position, Publication
from ...rooms.registry import Registry
from ...rooms.rooms import Rooms, registry_of
from .order import AskError

__all__ = ["Answer", "Workers", "dump"]

logger = logging.getLogger("endwell.server")

#: Seconds that other processes have to answer.
TIME_LIMIT = 2.0
#: Maximum seconds by which the dashboard delays the start of this process, until it hears the others.
START_TIME = 1.0
#: Seconds for which the end of this process waits for the bus. The supervisor kills a worker 1 s after the deadline of
#: the drain, and on_stop callbacks may take 0.5 s of it.
LEAVE_TIME = 0.4
#: Maximum number of processes of which a part of what they leave has come.
MAX_LEAVING = 256
#: Maximum characters of one part of an answer. All are ASCII. A bus may take no larger messages than this.
PART = 48_000
#: Maximum number of asks of other processes that are answered at the same time.
MAX_TASKS = 32
#: Number of rows that become JSON in one turn of the event loop, which takes less than 1 ms.
DUMPED = 50

#: Answers what another process asks.
Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
#: What this process leaves to the others when it ends, as JSON; None if it is nothing.
Bequest = Callable[[], Awaitable[str | None]]
#: Keeps what another process has left. Returns the names of all of which something is kept.
Inherit = Callable[[dict[str, Any]], list[str]]


class _Parts:
    """Texts of JSON that come in parts, one of each process."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str | None]] = {}

    def add(self, worker: str, number: int, parts: int, text: str) -> Any:
        """A part has come. Returns the value if the text is complete, otherwise None."""
        if number == 0:  # they come in order
            self._texts[worker] = [None] * parts
        texts = self._texts.get(worker, [])
        if len(texts) != parts:
            return None  # this process did not hear its beginning
        texts[number] = text
        whole = [each for each in texts if each is not None]
        if len(whole) < len(texts):
            return None
        del self._texts[worker]
        return json.loads("".join(whole))

    def forget(self, limit: int) -> None:
        """Forget the oldest text if there are more than ``limit``. Its process may have been killed."""
        if len(self._texts) > limit:
            del self._texts[next(iter(self._texts))]


class _Ask:
    """What was asked of others, and their answers so far."""

    def __init__(self) -> None:
        self.parts = _Parts()
        self.answers: list[dict[str, Any]] = []
        #: Number of processes that were asked; None until the bus has told it.
        self.asked: int | None = None
        self.complete = asyncio.Event()

    def add(self, worker: str, number: int, parts: int, text: str) -> None:
        """A part of an answer has come."""
        if (answer := self.parts.add(worker, number, parts, text)) is not None:
            self.answers.append(answer)
        self.check()

    def check(self) -> None:
        """Set :attr:`complete` if all have answered."""
        if self.asked is not None and len(self.answers) >= self.asked:
            self.complete.set()


class Workers(RoomReceiver):
    """The dashboards of all processes. The receiver of two reserved rooms: of asks, and of the answers for this process.

    Args:
        worker: The name of this process.
        answer: Answers what another process asks.
        bequest: What this process leaves to the others.
        inherit: Keeps what another process has left.
    """

    def __init__(self, worker: str, answer: Answer, bequest: Bequest, inherit: Inherit) -> None:
        self._worker = worker
        self._answer = answer
        self._bequest = bequest
        self._inherit = inherit
        self._leaving = _Parts()
        self._own = f"{DASHBOARD}:{worker}"
        self._bus: Bus | None = None
        #: Whether this process hears the others.
        self.listens = False
        self._asks: dict[int, _Ask] = {}
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._hears_answers = False
        #: Number of processes that were asked last.
        self._known = 0

    @asynccontextmanager
    async def connected(self, rooms: Rooms) -> AsyncIterator[None]:
        """Connect them by the bus of the rooms, while the block runs.

        Of several servers with the same rooms, that of the first one is connected.
        """
        registry: Registry = registry_of(rooms)
        if not registry.bus.is_shared or DASHBOARD in registry.reserved:
            yield
            return
        self._bus = registry.bus
        registry.reserved[DASHBOARD] = registry.reserved[self._own] = self
        listening = self._start(self._listen())
        try:
            # A worker that this process replaces drains when this process serves. What it leaves must be heard.
            if registry.bus.is_connected:
                await asyncio.wait([listening], timeout=START_TIME)
            yield
        finally:
            try:
                await self._leave(registry.bus)
            finally:
                for task in self._tasks:
                    task.cancel()
                for room in (DASHBOARD, self._own) if self._hears_answers else (DASHBOARD,):
                    registry.bus.ignore(room)
                del registry.reserved[DASHBOARD], registry.reserved[self._own]
                self._bus, self.listens, self._hears_answers = None, False, False

    def _start(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _listen(self) -> None:
        assert self._bus is not None
        await listen_when_connected(self._bus, DASHBOARD)
        self.listens = True
        await self._ask_heritage()

    # -- what processes leave -------------------------------------------------------------

    async def _leave(self, bus: Bus) -> None:
        """Publish what this process leaves. All its connections have ended.

        The successors of a rolling restart listen before they serve, and they serve before this process drains. So no
        receipt is needed. A process that starts later gets it from one of them by :meth:`_ask_heritage`.
        """
        if not bus.is_connected:  # it must not delay the end
            return
        try:
            async with asyncio.timeout(LEAVE_TIME):
                if (text := await self._bequest()) is None:
                    return
                for head, piece in _pieces(self._worker, text):
                    _, listeners = await bus.publish(DASHBOARD, f"{head}\n{piece}", None, "skip", None)
                    if listeners <= self.listens:
                        return  # there is no other process
        except (BusUnavailable, RoomLimit, TimeoutError) as error:
            logger.debug("no other process keeps the endings of this process: %s", error or "the bus is slow")

    async def _ask_heritage(self) -> None:
        """Get what processes have left before this one listened, from the processes that have most of it."""
        answers, _ = await self.ask({"ask": "sources"})
        known: set[str] = set()
        try:
            answers = [each for each in answers if "error" not in each]
            for each in sorted(answers, key=lambda each: len(each["sources"]), reverse=True):
                if known.issuperset(each["sources"]):
                    continue
                for left in (await self.ask({"ask": "heritage"}, each["worker"]))[0]:
                    known.update(self._inherit(left))
        except Exception:  # for example, from another version
            logger.exception("a message between dashboards is not valid")

    # -- asking -------------------------------------------------------------------------

    async def ask(self, what: dict[str, Any], worker: str | None = None) -> tuple[list[dict[str, Any]], int]:
        """Ask the other processes, or the one with this name.

        Returns:
            The answers that came within 2 s, and the number of processes that did not answer.
        """
        bus = self._bus
        if bus is None:
            return [], 0
        number, ask = next(self._numbers), _Ask()
        self._asks[number] = ask
        try:
            # Not cancelled at the end of the time: the bus may be in the middle of it.
            self._start(self._send(bus, number, ask, what, worker))
            async with asyncio.timeout(TIME_LIMIT):
                await ask.complete.wait()
        except TimeoutError:
            pass
        finally:
            del self._asks[number]
        asked = self._known if ask.asked is None else ask.asked
        return ask.answers, max(0, asked - len(ask.answers))

    async def _send(self, bus: Bus, number: int, ask: _Ask, what: dict[str, Any], worker: str | None) -> None:
        text = json.dumps({"from": self._worker, "number": number, "to": worker, "what": what})
        try:
            if not self._hears_answers:
                await bus.listen(self._own)
                self._hears_answers = True
            _, listeners = await bus.publish(DASHBOARD, text, None, "skip", None)
        except (BusUnavailable, RoomLimit):
            # No process was asked, so that no answer comes: those that were asked last are missing.
            ask.complete.set()
            return
        self._known = listeners - self.listens
        ask.asked = self._known if worker is None else 1
        ask.check()

    # -- answering ----------------------------------------------------------------------

    async def _answer_to(self, asker: str, number: int, what: dict[str, Any]) -> None:
        try:
            answer = await self._answer(what)
        except AskError as error:
            answer = {"error": str(error)}
        except Exception:
            logger.exception("answering the dashboard of another process failed")
            answer = {"error": "the process could not answer"}
        text = await dump(answer)
        try:
            for head, piece in _pieces(self._worker, text, number):
                assert self._bus is not None
                await self._bus.publish(f"{DASHBOARD}:{asker}", f"{head}\n{piece}", None, "skip", None)
        except (BusUnavailable, RoomLimit) as error:
            logger.debug("a dashboard gets no answer of this process: %s", error)

    # -- the bus calls --------------------------------------------------------------------

    def published(
        self, room: str, position: Position, publication: Publication, slow: Slow, call: Any
    ) -> None:
        """See :class:`endwell.rooms.bus.Receiver`."""
        try:
            # Only the parts of a text have a second line.
            head, newline, piece = str(publication.message).partition("\n")
            if not newline:
                self._asked(json.loads(head))
                return
            worker, number, index, parts = json.loads(head)
            if room == DASHBOARD:
                if worker != self._worker:
                    self._left(worker, index, parts, piece)
            elif (ask := self._asks.get(number)) is not None:
                ask.add(worker, index, parts, piece)
        except Exception:  # for example, from another version
            logger.exception("a message between dashboards is not valid")

    def _left(self, worker: str, index: int, parts: int, piece: str) -> None:
        """A part has come of what a process leaves."""
        if (left := self._leaving.add(worker, index, parts, piece)) is not None:
            self._inherit(left)
        elif index == parts - 1:
            # This process began to listen in the middle. The others have it now.
            self._start(self._ask_heritage())
        self._leaving.forget(MAX_LEAVING)

    def _asked(self, message: dict[str, Any]) -> None:
        asker, to = message["from"], message["to"]
        if asker == self._worker or (to is not None and to != self._worker) or len(self._tasks) >= MAX_TASKS:
            return
        self._start(self._answer_to(asker, message["number"], message["what"]))

    def lost(self, room: str, lost: int | None, position: Position) -> None:
        """See :class:`endwell.rooms.bus.Receiver`. A process that has not heard the ask counts as missing."""


def _pieces(worker: str, text: str, number: int = 0) -> list[tuple[str, str]]:
    """The parts of a text, each with its head. ``number`` is that of the ask that it answers."""
    pieces = [text[start : start + PART] for start in range(0, len(text), PART)]
    return [(json.dumps([worker, number, index, len(pieces)]), piece) for index, piece in enumerate(pieces)]


async def dump(answer: dict[str, Any]) -> str:
    """The answer as JSON in ASCII. Many rows take several turns of the event loop."""
    rows = answer.get("rows", ())
    if len(rows) <= DUMPED:
        return json.dumps(answer)
    texts = []
    for start in range(0, len(rows), DUMPED):
        await asyncio.sleep(0)
        texts.append(json.dumps(rows[start : start + DUMPED])[1:-1])
    rest = json.dumps({**answer, "rows": []})
    # The names of the other fields are endwell's own, so that the mark is there once.
    before, after = rest.split('"rows": []')
    return f'{before}"rows": [{", ".join(texts)}]{after}'

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
from ...rooms.bus import Bus
from ...rooms.hub import Present
from ...rooms.keys import DASHBOARD
from ...rooms.position import Position, Publication
from ...rooms.registry import Registry
from ...rooms.rooms import Rooms, registry_of
from .order import AskError

__all__ = ["Answer", "Workers", "dump"]

logger = logging.getLogger("endwell.server")

#: Seconds that other processes have to answer.
TIME_LIMIT = 2.0
#: Seconds until the next attempt to listen, while the bus is not available.
RETRY_INTERVAL = 1.0
#: Maximum characters of one part of an answer. All are ASCII. A bus may take no larger messages than this.
PART = 48_000
#: Maximum number of asks of other processes that are answered at the same time.
MAX_TASKS = 32
#: Number of rows that become JSON in one turn of the event loop, which takes less than 1 ms.
DUMPED = 50

#: Answers what another process asks.
Answer = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class _Ask:
    """What was asked of others, and their answers so far."""

    def __init__(self) -> None:
        self.parts: dict[str, list[str | None]] = {}
        self.answers: list[dict[str, Any]] = []
        #: Number of processes that were asked; None until the bus has told it.
        self.asked: int | None = None
        self.complete = asyncio.Event()

    def add(self, worker: str, number: int, parts: int, text: str) -> None:
        """A part of an answer has come."""
        texts = self.parts.setdefault(worker, [None] * parts)
        texts[number] = text
        whole = [each for each in texts if each is not None]
        if len(whole) == len(texts):
            self.answers.append(json.loads("".join(whole)))
        self.check()

    def check(self) -> None:
        """Set :attr:`complete` if all have answered."""
        if self.asked is not None and len(self.answers) >= self.asked:
            self.complete.set()


class Workers:
    """The dashboards of all processes. The receiver of two reserved rooms: of asks, and of the answers for this process.

    Args:
        worker: The name of this process.
        answer: Answers what another process asks.
    """

    def __init__(self, worker: str, answer: Answer) -> None:
        self._worker = worker
        self._answer = answer
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
        self._start(self._listen())
        try:
            yield
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
        while not self.listens:
            try:
                await self._bus.listen(DASHBOARD)
                self.listens = True
            except BusUnavailable:
                await asyncio.sleep(RETRY_INTERVAL)

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
        pieces = [text[start : start + PART] for start in range(0, len(text), PART)]
        try:
            for index, piece in enumerate(pieces):
                head = json.dumps([self._worker, number, index, len(pieces)])
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
            if room == DASHBOARD:
                self._asked(json.loads(publication.message))
            else:
                head, _, piece = str(publication.message).partition("\n")
                worker, number, index, parts = json.loads(head)
                if (ask := self._asks.get(number)) is not None:
                    ask.add(worker, index, parts, piece)
        except Exception:  # for example, from another version
            logger.exception("a message between dashboards is not valid")

    def _asked(self, message: dict[str, Any]) -> None:
        asker, to = message["from"], message["to"]
        if asker == self._worker or (to is not None and to != self._worker) or len(self._tasks) >= MAX_TASKS:
            return
        self._start(self._answer_to(asker, message["number"], message["what"]))

    def lost(self, room: str, lost: int | None, position: Position) -> None:
        """See :class:`endwell.rooms.bus.Receiver`. A process that has not heard the ask counts as missing."""

    def came(self, room: str, present: Present) -> None:
        """See :class:`endwell.rooms.bus.Receiver`."""

    def went(self, room: str, present: Present) -> None:
        """See :class:`endwell.rooms.bus.Receiver`."""


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

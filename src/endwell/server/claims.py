"""What connects the sessions of several processes: each tells the others which keys it has, by the bus of the rooms."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Callable, Hashable
from enum import Enum
from itertools import islice
from typing import Any, Protocol

from ..aio.broadcast import Slow
from ..aio.syscalls import monotonic
from ..aio.websocket import WebSocket, opened_at
from ..ending import Ending
from ..errors import BusUnavailable, RoomLimit
from ..rooms.history import History
from ..rooms.keys import SESSIONS, USER, pack_key, unpack_key
from ..rooms.position import Position, Publication
from ..rooms.present import PART, Present
from ..rooms.registry import Registry
from ..rooms.user import UserRoom
from ..sync.executor import SerialExecutor
from ..sync.portal import Portal

__all__ = ["Claims", "Holder"]

logger = logging.getLogger("endwell.rooms")

#: Maximum number of claims in one message.
BATCH = 500
#: The claims that a process reads which has lost its connection to the bus for a moment.
KEPT = History(messages=1000, seconds=60, bytes=1 << 20)
#: Seconds from a join until its claim is sent, from which on the order of the claims says nothing about their age.
PROMPT_TIME = 1.0
#: Seconds until a claim is sent again, after the bus was not available.
RETRY_INTERVAL = 1.0
#: Seconds after the grace of a key for which its Ending is kept: the bus may be away when the key leaves.
MARGIN = 60.0


class Holder(Protocol):
    """The sessions of this process, as the claims see them."""

    grace: float

    def _lose(self, key: Hashable) -> None:
        """Another process has a newer connection of a key: close the one of this process."""

    def _tell_joined(self, key: Hashable, ws: Any, executor: SerialExecutor | None) -> None:
        """A key has come."""

    def _tell_left(self, key: Hashable, ending: Ending | None, executor: SerialExecutor | None) -> None:
        """A key has left."""

    def _executor_of(self, make: Callable[[], SerialExecutor]) -> SerialExecutor:
        """The executor of the callbacks for connections of plain handlers."""


class _State(Enum):
    """The claim of a key in this process."""

    #: It is sent at once, and not heard yet. Of two such claims, the one that is heard later wins.
    PROMPT = 1
    #: It is sent late, or again because claims may have been lost, and not heard yet. The times at which the
    #: connections opened decide.
    LATE = 2
    #: All processes have it.
    HEARD = 3


class _Known:
    """A key whose connection is here, or was here until lately."""

    __slots__ = (
        "elsewhere",
        "ending",
        "executor",
        "is_current",
        "key",
        "number",
        "since",
        "stamp",
        "state",
        "timer",
        "ws",
    )

    def __init__(self, key: Hashable) -> None:
        self.key = key
        #: The newest connection, and what runs its callbacks.
        self.ws: Any = None
        self.executor: SerialExecutor | None = None
        #: When it has opened, in seconds of the wall clock: the one clock that several machines have.
        self.stamp = 0.0
        self.state = _State.PROMPT
        #: When it has joined, in seconds of the monotonic clock.
        self.since = 0.0
        #: The number of the connection for the presence.
        self.number = 0
        self.is_current = False
        #: Whether another process has a newer connection.
        self.elsewhere = False
        #: Of the last connection.
        self.ending: Ending | None = None
        self.timer: asyncio.TimerHandle | None = None


class Claims:
    """The claims of one process. The receiver of the reserved room of the sessions.

    A process publishes a claim when a connection joins. The publications of a room have one order in all
    processes, so all agree on which claim is the newest. A process that hears a newer claim closes its own
    connection. The presence of the room says who has joined and left, in all processes together.

    While the bus is away, claims wait, and may be lost. Then their order does not say which is the newest, so the
    times at which the connections opened decide. These have a total order, too, so exactly one connection stays.
    """

    def __init__(self, registry: Registry, sessions: Holder) -> None:
        self._loop = asyncio.get_running_loop()
        self._registry = registry
        self._bus = registry.bus
        self._sessions = sessions
        self._process = secrets.token_urlsafe(6)
        self._known: dict[str, _Known] = {}
        #: The keys whose claim is to be sent, in order.
        self._unsent: dict[str, None] = {}
        #: Maximum number of claims in one message. The bus may take only smaller messages.
        self._batch = BATCH
        self._wake = asyncio.Event()
        # It listens from the first connection on, so sessions that are not used cost nothing.
        self._runs = self._listens = False
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """End it. All connections have ended."""
        for task in self._tasks:
            task.cancel()
        for known in self._known.values():
            if known.timer is not None:
                known.timer.cancel()
        self._known.clear()
        if self._listens:
            self._bus.ignore(SESSIONS)

    def _start(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- connections of this process --------------------------------------------------

    def away(self) -> list[Hashable]:
        """The keys whose last connection was here, and which may return."""
        return [known.key for known in self._known.values() if not (known.is_current or known.elsewhere)]

    async def presence(self) -> set[Hashable]:
        """The keys that are present in all processes. Raises BusUnavailable."""
        found = set[Hashable]()
        for number, each in enumerate(await self._bus.presence(SESSIONS), 1):
            found.add(unpack_key(each.key))
            if number % PART == 0:
                await asyncio.sleep(0)
        return found

    def join(self, key: Hashable, ws: Any, engine: WebSocket, executor: SerialExecutor | None) -> None:
        """A connection is the current one of this process now."""
        text = pack_key(key)
        known = self._known.get(text)
        if known is None:
            known = self._known[text] = _Known(key)
        if not known.is_current:
            known.number, _ = self._registry.new_key()
            # Another process that tells of the end of this one learns where its callback may run.
            info = {} if executor is None else {"blocks": True}
            self._bus.enter(SESSIONS, known.number, text, info, self._sessions.grace)
        known.ws, known.executor = ws, executor
        known.is_current, known.elsewhere = True, False
        known.since = monotonic()
        known.stamp = time.time() - (known.since - opened_at(engine))
        self._claim(text, known, _State.PROMPT if self._listens else _State.LATE)
        if not self._runs:
            self._runs = True
            self._start(self._run())
        self._start(self._follow(text, known, ws))

    def ended(self, key: Hashable, ending: Ending | None, grace: float) -> None:
        """The current connection has ended, or was replaced by one of another process if ``ending`` is None."""
        text = pack_key(key)
        known = self._known[text]
        known.is_current, known.elsewhere, known.ending = False, ending is None, ending
        self._unsent.pop(text, None)
        self._bus.leave(SESSIONS, known.number, text, grace)
        if known.timer is not None:
            known.timer.cancel()
        known.timer = self._loop.call_later(grace + MARGIN, self._forget, text)

    def _forget(self, text: str) -> None:
        if not self._known[text].is_current:
            timer = self._known.pop(text).timer
            assert timer is not None
            timer.cancel()

    async def _follow(self, text: str, known: _Known, ws: Any) -> None:
        """Make the connection a member of the room of its user."""
        room = self._registry.room(USER + text)
        assert isinstance(room, UserRoom)
        told = False
        while known.is_current and known.ws is ws:
            try:
                await room.follow(ws)
            except BusUnavailable:
                await asyncio.sleep(RETRY_INTERVAL)
            except RoomLimit as error:
                if not told:
                    told = True
                    logger.warning("a user does not get what is published for it: %s", error)
                await asyncio.sleep(RETRY_INTERVAL)
            else:
                break

    # -- sending ------------------------------------------------------------------------

    def _claim(self, text: str, known: _Known, state: _State) -> None:
        known.state = state
        self._unsent[text] = None
        self._wake.set()

    async def _run(self) -> None:
        """Listen, then send the claims. One message has all that have come while the last one was on its way."""
        while True:
            try:
                if not self._listens:
                    await self._bus.listen(SESSIONS)
                    self._listens = True
                while self._unsent:
                    await self._send([*islice(self._unsent, self._batch)])
                self._wake.clear()
                await self._wake.wait()
            except BusUnavailable:
                await asyncio.sleep(RETRY_INTERVAL)
            except Exception:  # of whatever kind: later claims are to be sent
                logger.exception("sending the claims of sessions failed")
                await asyncio.sleep(RETRY_INTERVAL)

    async def _send(self, texts: list[str]) -> None:
        batch = [self._known[text] for text in texts]
        for known in batch:
            is_prompt = known.state is _State.PROMPT and monotonic() - known.since <= PROMPT_TIME
            if not (is_prompt and self._bus.is_connected):
                known.state = _State.LATE
        claims = [
            [text, known.stamp, known.state is _State.LATE] for text, known in zip(texts, batch, strict=True)
        ]
        for text in texts:
            del self._unsent[text]
        try:
            await self._bus.publish(SESSIONS, json.dumps([self._process, claims]), KEPT, "skip", None)
        except BusUnavailable:
            # It may have been sent, and this process may not hear it.
            self._repeat(zip(texts, batch, strict=True))
            raise
        except RoomLimit:
            if len(texts) == 1:
                raise
            self._batch = len(texts) // 2
            self._repeat(zip(texts, batch, strict=True))

    def _repeat(self, claims: Any) -> None:
        for text, known in claims:
            if known.is_current and known.state is not _State.HEARD:
                self._claim(text, known, _State.LATE)

    # -- the bus calls --------------------------------------------------------------------

    def published(
        self, room: str, position: Position, publication: Publication, slow: Slow, call: Any
    ) -> None:
        """See :class:`endwell.rooms.bus.Receiver`."""
        try:
            process, claims = json.loads(publication.message)
            for text, stamp, late in claims:
                if (known := self._known.get(text)) is None:
                    continue
                if process == self._process:
                    state = _State.LATE if late else _State.PROMPT
                    if known.state is state and known.stamp == stamp:
                        known.state = _State.HEARD
                else:
                    self._hear(text, known, (stamp, process), late)
        except Exception:  # for example, from another version
            logger.exception("a claim of sessions is not valid")

    def _hear(self, text: str, known: _Known, other: tuple[float, str], late: bool) -> None:
        """Another process claims a key that is known here."""
        if not known.is_current:
            known.elsewhere = True
            return
        if known.state is _State.PROMPT:
            return  # the other process hears this claim later than its own
        if (late or known.state is _State.LATE) and (known.stamp, self._process) > other:
            if known.state is _State.HEARD:
                # The other process may not have heard it.
                self._claim(text, known, _State.LATE)
            return
        self._sessions._lose(known.key)

    def lost(self, room: str, lost: int | None, position: Position) -> None:
        """See :class:`endwell.rooms.bus.Receiver`."""
        for text, known in self._known.items():
            if known.is_current:
                self._claim(text, known, _State.LATE)

    def came(self, room: str, present: Present) -> None:
        """See :class:`endwell.rooms.bus.Receiver`."""
        # Without a connection to call it with, it is not called: the process of that connection has ended, and may have
        # called it.
        if (known := self._known.get(present.key)) is not None:
            self._sessions._tell_joined(known.key, known.ws, known.executor)

    def went(self, room: str, present: Present) -> None:
        """See :class:`endwell.rooms.bus.Receiver`."""
        known = self._known.get(present.key)
        if known is not None:
            ending, executor = known.ending, known.executor
            known.ending = None
            # The timer forgets it. A connection that came and has ended meanwhile is told with it.
            known.elsewhere = known.elsewhere or not known.is_current
        else:
            ending, executor = None, None
            if present.info.get("blocks"):
                executor = self._sessions._executor_of(
                    lambda: SerialExecutor(Portal.of(self._loop).callbacks)
                )
        self._sessions._tell_left(unpack_key(present.key), ending, executor)

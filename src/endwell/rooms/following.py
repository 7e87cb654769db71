"""What the buses by a server have in common: publications may get lost on their way, and their numbers show it."""

from __future__ import annotations

import asyncio
import logging
import secrets
from abc import abstractmethod
from collections.abc import Hashable
from itertools import count

from ..errors import BusUnavailable, RoomLimit
from . import returning
from .arrivals import Arrivals
from .bus import Bus, Receiver
from .history import Page, page_after
from .listening import Heard, Listening
from .position import Position, Publication
from .stalls import timeout_without_stalls

__all__ = ["FollowingBus"]

logger = logging.getLogger("endwell.rooms")

#: Seconds between two comparisons of the positions of the rooms with those of the server. It also keeps the rooms
#: from being forgotten. Precedent: Centrifugo's 40 s.
CHECK_INTERVAL = 40.0
#: Maximum seconds for which a publication is on its way, when the positions are compared.
TRANSIT_TIME = 1.0
#: Seconds until the history is read again, after the server has refused it.
RETRY_INTERVAL = 1.0


class FollowingBus(Bus):
    """Delivers the publications of the rooms in order, and reads the history where a number is missing.

    Args:
        server: What answers, for texts.
    """

    _receiver: Receiver
    _loop: asyncio.AbstractEventLoop
    _link: returning.ReturningLink

    def __init__(self, server: str) -> None:
        self._server = server
        self._process = secrets.token_urlsafe(6)
        self._octets = self._process.encode()
        self._numbers = count(1)
        #: The calls of publish() in progress.
        self._calls: dict[int, object] = {}
        #: The rooms to which this process listens, by name and by topic.
        self._rooms: dict[str, Listening] = {}
        self._topics: dict[Hashable, Listening] = {}
        self._arrivals = Arrivals()
        self._checking: asyncio.Task[None] | None = None

    @property
    def is_connected(self) -> bool:
        """See :attr:`Bus.is_connected`."""
        return self._link.connected

    @property
    def disconnections(self) -> int:
        """See :attr:`Bus.disconnections`."""
        return self._link.disconnections

    @property
    def lag(self) -> float:
        """See :attr:`Bus.lag`."""
        return self._link.lag

    # -- what a subclass knows -----------------------------------------------------

    @abstractmethod
    def _topic(self, room: str) -> Hashable:
        """Where the publications of a room arrive."""

    @abstractmethod
    async def _subscribe(self, state: Listening) -> None:
        """Subscribe to the topic of a room. Raises BusUnavailable if the connection is lost meanwhile."""

    @abstractmethod
    def _unsubscribe(self, room: str) -> None:
        """End :meth:`_subscribe`."""

    @abstractmethod
    async def _read(
        self, room: str, after: Position | None, limit: int | None
    ) -> tuple[Position, int, list[Heard]]:
        """The position of a room, the number before the first one of its epoch, and the history."""

    # -- calls ---------------------------------------------------------------------

    async def listen(self, room: str) -> Position:
        """See :meth:`Bus.listen`."""
        state = self._rooms[room] = Listening(room)
        self._topics[self._topic(room)] = state
        if self.is_connected:
            self._follow(state, subscribe=True)
        try:
            async with timeout_without_stalls(returning.WAIT_TIME):
                return await asyncio.shield(state.ready)
        except TimeoutError:
            self.ignore(room)
            raise BusUnavailable(
                f"{self._server} has not answered for {returning.WAIT_TIME:g} s; nothing was sent"
            ) from None
        except RoomLimit:
            self.ignore(room)
            raise

    def ignore(self, room: str) -> None:
        """See :meth:`Bus.ignore`."""
        if (state := self._rooms.pop(room, None)) is None:
            return
        del self._topics[self._topic(room)]
        state.end()
        if state.task is not None:
            state.task.cancel()
        self._unsubscribe(room)

    async def position(self, room: str) -> Position:
        """See :meth:`Bus.position`."""
        position, _, _ = await self._read_now(room, None, 0)
        return position

    async def page(self, room: str, after: Position | None, limit: int | None) -> Page:
        """See :meth:`Bus.page`."""
        position, _, heard = await self._read_now(room, after, limit)
        publications = [Publication(each.position.sequence, each.shared.message) for each in heard]
        return page_after(position, lambda _: publications, after, limit)

    async def _read_now(
        self, room: str, after: Position | None, limit: int | None
    ) -> tuple[Position, int, list[Heard]]:
        result = await self._read(room, after, limit)
        state = self._rooms.get(room)
        if state is not None and state.position is not None and state.position.epoch != result[0].epoch:
            self._heal(state)
        return result

    # -- publications ------------------------------------------------------------------

    def _arrived(self, state: Listening, heard: Heard, size: int) -> None:
        """A publication has arrived. :meth:`_deliver_all` delivers it, if nothing is missing."""
        if state.reads:
            state.keep(heard, size)
        elif follows := state.follows(heard):
            self._deliver(state, heard)
        elif follows is False:
            state.keep(heard, size)
            self._heal(state)

    def _deliver(self, state: Listening, heard: Heard) -> None:
        shared = heard.shared
        call = self._calls.get(shared.call) if shared.process == self._octets else None
        # Before the waiters of the position run, because they run in a later turn of the loop.
        state.advance(heard.position)
        self._arrivals.add(
            state.room, heard.position.epoch, heard.position.sequence, shared.message, shared.slow, call
        )

    def _deliver_all(self) -> None:
        """Call it after each read."""
        self._arrivals.deliver(self._receiver)

    async def _wait_until_heard(self, room: str, position: Position) -> None:
        """Wait until this process has delivered its own publication to its members, if it listens."""
        state = self._rooms.get(room)
        if state is None or state.position is None or state.reached(position):
            return

        def is_missing() -> bool:
            return self._rooms.get(room) is state and not state.reached(position)

        try:
            async with timeout_without_stalls(returning.WAIT_TIME):
                while is_missing():
                    if state.position.epoch != position.epoch:
                        await self._check_epoch(room, position)
                    if is_missing():
                        await state.change()
        except TimeoutError:
            raise BusUnavailable(
                f"the message was published, but the members in this process have not got it within {returning.WAIT_TIME:g} s"
            ) from None

    async def _check_epoch(self, room: str, position: Position) -> None:
        """Raise BusUnavailable if the epoch of a publication has ended: this process will never hear it."""
        try:
            now = await self.position(room)
        except (BusUnavailable, RoomLimit):
            return  # the room is read when the connection is back
        if now.epoch != position.epoch:
            raise BusUnavailable(
                "the message was published, but the members in this process do not get it: "
                "the numbers of the room have begun again meanwhile"
            )

    # -- missed publications -----------------------------------------------------------

    def _heal(self, state: Listening) -> None:
        """Read what was missed, unless that is in progress."""
        if not state.reads:
            state.reads = True
            self._follow(state, subscribe=False)

    def _follow(self, state: Listening, *, subscribe: bool) -> None:
        if state.task is not None:
            state.task.cancel()
        state.task = self._loop.create_task(self._catch_up(state, subscribe=subscribe))

    async def _catch_up(self, state: Listening, *, subscribe: bool) -> None:
        while True:
            try:
                if subscribe:
                    await self._subscribe(state)
                    subscribe = False
                while state.reads:
                    await self._catch_up_once(state)
            except BusUnavailable:
                # When the connection is back, another task does it.
                await asyncio.sleep(RETRY_INTERVAL)
            except RoomLimit as error:
                if not state.ready.done():
                    state.ready.set_exception(error)
                    state.ready.exception()  # the caller may be cancelled
                    return
                await asyncio.sleep(RETRY_INTERVAL)
            except Exception:  # of whatever kind: a room that gives up would be deaf for ever
                logger.exception("reading what the room %r has missed failed", state.room)
                await asyncio.sleep(RETRY_INTERVAL)
            else:
                return

    async def _catch_up_once(self, state: Listening) -> None:
        state.overflowed = False
        older = state.kept
        if state.position is None:
            position, _, _ = await self._read(state.room, None, 0)
            state.advance(position)
        else:
            position, base, history = await self._read(state.room, state.position, None)
            missed = state.catch_up(base, position, history)
            if missed.lost != 0:
                state.advance(missed.position)
                self._receiver.lost(state.room, missed.lost, missed.position)
            for heard in missed.heard:
                self._deliver(state, heard)
            self._deliver_all()
            assert state.reached(position)
        state.reads = state.overflowed
        for number, heard in enumerate(state.take()):
            if number < older and _is_impossible(heard.position, position):
                continue
            # Another hole sets `reads` again.
            if state.reads or state.follows(heard) is False:
                state.reads = True
                state.keep(heard, 0)
            elif state.follows(heard):
                self._deliver(state, heard)
        self._deliver_all()
        if not state.ready.done():
            state.ready.set_result(position)

    # -- the connection ------------------------------------------------------------------

    def _on_change(self, connected: bool) -> None:
        """The connection is there, or lost."""
        if self._checking is not None:
            self._checking.cancel()
            self._checking = None
        for state in self._rooms.values():
            state.reads = True
            if connected:
                self._follow(state, subscribe=True)
            elif state.task is not None:
                state.task.cancel()
        if connected:
            self._checking = self._loop.create_task(self._check())

    async def _check(self) -> None:
        """Compare the positions at intervals: a publication may be lost without a later one that shows it."""
        while True:
            await asyncio.sleep(CHECK_INTERVAL)
            try:
                await self._check_all()
            except BusUnavailable:
                pass  # the link says so, and all rooms are read when it is back
            except Exception:
                logger.exception("comparing the positions of the rooms failed")

    async def _check_all(self) -> None:
        positions: dict[Listening, Position] = {}
        for state in [*self._rooms.values()]:
            positions[state] = await self.position(state.room)
        await asyncio.sleep(TRANSIT_TIME)
        for state, position in positions.items():
            if self._rooms.get(state.room) is state and not state.reads and not state.reached(position):
                self._heal(state)


def _is_impossible(heard: Position, now: Position) -> bool:
    """Whether a publication that came before the room was at ``now`` is not one of this room.

    Its epoch has ended, or a program that is no process of the bus has sent it. It would make the room read its
    history without end.
    """
    return heard.epoch != now.epoch or heard.sequence > now.sequence

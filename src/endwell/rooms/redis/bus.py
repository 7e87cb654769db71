"""The bus of several machines, by Redis: scripts number and keep the publications, PUB/SUB delivers them."""

from __future__ import annotations

import asyncio
import logging
import secrets
from itertools import count

from ...aio.broadcast import Slow
from ...errors import BusUnavailable
from ..bus import Bus, Receiver
from ..frames import Shared, pack_shared, unpack_shared
from ..history import History, size_of
from ..hub import FORGET_TIME, Info, Page, Present, page_after
from ..position import Message, Position, Publication
from .link import WAIT_TIME, Link
from .listening import Heard, Listening
from .place import Place
from .presence import Entry, Presence, presence_key
from .scripts import PAGE, PUBLISH

__all__ = ["RedisBus"]

logger = logging.getLogger("endwell.rooms")

#: Seconds between two comparisons of the positions of the rooms with those in Redis. It also keeps the rooms from
#: being forgotten. Precedent: Centrifugo's 40 s.
CHECK_INTERVAL = 40.0
#: Maximum seconds for which a publication is on its way, when the positions are compared.
TRANSIT_TIME = 1.0
#: Seconds until the history is read again, after Redis has refused it.
RETRY_INTERVAL = 1.0

_FORGET_MS = round(FORGET_TIME * 1000)


class RedisBus(Bus):
    """Connects processes of one or more machines.

    Publications arrive by a connection that is subscribed to the channels of the rooms. Their numbers show
    whether one is missing. Then the history is read.

    Args:
        url: See :class:`endwell.Server`.

    Raises:
        ValueError: The URL is wrong.
    """

    def __init__(self, url: str) -> None:
        self._place = Place.parse(url)
        self._process = secrets.token_urlsafe(6)
        self._octets = self._process.encode()
        self._numbers = count(1)
        #: The calls of publish() in progress.
        self._calls: dict[int, object] = {}
        #: The rooms to which this process listens, by name and by channel.
        self._rooms: dict[str, Listening] = {}
        self._channels: dict[bytes, Listening] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._link = Link(self._place, self._on_message, self._on_change)

    @property
    def is_connected(self) -> bool:
        """See :attr:`Bus.is_connected`."""
        return self._link.connected

    async def start(self, receiver: Receiver) -> None:
        """See :meth:`Bus.start`."""
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._presence = Presence(self._link, receiver, self._process)
        await self._link.start()

    async def stop(self) -> None:
        """See :meth:`Bus.stop`."""
        try:
            # All calls before this one have their replies, too.
            await self._presence.stop()
        except BusUnavailable:
            pass
        await self._link.stop()

    # -- calls ---------------------------------------------------------------------

    async def listen(self, room: str) -> Position:
        """See :meth:`Bus.listen`."""
        state = self._rooms[room] = Listening(room)
        self._channels[self._channel(room)] = state
        if self._link.connected:
            self._follow(state, subscribe=True)
        try:
            async with asyncio.timeout(WAIT_TIME):
                return await asyncio.shield(state.ready)
        except TimeoutError:
            self.ignore(room)
            raise BusUnavailable(f"Redis has not answered for {WAIT_TIME:g} s; nothing was sent") from None

    def ignore(self, room: str) -> None:
        """See :meth:`Bus.ignore`."""
        if (state := self._rooms.pop(room, None)) is None:
            return
        del self._channels[self._channel(room)]
        if state.task is not None:
            state.task.cancel()
        self._link.unsubscribe(self._channel(room))

    async def publish(
        self, room: str, message: Message, history: History | None, slow: Slow, call: object
    ) -> tuple[Position, int]:
        """See :meth:`Bus.publish`."""
        number = next(self._numbers)
        payload = pack_shared(Shared(self._octets, number, message, slow))
        kept = (
            (0, 0, 0) if history is None else (history.messages, round(history.seconds * 1000), history.bytes)
        )
        arguments = self._channel(room), payload, size_of(message), *kept
        self._calls[number] = call
        try:
            reply = self._link.call(PUBLISH, self._keys(room), _FORGET_MS, *arguments, size=len(payload))
            epoch, sequence, workers = await reply
            position = Position(epoch.decode(), sequence)
            state = self._rooms.get(room)
            if state is not None and state.position is not None and not state.reached(position):
                await self._wait_until_heard(state, position)
        finally:
            del self._calls[number]
        return position, workers

    async def position(self, room: str) -> Position:
        """See :meth:`Bus.position`."""
        position, _, _ = await self._read(room, None, 0)
        return position

    async def page(self, room: str, after: Position | None, limit: int | None) -> Page:
        """See :meth:`Bus.page`."""
        position, _, heard = await self._read(room, after, limit)
        publications = [Publication(each.position.sequence, each.shared.message) for each in heard]
        return page_after(position, lambda _: publications, after, limit)

    def enter(self, room: str, connection: int, key: str, info: Info, grace: float) -> None:
        """See :meth:`Bus.enter`."""
        self._presence.enter(room, connection, Entry(key, info, grace))

    def leave(self, room: str, connection: int, key: str, grace: float) -> None:
        """See :meth:`Bus.leave`."""
        self._presence.leave(room, connection, key, grace)

    async def presence(self, room: str) -> list[Present]:
        """See :meth:`Bus.presence`."""
        return await self._presence.present(room)

    # -- names and values ------------------------------------------------------------

    def _channel(self, room: str) -> bytes:
        # The databases of a server have their keys, but not their channels for themselves.
        return self._place.key(room, str(self._place.database)).encode()

    def _keys(self, room: str) -> list[str]:
        return [self._place.key(room, "room"), self._place.key(room, "history")]

    async def _read(
        self, room: str, after: Position | None, limit: int | None
    ) -> tuple[Position, int, list[Heard]]:
        """The position of a room, the number before the first one of its epoch, and the history."""
        start = ("", 0) if after is None else (after.epoch, after.sequence)
        keys = [*self._keys(room), presence_key(self._place, room)]
        reply = self._link.call(PAGE, keys, _FORGET_MS, *start, -1 if limit is None else limit)
        epoch, sequence, base, entries = await reply
        position = Position(epoch.decode(), sequence)
        state = self._rooms.get(room)
        if state is not None and state.position is not None and state.position.epoch != position.epoch:
            self._heal(state)
        heard = []
        for each, fields in entries:
            number = int(each.partition(b"-")[0])
            heard.append(Heard(Position(position.epoch, number), unpack_shared(fields[1])))
        return position, base, heard

    # -- publications ------------------------------------------------------------------

    def _on_message(self, channel: bytes, data: bytes) -> None:
        """A publication has arrived: 8 characters of the epoch, the number, a space, and the frame."""
        if (state := self._channels.get(channel)) is not None:
            end = data.index(b" ", 8)
            position = Position(data[:8].decode(), int(data[8:end]))
            self._arrived(state, Heard(position, unpack_shared(data[end + 1 :])), len(data))

    def _arrived(self, state: Listening, heard: Heard, size: int) -> None:
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
        publication = Publication(heard.position.sequence, shared.message)
        # Before the waiters of the position run, because they run in a later turn of the loop.
        state.advance(heard.position)
        self._receiver.published(state.room, heard.position, publication, shared.slow, call)

    async def _wait_until_heard(self, state: Listening, position: Position) -> None:
        """Wait until this process has delivered its own publication to its members."""
        assert state.position is not None
        if state.position.epoch != position.epoch:
            self._heal(state)
        try:
            async with asyncio.timeout(WAIT_TIME):
                while self._rooms.get(state.room) is state and not state.reached(position):
                    await state.change()
        except TimeoutError:
            raise BusUnavailable(
                f"the message was published, but the members in this process have not got it within {WAIT_TIME:g} s"
            ) from None

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
                    await self._link.subscribe(self._channel(state.room))
                    subscribe = False
                while state.reads:
                    await self._catch_up_once(state)
            except BusUnavailable:
                # When the connection is back, another task does it.
                await asyncio.sleep(RETRY_INTERVAL)
            except Exception:  # of whatever kind: a room that gives up would be deaf for ever
                logger.exception("reading what the room %r has missed failed", state.room)
                await asyncio.sleep(RETRY_INTERVAL)
            else:
                return

    async def _catch_up_once(self, state: Listening) -> None:
        state.overflowed = False
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
            assert state.reached(position)
        state.reads = state.overflowed
        kept = state.take()
        for heard in kept:
            # Another hole sets `reads` again.
            if state.reads or state.follows(heard) is False:
                state.reads = True
                state.keep(heard, 0)
            elif state.follows(heard):
                self._deliver(state, heard)
        if not state.ready.done():
            state.ready.set_result(position)

    # -- the connection ------------------------------------------------------------------

    def _on_change(self, connected: bool) -> None:
        """The link is connected, or has lost its connection."""
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()
        for state in self._rooms.values():
            state.reads = True
            if connected:
                self._follow(state, subscribe=True)
            elif state.task is not None:
                state.task.cancel()
        if connected:
            self._tasks = [self._loop.create_task(each) for each in (self._check(), self._presence.run())]

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

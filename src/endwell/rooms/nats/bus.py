"""The bus of several machines, by NATS: plain subjects, without JetStream."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from ...aio.broadcast import Slow
from ...errors import BusUnavailable
from .. import returning
from ..bus import Receiver
from ..following import RETRY_INTERVAL, FollowingBus
from ..frames import Shared, pack_publish, pack_word, unpack_published
from ..history import History
from ..hub import MAX_KNOWN_ROOMS
from ..listening import Heard, Listening
from ..position import Message, Position, Publication
from ..present import Info, Present, read_parts
from .asks import Asks
from .leadership import BEAT_INTERVAL, Leadership
from .link import Link
from .place import Place
from .presence import Entry, Presence
from .words import unpack, unpack_heard, unpack_page, unpack_presence, unpack_word

__all__ = ["NatsBus"]

logger = logging.getLogger("endwell.rooms")


class NatsBus(FollowingBus):
    """Connects processes of one or more machines.

    One process leads. The others send it what they publish. It numbers it, keeps it, and sends it to all that
    listen. NATS may lose messages, and the numbers show whether one is missing. Then the history is read.

    Args:
        url: See :class:`endwell.Server`.
        max_history: See :class:`endwell.rooms.Rooms`.
        max_known_rooms: See :class:`endwell.rooms.Rooms`.

    Raises:
        ValueError: The URL is wrong.
    """

    name = "nats"
    can_reserve = True
    _link: Link

    def __init__(self, url: str, max_history: int, max_known_rooms: int = MAX_KNOWN_ROOMS) -> None:
        super().__init__("NATS")
        self._place = Place.parse(url)
        self._limits = max_history, max_known_rooms
        self._link = Link(self._place, self._process, self._on_inbox, self._on_change)
        #: The policy of the last publication of each room. The history does not have it.
        self._slow: dict[str, Slow] = {}
        #: The positions of own publications that this process has not delivered yet. The history does not have
        #: their publisher.
        self._own: dict[tuple[str, Position], int] = {}
        #: The number of connections of this process, as far as the leader knows it, and the limit for all.
        self._reserved: tuple[int, int] | None = None
        self._stops = False
        self._ticking: asyncio.Task[None] | None = None
        self._restoring: asyncio.Task[None] | None = None

    async def start(self, receiver: Receiver) -> None:
        """See :meth:`Bus.start`."""
        self._receiver = receiver
        self._stops = False
        self._loop = asyncio.get_running_loop()
        self._leadership = Leadership(self._place, self._link, self._process, self._limits, self._on_leader)
        self._asks = Asks(self._link, self._leadership, self._octets)
        self._presence = Presence(receiver, self._asks.ask)
        self._led = asyncio.Event()
        await self._link.start()
        self._ticking = self._loop.create_task(self._tick())
        try:
            async with asyncio.timeout(returning.WAIT_TIME if self.is_connected else 0):
                await self._led.wait()
        except TimeoutError:
            pass  # calls wait for a leader

    async def stop(self) -> None:
        """See :meth:`Bus.stop`."""
        self._stops = True
        for task in (self._ticking, self._restoring):
            if task is not None:
                task.cancel()
        self._asks.ask("goodbye")
        await self._leadership.stop()
        await self._link.stop()
        self._asks.stop()

    # -- calls ---------------------------------------------------------------------

    async def publish(
        self, room: str, message: Message, history: History | None, slow: Slow, call: object
    ) -> tuple[Position, int]:
        """See :meth:`Bus.publish`."""
        number = next(self._numbers)
        own = None
        self._calls[number] = call
        try:
            frame = pack_publish(number, room, message, history, slow)
            ((_, body),) = await self._asks.send(frame, repeats=False)
            _, sequence, workers, _, epoch = unpack_published(body)
            position = Position(epoch, sequence)
            own = room, position
            self._own[own] = number
            await self._wait_until_heard(room, position)
        finally:
            del self._calls[number]
            if own is not None:
                del self._own[own]
        return position, workers

    def enter(self, room: str, connection: int, key: str, info: Info, grace: float) -> None:
        """See :meth:`Bus.enter`."""
        self._presence.enter(room, connection, Entry(key, info, grace))

    def leave(self, room: str, connection: int, key: str, grace: float) -> None:
        """See :meth:`Bus.leave`."""
        self._presence.leave(room, connection, key, grace)

    async def presence(self, room: str) -> list[Present]:
        """See :meth:`Bus.presence`."""
        return await read_parts(partial(self._read_present, room))

    async def _read_present(self, room: str, after: list[Any]) -> tuple[list[Present], list[Any]]:
        return unpack_presence(await self._asks.send(pack_word("presence", room, after), repeats=True))

    async def flush(self) -> None:
        """See :meth:`Bus.flush`."""
        await super().flush()  # raises BusUnavailable
        if self._restoring is not None:
            await asyncio.wait([self._restoring])
            await super().flush()

    async def reserve(self, held: int, wanted: int, limit: int) -> tuple[int, int]:
        """See :meth:`Bus.reserve`."""
        self._reserved = held, limit
        _, granted, total = await self._asks.ask("reserve", held, wanted, limit, repeats=True)
        self._reserved = held + granted, limit
        return granted, total

    def ignore(self, room: str) -> None:
        """See :meth:`Bus.ignore`."""
        super().ignore(room)
        self._slow.pop(room, None)

    # -- rooms -----------------------------------------------------------------------

    def _topic(self, room: str) -> str:
        return self._place.room(room)

    async def _subscribe(self, state: Listening) -> None:
        self._link.subscribe(self._topic(state.room), partial(self._on_publication, state))
        await self._asks.ask("listen", state.room, repeats=True)

    def _unsubscribe(self, room: str) -> None:
        self._link.unsubscribe(self._topic(room))
        self._asks.ask("ignore", room)

    async def _read(
        self, room: str, after: Position | None, limit: int | None
    ) -> tuple[Position, int, list[Heard]]:
        """See :meth:`FollowingBus._read`. The answer has several parts, because NATS limits the size of each."""
        publications: list[Publication] = []
        while True:
            start = (None, 0) if after is None else (after.epoch, after.sequence)
            left = None if limit is None else limit - len(publications)
            frames = await self._asks.send(pack_word("page", room, *start, left), repeats=True)
            _, epoch, sequence, base, more = unpack_word(frames[0])
            page = unpack_page(frames)
            if publications and not (
                after is not None and epoch == after.epoch and page and page[0].sequence == after.sequence + 1
            ):
                # Meanwhile, publications have left the history, or the epoch has changed.
                publications = []
            publications += page
            if not more or len(publications) == limit:
                break
            after = Position(epoch, publications[-1].sequence)
        position = Position(epoch, sequence)
        return position, base, [self._from_history(room, epoch, each) for each in publications]

    def _from_history(self, room: str, epoch: str, publication: Publication) -> Heard:
        position = Position(epoch, publication.sequence)
        number = self._own.get((room, position), 0)
        process = self._octets if number else b""
        slow = self._slow.get(room, "skip")
        return Heard(position, Shared(process, number, publication.message, slow))

    def _on_publication(self, state: Listening, name: str, reply: str, data: bytes, nobody: bool) -> None:
        rank, heard = unpack_heard(data)
        if self._rooms.get(state.room) is not state:
            return
        self._slow[state.room] = heard.shared.slow
        position = state.position
        if rank < self._leadership.rank and position is not None and position.epoch != heard.position.epoch:
            # A process has numbered it that leads no more. So this room has publications that the members did
            # not get, and the position of no member may say otherwise. With the same epoch, the leader of now
            # has inherited the room: this publication is on a longer way than the sign of life of that leader.
            self._asks.ask("renew", state.room, position.epoch, repeats=True).add_done_callback(
                lambda _: self._heal(state)
            )
        else:
            self._arrived(state, heard, len(data))
            self._deliver_all()

    # -- the connection and the leader -------------------------------------------------

    def _on_inbox(self, name: str, reply: str, data: bytes, nobody: bool) -> None:
        if name == "who":
            self._leadership.on_answer(data, nobody)
        elif name == "heritage":
            self._leadership.on_heritage(data)
        elif name == "lead":
            self._leadership.on_lead(*unpack(data)[1:])
        elif name == "tell":
            self._tell(*unpack(data))
        else:
            self._asks.answered(int(name), data, nobody)

    def _tell(self, word: str, *values: Any) -> None:
        if word in ("came", "went"):
            number, *told = values
            if self._stops and number[1] != self._process:
                return  # after "goodbye", the leader tells another process what this one has not confirmed
            self._told += 1
            self._presence.tell(word, tuple(number), *told)
            self._asks.ask("told", *number, repeats=True)
        elif word == "stays":
            self._presence.stays(*values)
        elif word == "restore" and not self._stops:
            self._restore()

    def _on_change(self, connected: bool) -> None:
        if connected:
            self._leadership.connected()
        else:
            self._leadership.disconnected()
            self._asks.lost()
        super()._on_change(connected)

    def _on_leader(self, missed: bool) -> None:
        """The leader has given a sign of life; it may have missed what it was told before."""
        self._led.set()
        if missed and not self._stops:
            self._asks.interrupted()
            self._restore()
            for state in self._rooms.values():
                if state.position is not None:
                    self._heal(state)
        self._asks.send_waiting()

    def _restore(self) -> None:
        """Tell the leader all that it has to know of this process."""
        if self._restoring is not None:
            self._restoring.cancel()
        self._restoring = self._loop.create_task(self._restore_all(self._restore_rooms()))

    async def _restore_all(self, answer: asyncio.Future[Any]) -> None:
        while True:
            try:
                _, *beginning = await answer
                # A leader of an older version does not say it.
                await self._presence.restore(self._leadership.rank, *(beginning or [0]))
                await self._asks.ask("restored")
            except BusUnavailable:
                pass  # there is no leader, or it is still removing the connections of this process
            except Exception:  # of whatever kind: the leader would remove what it is not told
                logger.exception("telling the leader what this process has failed")
            else:
                return
            await asyncio.sleep(RETRY_INTERVAL)
            answer = self._restore_rooms()

    def _restore_rooms(self) -> asyncio.Future[Any]:
        """Before other calls, so that the leader sends this process what they publish. Returns the first answer."""
        self._presence.begin_restore()
        answer = self._asks.ask("restore")
        if self._reserved is not None:
            held, limit = self._reserved
            self._asks.ask("reserve", held, 0, limit)
        for room in self._rooms:
            self._asks.ask("listen", room)
        return answer

    async def _tick(self) -> None:
        while True:
            try:
                self._leadership.tick()
                self._asks.tell("alive")
            except Exception:
                logger.exception("telling the other processes that this one is alive failed")
            await asyncio.sleep(BEAT_INTERVAL)

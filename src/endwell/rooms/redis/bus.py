"""The bus of several machines, by Redis: scripts number and keep the publications, PUB/SUB delivers them."""

from __future__ import annotations

import asyncio

from ...aio.broadcast import Slow
from ...errors import BusUnavailable
from ..bus import Receiver
from ..following import FollowingBus
from ..frames import Shared, pack_shared, unpack_shared
from ..history import History, size_of
from ..hub import FORGET_TIME
from ..listening import Heard, Listening
from ..position import Message, Position
from ..present import Info, Present
from .duties import presence_key
from .link import Link
from .place import Place
from .presence import Entry, Presence
from .reservation import Reservation
from .scripts import PAGE, PUBLISH, to_ms

__all__ = ["RedisBus"]

_FORGET_MS = round(FORGET_TIME * 1000)


class RedisBus(FollowingBus):
    """Connects processes of one or more machines.

    Publications arrive by a connection that is subscribed to the channels of the rooms. Their numbers show
    whether one is missing. Then the history is read.

    Args:
        url: See :class:`endwell.Server`.

    Raises:
        ValueError: The URL is wrong.
    """

    name = "redis"
    can_reserve = True
    _link: Link
    _publish_script = PUBLISH

    def __init__(self, url: str | Place) -> None:
        super().__init__("Redis")
        self._place = url if isinstance(url, Place) else Place.parse(url)
        #: What runs while connected.
        self._work: list[asyncio.Task[None]] = []
        self._link = self._make_link()

    def _make_link(self) -> Link:
        return Link(self._place, self._on_message, self._deliver_all, self._on_change)

    async def start(self, receiver: Receiver) -> None:
        """See :meth:`Bus.start`."""
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._presence = Presence(self._link, receiver, self._process)
        self._reservation = Reservation(self._link, self._process)
        await self._link.start()

    async def stop(self) -> None:
        """See :meth:`Bus.stop`."""
        try:
            # All calls before this one have their replies, too.
            await self._presence.stop()
            await self._reservation.stop()
        except BusUnavailable:
            pass
        await self._link.stop()

    # -- calls ---------------------------------------------------------------------

    async def publish(
        self, room: str, message: Message, history: History | None, slow: Slow, call: object
    ) -> tuple[Position, int]:
        """See :meth:`Bus.publish`."""
        number = next(self._numbers)
        payload = pack_shared(Shared(self._octets, number, message, slow))
        kept = (0, 0, 0)
        if history is not None:
            kept = (history.messages, to_ms(history.seconds), history.bytes)
        arguments = self._topic(room), payload, size_of(message), *kept
        self._calls[number] = call
        try:
            reply = self._link.call(
                self._publish_script, self._keys(room), _FORGET_MS, *arguments, size=len(payload)
            )
            epoch, sequence, workers = await reply
            position = Position(epoch.decode(), sequence)
            await self._wait_until_heard(room, position)
        finally:
            del self._calls[number]
        return position, workers

    def enter(self, room: str, connection: int, key: str, info: Info, grace: float) -> None:
        """See :meth:`Bus.enter`."""
        self._presence.enter(room, connection, Entry(key, info, grace))

    def leave(self, room: str, connection: int, key: str, grace: float) -> None:
        """See :meth:`Bus.leave`."""
        self._presence.leave(room, connection, key, grace)

    async def presence(self, room: str) -> list[Present]:
        """See :meth:`Bus.presence`."""
        return await self._presence.present(room)

    async def reserve(self, held: int, wanted: int, limit: int) -> tuple[int, int]:
        """See :meth:`Bus.reserve`."""
        return await self._reservation.ask(held, wanted, limit)

    # -- names and values ------------------------------------------------------------

    def _topic(self, room: str) -> bytes:
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
        heard = []
        for each, fields in entries:
            number = int(each.partition(b"-")[0])
            heard.append(Heard(Position(position.epoch, number), unpack_shared(fields[1])))
        return position, base, heard

    # -- publications ------------------------------------------------------------------

    def _on_message(self, channel: bytes, data: bytes) -> None:
        """A publication has arrived: 8 characters of the epoch, the number, a space, and the frame."""
        if (state := self._topics.get(channel)) is not None:
            end = data.index(b" ", 8)
            position = Position(data[:8].decode(), int(data[8:end]))
            self._arrived(state, Heard(position, unpack_shared(data[end + 1 :])), len(data))

    async def _subscribe(self, state: Listening) -> None:
        await self._link.subscribe(self._topic(state.room))

    def _unsubscribe(self, room: str) -> None:
        self._link.unsubscribe(self._topic(room))

    def _on_change(self, connected: bool) -> None:
        super()._on_change(connected)
        for task in self._work:
            task.cancel()
        self._work.clear()
        if connected:
            work = (self._presence.run(), self._reservation.run())
            self._work = [self._loop.create_task(each) for each in work]

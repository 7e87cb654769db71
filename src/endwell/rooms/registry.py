"""What the rooms of one process share: the bus, the limits, the callbacks, and who is in which room."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import secrets
import threading
from collections.abc import Callable
from fnmatch import fnmatchcase
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from ..aio.broadcast import Slow
from ..aio.callbacks import check_returned
from ..aio.websocket import WebSocket, observe
from ..codes import Retry, describe
from ..ending import Ending
from ..errors import BusUnavailable, ConcurrencyError, RoomLimit
from ..sync.portal import Portal
from ..text import utf8
from ..wire.codec import Buffer, octets
from .bus import Arrival, Bus, RoomReceiver
from .history import size_of
from .keys import RESERVED, USER, unpack_key, user_room_name
from .options import RoomLimits, RoomOptions
from .position import Gap, Message, Position, Publication
from .present import Info, Present
from .room import Room
from .user import UserRoom

__all__ = ["Registry"]

logger = logging.getLogger("endwell.rooms")

#: Maximum size of the JSON text of the keyword arguments of join(), in bytes.
MAX_INFO = 4096
#: Maximum length of a key, in bytes of UTF-8.
MAX_KEY = 255
#: Maximum seconds for callbacks that still run when the rooms stop.
CALLBACK_TIME = 1.0

_NOT_IN_USE = (
    "these rooms are not in use: their server does not serve; rooms without a Server need `async with rooms:`, "
    "for example in the lifespan of the application"
)


class Registry:
    """What the rooms of one process share. The receiver of the bus."""

    def __init__(self, limits: RoomLimits, bus: Bus) -> None:
        self.limits = limits
        self.bus = bus
        #: Whether the application has chosen the bus.
        self.has_chosen = False
        self.patterns: list[tuple[str, RoomOptions]] = []
        self._rooms: WeakValueDictionary[str, Room] = WeakValueDictionary()
        self._making = threading.Lock()
        self.joined: list[Callable[..., object]] = []
        self.left: list[Callable[..., object]] = []
        self.gap: list[Callable[..., object]] = []
        #: The rooms to which this process listens.
        self._listened: dict[str, Room] = {}
        #: The rooms in which each connection is, or which it joins.
        self._rooms_of: dict[WebSocket, tuple[Room, ...]] = {}
        self._as_observers = (self,)
        self._numbers = count(1)
        #: No other process begins the keys of connections without a key like this.
        self._prefix = secrets.token_urlsafe(6)
        self._tasks: set[asyncio.Task[None]] = set()
        #: Number of publications that this process has lost, as far as it is known.
        self.lost_publications = 0
        #: What is told of the reserved rooms, by their names.
        self.reserved: dict[str, RoomReceiver] = {}
        #: Each returns the current connection of a key in this process, or None. One for each server.
        self.finders: list[Callable[[Any], Any]] = []
        #: The event loop, while the rooms are in use; how often they are in use; and the way of threads into it.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._uses = 0
        self._portal: Portal | None = None
        #: Held by start() and stop(), and the event loop to which it belongs.
        self._turn: tuple[asyncio.AbstractEventLoop | None, asyncio.Lock] = (None, asyncio.Lock())

    def check(self) -> None:
        """Raise an error if the rooms cannot be used here.

        Raises:
            ConcurrencyError: The rooms are not in use, or belong to another event loop.
        """
        if asyncio.get_running_loop() is not self._loop:
            if self._loop is None:
                raise ConcurrencyError(_NOT_IN_USE)
            raise ConcurrencyError(
                "these rooms belong to another event loop; in another thread, use server.rooms.blocking[name]"
            )

    def check_unused(self) -> None:
        """Raise an error if the rooms are in use.

        Raises:
            ConcurrencyError: They are.
        """
        if self._loop is not None:
            raise ConcurrencyError("these rooms are in use; choose their bus before their server serves")

    @property
    def portal(self) -> Portal:
        """The way of threads into the event loop of the rooms.

        Raises:
            ConcurrencyError: The rooms are not in use: their server does not serve.
        """
        if self._portal is None:
            raise ConcurrencyError(_NOT_IN_USE)
        return self._portal

    async def start(self) -> None:
        """Connect the bus, in this event loop. Several servers may have the same rooms.

        Raises:
            ConcurrencyError: The rooms are in use in another event loop.
        """
        if self._loop is not None:
            self.check()
        async with self._alone():
            if self._uses == 0:
                self._loop = asyncio.get_running_loop()
                self._portal = Portal.of(self._loop)
                try:
                    await self.bus.start(self)
                except BaseException:
                    await self._disconnect()
                    raise
            self._uses += 1

    async def end_graces(self) -> None:
        """All connections have ended: keys leave now if no other process can wait for them.

        Waits at most 1 s for the bus to tell who has left, and for the callbacks, as the sessions do.
        """
        if self._uses == 1:
            self.bus.end_graces()
            try:
                async with asyncio.timeout(CALLBACK_TIME):
                    if self.bus.is_shared and self.bus.is_connected:
                        await self.bus.flush()  # the callbacks may publish as long as it is connected
                    while self._tasks:
                        await asyncio.wait(self._tasks)
            except (BusUnavailable, TimeoutError):
                pass

    async def stop(self) -> None:
        """End the graces, then disconnect the bus."""
        try:
            await self.end_graces()
        finally:
            async with self._alone():
                self._uses -= 1
                if self._uses == 0:
                    for task in self._tasks:
                        task.cancel()
                    await self._disconnect()

    async def _disconnect(self) -> None:
        self._loop = self._portal = None
        await self.bus.stop()

    def _alone(self) -> asyncio.Lock:
        """Servers with the same rooms may start and stop at the same time: the bus connects once."""
        loop = asyncio.get_running_loop()
        if self._turn[0] is not loop:
            self._turn = loop, asyncio.Lock()
        return self._turn[1]

    # -- names and options ----------------------------------------------------------

    def check_name(self, name: str) -> None:
        """Raise an error if a room cannot have this name."""
        what, limit = "the name of a room", self.limits.max_name
        if not isinstance(name, str):
            raise TypeError(f"{what} must be a str, not {name!r}")
        if not 0 < (length := len(utf8(name, what))) <= limit:
            raise RoomLimit(f"{what} must have 1 to {limit} bytes (max_name), and has {length}")
        if name[0] == RESERVED:
            raise RoomLimit(f"{what} must not begin with the character U+0000, which is reserved")

    def options_for(self, name: str) -> RoomOptions:
        """The options of a room: those of the last pattern that matches. Reserved rooms have the defaults."""
        if name[0] == RESERVED:
            return RoomOptions()
        for pattern, options in reversed(self.patterns):
            if fnmatchcase(name, pattern):
                return options
        return RoomOptions()

    def used(self, pattern: str) -> str | None:
        """The name of a room that is in use and matches a pattern."""
        names = (name for name in list(self._rooms) if name[0] != RESERVED)
        return next((name for name in names if fnmatchcase(name, pattern)), None)

    # -- arguments --------------------------------------------------------------------

    def check_presence(self, key: str | None, info: Info) -> None:
        """Raise an error if :meth:`Room.join` cannot have these arguments."""
        if not isinstance(key, str | None):
            raise TypeError(f"key must be a str or None, not {key!r}")
        if key is not None and not 0 < (length := len(utf8(key, "key"))) <= MAX_KEY:
            raise RoomLimit(f"key must have 1 to {MAX_KEY} bytes, and has {length}")
        try:
            # Not NaN, which Python has in its JSON, and no other language.
            size = len(json.dumps(info, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(
                f"the keyword arguments of join() must be values that JSON has: {error}"
            ) from None
        if size > MAX_INFO:
            raise RoomLimit(f"the keyword arguments of join() may have {MAX_INFO} bytes of JSON, not {size}")

    def check_message(self, message: str | Buffer) -> Message:
        """Return a message in the form in which it is kept; raises an error if it cannot be published."""
        kept = message if isinstance(message, str) else bytes(octets(message, "message must be a str"))
        size, limit = size_of(kept), self.limits.max_message
        if size > limit:
            raise RoomLimit(f"the message has {size} bytes, and rooms take {limit} (max_message)")
        return kept

    def new_key(self) -> tuple[int, str]:
        """The number of a connection, and the key that it has if it was given none."""
        number = next(self._numbers)
        return number, f"{self._prefix}-{number}"

    # -- connections --------------------------------------------------------------------

    def add(self, room: Room, ws: WebSocket) -> None:
        """Note that a connection joins a room.

        Raises:
            RoomLimit: The room has too many members, or the connection is in too many rooms.
        """
        rooms = self._rooms_of.get(ws)
        limit = self.limits.max_rooms
        if rooms is not None and len(rooms) >= limit and not room.is_reserved:
            count = sum(not each.is_reserved for each in rooms)
            if count >= limit:
                raise RoomLimit(f"the connection is in {count} rooms already (max_rooms)")
        # One tuple for all connections that are in this room only.
        self._rooms_of[ws] = (*rooms, room) if rooms else room._alone
        if rooms is None:
            observe(ws, self._as_observers)

    def remove(self, room: Room, ws: WebSocket) -> None:
        """Note that a connection has left a room."""
        if (rooms := self._rooms_of.get(ws)) is not None:
            # Only once: another join() of the connection to this room may be in progress.
            number = rooms.index(room)
            self._rooms_of[ws] = (*rooms[:number], *rooms[number + 1 :])

    def ended(self, ws: WebSocket, ending: Ending) -> None:
        """A connection has ended."""
        # The code tells the client, too, whether to reconnect.
        returns = describe(ending.code).retry is not Retry.NEVER
        for room in self._rooms_of.pop(ws):
            room._ended(ws, returns=returns)

    def hold(self, room: Room) -> None:
        """Keep a room that this process listens to.

        Raises:
            RoomLimit: This process listens to too many rooms.
        """
        limit = self.limits.max_known_rooms
        if len(self._listened) >= limit and room.name not in self._listened:
            raise RoomLimit(f"there are {limit} rooms with members already (max_known_rooms)")
        self._listened[room.name] = room

    def release(self, room: Room) -> None:
        """End :meth:`hold`."""
        self._listened.pop(room.name, None)

    def used_rooms(self) -> list[Room]:
        """The rooms that have members in this process, without those that endwell makes."""
        return [room for room in self._listened.values() if not room.is_reserved]

    @staticmethod
    def size_of(room: Room) -> int:
        """The number of members that a room has in this process."""
        return len(room._members)

    def names_of(self, ws: WebSocket) -> list[str]:
        """The names of the rooms in which a connection is, without those that endwell makes."""
        return [room.name for room in self._rooms_of.get(ws, ()) if not room.is_reserved]

    # -- the bus calls ------------------------------------------------------------------

    def published(
        self, room: str, position: Position, publication: Publication, slow: Slow, call: Any
    ) -> None:
        """See :class:`endwell.rooms.bus.Receiver`."""
        if (known := self._rooms.get(room)) is not None:
            known._published(position, publication, slow, call)
        elif (reserved := self.reserved.get(room)) is not None:
            reserved.published(room, position, publication, slow, call)

    def arrived(self, room: str, epoch: str, batch: list[Arrival], alone: bool) -> None:
        """See :class:`endwell.rooms.bus.Receiver`."""
        if (known := self._listened.get(room)) is not None:
            known._arrived(epoch, batch, alone)
        elif (reserved := self.reserved.get(room)) is not None:
            for sequence, message, slow, call in batch:
                position, publication = Position(epoch, sequence), Publication(sequence, message)
                reserved.published(room, position, publication, slow, call)

    def lost(self, room: str, lost: int | None, position: Position) -> None:
        """See :class:`endwell.rooms.bus.Receiver`."""
        if (reserved := self.reserved.get(room)) is not None:
            reserved.lost(room, lost, position)
            return
        self.lost_publications += lost or 0
        if (known := self._rooms.get(room)) is not None:
            if not known.is_reserved:
                number = "an unknown number of" if lost is None else lost
                logger.warning("the room %r has lost %s publications for this process", room, number)
            known._lost(lost, position)

    def tell_gap(self, room: Room, gap: Gap) -> bool:
        """Call the callbacks for a gap. Returns whether there are any.

        Plain functions run before the next publication is delivered. So what they send is at the place of the gap.
        """
        for callback in self.gap:
            if inspect.iscoroutinefunction(callback):
                self._notify([callback], room.name, gap)
            else:
                _call_plain(callback, room, gap)
        return bool(self.gap)

    def came(self, room: str, present: Present) -> None:
        """See :class:`endwell.rooms.bus.Receiver`."""
        if (reserved := self.reserved.get(room)) is not None:
            reserved.came(room, present)
        elif room[0] != RESERVED:
            self._notify(self.joined, room, present)

    def went(self, room: str, present: Present) -> None:
        """See :class:`endwell.rooms.bus.Receiver`."""
        if (reserved := self.reserved.get(room)) is not None:
            reserved.went(room, present)
        elif room[0] != RESERVED:
            self._notify(self.left, room, present)

    def _notify(self, callbacks: list[Callable[..., object]], name: str, what: object) -> None:
        for callback in callbacks:
            task = asyncio.get_running_loop().create_task(_call(callback, self.room(name), what))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def room(self, name: str) -> Room:
        """The room of a name that :meth:`check_name` has accepted."""
        room = self._rooms.get(name)
        if room is None:
            # Two threads may ask for it at once. Publications would reach the members of one of two objects only.
            with self._making:
                if (room := self._rooms.get(name)) is None:
                    room = self._rooms[name] = (UserRoom if name.startswith(USER) else Room)(self, name)
        return room

    def user(self, key: Any) -> Room:
        """The room of a user. Raises the errors of :func:`pack_key`."""
        return self.room(user_room_name(key))

    def connections_of(self, room: Room) -> list[Any]:
        """The current connections of a user in this process."""
        key = unpack_key(room.name.removeprefix(USER))
        found = [find(key) for find in self.finders]
        return [ws for ws in found if ws is not None]


async def _call(callback: Callable[..., object], room: Room, what: object) -> None:
    if not inspect.iscoroutinefunction(callback):
        _call_plain(callback, room, what)
        return
    try:
        await callback(room, what)
    except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException:
        logger.exception("callback %r failed", callback)


def _call_plain(callback: Callable[..., object], room: Room, what: object) -> None:
    try:
        check_returned(callback(room, what), callback)
    except (GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException:
        logger.exception("callback %r failed", callback)

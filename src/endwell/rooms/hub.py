"""The state of all rooms: numbers, history, presence and who listens. Pure functions of time, without I/O.

The local bus has one hub in its process. The bus of the supervisor has one in the supervisor's process, and
each worker listens.
"""

# size: a room is forgotten when it has no history, no key and no listener, so all of its state changes together.

from __future__ import annotations

import heapq
import secrets
from collections.abc import Container, Iterator
from itertools import count, islice
from math import inf
from typing import Any

from ..errors import RoomLimit
from .history import History, Log, Page, page_after
from .idle import Idle
from .keys import OWN
from .position import Message, Position, Publication
from .present import Connection, Info, KeyState, Left, Part, Present, part_of

__all__ = ["FORGET_TIME", "MAX_KNOWN_ROOMS", "Hub", "RoomState"]

#: Seconds for which the numbers of a room are kept after its last use. A member that returns
#: later gets a gap of unknown size. Precedent: the 300 s of Centrifugo's memory engine.
FORGET_TIME = 300.0
#: The default of ``max_known_rooms``. 100,000 rooms without a history take about 100 MB.
MAX_KNOWN_ROOMS = 100_000
#: Maximum number of keys and rooms that :meth:`Hub.tick` looks at in one call. It takes some milliseconds.
STEPS = 500

#: The rooms to which a listener listens, and the rooms and numbers of its connections.
Kept = tuple[Container[str], set[tuple[str, int]]]
#: A process, or what stands for it.
Listener = Any


class RoomState:
    """One room. Public for a hub that is handed over to another process."""

    __slots__ = ("base", "epoch", "expires", "keys", "listeners", "log", "sequence")

    def __init__(self, epoch: str, sequence: int = 0, base: int = 0) -> None:
        self.epoch = epoch
        self.sequence = sequence
        #: The number before the first one of the epoch.
        self.base = base
        self.log = Log()
        self.listeners: set[Listener] = set()
        self.keys: dict[str, KeyState] = {}
        #: How long the history of the last publication reaches. Without a history: -inf.
        self.expires = -inf

    @property
    def position(self) -> Position:
        """Of its last publication."""
        return Position(self.epoch, self.sequence)


class Hub:
    """The state of all rooms.

    Args:
        max_bytes: Maximum size of the history of all rooms together, in bytes of messages. Above it, the rooms
            that were left first lose their history, then the oldest publications of the room in use.
        max_rooms: Maximum number of rooms. Above it, the room that was left first is forgotten. If each has
            listeners or keys, the methods that add a room raise RoomLimit.
    """

    def __init__(self, max_bytes: int, max_rooms: int = MAX_KNOWN_ROOMS) -> None:
        self._max_bytes = max_bytes
        self._max_rooms = max_rooms
        self._bytes = 0
        self._rooms: dict[str, RoomState] = {}
        self._idle = Idle()
        self._leaving: list[tuple[float, str, str]] = []
        #: How many connections each listener has reserved.
        self._reserved: dict[Listener, int] = {}
        #: The listeners that :meth:`remove_later` removes, each with its steps and with the connections that stay.
        self._removals: dict[Listener, tuple[Iterator[list[Left]], set[tuple[str, int]]]] = {}
        #: The numbers of the keys, in the order in which they came.
        self._orders = count(1)

    # -- publications -------------------------------------------------------------

    def publish(
        self, name: str, message: Message, history: History | None, now: float
    ) -> tuple[Position, Publication, set[Listener]]:
        """Number a message, and add it to the history. Returns the listeners that get it."""
        room = self.number(name, message, history, now)
        return room.position, Publication(room.sequence, message), room.listeners

    def number(self, name: str, message: Message, history: History | None, now: float) -> RoomState:
        """:meth:`publish` for a caller that needs no objects. ``message`` is not used without a history."""
        room = self._room(name, now)
        room.sequence += 1
        if history is not None:
            self._bytes += room.log.append(Publication(room.sequence, message), history, now)
            room.expires = now + history.seconds
            if name in self._idle.since:
                self._idle.keep(name)
            if self._bytes > self._max_bytes:
                self._shrink(room)
        elif room.expires != -inf:
            # The history must have no hole, so that it cannot continue behind a message that is not kept.
            self._clear(name, room)
        return room

    def position(self, name: str, now: float) -> Position:
        """The position of a room."""
        return self._room(name, now).position

    def base(self, name: str, now: float) -> int:
        """The number before the first one of the epoch of a room."""
        return self._room(name, now).base

    def renew(self, name: str, epoch: str) -> bool:
        """Give a room another epoch, if it has this one: some of its publications are not in the history."""
        if (room := self._rooms.get(name)) is None or room.epoch != epoch:
            return False
        room.epoch, room.base = _new_epoch(), room.sequence
        return True

    def renew_all(self) -> None:
        """Give all rooms another epoch."""
        for name, room in self._rooms.items():
            self.renew(name, room.epoch)

    def page(self, name: str, after: Position | None, limit: int | None, now: float) -> Page:
        """Read the history. ``after`` None means: from its beginning."""
        room = self._room(name, now)
        self._bytes += room.log.expire(now)
        return page_after(room.position, room.log.after, after, limit)

    # -- listeners ----------------------------------------------------------------

    def listen(self, name: str, listener: Listener, now: float) -> Position:
        """Add a listener of a room."""
        room = self._room(name, now)
        room.listeners.add(listener)
        self._idle.remove(name)
        return room.position

    def ignore(self, name: str, listener: Listener, now: float) -> None:
        """Remove a listener of a room."""
        if (room := self._rooms.get(name)) is not None:
            room.listeners.discard(listener)
            self._check_idle(name, room, now)

    def remove(self, listener: Listener, now: float) -> list[Left]:
        """Remove a listener whose process has ended, with all its connections."""
        self.remove_later(listener, now)
        return [each for left in self._removals.pop(listener)[0] for each in left]

    def remove_later(self, listener: Listener, now: float, keep: Kept | None = None) -> None:
        """:meth:`remove`, in which :meth:`tick` removes the connections. Those that come meanwhile stay.

        ``keep`` is for a process that has not ended: what it has told again.
        """
        rooms, connections = keep or ((), set())
        if keep is None:
            self._reserved.pop(listener, None)
        for name, room in self._rooms.items():
            if name not in rooms:
                room.listeners.discard(listener)
        self._removals[listener] = self._removal(listener, now, connections), connections

    def is_removing(self, listener: Listener) -> bool:
        """Whether :meth:`remove_later` has not removed all connections yet."""
        return listener in self._removals

    def _removal(self, listener: Listener, now: float, keep: set[tuple[str, int]]) -> Iterator[list[Left]]:
        """The steps of :meth:`remove`: each is one key or one room, which others may have changed meanwhile."""
        for name in list(self._rooms):
            if (room := self._rooms.get(name)) is None:
                continue
            for key in list(room.keys):
                entry = room.keys.get(key)
                connections = () if entry is None else entry.connections.items()
                own = [each for each in connections if each[0].listener == listener]
                left: list[Left] = []
                for connection, grace in own:
                    if (name, connection.number) not in keep:
                        left += self.leave(name, connection, key, grace, now)
                yield left
            # Others may have left it meanwhile, and it was forgotten.
            if self._rooms.get(name) is room:
                self._check_idle(name, room, now)
            yield []

    # -- presence -------------------------------------------------------------------

    def enter(
        self,
        name: str,
        connection: Connection,
        key: str,
        info: Info,
        grace: float,
        now: float,
    ) -> Present | None:
        """Add a connection. Returns the key if it came with this connection, also if it is added again.

        ``grace`` is for :meth:`remove`, when the process of the connection ends.
        """
        room = self._room(name, now)
        self._idle.remove(name)
        if (entry := room.keys.get(key)) is None:
            entry = room.keys[key] = KeyState(connection)
            entry.order = next(self._orders)
        entry.connections[connection] = grace
        entry.info, entry.listener, entry.due = info, connection.listener, inf
        if self._removals and connection.listener in self._removals:
            self._removals[connection.listener][1].add((name, connection.number))
        return entry.present(key) if entry.first == connection else None

    def leave(self, name: str, connection: Connection, key: str, grace: float, now: float) -> list[Left]:
        """Remove a connection. If it was the last one of its key, the key leaves after ``grace`` seconds."""
        room = self._rooms.get(name)
        entry = room.keys.get(key) if room is not None else None
        if room is None or entry is None or connection not in entry.connections:
            return []
        del entry.connections[connection]
        if entry.first == connection:
            entry.first = None
        if entry.connections:
            return []
        entry.listener = connection.listener
        if grace > 0:
            entry.due = now + grace
            self._queue(name, key, entry)
            return []
        return [self._left(name, room, key)]

    def awaited_by(self, name: str, key: str) -> Listener | None:
        """The listener that had the last connection of a key that has no connection now."""
        entry = self._key(name, key)
        return None if entry is None or entry.connections else entry.listener

    def listeners_of(self, name: str, key: str) -> list[Listener]:
        """The listeners that have a connection of a key, one for each connection."""
        entry = self._key(name, key)
        return [] if entry is None else [each.listener for each in entry.connections]

    def has(self, name: str, key: str) -> bool:
        """Whether a key is present in a room."""
        return self._key(name, key) is not None

    def presence(self, name: str, after: int = 0, limit: int | None = None) -> Part:
        """The keys that are present in a room, in the order in which they came.

        Args:
            name: The room.
            after: What the part before has returned. Default: 0, the first part.
            limit: Maximum number of keys. Default: None, all.
        """
        room = self._rooms.get(name)
        return ([], 0) if room is None else part_of(room.keys, after, limit)

    # -- the number of connections -------------------------------------------------------

    def reserve(self, listener: Listener, held: int, wanted: int, limit: int) -> tuple[int, int]:
        """See :meth:`endwell.rooms.bus.Bus.reserve`."""
        self._reserved[listener] = held
        total = sum(self._reserved.values())
        granted = max(0, min(wanted, limit - total))
        self._reserved[listener] += granted
        return granted, total + granted

    # -- time -------------------------------------------------------------------------

    @property
    def deadline(self) -> float:
        """When :meth:`tick` has something to do."""
        if self._removals:
            return -inf
        if not self._idle.since and not self._leaving:
            return inf  # as in most turns of a busy supervisor
        return min(self._leaving[0][0] if self._leaving else inf, self._idle.began + FORGET_TIME)

    def tick(self, now: float) -> list[Left]:
        """End the graces that are over, forget rooms, and go on with :meth:`remove_later`.

        Returns the keys that have left. If there is more to do, :attr:`deadline` has come already.
        """
        left: list[Left] = []
        steps = STEPS
        while self._removals and steps:
            steps -= 1
            listener, (removal, _) = next(iter(self._removals.items()))
            if (step := next(removal, None)) is None:
                del self._removals[listener]
            else:
                left += step
        while self._leaving and self._leaving[0][0] <= now and steps:
            steps -= 1
            due, name, key = heapq.heappop(self._leaving)
            room = self._rooms.get(name)
            entry = room.keys.get(key) if room is not None else None
            if room is None or entry is None or entry.queued != due:
                continue
            entry.queued = inf
            if entry.due <= now:
                left.append(self._left(name, room, key))
                self._check_idle(name, room, now)
            else:
                self._queue(name, key, entry)
        for name, since in list(islice(self._idle.since.items(), 1000)):
            if since + FORGET_TIME > now:
                break
            room = self._rooms[name]
            if room.expires > now and room.log:
                self._idle.use(name, now)
            else:
                self._forget(name)
        return left

    def end_graces(self, now: float) -> list[Left]:
        """All keys without a connection leave now."""
        left: list[Left] = []
        for name, room in list(self._rooms.items()):
            left += [self._left(name, room, key) for key, entry in list(room.keys.items()) if entry.due < inf]
            self._check_idle(name, room, now)
        return left

    # -- another hub --------------------------------------------------------------------

    @property
    def reserved(self) -> dict[Listener, int]:
        """How many connections each listener has reserved."""
        return self._reserved

    def states(self) -> Iterator[tuple[str, RoomState]]:
        """All rooms, by name."""
        return iter(self._rooms.items())

    def add(self, name: str, room: RoomState, now: float) -> None:
        """Add a room of another hub."""
        self._rooms[name] = room
        self._bytes += room.log.bytes
        for key, entry in room.keys.items():
            entry.order = next(self._orders)
            self._queue(name, key, entry)
        self._check_idle(name, room, now)

    # -- inside -----------------------------------------------------------------------

    def _room(self, name: str, now: float) -> RoomState:
        room = self._rooms.get(name)
        if room is None:
            if len(self._rooms) >= self._max_rooms and self._is_full(name):
                self._forget_one()
            room = self._rooms[name] = RoomState(_new_epoch())
            self._idle.use(name, now)
        elif name in self._idle.since:
            self._idle.use(name, now)
        return room

    def _key(self, name: str, key: str) -> KeyState | None:
        room = self._rooms.get(name)
        return None if room is None else room.keys.get(key)

    def _is_full(self, name: str) -> bool:
        """Whether one room has to go before a new one is added."""
        return (
            name not in OWN and len(self._rooms) - sum(own in self._rooms for own in OWN) >= self._max_rooms
        )

    def _forget_one(self) -> None:
        """Forget the room that was left first."""
        name = next(iter(self._idle.since), None)
        if name is None:
            raise RoomLimit(f"there are {len(self._rooms)} rooms with members already (max_known_rooms)")
        self._forget(name)

    def _forget(self, name: str) -> None:
        self._clear(name, self._rooms.pop(name))
        self._idle.remove(name)

    def _check_idle(self, name: str, room: RoomState, now: float) -> None:
        if not (room.listeners or room.keys or name in self._idle.since):
            self._idle.use(name, now)
            if room.log:
                self._idle.keep(name)

    def _queue(self, name: str, key: str, entry: KeyState) -> None:
        """Look at a key again when it leaves. A key that comes and leaves again and again is queued once."""
        if entry.due < entry.queued:
            entry.queued = entry.due
            heapq.heappush(self._leaving, (entry.due, name, key))

    def _left(self, name: str, room: RoomState, key: str) -> Left:
        entry = room.keys.pop(key)
        return Left(name, entry.present(key), entry.listener)

    def _shrink(self, used: RoomState) -> None:
        while self._bytes > self._max_bytes and self._idle.kept:
            name = next(iter(self._idle.kept))
            if (room := self._rooms[name]) is used:
                break  # it is the last one, because it was used just now
            self._clear(name, room)
        self._bytes += used.log.shrink(used.log.bytes - (self._bytes - self._max_bytes))

    def _clear(self, name: str, room: RoomState) -> None:
        self._bytes += room.log.shrink(0)
        self._idle.kept.pop(name, None)
        room.expires = -inf


def _new_epoch() -> str:
    return secrets.token_urlsafe(6)

"""What a leader that stops leaves to the next one: the state of all rooms, in parts that NATS can carry."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

from ..frames import PUBLICATION, Decoder, pack_publication, pack_word, unpack_publication
from ..history import MAX_BOUND, History
from ..hub import Hub, RoomState
from ..position import Publication
from ..present import Connection, KeyState
from ..returning import MAX_QUEUE
from .words import unpack_word

__all__ = ["Heritage", "pack_heritage"]

#: A part ends before it is larger, unless it has one frame only. To unpack it takes some milliseconds.
PART_SIZE = 1 << 16


def pack_heritage(hub: Hub, now: float, size: int) -> list[bytes] | None:
    """The parts of at most ``size`` bytes. None if a part would be larger, or all of them are too many."""
    parts: list[bytes] = []
    part: list[bytes] = []
    length = total = 0
    for frame in _frames(hub, now):
        total += len(frame)
        if len(frame) > size or total > MAX_QUEUE:
            return None
        if part and length + len(frame) > min(size, PART_SIZE):
            parts.append(b"".join(part))
            part, length = [], 0
        part.append(frame)
        length += len(frame)
    return [*parts, b"".join(part)]


def _frames(hub: Hub, now: float) -> Iterator[bytes]:
    yield pack_word("reserved", hub.reserved)
    for name, room in hub.states():
        yield pack_word("room", name, room.epoch, room.sequence, room.base, [*room.listeners])
        for key, entry in room.keys.items():
            due = None if entry.due == inf else entry.due - now
            connections = [[*connection, grace] for connection, grace in entry.connections.items()]
            yield pack_word("key", key, entry.info, entry.listener, entry.first, due, connections)
        for publication, _, expires in room.log.entries:
            yield pack_word("seconds", expires - now)
            yield pack_publication("", "", publication, "skip")


class Heritage:
    """Collects the parts."""

    def __init__(self, now: float) -> None:
        self._decoder = Decoder()
        self._now = now
        #: The number of parts.
        self.count = 0
        self._rooms: dict[str, RoomState] = {}
        self._room: RoomState = RoomState("")
        self._seconds = 0.0
        self._reserved: dict[str, int] = {}

    def add(self, part: bytes) -> None:
        """A part has come."""
        self.count += 1
        for frame in self._decoder.feed(part):
            if frame[0] == PUBLICATION:
                if self._seconds > 0:
                    self._publication(unpack_publication(frame[1])[2])
            else:
                self._word(*unpack_word(frame))

    def _publication(self, publication: Publication) -> None:
        # The other bounds applied when it was published.
        history = History(MAX_BOUND - 1, self._seconds, MAX_BOUND - 1)
        self._room.log.append(publication, history, self._now)
        self._room.expires = self._now + self._seconds

    def _word(self, word: str, *values: Any) -> None:
        if word == "room":
            name, epoch, sequence, base, listeners = values
            self._room = self._rooms[name] = RoomState(epoch, sequence, base)
            self._room.listeners.update(listeners)
        elif word == "key":
            key, info, listener, first, due, connections = values
            entry = self._room.keys[key] = KeyState(Connection(*first or ("", 0)))
            entry.info, entry.listener = info, listener
            entry.due = inf if due is None else self._now + due
            entry.connections = {Connection(*each): grace for *each, grace in connections}
        elif word == "seconds":
            (self._seconds,) = values
        elif word == "reserved":
            (self._reserved,) = values

    def processes(self) -> set[str]:
        """The processes that listen, have connections in rooms, or have reserved some."""
        found = {*self._reserved}
        for room in self._rooms.values():
            found |= room.listeners
            found |= {each.listener for entry in room.keys.values() for each in entry.connections}
        return found

    def fill(self, hub: Hub, now: float) -> None:
        """Give a hub all of it."""
        hub.reserved.update(self._reserved)
        for name, room in self._rooms.items():
            hub.add(name, room, now)

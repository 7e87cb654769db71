"""Who is present in a room. It is read in parts, so that a room with many keys blocks no loop for long."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from math import inf
from operator import attrgetter
from typing import Any, NamedTuple

__all__ = ["PART", "Connection", "Info", "KeyState", "Left", "Part", "Present", "part_of", "read_parts"]

#: Maximum number of keys in one part. It takes one or two milliseconds.
PART = 250

Info = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Present:
    """One key that is present in a room."""

    #: The key that was given to :meth:`Room.join`; otherwise the id of the one connection.
    key: str
    #: The keyword arguments of the newest :meth:`Room.join` with this key.
    info: Info
    #: Number of connections of the key, in all processes. 0 while the key is within its grace.
    connections: int


class Connection(NamedTuple):
    """A connection of one of the listeners."""

    listener: Any
    number: int


class Left(NamedTuple):
    """A key has come into a room, or has left it. ``listener`` had its first or its last connection."""

    room: str
    present: Present
    listener: Any


class KeyState:
    """A key that is present."""

    __slots__ = ("connections", "due", "first", "info", "listener", "order", "queued")

    def __init__(self, first: Connection) -> None:
        #: The connection with which the key came; None if it has left.
        self.first: Connection | None = first
        #: The connections, each with the seconds of grace if its process ends.
        self.connections: dict[Connection, float] = {}
        #: Of the newest connection.
        self.info: Info = {}
        self.listener: Any = None
        #: When the key leaves; infinite while it has a connection.
        self.due = inf
        #: When the hub looks at it next; infinite if it does not.
        self.queued = inf
        #: The number of the key: the later it came, the higher.
        self.order = 0

    def present(self, key: str) -> Present:
        """What :meth:`Room.presence` returns of it."""
        return Present(key, self.info, len(self.connections))


#: Some keys, and after what the next part begins; 0 if it is the last one.
Part = tuple[list[Present], int]


def part_of(keys: dict[str, KeyState], after: int, limit: int | None) -> Part:
    """The keys whose number is greater than ``after``, in the order in which they came, at most ``limit``."""
    entries = [*keys.values()]
    start = bisect_right(entries, after, key=attrgetter("order"))
    end = len(entries) if limit is None else min(start + limit, len(entries))
    names = islice(keys, start, end)
    found = [entry.present(key) for key, entry in zip(names, entries[start:end], strict=True)]
    return found, entries[end - 1].order if end < len(entries) else 0


async def read_parts(read: Callable[[Any], Awaitable[tuple[list[Present], Any]]]) -> list[Present]:
    """All keys. ``read`` returns some of them, and what it is called with for the next ones; 0 if there are none.

    A key that has left and come again meanwhile may be in two parts.
    """
    found: dict[str, Present] = {}
    after: Any = 0
    while True:
        part, after = await read(after)
        found.update((each.key, each) for each in part)
        if not after:
            return [*found.values()]

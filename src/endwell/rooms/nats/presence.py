"""Who is present in the rooms: what this process has told the leader, and tells the next one again."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from ..bus import Receiver
from ..present import Info, Present
from ..tellings import MAX_TELLING

__all__ = ["Entry", "Presence"]

#: Seconds for which a key stays whose process tells a new leader that it leaves, because other processes may not
#: have told yet that they have a connection of it.
MIN_GRACE = 2.0

Ask = Callable[..., "asyncio.Future[Any]"]


class Entry(NamedTuple):
    """A connection of this process. ``grace`` applies if the process ends."""

    key: str
    info: Info
    grace: float


class _Leaving(NamedTuple):
    connection: int
    info: Info
    due: float


class Presence:
    """The connections of this process that are in rooms.

    Args:
        receiver: Of the bus.
        ask: Asks the leader a word with its values. The future fails if the answer may get lost.
    """

    def __init__(self, receiver: Receiver, ask: Ask) -> None:
        self._receiver = receiver
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._rooms: defaultdict[str, dict[int, Entry]] = defaultdict(dict)
        #: The connections of each key of which the callbacks may have to be told.
        self._untold: dict[tuple[str, str], set[int]] = {}
        #: The last tellings of the leaders, which may be repeated.
        self._heard: dict[tuple[Any, ...], None] = {}
        #: The keys whose last connection has left, until the leader tells more of them.
        self._leaving: dict[tuple[str, str], _Leaving] = {}

    def enter(self, room: str, connection: int, entry: Entry) -> None:
        """A connection has come."""
        self._rooms[room][connection] = entry
        self._forget(room, entry.key)
        self._untold.setdefault((room, entry.key), set()).add(connection)
        self._enter(room, connection, entry)

    def leave(self, room: str, connection: int, key: str, grace: float) -> None:
        """A connection has left."""
        entry = self._rooms[room].pop(connection, None)
        if not self._rooms[room]:
            del self._rooms[room]
        if entry is not None:
            self._leaving[room, key] = _Leaving(connection, entry.info, self._loop.time() + grace)
            reply = self._ask("leave", room, connection, key, grace)
            reply.add_done_callback(partial(self._has_left, room, key))

    def restore(self, *, announce: bool) -> None:
        """Tell the leader again who is here. With ``announce``, the callbacks were told that they have left."""
        for room, entries in self._rooms.items():
            for connection, entry in entries.items():
                if announce:
                    self._untold.setdefault((room, entry.key), set()).add(connection)
                self._enter(room, connection, entry)
        for (room, key), (connection, info, due) in self._leaving.items():
            if connection in self._untold.get((room, key), ()):
                # It has come and left without a leader: both are to be told.
                self._enter(room, connection, Entry(key, info, 0.0))
            grace = max(due - self._loop.time(), MIN_GRACE)
            reply = self._ask("leaving", room, connection, key, info, grace)
            reply.add_done_callback(partial(self._has_left, room, key))

    def stays(self, room: str, key: str) -> None:
        """A key has come again, in another process."""
        self._forget(room, key)

    def tell(self, word: str, number: tuple[Any, ...], room: str, key: str, info: Info) -> None:
        """A key has come or left, with a connection of this process, or of one that has ended."""
        if number in self._heard:
            return  # the leader has not heard that it was told
        self._heard[number] = None
        if len(self._heard) > 2 * MAX_TELLING:
            del self._heard[next(iter(self._heard))]
        if word == "came":
            self._untold.pop((room, key), None)
            self._receiver.came(room, Present(key, info, 1))
        else:
            self._forget(room, key)
            self._receiver.went(room, Present(key, info, 0))

    def _forget(self, room: str, key: str) -> None:
        if (leaving := self._leaving.pop((room, key), None)) is not None:
            self._is_told(room, key, leaving.connection)

    def _is_told(self, room: str, key: str, connection: int) -> None:
        untold = self._untold.get((room, key), set())
        untold.discard(connection)
        if not untold:
            self._untold.pop((room, key), None)

    def _enter(self, room: str, connection: int, entry: Entry) -> None:
        untold = connection in self._untold.get((room, entry.key), ())
        reply = self._ask("enter", room, connection, entry.key, entry.info, entry.grace, untold)
        reply.add_done_callback(partial(self._has_entered, room, connection, entry.key))

    def _has_entered(self, room: str, connection: int, key: str, reply: asyncio.Future[Any]) -> None:
        # Without an answer, `restore` repeats it.
        if not reply.cancelled() and reply.exception() is None:
            _, comes = reply.result()
            if not comes:
                self._is_told(room, key, connection)

    def _has_left(self, room: str, key: str, reply: asyncio.Future[Any]) -> None:
        if reply.cancelled() or reply.exception() is not None:
            return
        (word,) = reply.result()
        if word == "stays":
            self._forget(room, key)

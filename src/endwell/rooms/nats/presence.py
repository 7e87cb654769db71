"""Who is present in the rooms: what this process has told the leader, and tells the next one again."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from ..bus import Receiver
from ..present import Info, Present
from ..returning import in_batches
from ..tellings import MAX_TELLING
from .words import Rank

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
    """A key whose last connection has left. ``due`` is when the key leaves."""

    connection: int
    info: Info
    due: float


class Presence:
    """The connections of this process that are in rooms.

    Args:
        receiver: Of the bus.
        ask: Asks the leader a word with its values, see :meth:`Asks.ask`.
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
        #: The last leader that was told of this, and its number of the last beginning of this process.
        self._leader: Rank | None = None
        self._beginning = 0
        #: The last leader that was told all of it.
        self._informed: Rank | None = None
        #: Whether the last leader has removed this process, and was not told all of it since then.
        self._removed = False
        #: The connections of which it has told that their keys have left, or will, if there is no other one.
        self._gone: set[tuple[str, int]] = set()
        #: The connections of which :meth:`restore` has not told the leader yet, in order. None until it is called.
        self._waiting: dict[tuple[str, int], None] | None = {}

    def enter(self, room: str, connection: int, entry: Entry) -> None:
        """A connection has come."""
        self._rooms[room][connection] = entry
        self._forget(room, entry.key)
        self._untold.setdefault((room, entry.key), set()).add(connection)
        if self._waiting is not None:  # otherwise `restore` tells it
            self._enter(room, connection, entry)

    def leave(self, room: str, connection: int, key: str, grace: float) -> None:
        """A connection has left."""
        entry = self._rooms[room].pop(connection, None)
        if not self._rooms[room]:
            del self._rooms[room]
        if entry is None:
            return
        if (before := self._leaving.get((room, key))) is not None:
            self._is_told(room, key, before.connection)
        leaving = self._leaving[room, key] = _Leaving(connection, entry.info, self._loop.time() + grace)
        if self._waiting is None:
            return  # `restore` tells it
        if (room, connection) in self._waiting:
            del self._waiting[room, connection]
            self._leave_again(room, key, leaving)
        else:
            self._leave(room, connection, key, grace)

    def begin_restore(self) -> None:
        """The leader may know nothing of this process. :meth:`restore` is called when it has answered."""
        self._waiting = None

    async def restore(self, rank: Rank, beginning: int) -> None:
        """Tell the leader again who is here.

        Args:
            rank: Of the leader.
            beginning: Its number of the last beginning of this process: another one if it has removed it since then.

        Raises:
            BusUnavailable: There is no answer.
        """
        waiting = self._waiting = {
            (room, connection): None for room, entries in self._rooms.items() for connection in entries
        }
        if rank != self._leader:
            self._removed = False
            self._gone.clear()
        elif beginning != self._beginning:
            # Once: if this call is repeated, its callbacks may have been told already.
            self._removed = True
            self._gone.update(waiting)
        self._leader, self._beginning = rank, beginning
        leaving = [*self._leaving.items()]
        await in_batches(self._enter_again(waiting))
        await in_batches(
            self._leave_again(*each, state) for each, state in leaving if self._leaving.get(each) is state
        )
        self._informed, self._removed = rank, False
        self._gone.clear()

    def _enter_again(self, waiting: dict[tuple[str, int], None]) -> Iterator[asyncio.Future[Any]]:
        for room, connection in [*waiting]:
            # It may have left while others entered.
            if (room, connection) in waiting:
                del waiting[room, connection]
                entry = self._rooms[room][connection]
                if (room, connection) in self._gone:
                    self._gone.discard((room, connection))
                    # If the key is within its grace, it does not come.
                    self._untold.setdefault((room, entry.key), set()).add(connection)
                yield self._enter(room, connection, entry)

    def _leave_again(self, room: str, key: str, leaving: _Leaving) -> asyncio.Future[Any]:
        connection, info, due = leaving
        if connection in self._untold.get((room, key), ()):
            # It has come and left without a leader: both are to be told.
            self._enter(room, connection, Entry(key, info, 0.0))
        grace = max(due - self._loop.time(), MIN_GRACE)
        if self._removed or self._informed == self._leader:
            # The leader knew the key. If it knows it no more, it has told that it has left, or will.
            return self._leave(room, connection, key, grace)
        then = partial(self._has_left, room, connection, key)
        return self._ask("leaving", room, connection, key, info, grace, then=then)

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

    def _enter(self, room: str, connection: int, entry: Entry) -> asyncio.Future[Any]:
        untold = connection in self._untold.get((room, entry.key), ())
        then = partial(self._has_entered, room, connection, entry.key)
        return self._ask("enter", room, connection, entry.key, entry.info, entry.grace, untold, then=then)

    def _leave(self, room: str, connection: int, key: str, grace: float) -> asyncio.Future[Any]:
        then = partial(self._has_left, room, connection, key)
        return self._ask("leave", room, connection, key, grace, then=then)

    def _has_entered(self, room: str, connection: int, key: str, reply: asyncio.Future[Any]) -> None:
        # Without an answer, `restore` repeats it.
        if reply.exception() is None:
            _, comes = reply.result()
            if not comes:
                self._is_told(room, key, connection)

    def _has_left(self, room: str, connection: int, key: str, reply: asyncio.Future[Any]) -> None:
        leaving = self._leaving.get((room, key))
        if leaving is None or leaving.connection != connection:
            # Another connection of the key came or left later. `restore` does not ask about this one.
            self._is_told(room, key, connection)
        elif reply.exception() is None and reply.result() == ["stays"]:
            self._forget(room, key)

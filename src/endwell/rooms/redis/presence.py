"""Who is present in the rooms, in Redis: the part of one process."""

# size: the calls of a process, what it does with their replies, and the repair of what got lost change together.

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from math import inf
from typing import Any, NamedTuple

from ...errors import BusUnavailable
from .. import returning
from ..bus import Receiver
from ..present import Info, Present, read_parts
from ..returning import in_batches
from .duties import Duties, presence_key
from .leases import FORGET, LEASE
from .link import Link
from .place import Place
from .presence_scripts import BURY, END, ENTER, LEAVE, PRESENCE
from .scripts import to_ms

__all__ = ["Entry", "Presence", "clock_key", "lease_times"]

logger = logging.getLogger("endwell.rooms")

#: Seconds without a renewal after which the others remove the connections of a process, by the clock of the leases.
LEASE_TIME = 10.0
#: Seconds between two renewals, and the most that the clock of the leases runs between two of any processes. So when
#: Redis is back, a process has six seconds to connect, after one that has connected at once.
RENEW_INTERVAL = 2.0
#: Seconds until a grace is ended again, if Redis was away.
RETRY_INTERVAL = 1.0
#: Seconds until Redis is asked again about a key of which another process is just telling its callbacks.
ASK_INTERVAL = 0.05


class Entry(NamedTuple):
    """A connection of this process. ``grace`` applies if the process ends."""

    key: str
    info: Info
    grace: float


def clock_key(place: Place) -> str:
    """The name of the hash of the clock of the leases."""
    return f"{place.prefix}clock"


def lease_times() -> tuple[int, int]:
    """The time of a lease and the interval of the renewals in milliseconds."""
    return round(LEASE_TIME * 1000), round(RENEW_INTERVAL * 1000)


def _pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(*[iter(items)] * 2, strict=True)


class Presence:
    """Keeps the connections of this process in Redis, and removes those of processes that have ended."""

    def __init__(self, link: Link, receiver: Receiver, process: str) -> None:
        self._link = link
        self._receiver = receiver
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._leases, self._clock = f"{link.place.prefix}processes", clock_key(link.place)
        kinds = [self._name(kind, process) for kind in ("rooms", "buried")]
        self._lease_keys = [self._leases, *kinds, self._clock]
        #: The connections of this process, for each room.
        self._rooms: defaultdict[str, dict[int, Entry]] = defaultdict(dict)
        #: The keys of each room that have no connection any more, and whose grace ends in this process.
        self._graces: defaultdict[str, dict[str, asyncio.TimerHandle]] = defaultdict(dict)
        self._duties = Duties(link, receiver, process, self._forget, self._has_failed)
        #: The connections that have left without a reply, and of which the callbacks may have to be told. Each has its
        #: entry and the grace of its key.
        self._unsure: dict[tuple[str, int], tuple[Entry, float]] = {}
        #: Number of calls in progress in each room after which this process may have a grace to end.
        self._calls = Counter[str]()
        #: Whether a call has failed, so that Redis may not have what this process has.
        self._differs = True
        self._restoring = False
        #: The processes whose leases had ended at the last renewal.
        self._dead: list[str] = []
        #: Restores what Redis has lost, and buries the dead.
        self._mending: asyncio.Task[None] | None = None
        #: When this process has called for the last renewal of its lease that was done.
        self._renewed = -inf
        #: What Redis had when others removed the connections of this process last.
        self._buried: bytes | None = None
        self._stopped = False

    # -- names in Redis --------------------------------------------------------------

    def _hash(self, room: str) -> str:
        return presence_key(self._link.place, room)

    def _name(self, kind: str, process: str) -> str:
        return f"{self._link.place.prefix}{kind}:{process}"

    # -- this process ------------------------------------------------------------------

    def enter(self, room: str, connection: int, entry: Entry) -> None:
        """A connection has come."""
        self._rooms[room][connection] = entry
        self._duties.expect(room, connection)
        self._enter(room, connection, entry)

    def leave(self, room: str, connection: int, key: str, grace: float) -> None:
        """A connection has left."""
        entry = self._rooms[room].pop(connection, Entry(key, {}, grace))
        if not self._rooms[room]:
            del self._rooms[room]
        self._leave(room, connection, entry, grace)

    async def present(self, room: str) -> list[Present]:
        """The keys that are present."""
        orders: dict[str, int] = {}

        async def read(after: Any) -> tuple[list[Present], Any]:
            run_id, cursor, reply = await self._link.call(PRESENCE, [self._hash(room)], *(after or ("", 0)))
            entries = {key.decode(): json.loads(value) for key, value in _pairs(reply)}
            orders.update((key, each["o"]) for key, each in entries.items())
            there = [
                (key, each) for key, each in entries.items() if each["n"] or "f" in each or "g" not in each
            ]
            part = [Present(key, json.loads(each["i"]), each["n"]) for key, each in there]
            return part, (run_id, cursor) if int(cursor) else 0

        present = await read_parts(read)
        return sorted(present, key=lambda each: orders[each.key])

    def _enter(self, room: str, connection: int, entry: Entry) -> asyncio.Future[Any]:
        keys, token = [self._hash(room), *self._lease_keys], self._duties.token(room, connection)
        info, grace = json.dumps(entry.info), to_ms(entry.grace)
        arguments = connection, entry.key, info, grace, room, token, lease_times()[0], self._buried or ""
        reply = self._link.call(ENTER, keys, self._process, *arguments)
        began = self._loop.time()
        reply.add_done_callback(partial(self._has_entered, room, connection, entry, token, began))
        return reply

    def _leave(self, room: str, connection: int, entry: Entry, grace: float) -> asyncio.Future[Any]:
        keys, token = [self._hash(room), self._clock], self._duties.token(room, connection)
        arguments = connection, to_ms(grace), entry.key, token, self._duties.number(), *lease_times()
        reply = self._link.call(LEAVE, keys, self._process, *arguments)
        began = self._loop.time()
        self._calls[room] += 1
        reply.add_done_callback(partial(self._has_left, room, connection, entry, grace, began))
        return reply

    def _has_entered(
        self,
        room: str,
        connection: int,
        entry: Entry,
        token: int | str,
        began: float,
        reply: asyncio.Future[Any],
    ) -> None:
        # Without a reply, `_restore` repeats the call when Redis is back.
        if reply.cancelled() or reply.exception() is not None:
            self._differs = True
            return
        due, known = reply.result()
        if not known:
            # It has a new lease.
            self._differs, self._renewed = True, max(self._renewed, began)
        # The token is another one if this process has learned meanwhile that it was removed.
        if token == "" or self._duties.token(room, connection) != token:
            return
        if due == 0:
            self._duties.drop(room, connection)
        elif due == 1 and not self._may_be_removed():
            self._duties.came(room, connection, entry.key, entry.info)
        else:
            self._loop.call_later(ASK_INTERVAL, self._enter_later, room, connection, token)

    def _enter_later(self, room: str, connection: int, token: int | str) -> None:
        entry = self._rooms.get(room, {}).get(connection)
        # If it has left, LEAVE says whether it is to be told.
        if entry is not None and self._duties.token(room, connection) == token and not self._stopped:
            self._enter(room, connection, entry)

    def _has_left(
        self, room: str, connection: int, entry: Entry, grace: float, began: float, reply: asyncio.Future[Any]
    ) -> None:
        # Without a reply, `_restore` finds the key when Redis is back.
        if reply.cancelled() or reply.exception() is not None:
            self._have_ended([room])
            self._is_unsure(room, connection, entry, grace)
            return
        came, info, *duty = reply.result()
        if info == 1:
            due = began + grace
            self._loop.call_later(ASK_INTERVAL, self._leave_later, room, connection, entry, due)
            return
        self._have_ended([room])
        # The reply to ENTER has come before, or was lost.
        if not came:
            self._duties.drop(room, connection)
        elif self._may_be_removed():
            self._is_unsure(room, connection, entry, grace)
        else:
            self._duties.came(room, connection, entry.key, entry.info)
        if info is None:
            self._forget(room)
        elif info == b"" or self._may_be_removed():
            self._set_grace(room, entry.key, grace if info == b"" else ASK_INTERVAL)
        else:
            self._duties.went(room, entry.key, info, *duty)

    def _leave_later(self, room: str, connection: int, entry: Entry, due: float) -> None:
        self._have_ended([room])
        if not self._stopped:
            self._leave(room, connection, entry, max(due - self._loop.time(), 0))

    def _is_unsure(self, room: str, connection: int, entry: Entry, grace: float) -> None:
        """Ask again when the lease is renewed, because it is not known what Redis has done, or what others have."""
        self._differs = True
        if self._duties.token(room, connection) != "":
            self._unsure[room, connection] = entry, grace

    def _has_failed(self) -> None:
        self._differs = True

    def _may_be_removed(self) -> bool:
        """Whether others may have removed this process since a call. They have its duties then, so Redis is asked again.

        Its lease has begun after the call for it, and its clock is not faster than that of this process.
        """
        return self._loop.time() - self._renewed > LEASE_TIME - RENEW_INTERVAL

    # -- graces --------------------------------------------------------------------------

    def _set_grace(self, room: str, key: str, seconds: float) -> None:
        if (timer := self._graces[room].get(key)) is not None:
            timer.cancel()
        if not self._stopped:
            self._graces[room][key] = self._loop.call_later(seconds, self._end, room, key)

    def _end(self, room: str, key: str) -> None:
        arguments = key, self._duties.number(), *lease_times(), round(ASK_INTERVAL * 1000)
        reply = self._link.call(END, [self._hash(room), self._clock], self._process, *arguments)
        reply.add_done_callback(partial(self._ended, room, key))

    def _ended(self, room: str, key: str, reply: asyncio.Future[Any]) -> None:
        if reply.cancelled():
            return
        if reply.exception() is not None:
            self._set_grace(room, key, RETRY_INTERVAL)
            return
        result = reply.result()
        if isinstance(result, int):
            self._set_grace(room, key, result / 1000)
            return
        if result is not None and self._may_be_removed():
            self._set_grace(room, key, ASK_INTERVAL)
            return
        if (graces := self._graces.get(room)) is not None:
            graces.pop(key, None)
            if not graces:
                del self._graces[room]
        if result is None:
            self._forget(room)
        else:
            self._duties.went(room, key, *result)

    def _have_ended(self, calls: Iterable[str]) -> None:
        """Calls in these rooms are not in progress any more."""
        for room in calls:
            self._calls[room] -= 1
            if not self._calls[room]:
                del self._calls[room]

    def _forget(self, room: str) -> None:
        """This process need not be buried in a room in which it has no connection and no grace."""
        has_any = room in self._rooms or room in self._graces or room in self._calls
        # Redis may have a connection of which this process does not know any more. `_restore` finds it by the room.
        if not (has_any or self._differs or self._restoring or self._stopped):
            self._link.send("SREM", self._name("rooms", self._process), room)

    # -- leases ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Renew the lease, and bury the processes that have not renewed theirs. Runs while connected."""
        self._differs = True
        try:
            while not self._stopped:
                await self._try(self._renew)
                await asyncio.sleep(RENEW_INTERVAL)
        finally:
            self._end_mending()

    async def _try(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except BusUnavailable:
            self._differs = True
        except Exception:
            self._differs = True
            logger.exception("renewing the presence of this process failed")

    async def _renew(self) -> None:
        keys, times, began = self._lease_keys, lease_times(), self._loop.time()
        known, buried, dead = await self._link.call(LEASE, keys, self._process, times[0], *times)
        self._renewed = began
        if buried not in (None, self._buried):
            self._buried = buried
            self._announce_all()
            self._differs = True
        self._differs |= not known
        self._dead = [each.decode() for each in dead]
        # It may take longer than a lease, so it does not delay the next renewal.
        is_mending = self._mending is not None and not self._mending.done()
        if (self._differs or dead) and not (is_mending or self._stopped):
            self._mending = self._loop.create_task(self._try(self._mend))

    async def _mend(self) -> None:
        if self._differs:
            self._differs, self._restoring = False, True
            try:
                await self._restore()
            finally:
                self._restoring = False
        for process in self._dead:
            await self._bury(process)

    def _end_mending(self) -> None:
        if self._mending is not None:
            self._mending.cancel()

    def _announce_all(self) -> None:
        """The callbacks are to be told of the connections whose keys have left. Redis knows which."""
        for room, entries in self._rooms.items():
            for connection in entries:
                self._duties.expect(room, connection)

    async def _restore(self) -> None:
        """Make Redis have what this process has. After a loss of data, nobody has told that a key has left."""
        await in_batches(self._leave_again())
        await in_batches(self._enter_again())
        await in_batches(self._duties.confirm_again())
        rooms = await self._link.members(self._name("rooms", self._process))
        left = iter(rooms)
        while batch := [*islice(left, returning.BATCH)]:
            await self._take_over(self._process, batch)
        self._restoring = False
        for room in rooms:
            self._forget(room)

    def _leave_again(self) -> Iterator[asyncio.Future[Any]]:
        while self._unsure:
            room, connection = next(iter(self._unsure))
            entry, grace = self._unsure.pop((room, connection))
            yield self._leave(room, connection, entry, grace)

    def _enter_again(self) -> Iterator[asyncio.Future[Any]]:
        for room in [*self._rooms]:
            for connection in [*self._rooms.get(room, ())]:
                # It may have left while others entered.
                if (entry := self._rooms.get(room, {}).get(connection)) is not None:
                    yield self._enter(room, connection, entry)

    async def _bury(self, process: str) -> None:
        rooms = self._name("rooms", process)
        # Other processes do the same. Rooms at random are mostly others than theirs; those that are done are removed.
        while batch := await self._link.some_members(rooms, returning.BATCH):
            if not await self._take_over(process, batch):
                return
        await self._link.call(FORGET, [self._leases, self._clock, rooms], process)

    async def _take_over(self, process: str, rooms: list[str]) -> bool:
        """Take over the keys of a process that has ended, or that this process has lost. False if it has not ended."""
        cursors = dict.fromkeys(rooms, b"0")
        self._calls.update(rooms)
        try:
            while cursors:
                calls = [self._bury_in(room, process, cursor) for room, cursor in cursors.items()]
                for room, reply in zip([*cursors], await asyncio.gather(*calls), strict=True):
                    if reply is None:
                        return False
                    cursors[room], keys, connections, owed = reply
                    if cursors[room] == b"0":
                        del cursors[room]
                    for key, ms in _pairs(keys):
                        self._set_grace(room, key.decode(), ms / 1000)
                    for number, entry in _pairs(connections):
                        self._leave_lost(room, int(number), entry.decode())
                    for key, name in _pairs(owed):
                        self._duties.confirm_lost(room, key.decode(), name.decode())
        finally:
            self._have_ended(rooms)
        return True

    def _bury_in(self, room: str, process: str, cursor: bytes) -> asyncio.Future[Any]:
        names = [self._name(kind, process) for kind in ("rooms", "buried")]
        keys = [self._hash(room), self._name("rooms", self._process), self._leases, self._clock, *names]
        return self._link.call(BURY, keys, process, self._process, room, cursor, self._duties.number())

    def _leave_lost(self, room: str, connection: int, found: str) -> None:
        """Redis has a connection of this process. If it has left, the call has got lost."""
        if connection not in self._rooms.get(room, ()):
            ms, _, key = found.partition(":")
            grace = int(ms) / 1000
            self._leave(room, connection, Entry(key, {}, grace), grace)

    async def stop(self) -> None:
        """End the lease, for good. Other processes end the graces that have begun."""
        self._stopped = True
        self._end_mending()
        for graces in self._graces.values():
            for timer in graces.values():
                timer.cancel()
        if self._link.connected:
            await self._link.call(LEASE, self._lease_keys, self._process, 0, *lease_times())

"""Who is present in the rooms, in Redis: the part of one process."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from functools import partial
from typing import Any, NamedTuple

from ...errors import BusUnavailable
from ..bus import Receiver
from ..hub import Info, Present
from .link import Link
from .place import Place
from .scripts import BURY, CONFIRM, END, ENTER, LEASE, LEAVE, PRESENCE

__all__ = ["Entry", "Presence", "presence_key"]

logger = logging.getLogger("endwell.rooms")

#: Seconds without a renewal after which the others remove the connections of a process.
LEASE_TIME = 10.0
#: Seconds between two renewals.
RENEW_INTERVAL = 3.0
#: Seconds until a grace is ended again, if Redis was away.
RETRY_INTERVAL = 1.0


class Entry(NamedTuple):
    """A connection of this process. ``grace`` applies if the process ends."""

    key: str
    info: Info
    grace: float


def presence_key(place: Place, room: str) -> str:
    """The name of the hash of the presence in a room."""
    return place.key(room, "present")


class Presence:
    """Keeps the connections of this process in Redis, and removes those of processes that have ended."""

    def __init__(self, link: Link, receiver: Receiver, process: str) -> None:
        self._link = link
        self._receiver = receiver
        self._process = process
        self._loop = asyncio.get_running_loop()
        #: The connections of this process, for each room.
        self._rooms: defaultdict[str, dict[int, Entry]] = defaultdict(dict)
        #: The keys of each room that have no connection any more, and whose grace ends in this process.
        self._graces: defaultdict[str, dict[str, asyncio.TimerHandle]] = defaultdict(dict)
        #: The connections that have come while Redis was away, which the callbacks were not told yet.
        self._untold: set[tuple[str, int]] = set()
        #: The keys that have left, which the callbacks were told, and Redis has not confirmed yet.
        self._told: set[tuple[str, str]] = set()
        #: Whether a call has failed, so that Redis may not have what this process has.
        self._differs = True
        self._stopped = False

    # -- names in Redis --------------------------------------------------------------

    def _hash(self, room: str) -> str:
        return presence_key(self._link.place, room)

    def _name(self, kind: str, process: str) -> str:
        return f"{self._link.place.prefix}{kind}:{process}"

    @property
    def _leases(self) -> str:
        return f"{self._link.place.prefix}processes"

    @property
    def _lease_keys(self) -> list[str]:
        return [self._leases, self._name("rooms", self._process), self._name("buried", self._process)]

    # -- this process ------------------------------------------------------------------

    def enter(self, room: str, connection: int, entry: Entry) -> None:
        """A connection has come."""
        self._rooms[room][connection] = entry
        self._told.discard((room, entry.key))
        self._enter(room, connection, entry, announce=True)

    def leave(self, room: str, connection: int, key: str, grace: float) -> None:
        """A connection has left."""
        self._rooms[room].pop(connection, None)
        if not self._rooms[room]:
            del self._rooms[room]
        reply = self._link.call(LEAVE, [self._hash(room)], self._process, connection, round(grace * 1000))
        reply.add_done_callback(partial(self._has_left, room, key, grace))
        # After the reply to ENTER, which comes first, nothing is to be told of a connection that has left.
        reply.add_done_callback(lambda _: self._untold.discard((room, connection)))

    async def present(self, room: str) -> list[Present]:
        """The keys that are present."""
        reply = await self._link.call(PRESENCE, [self._hash(room)])
        entries = [(key.decode(), json.loads(value)) for key, value in zip(*[iter(reply)] * 2, strict=True)]
        entries.sort(key=lambda each: each[1]["o"])
        present = [each for each in entries if "g" not in each[1]]
        return [Present(key, json.loads(entry["i"]), entry["n"]) for key, entry in present]

    def _enter(self, room: str, connection: int, entry: Entry, *, announce: bool) -> None:
        keys = [self._hash(room), self._name("rooms", self._process)]
        info, grace = json.dumps(entry.info), round(entry.grace * 1000)
        reply = self._link.call(ENTER, keys, self._process, connection, entry.key, info, grace, room)
        if announce:
            self._untold.add((room, connection))
        reply.add_done_callback(partial(self._has_entered, room, connection, entry))

    def _has_entered(self, room: str, connection: int, entry: Entry, reply: asyncio.Future[Any]) -> None:
        # Without a reply, `_restore` repeats the call when Redis is back.
        if reply.cancelled() or reply.exception() is not None:
            self._differs = True
            return
        untold = (room, connection) in self._untold
        self._untold.discard((room, connection))
        if reply.result() and untold:
            self._receiver.came(room, Present(entry.key, entry.info, 1))

    def _has_left(self, room: str, key: str, grace: float, reply: asyncio.Future[Any]) -> None:
        # Without a reply, `_restore` finds the key when Redis is back.
        if reply.cancelled() or reply.exception() is not None:
            self._differs = True
            return
        if reply.result() is None:
            self._forget(room)
        elif reply.result() == b"":
            self._set_grace(room, key, grace)
        else:
            self._has_gone(room, key, reply.result())

    def _has_gone(self, room: str, key: str, info: bytes) -> None:
        """Tell that a key has left, once."""
        if (room, key) not in self._told:
            self._told.add((room, key))
            self._receiver.went(room, Present(key, json.loads(info), 0))
        reply = self._link.call(CONFIRM, [self._hash(room)], key)
        reply.add_done_callback(partial(self._confirmed, room, key))

    def _confirmed(self, room: str, key: str, reply: asyncio.Future[Any]) -> None:
        if reply.cancelled() or reply.exception() is not None:
            self._differs = True
        else:
            self._told.discard((room, key))
            self._forget(room)

    # -- graces --------------------------------------------------------------------------

    def _set_grace(self, room: str, key: str, seconds: float) -> None:
        if (timer := self._graces[room].get(key)) is not None:
            timer.cancel()
        if not self._stopped:
            self._graces[room][key] = self._loop.call_later(seconds, self._end, room, key)

    def _end(self, room: str, key: str) -> None:
        reply = self._link.call(END, [self._hash(room)], self._process, key)
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
        if (graces := self._graces.get(room)) is not None:
            graces.pop(key, None)
            if not graces:
                del self._graces[room]
        if result is None:
            self._forget(room)
        else:
            self._has_gone(room, key, result)

    def _forget(self, room: str) -> None:
        """This process need not be buried in a room in which it has no connection and no grace."""
        if room not in self._rooms and room not in self._graces:
            self._link.send("SREM", self._name("rooms", self._process), room)

    # -- leases ----------------------------------------------------------------------------

    async def run(self) -> None:
        """Renew the lease, and bury the processes that have not renewed theirs. Runs while connected."""
        self._differs = True
        while True:
            try:
                await self._renew()
            except BusUnavailable:
                self._differs = True
            except Exception:
                self._differs = True
                logger.exception("renewing the presence of this process failed")
            await asyncio.sleep(RENEW_INTERVAL)

    async def _renew(self) -> None:
        own = self._process
        ms = round(LEASE_TIME * 1000)
        known, buried, dead = await self._link.call(LEASE, self._lease_keys, own, ms)
        if self._differs or buried or not known:
            self._differs = False
            await self._restore(announce=bool(buried))
        for process in dead:
            await self._bury(process.decode())

    async def _restore(self, *, announce: bool) -> None:
        """Make Redis have what this process has. After a loss of data, nobody has told that a key has left."""
        rooms = await self._link.members(self._name("rooms", self._process))
        told, found = {*self._told}, set[tuple[str, str]]()
        for room in {*rooms, *self._rooms}:
            found |= await self._bury_in(room, self._process, [*self._rooms.get(room, ())])
            for connection, entry in [*self._rooms.get(room, {}).items()]:
                self._enter(room, connection, entry, announce=announce)
        self._told -= told - found

    async def _bury(self, process: str) -> None:
        rooms = await self._link.members(self._name("rooms", process))
        if rooms:
            # It may come back, and must learn that its connections were removed.
            self._link.send("SET", self._name("buried", process), 1, "EX", 86400)
        for room in rooms:
            await self._bury_in(room, process, [])
            self._link.send("SREM", self._name("rooms", process), room)
        self._link.send("ZREM", self._leases, process)

    async def _bury_in(self, room: str, process: str, lives: list[int]) -> set[tuple[str, str]]:
        """Take over the keys of a process that has ended, or that this process has lost. Returns these keys."""
        keys = [self._hash(room), self._name("rooms", self._process), self._leases]
        reply = await self._link.call(BURY, keys, process, self._process, room, *lives)
        keys_found = [(each.decode(), ms / 1000) for each, ms in zip(*[iter(reply)] * 2, strict=True)]
        for key, seconds in keys_found:
            self._set_grace(room, key, seconds)
        return {(room, key) for key, _ in keys_found}

    async def stop(self) -> None:
        """End the lease. Other processes end the graces that have begun."""
        self._stopped = True
        for graces in self._graces.values():
            for timer in graces.values():
                timer.cancel()
        if self._link.connected:
            await self._link.call(LEASE, self._lease_keys, self._process, 0)

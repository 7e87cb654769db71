"""The calls of joined and left that this process owes, until Redis knows that they are done."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from ..bus import Receiver
from ..present import Info, Present
from .link import Link
from .place import Place
from .presence_scripts import CONFIRM

__all__ = ["Duties", "Duty", "presence_key"]


class Duty(NamedTuple):
    """One call of the callbacks, for a key that has come or left."""

    room: str
    key: str
    name: str


def presence_key(place: Place, room: str) -> str:
    """The name of the hash of the presence in a room."""
    return place.key(room, "present")


class Duties:
    """Tells the receiver which keys have come and left, each once, and confirms it to Redis.

    Args:
        link: The connections to Redis.
        receiver: Of the bus.
        process: The name of this process.
        done: Called with the room of each duty that has ended.
        failed: Called if Redis may not know that a duty has ended.
    """

    def __init__(
        self,
        link: Link,
        receiver: Receiver,
        process: str,
        done: Callable[[str], None],
        failed: Callable[[], None],
    ) -> None:
        self._link = link
        self._receiver = receiver
        self._process = process
        self._done = done
        self._failed = failed
        self._numbers = count()
        #: The connections of which the callbacks were not told yet, each with the number of its duty.
        self._untold: dict[tuple[str, int], int] = {}
        #: The connections by these numbers, as they are in the names of the duties.
        self._numbered: dict[str, tuple[str, int]] = {}
        #: The duties that are done, and that Redis has not confirmed yet.
        self._told: set[Duty] = set()

    def number(self) -> int:
        """The number of a new duty."""
        return next(self._numbers)

    # -- the comings ---------------------------------------------------------------------

    def expect(self, room: str, connection: int) -> None:
        """The key of a connection may come with it."""
        if (room, connection) not in self._untold:
            number = self._untold[room, connection] = self.number()
            self._numbered[f"{number}"] = room, connection

    def token(self, room: str, connection: int) -> int | str:
        """The number of the duty of a connection; empty if nothing is to be told of it."""
        return self._untold.get((room, connection), "")

    def drop(self, room: str, connection: int) -> int | None:
        """Nothing is to be told of a connection any more. Returns the number of its duty."""
        number = self._untold.pop((room, connection), None)
        self._numbered.pop(f"{number}", None)
        return number

    def came(self, room: str, connection: int, key: str, info: Info) -> None:
        """Tell that a key has come with a connection, unless it was told."""
        if (number := self.drop(room, connection)) is not None:
            self._confirm(Duty(room, key, f"{self._process}:{number}"))
            self._receiver.came(room, Present(key, info, 1))

    def _owes(self, name: str) -> bool:
        """Whether a coming is to be told with the leaving. If so, it is done."""
        process, _, number = name.partition(":")
        if process != self._process:
            return True  # its process has ended before it has told it
        return number in self._numbered and self.drop(*self._numbered[number]) is not None

    # -- the leavings --------------------------------------------------------------------

    def went(self, room: str, key: str, info: bytes, name: bytes, before: bytes | None) -> None:
        """Tell that a key has left, unless it was told. ``before`` is the coming to be told before it."""
        duty = Duty(room, key, name.decode())
        is_told = duty in self._told
        self._confirm(duty)
        if not is_told:
            found = json.loads(info)
            if before is not None and self._owes(before.decode()):
                self._receiver.came(room, Present(key, found, 1))
            self._receiver.went(room, Present(key, found, 0))

    # -- confirmations -------------------------------------------------------------------

    def _confirm(self, duty: Duty) -> asyncio.Future[Any]:
        """Redis knows of it as soon as the callbacks run, so that no other process tells it again."""
        self._told.add(duty)
        reply = self._link.call(CONFIRM, [presence_key(self._link.place, duty.room)], duty.key, duty.name)
        reply.add_done_callback(partial(self._confirmed, duty))
        return reply

    def _confirmed(self, duty: Duty, reply: asyncio.Future[Any]) -> None:
        if reply.cancelled() or reply.exception() is not None:
            self._failed()
        else:
            self._told.discard(duty)
            self._done(duty.room)

    def confirm_again(self) -> Iterator[asyncio.Future[Any]]:
        """Confirm what Redis may not know. The calls begin when the iterator yields them."""
        for duty in [*self._told]:
            yield self._confirm(duty)

    def confirm_lost(self, room: str, key: str, name: str) -> None:
        """Redis has a coming that this process owes. If it was told, the confirmation has got lost."""
        if name.partition(":")[2] not in self._numbered:
            self._confirm(Duty(room, key, name))

"""One fault, some rounds of it: traffic, the fault, the way back, and the check of all accounts."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from endwell.rooms import Position

from .site import PROCESSES, Publisher, Site, Watcher, eventually, running
from .witness import Ledger, Member

__all__ = ["Fault", "Play", "Result"]

ROOMS = ("long", "none", "short")
#: Seconds between two publications of a publisher.
PACE = 0.15


@dataclass(frozen=True)
class Fault:
    """A way in which something fails."""

    name: str
    #: Causes it in a round. Returns when everything is back, in seconds of the monotonic clock.
    cause: Callable[[Play, int], Awaitable[float]]
    #: Whether the buses of all processes lose their connection.
    deaf: bool = False
    #: Whether a long history outlives it, so that its rooms lose nothing.
    keeps: bool = True
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass
class Result:
    """What the rounds of a fault have shown."""

    bus: str
    fault: str
    ledger: Ledger
    rounds: int = 0
    #: The maximum seconds until a process knew that it hears nothing, and until all got publications again.
    know: float | None = None
    heal: float = 0.0


class Play:
    """Processes, members and publishers, and one fault."""

    def __init__(self, site: Site, fault: Fault, result: Result) -> None:
        self.site, self.fault, self.result = site, fault, result
        self.ledger = result.ledger
        self.members = [
            Member(self.ledger, lambda number=number: site.url(number), room)
            for number in range(PROCESSES)
            for room in ROOMS
        ]
        self.members += [
            Member(self.ledger, lambda: site.url(random.randrange(PROCESSES)), room, wanders=True)
            for room in ROOMS * 2
        ]
        self.publishers = [Publisher(site, number) for number in range(PROCESSES)]
        self.watchers = [Watcher(site, number) for number in range(PROCESSES if site.reports else 0)]
        self._numbers = {(number, room): count() for number in range(PROCESSES) for room in ROOMS}
        self._marks = count()
        #: When the fault of this round began, in seconds of the monotonic clock.
        self.began = 0.0
        #: How often each process has noticed that its bus is away.
        self._noticed: dict[int, int] = {}
        #: Cleared while the publishers pause.
        self._goes = asyncio.Event()
        self._busy = 0

    async def run(self, rounds: int) -> None:
        """Play some rounds."""
        works = [*self.members, *self.publishers, *self.watchers]
        async with running(*(each.run() for each in works), *map(self._publish, range(PROCESSES))):
            await self._quiet("at the start")
            for number in range(rounds):
                await self._round(number)
                self.result.rounds += 1

    # -- publications ---------------------------------------------------------------

    async def publish(self, number: int, room: str, size: int = 0) -> None:
        """Publish the next message of a publisher, and keep the receipt."""
        name = f"{number}/{room}:{next(self._numbers[number, room])}"
        await self._send(number, room, name, size)

    async def _send(self, number: int, room: str, name: str, size: int = 0) -> Position | None:
        epoch, what = await self.publishers[number].publish(room, name, size)
        if epoch is not None:
            self.ledger.counts["publications"] += 1
            position = self.ledger.positions[room][name] = Position(epoch, what)
            return position
        if "nothing was sent" in what:
            self.ledger.refused.add(name)
        return None

    async def _publish(self, number: int) -> None:
        while True:
            await self._goes.wait()
            await asyncio.sleep(random.uniform(0, 2 * PACE))
            if not self._goes.is_set():
                continue
            self._busy += 1
            # Sometimes several at once: their order must hold, too.
            room = random.choice(ROOMS)
            await asyncio.gather(*(self.publish(number, room) for _ in range(random.choice((1, 1, 3)))))
            self._busy -= 1

    async def mark(self, room: str) -> Position:
        """Publish a marker, until there is a receipt."""
        for number in count():
            name = f"mark/{room}:{next(self._marks)}"
            position = await self._send(number % PROCESSES, room, name)
            if position is not None:
                return position
            await asyncio.sleep(0.05)
        raise AssertionError

    # -- a round ------------------------------------------------------------------------

    async def _round(self, number: int) -> None:
        self._goes.set()
        await asyncio.sleep(0.7)
        self.began = time.monotonic()
        back = await self.fault.cause(self, number)
        open_ones = [(each, each.ws) for each in self.members if each.ws is not None]
        for room in ROOMS:
            end = await self.mark(room)
            of_room = [(each, ws) for each, ws in open_ones if each.room == room]
            await eventually(
                lambda end=end, of_room=of_room: all(
                    each.ws is not ws or each.has_reached(end) or _is_past(each, end) for each, ws in of_room
                ),
                f"the members have the marker of the room {room} after: {self.fault.name}",
            )
        await eventually(lambda: all(each.connected for each in self.watchers), "all are connected")
        self.result.heal = max(self.result.heal, time.monotonic() - back)
        if self.fault.deaf:
            for watcher in self.watchers:
                self._check_noticed(watcher)
        await asyncio.sleep(0.3)
        await self._quiet(f"{self.fault.name}, round {number}")

    def _check_noticed(self, watcher: Watcher) -> None:
        noticed = self.site.times_noticed(watcher.number)
        if noticed == self._noticed.get(watcher.number, 0):
            self.ledger.fault("undetected", "process", watcher.number, "has not noticed it")
        self._noticed[watcher.number] = noticed
        # The connection may be back before the watcher looks.
        if watcher.gone > self.began:
            self.result.know = max(self.result.know or 0.0, watcher.gone - self.began)

    async def _quiet(self, when: str) -> None:
        """Pause the publishers, wait until all is delivered, and check."""
        self._goes.clear()
        await eventually(lambda: not self._busy, f"all receipts ({when})")
        for room in ROOMS:
            end = await self.mark(room)
            members = [each for each in self.members if each.room == room]
            try:
                await eventually(
                    lambda end=end, members=members: all(each.has_reached(end) for each in members),
                    f"all members are at {end}",
                )
            except TimeoutError:
                pass  # the check says which
            for member in members:
                member.check(end)
        self.ledger.positions.clear()
        self.ledger.refused.clear()


def _is_past(member: Member, end: Position) -> bool:
    """Whether a member is in a later epoch."""
    return member.position is not None and member.position.epoch != end.epoch

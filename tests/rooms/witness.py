"""Receivers that check what a bus tells them, and tasks that publish while a server fails in every way."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress

from endwell.errors import BusUnavailable
from endwell.rooms import History, Position, Publication
from tests.pair import until

__all__ = ["Witness", "Witnesses"]

#: Rooms whose history reaches back far, not at all, and not far enough.
ROOMS = {"long": History(messages=10_000), "none": None, "short": History(messages=3)}


class Witness:
    """A receiver that checks what it is told."""

    def __init__(self):
        self.positions = {}
        #: The messages of each room, in the order in which they came, and their positions.
        self.seen = defaultdict(dict)
        self.delivered = 0
        self.faults = []
        #: The rooms with their lost publications.
        self.gaps = []
        #: What was lost: the time, the positions before and after it.
        self.losses = defaultdict(list)

    def published(self, room, position, publication, slow, call):
        before = self.positions[room]
        if (position.epoch, position.sequence) != (before.epoch, before.sequence + 1):
            self.faults.append(("a hole or a repetition", room, before, position))
        if publication.message in self.seen[room]:
            self.faults.append(("a repetition", room, position, publication))
        self.seen[room][publication.message] = position
        self.positions[room] = position
        self.delivered += 1

    def arrived(self, room, epoch, batch, alone):
        for sequence, message, slow, call in batch:
            self.published(room, Position(epoch, sequence), Publication(sequence, message), slow, call)

    def lost(self, room, lost, position):
        before = self.positions[room]
        same = before.epoch == position.epoch
        if lost is None if same else lost is not None:
            self.faults.append(("a wrong epoch", room, lost, before, position))
        elif same and position.sequence - before.sequence != lost:
            self.faults.append(("a wrong number", room, lost, before, position))
        self.gaps.append((room, lost))
        self.losses[room].append((asyncio.get_running_loop().time(), before, position))
        self.positions[room] = position

    def was_told(self, room, began, position):
        """Whether a publication of which it has not seen the message is part of a loss."""
        return any(
            before.sequence < position.sequence <= after.sequence
            if before.epoch == after.epoch == position.epoch
            else before.epoch != after.epoch and told >= began
            for told, before, after in self.losses[room]
        )


class Witnesses:
    """A witness for each of some buses, of which each publishes in each room until :meth:`end`."""

    def __init__(self, buses):
        self.buses = buses
        self.witnesses = [Witness() for _ in buses]
        #: What has a receipt, for each room, by position: the message, and when the call of publish() began.
        self.receipts = defaultdict(dict)
        self.tasks = []
        self.done = asyncio.Event()

    async def start(self):
        for bus, witness in zip(self.buses, self.witnesses, strict=True):
            await bus.start(witness)
            for room in ROOMS:
                witness.positions[room] = await bus.listen(room)
        self.tasks = [
            asyncio.create_task(self.publish(bus, number, room))
            for number, bus in enumerate(self.buses)
            for room in ROOMS
        ]

    async def publish(self, bus, name, room):
        number = 0
        while not self.done.is_set():
            with suppress(BusUnavailable):
                message, began = f"{name}:{number}", asyncio.get_running_loop().time()
                position, _ = await bus.publish(room, message, ROOMS[room], "skip", None)
                if self.receipts[room].setdefault(position, (message, began))[0] != message:
                    self.witnesses[name].faults.append(("two receipts for one position", room, position))
            number += 1
            await asyncio.sleep(0.002)

    async def progress(self, count=50):
        """Wait until each witness has been delivered more."""
        before = [witness.delivered for witness in self.witnesses]
        await until(
            lambda: all(
                each.delivered > was + count for each, was in zip(self.witnesses, before, strict=True)
            )
        )
        self.check()

    def check(self, name=""):
        faults = [witness.faults for witness in self.witnesses]
        assert faults == [[]] * len(faults), name

    async def end(self):
        """Stop to publish. Then all know the last position of each room, and nothing was wrong."""
        self.done.set()
        await asyncio.gather(*self.tasks)
        await until(lambda: all(bus.is_connected for bus in self.buses))
        for room, history in ROOMS.items():
            position, _ = await self.buses[0].publish(room, "last", history, "skip", None)
            await until(
                lambda room=room, position=position: all(
                    each.positions[room] == position for each in self.witnesses
                )
            )
        self.check()
        assert self.silent_losses() == []
        for bus in self.buses:
            await bus.stop()

    def silent_losses(self):
        """The publications with a receipt that a witness did not see, and was not told to be lost."""
        return [
            (number, room, position, message)
            for number, witness in enumerate(self.witnesses)
            for room, receipts in self.receipts.items()
            for position, (message, began) in receipts.items()
            if message not in witness.seen[room] and not witness.was_told(room, began, position)
        ]

"""What the members get and are told, and the accounts that the checker keeps of it."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import endwell
from endwell.rooms import Position

__all__ = ["POLICY", "Ledger", "Member"]

#: Clients that return soon, because the rounds are short. They are endwell's own, with its own decisions.
POLICY = endwell.RetryPolicy(base=0.1, max_delay=0.5, max_advised=0.5)


@dataclass
class Ledger:
    """What the publishers know since the last check: the positions of their messages, and what was not sent."""

    #: What is played, and whether a long history outlives it.
    name: str
    keeps: bool = True
    positions: defaultdict[str, dict[str, Position]] = field(default_factory=lambda: defaultdict(dict))
    refused: set[str] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    #: What was found wrong, by kind.
    faults: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def fault(self, kind: str, *what: Any) -> None:
        """Note a fault of the rooms."""
        self.faults[kind].append(text := " ".join(map(str, what)))
        print(f"  {self.name}: {kind}: {text}", flush=True)


@dataclass
class _Stretch:
    """What a member got between two places at which its position was given to it."""

    epoch: str
    begin: int
    got: list[str] = field(default_factory=list)
    lost: int = 0
    #: What was sent of the history before, where the number of lost publications is not known: also between these,
    #: because the history may be cut while it is sent.
    earlier: set[str] = field(default_factory=set)


class Member:
    """One client, which counts, and returns to its position after each ending."""

    def __init__(self, ledger: Ledger, url: Any, room: str, *, wanders: bool = False) -> None:
        self.ledger = ledger
        self.room = room
        self._url = url
        self._wanders = wanders
        #: Its connection, while it is a member.
        self.ws: endwell.WebSocket | None = None
        self.process = 0
        self.position: Position | None = None
        self._seen: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._replayed: list[str] | None = None
        self._stretches: list[_Stretch] = []

    def __str__(self) -> str:
        return f"{self.room} {'wanderer' if self._wanders else 'member'} {id(self) % 9973} in {self.process}"

    # -- the connection -----------------------------------------------------------

    async def run(self) -> None:
        """Be a member, again and again."""
        while True:
            with suppress(endwell.ConnectionClosed, endwell.HandshakeError):
                async for ws in endwell.reconnecting(
                    self._url() + "/member", policy=POLICY, compression=None
                ):
                    with suppress(endwell.ConnectionClosed):
                        await self._visit(ws)
                    self.ws = None
                    if self._wanders:
                        break
            self.ws = None
            await asyncio.sleep(random.uniform(0.05, 0.5))

    async def _visit(self, ws: endwell.WebSocket) -> None:
        since = None if self.position is None else str(self.position)
        await ws.send(json.dumps({"room": self.room, "since": since}))
        self._replayed = []
        try:
            async with asyncio.timeout(random.uniform(0.2, 1.5) if self._wanders else None):
                async for message in ws:
                    assert isinstance(message, str)
                    self._take(ws, message)
        except TimeoutError:
            pass

    def _take(self, ws: endwell.WebSocket, message: str) -> None:
        if not message.startswith("["):
            if self._replayed is None:
                self._got(message.rstrip())
            else:
                self._replayed.append(message.rstrip())
            return
        word, *values = json.loads(message)
        if word == "arrived":
            self.process, replayed, lost, text = values
            self._arrived(replayed, lost, Position.parse(text))
            self.ws = ws
        else:
            lost, text = values
            self._told(lost, Position.parse(text))

    # -- the accounts ---------------------------------------------------------------

    def _arrived(self, count: int, lost: int | str | None, position: Position) -> None:
        replayed, self._replayed = self._replayed or [], None
        if count != len(replayed):
            self.ledger.fault("gap", self, "was sent", len(replayed), "and told", count)
        if lost is None:
            # The numbers of the room began anew, so the history may repeat what the member has.
            self.ledger.counts["repeated"] += len(self._seen.intersection(replayed))
            self._seen.difference_update(replayed)
            self._numbers.clear()
            self._begin(position, None)
            self._stretches[-1].earlier = {*replayed}
            for message in replayed:
                self._note(message)
            return
        if lost == "fresh":
            self._begin(position, lost)
        for message in replayed:
            self._got(message)
        if isinstance(lost, int):
            self._lose(lost, position)

    def _told(self, lost: int | None, position: Position) -> None:
        self.ledger.counts["gaps"] += 1
        if lost is None:
            self._begin(position, None)
        else:
            self._lose(lost, position)

    def _begin(self, position: Position, lost: str | None) -> None:
        if lost is None and self.position is not None:
            self.ledger.counts["unknown"] += 1
            if self.position.epoch == position.epoch:
                self.ledger.fault("gap", self, "was told an unknown gap in the same epoch at", position)
        self.position = position
        self._stretches.append(_Stretch(position.epoch, position.sequence))

    def _lose(self, lost: int, position: Position) -> None:
        assert self.position is not None
        self.ledger.counts["lost"] += lost
        if lost and self.ledger.keeps and self.room == "long":
            self.ledger.fault("history", self, "has lost", lost, "up to", position)
        self._stretches[-1].lost += lost
        expected = Position(self.position.epoch, self.position.sequence + lost)
        if expected != position:
            self.ledger.fault("gap", self, "has counted", expected, "with", lost, "lost, and is at", position)
        self.position = position

    def _got(self, message: str) -> None:
        if self.position is None:
            self.ledger.fault("gap", self, "got", message, "before it had arrived")
            return
        self.position = Position(self.position.epoch, self.position.sequence + 1)
        self._stretches[-1].got.append(message)
        self._note(message)

    def _note(self, message: str) -> None:
        self.ledger.counts["deliveries"] += 1
        if message in self._seen:
            self.ledger.fault("duplicates", self, "got", message, "again")
        self._seen.add(message)
        publisher, _, number = message.rpartition(":")
        if int(number) <= self._numbers.get(publisher, -1):
            self.ledger.fault("reorderings", self, "got", message, "after", self._numbers[publisher])
        self._numbers[publisher] = int(number)

    def has_reached(self, end: Position) -> bool:
        """Whether it is a member that has got, or knows to have lost, everything up to a position."""
        own = self.position if self.ws is not None else None
        return own is not None and own.epoch == end.epoch and own.sequence >= end.sequence

    def check(self, end: Position) -> None:
        """Compare with what the publishers know. The room is at ``end``, and all its publications have arrived."""
        if not self.has_reached(end):
            self.ledger.fault("undetected", self, "is at", self.position, "and the room at", end)
        elif self.position != end:
            self.ledger.fault("gap", self, "has counted", self.position, "and the room is at", end)
        for stretch in self._stretches:
            self._check(stretch)
        self._stretches = [_Stretch(end.epoch, end.sequence)]
        self.position = end

    def _check(self, stretch: _Stretch) -> None:
        positions = self.ledger.positions[self.room]
        got = {*stretch.got}
        if refused := (got | stretch.earlier) & self.ledger.refused:
            self.ledger.fault("duplicates", self, "got what was not sent:", *refused)
        known = [positions[each] for each in stretch.got if each in positions]
        numbers = [each.sequence for each in known if each.epoch == stretch.epoch]
        others = [
            each for each in stretch.got if each in positions and positions[each].epoch != stretch.epoch
        ]
        if others:
            self.ledger.fault("gap", self, "got", others, "of another epoch than", stretch.epoch)
        if numbers != sorted(numbers):
            self.ledger.fault("reorderings", self, "got the positions", numbers)
        if numbers:
            missed = [
                message
                for message, at in positions.items()
                if at.epoch == stretch.epoch
                and stretch.begin < at.sequence <= numbers[-1]
                and message not in got
            ]
            if len(missed) > stretch.lost:
                what = f"{len(missed)} like {missed[:3]}, and knows of {stretch.lost}"
                self.ledger.fault("undetected", self, "has lost", what)

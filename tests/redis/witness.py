"""A receiver that checks what a bus tells it."""

from __future__ import annotations

from collections import defaultdict

__all__ = ["Witness"]


class Witness:
    """A receiver that checks what it is told."""

    def __init__(self):
        self.positions = {}
        #: The messages of each room, in the order in which they came, and their positions.
        self.seen = defaultdict(dict)
        self.delivered = 0
        #: The rooms with their lost publications.
        self.gaps = []
        self.faults = []

    def published(self, room, position, publication, slow, call):
        before = self.positions[room]
        if (position.epoch, position.sequence) != (before.epoch, before.sequence + 1):
            self.faults.append(("a hole or a repetition", room, before, position))
        if publication.message in self.seen[room]:
            self.faults.append(("a repetition", room, position, publication))
        self.seen[room][publication.message] = position
        self.positions[room] = position
        self.delivered += 1

    def lost(self, room, lost, position):
        self.gaps.append((room, lost))
        before = self.positions[room]
        same = before.epoch == position.epoch
        if lost is None if same else lost is not None:
            self.faults.append(("a wrong epoch", room, lost, before, position))
        elif same and position.sequence - before.sequence != lost:
            self.faults.append(("a wrong number", room, lost, before, position))
        self.positions[room] = position

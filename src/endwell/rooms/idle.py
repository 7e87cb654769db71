"""The rooms of a hub that nobody uses, in the order in which they were left."""

from __future__ import annotations

from collections import OrderedDict
from math import inf

__all__ = ["Idle"]


class Idle:
    """Rooms without listeners and keys. Each step takes the same time, however many rooms there are."""

    __slots__ = ("kept", "since")

    def __init__(self) -> None:
        #: When each of them was last used. The room that was left first is the first. Not a dict: on the way to its
        #: first entry, it passes all places from which entries were removed.
        self.since: OrderedDict[str, float] = OrderedDict()
        #: Those that may have a history, in the same order.
        self.kept: OrderedDict[str, None] = OrderedDict()

    @property
    def began(self) -> float:
        """When the first one was last used; infinite if there is none."""
        return next(iter(self.since.values()), inf)

    def use(self, name: str, now: float) -> None:
        """A room without listeners and keys is used: it becomes the last one."""
        self.since[name] = now
        self.since.move_to_end(name)
        if name in self.kept:
            self.kept.move_to_end(name)

    def keep(self, name: str) -> None:
        """The last one has a history."""
        self.kept[name] = None

    def remove(self, name: str) -> None:
        """A room has a listener or a key, or is forgotten."""
        self.since.pop(name, None)
        self.kept.pop(name, None)

"""What a leader that stops leaves to the next one: the state of all rooms, in parts that NATS can carry."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Any

from ..frames import PUBLICATION, Decoder, pack_publication, pack_word, unpack_publication
from ..hub import Hub, State, StateOfKey
from .words import unpack_word

__all__ = ["Heritage", "pack_heritage"]


def pack_heritage(hub: Hub[str], now: float, size: int) -> list[bytes] | None:
    """The parts of at most ``size`` bytes. None if a part would be larger."""
    parts: list[bytes] = []
    part: list[bytes] = []
    length = 0
    for state in hub.states(now):
        for frame in _frames(state):
            if len(frame) > size:
                return None
            if length + len(frame) > size:
                parts.append(b"".join(part))
                part, length = [], 0
            part.append(frame)
            length += len(frame)
    return [*parts, b"".join(part)]


def _frames(state: State[str]) -> Iterator[bytes]:
    yield pack_word("room", state.name, state.epoch, state.sequence, state.base, state.listeners)
    for key in state.keys:
        due = None if key.due == inf else key.due
        yield pack_word("key", key.key, key.info, key.listener, key.first, due, key.connections)
    for publication, seconds in state.publications:
        yield pack_word("seconds", seconds)
        yield pack_publication("", "", publication, "skip")


class Heritage:
    """Collects the parts."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        #: The number of parts.
        self.count = 0
        self._states: list[State[str]] = []
        self._seconds = 0.0

    def add(self, part: bytes) -> None:
        """A part has come."""
        self.count += 1
        for frame in self._decoder.feed(part):
            if frame[0] == PUBLICATION:
                _, _, publication, _ = unpack_publication(frame[1])
                self._states[-1].publications.append((publication, self._seconds))
            else:
                self._word(*unpack_word(frame))

    def _word(self, word: str, *values: Any) -> None:
        if word == "room":
            name, epoch, sequence, base, listeners = values
            self._states.append(State(name, epoch, sequence, base, listeners, [], []))
        elif word == "key":
            key, info, listener, first, due, connections = values
            left = inf if due is None else due
            self._states[-1].keys.append(StateOfKey(key, info, listener, first, left, connections))
        elif word == "seconds":
            (self._seconds,) = values

    def fill(self, hub: Hub[str], now: float) -> None:
        """Give a hub all rooms."""
        for state in self._states:
            hub.add(state, now)

"""Which process is told that a key has come or left: each once, and of one key in turn. Without I/O."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count
from typing import Any

from .present import Left

__all__ = ["MAX_TELLING", "Tellings"]

#: Maximum number of keys of which a process is told at the same time. A process that exits may have many connections,
#: and the callbacks of another one take time.
MAX_TELLING = 200

#: The room and the name of a key.
Place = tuple[str, str]
#: "came" or "went", of whom, and the process that is to be told.
Word = tuple[str, Left]


class Tellings:
    """What the processes have to be told.

    The next word of a key waits until a process has said that it was told the one before. If that process ends, the
    word goes to another one. So no key leaves of which nobody was told that it has come, and in each process and in
    all together, both alternate.

    Args:
        holders: Returns the processes that have a connection of a key, from its room and its name.
        choose: Returns the first of some processes that has not ended, otherwise any other one if it may be any,
            otherwise None.
        tell: Called with a process, the number of the telling, and the word.
    """

    def __init__(
        self,
        holders: Callable[[str, str], list[Any]],
        choose: Callable[[list[Any], bool], Any],
        tell: Callable[[Any, int, str, Left], None],
    ) -> None:
        self._holders = holders
        self._choose = choose
        self._tell = tell
        self._numbers = count(1)
        #: The words of each key. The first one is being told, or is told next.
        self._words: dict[Place, deque[Word]] = {}
        #: What each process is being told, by number, and what it is told next.
        self._telling: dict[Any, dict[int, Place]] = {}
        self._next: dict[Any, deque[Place]] = {}
        #: The process that is told the first word of each key.
        self._tellers: dict[Place, Any] = {}
        #: The keys whose first word has no process.
        self._free: dict[Place, None] = {}

    def add(self, word: str, left: Left) -> None:
        """A key has come or left."""
        place = left.room, left.present.key
        words = self._words.setdefault(place, deque())
        words.append((word, left))
        if len(words) == 1 or place in self._free:
            self._begin(place)

    def look(self, room: str, key: str) -> None:
        """A connection of a key has come. Its process may be told what has no process."""
        if (room, key) in self._free:
            self._begin((room, key))

    def look_again(self) -> None:
        """There is another process."""
        for place in [*self._free]:
            self._begin(place)

    def last(self, room: str, key: str) -> str | None:
        """The last word that is to be told of a key; None if all of them were told."""
        words = self._words.get((room, key))
        return words[-1][0] if words else None

    def tells(self, process: Any, room: str, key: str) -> bool:
        """Whether a process tells that a key has left, as far as it is known already."""
        if self.last(room, key) != "went":
            return False
        return len(self._words[room, key]) > 1 or self._tellers.get((room, key)) == process

    def done(self, process: Any, number: int) -> None:
        """A process was told."""
        if (place := self._telling.get(process, {}).pop(number, None)) is None:
            return
        words = self._words[place]
        words.popleft()
        if words:
            self._begin(place)
        else:
            del self._words[place], self._tellers[place]
        self._tell_next(process)

    def remove(self, process: Any) -> None:
        """A process has ended."""
        places = [*self._telling.pop(process, {}).values(), *self._next.pop(process, ())]
        for place in places:
            self._begin(place)

    def again(self, process: Any) -> None:
        """A process may not have got what it is being told."""
        for number, place in self._telling.get(process, {}).items():
            self._tell(process, number, *self._words[place][0])

    def tell_all(self) -> None:
        """Tell everything now. Nobody waits any more for what the processes say."""
        for place in [each for telling in self._telling.values() for each in telling.values()]:
            self._words[place].popleft()
        for words in self._words.values():
            while words:
                process = self._teller(words)
                word = words.popleft()
                if process is not None:
                    self._tell(process, next(self._numbers), *word)
        for each in (self._words, self._telling, self._next, self._tellers, self._free):
            each.clear()

    def _teller(self, words: deque[Word]) -> Any:
        """The process that is told the first word of a key."""
        (word, left), following = words[0], [each for _, each in words][1:2]
        processes, anyone = [left.listener], True
        if word == "came":
            # Another process that has a connection of the key, otherwise the one that is told what comes next.
            processes += self._holders(left.room, left.present.key)
            processes += [each.listener for each in following]
            anyone = bool(following)
        return self._choose(processes, anyone)

    def _begin(self, place: Place) -> None:
        process = self._teller(self._words[place])
        if process is None:
            self._free[place] = None
            self._tellers.pop(place, None)
            return
        self._free.pop(place, None)
        self._tellers[place] = process
        self._next.setdefault(process, deque()).append(place)
        self._tell_next(process)

    def _tell_next(self, process: Any) -> None:
        places = self._next.get(process)
        if not places:
            return
        telling = self._telling.setdefault(process, {})
        while places and len(telling) < MAX_TELLING:
            place = places.popleft()
            number = next(self._numbers)
            telling[number] = place
            self._tell(process, number, *self._words[place][0])

"""The newest publications of a room, while members are sent the history."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any

from .history import Page, size_of
from .position import Position, Publication

__all__ = ["Tail"]

#: What is kept: the number of publications, and their bytes. A member for which this is not enough reads the
#: history again.
MAX_TAIL = 1000
MAX_TAIL_BYTES = 1 << 20


class Tail:
    """What this process has heard since the first of the members began to read the history.

    A member that has read the history up to this tail can be sent the rest at once, without a publication in
    between. So reading the history comes to an end, however fast the room is.
    """

    def __init__(self) -> None:
        #: Number of members that read the history.
        self.readers = 0
        self._publications: deque[Publication] = deque()
        self._bytes = 0
        #: The pages of the history that are being read, each by the position after which it begins.
        self._pages: dict[Position | None, asyncio.Task[Page]] = {}

    def __enter__(self) -> None:
        self.readers += 1

    def __exit__(self, *_: object) -> None:
        self.readers -= 1
        if not self.readers:
            self.clear()

    async def page(self, after: Position | None, read: Callable[[], Coroutine[Any, Any, Page]]) -> Page:
        """What ``read()`` returns. Members that ask for the same position at the same time have one call.

        After the crash of a worker, for example, most of its clients return at the same time, with the same position.
        The call may have begun before the member has come, so it may not have what was published between.
        """
        if (reading := self._pages.get(after)) is None:
            reading = self._pages[after] = asyncio.create_task(read())
            reading.add_done_callback(partial(self._has_read, after))
        return await asyncio.shield(reading)

    def _has_read(self, after: Position | None, reading: asyncio.Task[Page]) -> None:
        del self._pages[after]
        if not reading.cancelled():
            reading.exception()  # all members may have gone

    def append(self, publication: Publication) -> None:
        """Keep the newest publication of the room, if a member reads the history."""
        if not self.readers:
            return
        self._publications.append(publication)
        self._bytes += size_of(publication.message)
        while len(self._publications) > MAX_TAIL or self._bytes > MAX_TAIL_BYTES:
            self._bytes -= size_of(self._publications.popleft().message)

    def clear(self) -> None:
        """Forget all publications."""
        self._publications.clear()
        self._bytes = 0

    def reaches(self, after: Position, position: Position) -> bool:
        """Whether the tail has all publications between ``after`` and ``position``, where the room is."""
        begin = position.sequence - len(self._publications)
        return after.epoch == position.epoch and begin <= after.sequence <= position.sequence

    def after(self, sequence: int) -> Iterator[Publication]:
        """Iterate over the publications whose number is greater than ``sequence``."""
        return (each for each in self._publications if each.sequence > sequence)

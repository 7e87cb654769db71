"""The history of a room: its newest publications, within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from ..text import utf8
from .position import Message, Position, Publication

__all__ = ["MAX_BOUND", "History", "Log", "Page", "page_after", "size_of"]

#: The frames between processes have 64 bits for a bound.
MAX_BOUND = 1 << 63


@dataclass(frozen=True, slots=True)
class History:
    """How many publications of a room are kept for members that return. All three bounds apply.

    Raises:
        TypeError: A bound is not a number.
        ValueError: A bound is not positive, or not less than 2**63.

    Example:
        ```python
        from endwell import Server
        from endwell.rooms import History

        server = Server()
        server.rooms.configure("chat/*", history=History(messages=500, seconds=3600))
        ```
    """

    #: Maximum number of publications. Default: 100.
    messages: int = 100
    #: Maximum age of a publication in seconds. Default: 300, the time in which most clients are back after
    #: the loss of their network.
    seconds: float = 300.0
    #: Maximum sum of the sizes of the messages in bytes. Default: 1 MiB.
    bytes: int = 1 << 20

    def __post_init__(self) -> None:
        for name, kind in (("messages", int), ("seconds", int | float), ("bytes", int)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind):
                raise TypeError(f"{name} must be a number, not {value!r}")
            if not 0 < value < MAX_BOUND:
                raise ValueError(f"{name} must be positive and less than 2**63, not {value!r}")


def size_of(message: Message) -> int:
    """The size of a message in bytes: for a text message, that of its UTF-8."""
    if isinstance(message, str):
        return len(message) if message.isascii() else len(utf8(message, "message"))
    return len(message)


class _Entry(NamedTuple):
    publication: Publication
    size: int
    expires: float


# A deque takes 760 bytes, and names that clients choose may make many rooms without history.
_NONE: deque[_Entry] = deque(maxlen=0)


class Log:
    """The newest publications of one room, without holes in their numbers."""

    __slots__ = ("_entries", "bytes")

    def __init__(self) -> None:
        self._entries = _NONE
        #: The sum of the sizes of the messages.
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> Iterator[tuple[Publication, int, float]]:
        """The publications, with their sizes and when they expire."""
        return iter(self._entries)

    # What changes a log returns by how many bytes it has grown: less than 0 if it has shrunk.

    def append(self, publication: Publication, history: History, now: float) -> int:
        """Add the newest publication, and drop the oldest ones beyond the bounds of ``history``."""
        before, size = self.bytes, size_of(publication.message)
        if self._entries is _NONE:
            self._entries = deque()
        self._entries.append(_Entry(publication, size, now + history.seconds))
        self.bytes += size
        while self._entries and (
            len(self._entries) > history.messages
            or self.bytes > history.bytes
            or self._entries[0].expires <= now
        ):
            self._drop_oldest()
        return self.bytes - before

    def expire(self, now: float) -> int:
        """Drop the publications that are too old."""
        before = self.bytes
        while self._entries and self._entries[0].expires <= now:
            self._drop_oldest()
        return self.bytes - before

    def after(self, sequence: int) -> Iterator[Publication]:
        """Iterate over the publications whose number is greater than ``sequence``."""
        if self._entries:
            skipped = max(0, sequence + 1 - self._entries[0].publication.sequence)
            for entry in islice(self._entries, skipped, None):
                yield entry.publication

    def shrink(self, size: int) -> int:
        """Drop the oldest publications until at most ``size`` bytes are left."""
        before = self.bytes
        while self._entries and self.bytes > max(size, 0):
            self._drop_oldest()
        if size <= 0:
            self._entries = _NONE  # empty messages, too
        return self.bytes - before

    def _drop_oldest(self) -> None:
        self.bytes -= self._entries.popleft().size


class Page(NamedTuple):
    """What the history of a room says about a position."""

    #: The position of the room.
    position: Position
    #: Publications between the position that was asked for and the first one in ``publications``. None if
    #: that number is unknown.
    lost: int | None
    #: The publications after it, in order, without holes. Not up to ``position`` if there was a limit.
    publications: list[Publication]


def page_after(
    position: Position,
    read: Callable[[int], Iterable[Publication]],
    after: Position | None,
    limit: int | None,
) -> Page:
    """Make the page of a room at ``position``; ``read(sequence)`` returns the kept publications after a number."""
    if after is None or after.epoch != position.epoch or after.sequence > position.sequence:
        start, lost = 0, None
    else:
        start, lost = after.sequence, 0
    publications = list(islice(read(start), limit))
    if lost is not None:
        # Without publications, the history is empty.
        first = publications[0].sequence if publications else position.sequence + 1
        lost = first - start - 1
    return Page(position, lost, publications)

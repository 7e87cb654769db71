"""Positions in a room, and what a member that returns to a position finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from .records import fill, members_of

__all__ = ["Fresh", "Gap", "Position", "Publication", "Resumed"]

Message = str | bytes

#: Maximum length of an epoch in a text. Those of endwell have 8 characters.
MAX_EPOCH = 64


@dataclass(frozen=True, slots=True, init=False)
class Position:
    """A place in the sequence of all publications of a room.

    ``str(position)`` is a text without spaces, which a client can keep and send back, and
    :meth:`Room.join` takes that text.

    Example:
        ```python
        from endwell.rooms import Position

        position = Position("f3Zk0q", 17)
        print(position, Position.parse("f3Zk0q:17") == position)  # f3Zk0q:17 True
        ```
    """

    #: Names one sequence of numbers. It changes when the numbers of the earlier publications are lost, for
    #: example when the process that counts restarts.
    epoch: str
    #: The number of the last publication before this place. The first publication of an epoch has 1.
    sequence: int

    # Each publication makes a position. The __init__ of a frozen dataclass would take twice the time.
    def __init__(self, epoch: str, sequence: int) -> None:
        fill(self, _position, (epoch, sequence))

    def __str__(self) -> str:
        return f"{self.epoch}:{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the position of which ``text`` is the ``str()``.

        Raises:
            ValueError: ``text`` is no position.
        """
        epoch, colon, sequence = text.rpartition(":")
        # int() also takes signs, spaces, underscores and digits of other scripts. The text may come from a client, and
        # a lone surrogate, which JSON has, cannot be sent to another process.
        is_epoch = colon and 0 < len(epoch) <= MAX_EPOCH and epoch.isascii()
        if not (is_epoch and sequence.isascii() and sequence.isdecimal() and len(sequence) < 19):
            raise ValueError(f"not a position: {text[:100]!r}")
        return cls(epoch, int(sequence))


_position = members_of(Position)


@dataclass(frozen=True, slots=True, init=False)
class Publication:
    """One message that was published in a room."""

    #: Its number in the epoch of the room: one more than that of the publication before it.
    sequence: int
    #: ``str`` for a text message, ``bytes`` for a binary message.
    message: Message

    # As in Position.
    def __init__(self, sequence: int, message: Message) -> None:
        fill(self, _publication, (sequence, message))


_publication = members_of(Publication)


@dataclass(frozen=True, slots=True)
class Fresh:
    """The member joined without ``since``: it receives what is published from now on."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The member has missed nothing: the publications after ``since`` were sent to it again."""

    #: Number of publications that were sent again.
    replayed: int


@dataclass(frozen=True, slots=True)
class Gap:
    """Publications after ``since`` are lost for the member: the history does not reach back to them."""

    #: Number of publications that are lost. None if it cannot be known, because the room has another epoch.
    lost: int | None
    #: Number of later publications that were sent again.
    replayed: int

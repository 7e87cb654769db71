"""The options of rooms, and their limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from .history import MAX_BOUND, History
from .hub import MAX_KNOWN_ROOMS

__all__ = ["MAX_HISTORY", "RoomKeywords", "RoomLimits", "RoomOptions"]

#: The default of ``max_history``, in bytes.
MAX_HISTORY = 256 << 20
#: The frames between processes have 16 bits for the length of a name.
MAX_NAME = (1 << 16) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomOptions:
    """The options of a room: see :meth:`Rooms.configure`.

    Raises:
        TypeError: A value has the wrong type.
        ValueError: A value is out of range.

    Example:
        ```python
        from endwell.rooms import History, RoomOptions

        print(RoomOptions(history=History(messages=500), grace=5))
        ```
    """

    #: How many publications are kept for members that return. Default: None, none.
    history: History | None = None
    #: Seconds after the end of the last connection of a key until the key has left. After a close code that
    #: forbids a reconnection, such as 1000 or 1008, and after :meth:`Room.leave`, it has left immediately.
    #: A connection without a key leaves immediately. Default: 10, as for :class:`Sessions`.
    grace: float = 10.0
    #: Maximum number of members in one process. Default: None, no limit.
    max_members: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.history, History | None):
            raise TypeError(f"history must be an endwell.rooms.History or None, not {self.history!r}")
        if isinstance(self.grace, bool) or not isinstance(self.grace, int | float):
            raise TypeError(f"grace must be a number of seconds, not {self.grace!r}")
        if not 0 <= self.grace < MAX_BOUND:
            raise ValueError(f"grace must not be negative, and less than 2**63, and is {self.grace!r}")
        if self.max_members is not None:
            _check_positive("max_members", self.max_members)


class RoomKeywords(TypedDict, total=False):
    """The fields of :class:`RoomOptions` as keyword arguments (a test keeps the two equal)."""

    history: History | None
    grace: float
    max_members: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomLimits:
    """The limits of :class:`Rooms`."""

    max_rooms: int = 128
    max_message: int = 1 << 20
    max_name: int = 255
    max_history: int = MAX_HISTORY
    max_known_rooms: int = MAX_KNOWN_ROOMS

    def __post_init__(self) -> None:
        for name in ("max_rooms", "max_message", "max_name", "max_history", "max_known_rooms"):
            _check_positive(name, getattr(self, name))
        if self.max_name > MAX_NAME:
            raise ValueError(f"max_name must be at most {MAX_NAME}, and is {self.max_name}")


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be positive, and is {value!r}")

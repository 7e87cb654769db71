"""Keys of users in all processes, and the names of the rooms that are made for them."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

from ..errors import RoomLimit

__all__ = [
    "DASHBOARD",
    "OWN",
    "RESERVED",
    "REVOKED",
    "SESSIONS",
    "USER",
    "Key",
    "pack_key",
    "unpack_key",
    "user_room_name",
]

#: The names of all rooms that the application cannot use begin with this character.
RESERVED = "\0"
#: The room in which the processes tell each other who has the current connection of a key.
SESSIONS = "\0sessions"
#: The room in which the processes tell each other whose authorization has ended.
REVOKED = "\0revoked"
#: The room in which the dashboard of a process asks those of the others. The answers go to rooms whose names begin
#: with this.
DASHBOARD = "\0dashboard"
#: These rooms are not counted: there is one of each.
OWN = (SESSIONS, REVOKED, DASHBOARD)
#: The names of the rooms of users begin with this.
USER = "\0user:"
#: Maximum length of the JSON text of a key, in characters. All of them are ASCII.
MAX_KEY_TEXT = 1024

Key: TypeAlias = "str | int | tuple[Key, ...]"


def pack_key(key: Any, name: str = "key") -> str:
    """Return the JSON text of a key. ``name`` is that of the argument.

    Raises:
        TypeError: Another process would not get the same key.
        RoomLimit: The text is too long.
    """
    text = None
    try:
        if not _is_exact(key):
            raise TypeError(
                f"{name} must be a str, an int or a tuple of these, not {key!r}: other processes get it as JSON, and "
                "must get the same key"
            )
        text = json.dumps(key, separators=(",", ":"))
    except (ValueError, RecursionError):
        pass  # sys.set_int_max_str_digits, or tuples in tuples
    if text is None or len(text) > MAX_KEY_TEXT:
        raise RoomLimit(f"the JSON text of {name} must have at most {MAX_KEY_TEXT} characters")
    return text


def unpack_key(text: str) -> Any:
    """Return the key of a text."""
    return _with_tuples(json.loads(text))


def user_room_name(key: Any) -> str:
    """The name of the room of a user. Raises the errors of :func:`pack_key`."""
    return USER + pack_key(key)


def _is_exact(key: Any) -> bool:
    # A subclass would arrive as its base class, and True is equal to 1, but has another text.
    return type(key) in (str, int) or (type(key) is tuple and all(map(_is_exact, key)))


def _with_tuples(value: Any) -> Any:
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value

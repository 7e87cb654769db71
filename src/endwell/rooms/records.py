"""Objects that are frozen for everyone else get their fields.

The compiled build uses ``_records.pyx`` instead: each publication makes such objects, and the methods that set a field
take most of the time of making one. A test compares the two modules.
"""

from __future__ import annotations

from typing import Any

__all__ = ["fill", "members_of"]


def members_of(cls: type[Any]) -> tuple[Any, ...]:
    """What :func:`fill` needs to know of a class: the descriptors of its slots."""
    members: tuple[Any, ...] = tuple(vars(cls)[each] for each in cls.__slots__)
    return members


def fill(record: object, members: tuple[Any, ...], values: tuple[Any, ...]) -> None:
    """Set the fields of an object, in the order of the slots."""
    for member, value in zip(members, values, strict=True):
        member.__set__(record, value)

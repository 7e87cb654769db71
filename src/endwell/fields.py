"""Checked values of the fields of a dict that came from JSON. Each error begins with the name of the field."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, TypeVar

__all__ = ["count", "flag", "mapping", "member", "number", "optional", "seconds", "text"]

E = TypeVar("E", bound=Enum)
T = TypeVar("T")


def _wrong_type(name: str, expected: str, value: object) -> TypeError:
    return TypeError(f"{name} must be {expected}, not {type(value).__name__}")


def text(name: str, value: Any) -> str:
    """A str."""
    if not isinstance(value, str):
        raise _wrong_type(name, "a str", value)
    return value


def flag(name: str, value: Any) -> bool:
    """A bool."""
    if not isinstance(value, bool):
        raise _wrong_type(name, "a bool", value)
    return value


def count(name: str, value: Any) -> int:
    """An int that is not negative, and that fits into 64 bits: arithmetic with a float would fail above 2**1023."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong_type(name, "an int", value)
    if value >= 2**64:
        raise ValueError(f"{name} must be below 2**64")
    if value < 0:
        raise ValueError(f"{name} must be 0 or more, not {value}")
    return int(value)


def number(name: str, value: Any) -> float:
    """A finite number. Programs that write JSON may write 60.0 as 60."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong_type(name, "a number", value)
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ValueError(f"{name} must be a finite number")
    return result


def seconds(name: str, value: Any) -> float:
    """A finite number that is not negative."""
    result = number(name, value)
    if result < 0:
        raise ValueError(f"{name} must be 0 or more, not {result}")
    return result


def mapping(name: str, value: Any) -> Mapping[str, Any]:
    """A dict."""
    if not isinstance(value, Mapping):
        raise _wrong_type(name, "a dict", value)
    return value


def member(kind: type[E]) -> Callable[[str, Any], E]:
    """A function that returns the member of the Enum ``kind`` with a value."""

    def read(name: str, value: Any) -> E:
        try:
            return kind(text(name, value))
        except ValueError:
            raise ValueError(f"{name} has an unknown value: {value[:100]!r}") from None

    return read


def optional(read: Callable[[str, Any], T]) -> Callable[[str, Any], T | None]:
    """A function that returns None for None, and otherwise what ``read`` returns."""
    return lambda name, value: None if value is None else read(name, value)

"""The order of the list of connections: by which value, and where the next page begins. No I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable
from heapq import nlargest, nsmallest
from math import isfinite
from typing import Any, NamedTuple, TypeAlias

__all__ = ["SORTS", "AskError", "Order", "Place", "first", "search_of"]

#: By what the connections can be sorted, and whether the values are texts.
SORTS = {
    "age": False,
    "latency": False,
    "queued": False,
    "messages_in": False,
    "messages_out": False,
    "bytes_in": False,
    "bytes_out": False,
    "key": True,
    "route": True,
    "address": True,
    "idle": False,
}
#: Maximum number of rows of one answer.
MAX_ROWS = 200

#: The value, the worker and the number of a connection: no two connections have the same.
Place: TypeAlias = tuple[Any, str, int]


class AskError(ValueError):
    """What a client has asked for is not valid. The text is for the client, and quotes nothing of it."""


class Order(NamedTuple):
    """The order of a list, and the place after which it begins."""

    sort: str
    descending: bool
    after: Place | None
    limit: int

    @staticmethod
    def of(ask: dict[str, Any]) -> Order:
        """The order that a client asks for.

        Raises:
            AskError: It is not valid.
        """
        sort, descending, limit = ask.get("sort", "age"), ask.get("descending", False), ask.get("limit", 100)
        if not isinstance(sort, str) or sort not in SORTS:
            raise AskError(f"sort must be one of {', '.join(SORTS)}")
        if not isinstance(descending, bool):
            raise AskError("descending must be true or false")
        check_limit(limit, MAX_ROWS)
        after = ask.get("after")
        return Order(sort, descending, None if after is None else _place(after, SORTS[sort]), limit)

    def is_after(self, place: Place) -> bool:
        """Whether a connection comes after the beginning of the list."""
        if self.after is None:
            return True
        return place < self.after if self.descending else place > self.after

    def cursor(self, place: Place) -> str:
        """The text by which the next page begins after ``place``."""
        return json.dumps(place)


def first(order: Order, places: Iterable[Place]) -> list[Place]:
    """The first places in the order, at most as many as the limit says."""
    choose = nlargest if order.descending else nsmallest
    return choose(order.limit, places)


def check_limit(limit: object, largest: int) -> None:
    """Raise AskError for a number of rows that is out of range."""
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= largest:
        raise AskError(f"limit must be a whole number from 1 to {largest}")


def _place(cursor: object, is_text: bool) -> Place:
    """The place that a cursor names. A client can write it itself: it only says where the list begins."""
    try:
        value, worker, number = json.loads(str(cursor))
    except (ValueError, TypeError, RecursionError):
        raise AskError("after must be the cursor of an answer, or null") from None
    if is_text:
        valid = isinstance(value, str)
    else:
        # isfinite() raises OverflowError for an int that no float can hold. Such an int can be compared.
        valid = type(value) is int or (type(value) is float and isfinite(value))
    if not (valid and isinstance(worker, str) and type(number) is int):
        raise AskError("after must be the cursor of an answer with the same sort, or null")
    return value, worker, number


def search_of(ask: dict[str, Any]) -> str:
    """The text that a client searches, in lower case.

    Raises:
        AskError: It is not a text.
    """
    search = ask.get("search") or ""
    if not isinstance(search, str):
        raise AskError("search must be a text or null")
    return search.lower()

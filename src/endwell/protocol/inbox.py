"""Messages that the application has not taken yet: a queue, first in, first out."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Inbox"]


class Inbox:
    """What ``collections.deque`` would do; compiled, without its calls from C through Python."""

    __slots__ = ("_first", "_head", "_rest")

    def __init__(self) -> None:
        # Apart from the others, because most often there is only one.
        self._first: str | bytes | None = None
        self._rest: list[str | bytes] = []
        self._head = 0

    def append(self, message: str | bytes) -> None:
        """Queue a message."""
        if self._first is None:
            self._first = message
        else:
            self._rest.append(message)

    def popleft(self) -> str | bytes:
        """Take the first one. Raises IndexError if there is none."""
        first = self._first
        if first is None:
            raise IndexError("there is no message")
        if self._head == len(self._rest):
            self._first = None
        else:
            self._first = self._rest[self._head]
            self._head += 1
            if self._head * 2 >= len(self._rest):
                # What was taken is forgotten in time: the queue may never be empty.
                del self._rest[: self._head]
                self._head = 0
        return first

    def clear(self) -> None:
        """Forget them all."""
        self._first = None
        self._rest.clear()
        self._head = 0

    def __len__(self) -> int:
        return (self._first is not None) + len(self._rest) - self._head

    def __iter__(self) -> Iterator[str | bytes]:
        if self._first is not None:
            yield self._first
            yield from self._rest[self._head :]

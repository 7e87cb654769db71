"""Messages that the application has not taken yet: a queue, first in, first out."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Inbox"]

# What was taken is forgotten in lots: the queue may never be empty.
_TAKEN = 64


class Inbox:
    """What ``collections.deque`` would do, over a list to which the codec appends by itself."""

    __slots__ = ("_head", "messages", "size")

    def __init__(self) -> None:
        #: The messages, and before them those that were taken lately (None). Empty if none waits:
        #: looking at this costs less than calling ``len``.
        self.messages: list[str | bytes | None] = []
        #: Bytes and characters waiting, as far as :meth:`count` was told.
        self.size = 0
        self._head = 0

    def count(self, first: int) -> None:
        """The codec has appended messages, the ``first`` of which is at this index."""
        for at in range(first, len(self.messages)):
            message = self.messages[at]
            assert message is not None
            self.size += len(message)

    def popleft(self) -> str | bytes:
        """Take the first one. Raises IndexError if there is none."""
        head, messages = self._head, self.messages
        message = messages[head]
        assert message is not None
        self.size -= len(message)
        head += 1
        if head == len(messages):
            messages.clear()
            head = 0
        elif head == _TAKEN:
            del messages[:head]
            head = 0
        else:
            messages[head - 1] = None
        self._head = head
        return message

    def clear(self) -> None:
        """Forget them all."""
        self.messages.clear()
        self._head = self.size = 0

    def waiting(self) -> int:
        """How many there are."""
        return len(self.messages) - self._head

    def __len__(self) -> int:
        return self.waiting()

    def __iter__(self) -> Iterator[str | bytes]:
        for message in self.messages[self._head :]:
            assert message is not None
            yield message

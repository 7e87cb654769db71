"""The queue of messages that the application has not read yet."""

from __future__ import annotations

from collections.abc import Iterator
from sys import maxsize

from ..wire.payload import total

__all__ = ["Inbox"]

# The slots of messages that were read are deleted in batches of this size, because the queue may never be
# empty.
_BATCH = 64


class Inbox:
    """A FIFO queue like ``collections.deque``, over a list to which the codec appends directly."""

    __slots__ = ("_head", "max_bytes", "max_messages", "messages", "size")

    def __init__(self, max_messages: int = maxsize, max_bytes: int = maxsize) -> None:
        #: None for each message read since the last cleanup, then the unread messages. The list is empty if
        #: no message is unread; testing that is cheaper than ``len(inbox)``.
        self.messages: list[str | bytes | None] = []
        #: Bytes and characters of the unread messages that :meth:`count` has counted.
        self.size = 0
        #: With that many messages, or bytes and characters, the inbox is full.
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self._head = 0

    def count(self, first: int) -> None:
        """Add the messages from index ``first`` on, which the codec has appended, to ``size``."""
        self.size += total(self.messages, first)

    def is_full(self) -> bool:
        """Whether reading from the peer should pause until the application has read messages."""
        return len(self.messages) - self._head >= self.max_messages or self.size >= self.max_bytes

    def popleft(self) -> str | bytes:
        """Remove and return the first message. Raises IndexError if there is none."""
        head, messages = self._head, self.messages
        message = messages[head]
        assert message is not None
        self.size -= len(message)
        head += 1
        if head == len(messages):
            messages.clear()
            head = 0
        elif head == _BATCH:
            del messages[:head]
            head = 0
        else:
            messages[head - 1] = None
        self._head = head
        return message

    def clear(self) -> None:
        """Remove all messages."""
        self.messages.clear()
        self._head = self.size = 0

    def waiting(self) -> int:
        """The number of unread messages."""
        return len(self.messages) - self._head

    def __len__(self) -> int:
        return self.waiting()

    def __iter__(self) -> Iterator[str | bytes]:
        for message in self.messages[self._head :]:
            assert message is not None
            yield message

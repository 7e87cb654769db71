"""The inbox that any number of threads read from."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from sys import getsizeof

from ..options import Options
from ..protocol.connection import AHEAD
from ..protocol.inbox import Inbox
from .portal import Portal

__all__ = ["DEADLOCK_ALLOWANCE", "ThreadInbox"]

#: Bytes that all connections of a loop together may hold above the limits of their inboxes while their
#: sends are blocked. Without an allowance, two peers that both send before they read would wait for each
#: other. Without a limit, a peer that never reads could occupy all memory.
DEADLOCK_ALLOWANCE = 64 * 2**20


class ThreadInbox(Inbox):
    """An inbox over a deque, whose single operations are atomic: reading takes no lock.

    Threads read :attr:`queue`. Everything else belongs to the loop's thread. ``size`` stays 0, because threads
    cannot keep it: :meth:`is_full` counts the bytes when there may be too many.
    """

    def __init__(self, options: Options, portal: Portal, senders: Collection[object]) -> None:
        super().__init__(options.max_queue, min(options.max_size or AHEAD, AHEAD))
        #: The unread messages. ``messages`` only has those that the codec has just appended.
        self.queue: deque[str | bytes] = deque()
        #: Whether reading is paused because of this inbox: the thread that leaves ``low`` messages posts the
        #: bridge.
        self.paused = False
        self.low = options.max_queue // 2
        #: The number of messages since this was last set to 0.
        self.arrived = 0
        # An upper bound of the bytes in the queue, and those that arrived while it was full.
        self._bytes = self._surplus = 0
        self._portal = portal
        self._senders = senders

    def count(self, first: int) -> None:
        """Move the messages from index ``first`` on to the queue."""
        queue = self.queue
        if not queue:
            self._bytes = 0
        for message in self.messages:
            assert message is not None
            if self.paused:
                self._surplus += getsizeof(message)
                self._portal.surplus += getsizeof(message)
            self._bytes += len(message)
            queue.append(message)
        self.arrived += len(self.messages)
        self.messages.clear()

    def is_full(self) -> bool:
        """Whether reading should pause, unless that would deadlock both peers."""
        # Once full, it stays so until threads have read half of the messages.
        limit = self.low + 1 if self.paused else self.max_messages
        if len(self.queue) >= limit or self._bytes >= self.max_bytes:
            # First, so that a thread that reads a message from now on sees it and posts the bridge.
            self.paused = True
            if len(self.queue) < limit:  # few enough to count their bytes each time
                self._bytes = sum(map(len, self.queue.copy()))
            if len(self.queue) >= limit or self._bytes >= self.max_bytes:
                return not (self._senders and self._portal.surplus < DEADLOCK_ALLOWANCE)
        if self.paused:
            self.release()
        return False

    def release(self) -> None:
        """The queue is not full any more, or the connection has ended."""
        self.paused = False
        self._portal.surplus -= self._surplus
        self._surplus = 0

    def popleft(self) -> str | bytes:
        """See :meth:`Inbox.popleft`."""
        return self.queue.popleft()

    def clear(self) -> None:
        """See :meth:`Inbox.clear`."""
        self.queue.clear()

    def waiting(self) -> int:
        """See :meth:`Inbox.waiting`."""
        return len(self.queue)

    def __iter__(self) -> Iterator[str | bytes]:
        return iter(self.queue.copy())

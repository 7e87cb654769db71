"""What waits to leave: buffers in order, their size, and since when the peer takes none."""

from __future__ import annotations

from collections import deque

__all__ = ["Outbox"]


class Outbox:
    """Buffers for the socket. The driver reads ``buffers`` and tells :meth:`take` what the system took."""

    __slots__ = ("buffers", "size", "stuck_at", "taken", "write_timeout")

    def __init__(self, write_timeout: float | None) -> None:
        self.buffers: deque[bytes | memoryview] = deque()
        #: Bytes waiting.
        self.size = 0
        #: Bytes that have left.
        self.taken = 0
        self.write_timeout = write_timeout
        #: When the peer is given up for taking nothing; None: nothing is blocked.
        self.stuck_at: float | None = None

    def append(self, data: bytes) -> None:
        """Queue ``data`` behind the rest."""
        self.buffers.append(data)
        self.size += len(data)

    def take(self, count: int, now: float) -> bool:
        """The system took ``count`` bytes; none, if it could take none.

        True if it had been full before, so that these bytes prove the peer's system alive.
        """
        alive = count > 0 and self.stuck_at is not None
        self.size -= count
        self.taken += count
        rest = count
        while rest:
            head = self.buffers[0]
            if rest < len(head):
                self.buffers[0] = memoryview(head)[rest:]
                break
            rest -= len(head)
            self.buffers.popleft()
        if not self.size:
            self.stuck_at = None
        elif (count or self.stuck_at is None) and self.write_timeout is not None:
            self.stuck_at = now + self.write_timeout
        return alive

"""What waits to leave: buffers in order, their size, and since when the peer takes none."""

from __future__ import annotations

from collections import deque

from .deadline import after

__all__ = ["Outbox"]

#: Buffers below so many bytes are joined, up to so many: copying them costs less than
#: handing each to the system. Precedent: uWebSockets corks into 16 KiB.
_SMALL = 4096
_FULL = 65536


class Outbox:
    """Buffers for the socket. The driver reads ``buffers`` and tells :meth:`take` what the system took."""

    __slots__ = ("buffers", "size", "stuck_at", "taken", "write_timeout")

    def __init__(self, write_timeout: float | None) -> None:
        self.buffers: deque[bytes | bytearray | memoryview] = deque()
        #: Bytes waiting.
        self.size = 0
        #: Bytes that have left.
        self.taken = 0
        self.write_timeout = write_timeout
        #: When the peer is given up for taking nothing; None: nothing is blocked.
        self.stuck_at: float | None = None

    def append(self, data: bytes) -> None:
        """Queue ``data`` behind the rest."""
        size = len(data)
        self.size += size
        if self.buffers and size < _SMALL:
            last = self.buffers[-1]
            if type(last) is bytes and len(last) < _SMALL:
                last = self.buffers[-1] = bytearray(last)
            if type(last) is bytearray and len(last) < _FULL:
                last += data
                return
        self.buffers.append(data)

    def take(self, count: int, now: float) -> bool:
        """The system took ``count`` bytes; none, if it could take none.

        True if it had been full before, so that these bytes prove the peer's system alive.
        """
        alive = count > 0 and self.stuck_at is not None
        self.size -= count
        self.taken += count
        if not self.size:
            self.buffers.clear()
            self.stuck_at = None
            return alive
        rest = count
        while rest:
            head = self.buffers[0]
            if rest < len(head):
                self.buffers[0] = memoryview(head)[rest:]
                break
            rest -= len(head)
            self.buffers.popleft()
        if count or self.stuck_at is None:
            self.stuck_at = after(now, self.write_timeout)
        return alive

"""What waits to leave: buffers in order, their size, and since when the peer takes none."""

from __future__ import annotations

from .deadline import after

__all__ = ["Outbox"]

#: Buffers below so many bytes are joined, up to so many: copying them costs less than
#: handing each to the system. Precedent: uWebSockets corks into 16 KiB.
_SMALL = 4096
_FULL = 65536


class Outbox:
    """Buffers for the socket. The driver reads ``buffers`` and tells :meth:`take` what the system took."""

    __slots__ = ("_last", "buffers", "size", "stuck_at", "taken", "write_timeout")

    def __init__(self, write_timeout: float | None) -> None:
        self.buffers: list[bytes | bytearray | memoryview] = []
        # The last buffer, if more may be joined to it.
        self._last: bytes | bytearray | None = None
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
        last = self._last
        if last is None or size >= _SMALL or len(last) >= _FULL:
            self.buffers.append(data)
            self._last = data if size < _SMALL else None
            return
        if not isinstance(last, bytearray):
            last = self._last = self.buffers[-1] = bytearray(last)
        last += data

    def take(self, count: int, now: float) -> bool:
        """The system took ``count`` bytes; none, if it could take none.

        True if it had been full before, so that these bytes prove the peer's system alive.
        """
        alive = count > 0 and self.stuck_at is not None
        self.size -= count
        self.taken += count
        if not self.size:
            self.buffers.clear()
            self._last = None
            self.stuck_at = None
            return alive
        rest = count
        while rest:
            head = self.buffers[0]
            if rest < len(head):
                # A view keeps a bytearray from growing.
                self._last = self._last if len(self.buffers) > 1 else None
                self.buffers[0] = memoryview(head)[rest:]
                break
            rest -= len(head)
            del self.buffers[0]
        if count or self.stuck_at is None:
            self.stuck_at = after(now, self.write_timeout)
        return alive

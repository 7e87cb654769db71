"""What waits to leave: buffers in order, their size, and since when the peer takes none."""

from __future__ import annotations

from ..wire.payload import frame, header, write
from .deadline import NEVER, after

__all__ = ["Outbox"]

#: What has fewer bytes is joined in a block: copying it costs less than handing it to the
#: system by itself. Precedent: picows copies payloads up to 8 KiB behind their headers.
_SMALL = 8192
#: A block has room for all that is joined before it leaves. Precedent: uWebSockets' cork.
_BLOCK = 80 * 1024

# One for all connections, because what is joined leaves before long. Whoever finds it
# taken makes one of the size that it needs.
_spare = [bytearray(_BLOCK)]


class Outbox:
    """Bytes for the socket. The driver writes from the front and tells :meth:`take` what the system took."""

    __slots__ = ("block", "bytes_sent", "fill", "sealed", "size", "stuck_at", "write_timeout")

    def __init__(self, write_timeout: float | None) -> None:
        #: Buffers that wait; after them come the first ``fill`` bytes of ``block``, if there is one.
        self.sealed: list[bytes | memoryview] = []
        self.block: bytearray | None = None
        self.fill = 0
        #: Bytes waiting.
        self.size = 0
        #: Bytes that have left.
        self.bytes_sent = 0
        self.write_timeout = write_timeout
        #: When the peer is given up for taking nothing; NEVER: nothing is blocked.
        self.stuck_at = NEVER

    def append(self, data: bytes) -> None:
        """Queue ``data`` behind the rest."""
        self.size += len(data)
        if len(data) >= _SMALL:
            self._seal()
            self.sealed.append(data)
        else:
            block = self._open()
            end = self.fill + len(data)
            block[self.fill : end] = data
            self.fill = end

    def append_frame(self, first: int, payload: bytes | bytearray | memoryview, key: bytes) -> None:
        """Queue what :func:`~endwell.wire.payload.frame` makes; nothing is copied that can be spared."""
        if len(payload) < _SMALL:
            end = write(self._open(), self.fill, first, payload, key)
            self.size += end - self.fill
            self.fill = end
        elif key or type(payload) is not bytes:  # nor is it one of a subclass
            self.append(frame(first, payload, key))
        else:
            self.append(header(first, len(payload)))
            self.append(payload)

    def buffers(self) -> list[bytes | memoryview]:
        """All that waits."""
        self._seal()
        return self.sealed

    def take(self, count: int, now: float) -> bool:
        """The system took ``count`` bytes; none, if it could take none.

        True if it had been full before, so that these bytes prove the peer's system alive.
        """
        alive = count > 0 and self.stuck_at != NEVER
        self.size -= count
        self.bytes_sent += count
        if not self.size:
            self.sealed.clear()
            self._release()
            self.stuck_at = NEVER
            return alive
        # Not what has left with it: the peer may take long for the rest.
        self._seal()
        rest = count
        while rest:
            head = self.sealed[0]
            if rest < len(head):
                self.sealed[0] = memoryview(head)[rest:]
                break
            rest -= len(head)
            del self.sealed[0]
        if count or self.stuck_at == NEVER:
            self.stuck_at = after(now, self.write_timeout)
        return alive

    def _open(self) -> bytearray:
        """The block, for more to be joined."""
        block = self.block
        if block is None:
            try:
                # Not while the peer takes nothing: others need it soon.
                block = bytearray() if self.sealed else _spare.pop()
            except IndexError:
                block = bytearray()
            self.block = block
        return block

    def _seal(self) -> None:
        """Let the block go: what it holds waits by itself, in just the memory that it needs."""
        block = self.block
        if block is not None:
            with memoryview(block) as view:
                self.sealed.append(bytes(view[: self.fill]))
            self._release()

    def _release(self) -> None:
        block = self.block
        self.block = None
        self.fill = 0
        if block is not None and len(block) >= _BLOCK and not _spare:
            _spare.append(block)

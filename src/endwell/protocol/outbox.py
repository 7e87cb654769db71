"""The queue of bytes to send, its size, and the deadline of a peer that accepts none."""

from __future__ import annotations

from ..wire.payload import frame, header, write
from .deadline import NEVER, after

__all__ = ["Outbox"]

#: Data below this number of bytes is copied into a common block: the copy costs less than a buffer of its
#: own in the system call. Precedent: picows copies payloads up to 8 KiB behind their headers.
_COPY_LIMIT = 8192
#: Size of a block, in bytes. Precedent: uWebSockets' cork buffer.
_BLOCK_SIZE = 80 * 1024

# One block is shared by all connections, because its contents are usually sent soon. While it is in use,
# another connection makes a block of the size that it needs.
_spare = [bytearray(_BLOCK_SIZE)]


class Outbox:
    """Bytes for the socket. The driver writes :meth:`buffers`, then calls :meth:`consume`."""

    __slots__ = ("block", "bytes_sent", "fill", "sealed", "size", "stuck_at", "write_timeout")

    def __init__(self, write_timeout: float | None) -> None:
        #: Queued buffers. The first ``fill`` bytes of ``block``, if there is one, follow them.
        self.sealed: list[bytes | memoryview] = []
        self.block: bytearray | None = None
        self.fill = 0
        #: Number of queued bytes.
        self.size = 0
        #: Number of bytes written to the socket.
        self.bytes_sent = 0
        self.write_timeout = write_timeout
        #: When the connection is ended because the peer accepts no data; NEVER while nothing is blocked.
        self.stuck_at = NEVER

    def append(self, data: bytes) -> None:
        """Queue ``data``."""
        self.size += len(data)
        if len(data) >= _COPY_LIMIT:
            self._seal_block()
            self.sealed.append(data)
        else:
            block = self._open_block()
            end = self.fill + len(data)
            block[self.fill : end] = data
            self.fill = end

    def append_frame(self, first: int, payload: bytes | bytearray | memoryview, key: bytes) -> None:
        """Queue the frame that :func:`~endwell.wire.payload.frame` would return, without needless copies."""
        if len(payload) < _COPY_LIMIT:
            end = write(self._open_block(), self.fill, first, payload, key)
            self.size += end - self.fill
            self.fill = end
        elif key or type(payload) is not bytes:  # a subclass of bytes is copied, too
            self.append(frame(first, payload, key))
        else:
            self.append(header(first, len(payload)))
            self.append(payload)

    def buffers(self) -> list[bytes | memoryview]:
        """All queued buffers, in order."""
        self._seal_block()
        return self.sealed

    def consume(self, count: int, now: float) -> bool:
        """The kernel accepted ``count`` bytes; 0 if its send buffer was full.

        True if the send buffer had been full before: then these bytes prove that the peer's kernel is alive.
        """
        was_full = count > 0 and self.stuck_at != NEVER
        self.size -= count
        self.bytes_sent += count
        if not self.size:
            self.sealed.clear()
            self._release_block()
            self.stuck_at = NEVER
            return was_full
        # The block is given back, because the peer may need long for the rest.
        self._seal_block()
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
        return was_full

    def _open_block(self) -> bytearray:
        """The block to append to; a new one if there is none."""
        block = self.block
        if block is None:
            try:
                # A connection that is blocked by its peer does not take the shared block from the others.
                block = bytearray() if self.sealed else _spare.pop()
            except IndexError:
                block = bytearray()
            self.block = block
        return block

    def _seal_block(self) -> None:
        """Move the contents of the block into a buffer of exactly their size, and release the block."""
        block = self.block
        if block is not None:
            with memoryview(block) as view:
                self.sealed.append(bytes(view[: self.fill]))
            self._release_block()

    def _release_block(self) -> None:
        block = self.block
        self.block = None
        self.fill = 0
        if block is not None and len(block) >= _BLOCK_SIZE and not _spare:
            _spare.append(block)

"""The frames of hybi-03: the format of RFC 6455 with other opcodes, and never masked.

Draft-ietf-hybi-thewebsocketprotocol-03 §4.2. From draft -07 on, the frames are those of RFC 6455.
"""

from __future__ import annotations

from typing import Any

from ..ending import Close
from .codec import Buffer
from .frames import BINARY, CLOSE, CONTINUATION, FIN, LENGTH_16, PING, PONG, TEXT
from .payload import frame
from .portions import Portioned

__all__ = ["Hybi03", "first_of", "modern"]

#: The opcode of RFC 6455 for each opcode of the draft, from 0 on.
_OPCODES = (CONTINUATION, CLOSE, PING, PONG, TEXT, BINARY)
_RESERVED = 0x0F  # an opcode that RFC 6455 does not define, either
_MORE = 0x80  # the same bit as FIN, with the opposite meaning


def first_of(opcode: int) -> int:
    """The first byte of a complete control frame; ``opcode`` is that of RFC 6455."""
    return _OPCODES.index(opcode)


def modern(first: int) -> int:
    """Translate the first byte of a frame to RFC 6455."""
    opcode = first & 0x0F
    flags = (first ^ _MORE) & 0xF0
    return flags | (_OPCODES[opcode] if opcode < len(_OPCODES) else _RESERVED)


class Hybi03(Portioned):
    """Translates the first byte of each frame, and leaves the rest to the codec of RFC 6455."""

    def __init__(self, client: bool, max_size: int | None = 2**20) -> None:
        # In both roles, the base class acts as a client, which expects unmasked frames.
        super().__init__(True, max_size)
        self.share_key = Hybi03
        self.has_codes = False
        # The body of the received Close. It has no meaning in the draft, but the answer repeats it.
        self._body = b""
        # The position in the frame. _length_bytes: how many bytes of the length are missing (-1: unknown yet;
        # None: the next byte is the first of a frame). _length: the length so far. _payload_left: missing
        # bytes of the payload.
        self._length_bytes: int | None = None
        self._length = 0
        self._payload_left = 0

    def feed_portion(self, data: bytearray, end: int, messages: list[Any]) -> None:
        """See :meth:`Portioned.feed_portion`."""
        pos = 0
        while pos < end:
            if self._payload_left:
                step = min(self._payload_left, end - pos)
                self._payload_left -= step
                pos += step
                continue
            if self._length_bytes is None:
                data[pos] = modern(data[pos])
                self._length_bytes, self._length = -1, 0
            else:
                self._read_length(data[pos])
            pos += 1
        super().feed_portion(data, end, messages)

    def read(self, count: int, messages: list[Any]) -> None:
        """See :meth:`Codec.read`."""
        self._payload_left -= count
        super().read(count, messages)

    def _read_length(self, octet: int) -> None:
        """Handle one byte of a frame's length."""
        assert self._length_bytes is not None
        if self._length_bytes < 0:
            self._length_bytes = {LENGTH_16: 2, LENGTH_16 + 1: 8}.get(octet, 0)
            self._length = 0 if self._length_bytes else octet
        else:
            self._length_bytes -= 1
            self._length = self._length << 8 | octet
        if not self._length_bytes:
            self._payload_left = self._length
            self._length_bytes = None

    def payload(self, message: str | Buffer) -> bytes | bytearray | memoryview:
        """See :meth:`Codec.payload`."""
        payload: bytes | bytearray | memoryview = super().payload(message)
        self.first = _OPCODES.index(self.first & ~FIN)
        return payload

    def key(self) -> bytes:
        """An empty key: frames are not masked."""
        return b""

    def close(self, close: Close) -> bytes:
        """The closing frame, without code and reason."""
        return self.control(CLOSE, self._body)

    def closing(self, payload: bytes) -> Close:
        """See :meth:`Codec.closing`."""
        self._body = payload
        return Close()

    def control(self, opcode: int, payload: bytes | bytearray | memoryview) -> bytes:
        """See :meth:`Codec.control`."""
        return frame(first_of(opcode), payload, b"")

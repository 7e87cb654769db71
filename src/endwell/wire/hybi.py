"""The wire of hybi-03: frames of today's form with other numbers, and never masked.

Draft-ietf-hybi-thewebsocketprotocol-03 §4.2. From -07 on it is that of RFC 6455.
"""

from __future__ import annotations

from typing import Any

from ..ending import Close
from .codec import Buffer
from .frames import BINARY, CLOSE, CONTINUATION, FIN, LENGTH_16, PING, PONG, TEXT, close_payload
from .payload import frame
from .portions import Portioned

__all__ = ["Hybi03", "first_of", "modern"]

#: The draft's opcodes in order: those of RFC 6455.
_OPCODES = (CONTINUATION, CLOSE, PING, PONG, TEXT, BINARY)
_RESERVED = 0x0F  # is unknown to RFC 6455 too
_MORE = 0x80  # in the place of FIN, and its opposite


def first_of(opcode: int) -> int:
    """The first octet of a whole control frame, from the opcode of RFC 6455."""
    return _OPCODES.index(opcode)


def modern(first: int) -> int:
    """The first octet of a frame, as RFC 6455 has it."""
    opcode = first & 0x0F
    flags = (first ^ _MORE) & 0xF0
    return flags | (_OPCODES[opcode] if opcode < len(_OPCODES) else _RESERVED)


class Hybi03(Portioned):
    """Translates the first octet of each frame; all else is the codec of RFC 6455."""

    def __init__(self, client: bool, max_size: int | None = 2**20) -> None:
        # A client: the peer of one does not mask.
        super().__init__(True, max_size)
        self.alike = Hybi03
        self.has_codes = False
        # What is in a Close, which means nothing here, but is in the answer too.
        self._body = b""
        # Where in a frame the next octet is: what is missing of its length (-1: not known yet,
        # None: its first octet), the length so far, and of its payload.
        self._digits: int | None = None
        self._length = 0
        self._left = 0

    def take(self, data: bytearray, end: int, messages: list[Any]) -> None:
        """See :meth:`Portioned.take`."""
        pos = 0
        while pos < end:
            if self._left:
                step = min(self._left, end - pos)
                self._left -= step
                pos += step
                continue
            if self._digits is None:
                data[pos] = modern(data[pos])
                self._digits, self._length = -1, 0
            else:
                self._count(data[pos])
            pos += 1
        super().take(data, end, messages)

    def read(self, count: int, messages: list[Any]) -> None:
        """See :meth:`Codec.read`."""
        self._left -= count
        super().read(count, messages)

    def _count(self, octet: int) -> None:
        """Take an octet of a frame's length."""
        assert self._digits is not None
        if self._digits < 0:
            self._digits = {LENGTH_16: 2, LENGTH_16 + 1: 8}.get(octet, 0)
            self._length = 0 if self._digits else octet
        else:
            self._digits -= 1
            self._length = self._length << 8 | octet
        if not self._digits:
            self._left = self._length
            self._digits = None

    def payload(self, message: str | Buffer) -> bytes | bytearray | memoryview:
        """See :meth:`Codec.payload`."""
        payload: bytes | bytearray | memoryview = super().payload(message)
        self.first = _OPCODES.index(self.first & ~FIN)
        return payload

    def key(self) -> bytes:
        """None, in either role."""
        return b""

    def close(self, code: int | None, reason: str = "") -> bytes:
        """A closing frame. Raises as :meth:`Codec.close` does."""
        close_payload(code, reason)
        return self.control(CLOSE, self._body)

    def closing(self, payload: bytes) -> Close:
        """See :meth:`Codec.closing`."""
        self._body = payload
        return Close()

    def control(self, opcode: int, payload: bytes | bytearray | memoryview) -> bytes:
        """See :meth:`Codec.control`."""
        return frame(first_of(opcode), payload, b"")

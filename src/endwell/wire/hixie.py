"""The frames of hixie-75 and hixie-76 (draft-hixie-thewebsocketprotocol; hixie-76 is also hybi-00).

A text message is ``00 UTF-8 FF``. ``FF 00`` is the closing frame. Every other frame is skipped. There are no
binary messages, no pings and no close codes.
"""

from __future__ import annotations

from hashlib import md5
from typing import Any

from ..ending import Close
from ..errors import MessageTooBig, PeerError, ProtocolError, UnsupportedByProtocol
from ..http import Headers
from ..text import utf8
from .codec import NO_BINARY, Buffer, octets
from .portions import Portioned
from .utf8 import check, decode

__all__ = [
    "CHALLENGE",
    "MARK",
    "PROOF",
    "PROVING",
    "SIZED",
    "Hixie",
    "has_proof",
    "is_challenged",
    "key_number",
    "proof",
]

#: The versions whose opening handshake has a challenge (keys and 8 bytes) and a proof.
PROVING = frozenset(("hixie-76", "hybi-03"))
#: Number of bytes after the head of their request, and after the head of their 101.
CHALLENGE = 8
PROOF = 16

_TEXT = 0x00
#: A frame type from this value on is followed by a length. A frame of a lower type ends with MARK.
SIZED = 0x80
MARK = 0xFF
_CLOSE = b"\xff\x00"

#: Maximum number of bytes of a length: 63 bits, as in RFC 6455. The drafts have no limit.
_LENGTH = 9


def is_challenged(headers: Headers) -> bool:
    """Whether a request is one of the `PROVING` versions, so that 8 bytes after its head belong to it."""
    return "Sec-WebSocket-Key1" in headers and "Sec-WebSocket-Version" not in headers


def has_proof(headers: Headers) -> bool:
    """Whether a 101 is one of the `PROVING` versions, so that 16 bytes after its head belong to it."""
    return "Sec-WebSocket-Location" in headers


def key_number(value: str) -> int:
    """The number in a Sec-WebSocket-Key1 or -Key2 (hixie-76 §5.2).

    It is the digits of the key as one number, divided by the number of spaces. Raises ValueError if no client
    of the draft can have made the key.
    """
    digits = "".join(char for char in value if "0" <= char <= "9")
    spaces = value.count(" ")
    # §4.1: the product of number and spaces is at most 4,294,967,295, so it has at most ten digits.
    if not digits or len(digits) > 10 or int(digits) >= 2**32:
        raise ValueError("the key's digits are not a number of 32 bits")
    # §5.2: "If either /spaces_1/ or /spaces_2/ is zero, then abort the WebSocket connection." The same holds
    # if the digits are "not an integral multiple of" the spaces.
    if not spaces or int(digits) % spaces:
        raise ValueError("the key's number is not a multiple of its spaces")
    return int(digits) // spaces


def proof(key1: str, key2: str, challenge: bytes) -> bytes:
    """The 16 bytes that the server computes from both keys and the challenge. Raises ValueError."""
    parts = key_number(key1).to_bytes(4, "big") + key_number(key2).to_bytes(4, "big")
    return md5(parts + challenge, usedforsecurity=False).digest()


class Hixie(Portioned):
    """The codec of hixie-76; without ``has_close``, of hixie-75, in which the end of TCP is the Close."""

    def __init__(self, client: bool, max_size: int | None = 2**20, has_close: bool = True) -> None:
        super().__init__(client, max_size)
        self.has_close = has_close
        self.has_codes = self.has_pings = self.has_binary = False
        # The draft requires a reply (§4.2), but PhantomJS 1.9 and WebKit of that time ignore FF 00 and wait
        # for the end of TCP.
        self.has_reply = False
        # In both roles, because frames are not masked.
        self.share_key = Hixie
        self._size_limit = max_size
        # Whether all further data is ignored, and whether a closing frame was received.
        self._over = self._closed = False
        # The type of the incomplete frame (None: there is none). Its size: the bytes so far; for a frame with
        # a length, the bytes still missing once the length is known. The number of bytes of the length so
        # far.
        self._type: int | None = None
        self._size = 0
        self._counted = 0
        # The incomplete text, and how many of its bytes are checked as UTF-8.
        self._text = bytearray()
        self._valid = 0

    def has_partial_message(self) -> bool:
        """See :meth:`Codec.has_partial_message`."""
        return self._type is not None

    def partial_size(self) -> int:
        """See :meth:`Codec.partial_size`."""
        return len(self._text)

    def feed_portion(self, data: bytearray, end: int, messages: list[Any]) -> None:
        """See :meth:`Portioned.feed_portion`."""
        pos = 0
        try:
            while pos < end and not self._over:
                if self._type is None:
                    self._type, self._size, self._counted = data[pos], 0, 0
                    pos += 1
                elif self._type < SIZED:
                    pos = self._until_mark(data, pos, end, messages)
                elif self._counted <= _LENGTH:
                    self._read_length(data[pos])
                    pos += 1
                else:
                    pos = self._skip(pos, end)
        except PeerError:
            self._over = True
            self._text.clear()
            raise

    def _until_mark(self, data: bytearray, pos: int, end: int, messages: list[Any]) -> int:
        """Handle the bytes at ``pos`` of a frame that ends with FF. Returns where the rest starts."""
        mark = data.find(MARK, pos, end)
        stop = end if mark < 0 else mark
        # The part of a text up to the limit is checked as UTF-8 before the size, so that the error does not
        # depend on how the text was split.
        fits = stop if self._size_limit is None else min(stop, pos + self._size_limit - self._size)
        self._size += stop - pos
        if self._type == _TEXT:
            self._text += data[pos:fits]
            if mark >= 0 and fits == stop:
                messages.append(decode(self._text))
                self._text.clear()
                self._valid = 0
            else:
                self._valid = check(self._text, self._valid, len(self._text))
        self._check_size()
        if mark < 0:
            return end
        self._type = None
        return mark + 1

    def _read_length(self, octet: int) -> None:
        """Handle one byte of a length: seven bits of the number, and one bit for whether a byte follows."""
        self._size = self._size << 7 | octet & 0x7F
        self._counted += 1
        if octet & 0x80:
            if self._counted == _LENGTH:
                raise ProtocolError(f"the length of a frame has more than {_LENGTH} bytes")
            return
        self._check_size()
        self._counted = _LENGTH + 1
        if not self._size:
            if self._type == _CLOSE[0]:
                self._over = self._closed = True
                self.controls.append(Close())
            self._type = None

    def _skip(self, pos: int, end: int) -> int:
        # §4.2: "Discard the read bytes."
        step = min(self._size, end - pos)
        self._size -= step
        if not self._size:
            self._type = None
        return pos + step

    def _check_size(self) -> None:
        # §4.2 about skipped frames: clients "may therefore impose implementation-specific limits on the
        # lengths". Skipped frames have the same limit as text messages.
        if self._size_limit is not None and self._size > self._size_limit:
            # The text does not give the size, which depends on how the frame was split.
            raise MessageTooBig(f"frame is above {self._size_limit} bytes")

    def message(self, message: str | Buffer) -> bytes:
        """See :meth:`payload`."""
        return self.payload(message)

    def payload(self, message: str | Buffer) -> bytes:
        """The frame of a text message.

        Raises UnsupportedByProtocol for bytes, and ValueError for a lone surrogate.
        """
        if not isinstance(message, str):
            try:
                octets(message, "")
            except TypeError:
                raise TypeError(f"message must be a str, not {type(message).__name__}") from None
            raise UnsupportedByProtocol(NO_BINARY)
        self.first = -1
        return b"\x00" + utf8(message, "message") + b"\xff"

    def ping(self, payload: bytes | bytearray | memoryview) -> bytes:
        """Raises UnsupportedByProtocol."""
        raise UnsupportedByProtocol("this old protocol has no pings")

    def close(self, close: Close) -> bytes:
        """The closing frame. In hixie-75, only in answer to one."""
        # hixie-75 has no closing frame. Perl's Protocol::WebSocket sends one all the same and waits for the
        # answer. All other peers would skip the frame.
        return _CLOSE if self.has_close or self._closed else b""

"""Messages of RFC 6455 §5.4-5.6 out of bytes, and into bytes, for one connection."""

from __future__ import annotations

from codecs import utf_8_decode
from dataclasses import dataclass
from typing import final

from ..ending import Close
from ..errors import InvalidData, MessageTooBig, PeerError, PolicyViolation, ProtocolError
from . import frames
from .deflate import PerMessageDeflate
from .frames import BINARY, CONTINUATION, FIN, LENGTH_16, MAX_CONTROL, PING, PONG, RSV1, TEXT, build
from .payload import binary, piece, text

__all__ = ["Codec", "Event", "Ping", "Pong"]

# A message may have so many fragments, and one more for each 16 bytes of it. Fragments
# are joined as they come, so they cost time only, and a fragment that brings data has
# paid for its time; this ends the endless message that brings none. Precedent: ws
# closes with 1008 "Too many message fragments" (CVE-2026-48779), but at a bare
# 16,384, which honest streams of small fragments exceed.
_FREE_FRAGMENTS = 2**17
_BYTES_PER_FRAGMENT = 16

_FINAL_TEXT = FIN | TEXT
_FINAL_BINARY = FIN | BINARY


@final
@dataclass(slots=True)
class Ping:
    """A received ping."""

    payload: bytes


@final
@dataclass(slots=True)
class Pong:
    """A received pong."""

    payload: bytes


#: What can be received: a text message, a binary message, a control frame.
Event = str | bytes | Ping | Pong | Close


class Codec:
    """The wire of one connection; ``client`` is our own role.

    A received message above ``max_size`` bytes (None: no limit), counted after
    decompression, is refused.
    """

    __slots__ = (
        "_buffer",
        "_checked",
        "_client",
        "_compressed",
        "_deflate",
        "_final",
        "_fragments",
        "_key",
        "_limit",
        "_low",
        "_max_size",
        "_missing",
        "_opcode",
        "_partial",
        "_stopped",
    )

    def __init__(
        self, client: bool, max_size: int | None = 2**20, deflate: PerMessageDeflate | None = None
    ) -> None:
        self._client = client
        self._max_size = max_size
        self._deflate = deflate
        # For the short cut: the octet after the first of a frame without payload, and the
        # longest payload that is taken by it.
        self._low = 0 if client else 0x80
        self._limit = 2**16 - 1 if max_size is None else min(2**16 - 1, max_size)
        self._stopped = False
        # An incomplete header or control frame, at most 130 bytes.
        self._partial = b""
        # The data frame whose payload is coming: how much of it is missing, whether it ends
        # the message, and its key, turned to the next octet.
        self._missing = 0
        self._final = False
        self._key = b""
        # The message that is coming (0: none), what there is of it, and how much of that
        # is known to be UTF-8.
        self._opcode = 0
        self._compressed = False
        self._fragments = 0
        self._buffer = bytearray()
        self._checked = 0

    def receive(self, data: bytes | bytearray | memoryview, events: list[Event]) -> None:
        """Append to ``events`` what ``data``, the next bytes from the peer, completes.

        Raises the PeerError that the peer has committed; what came before it is in
        ``events``. After an error or a Close, whatever comes is ignored.
        """
        self.feed(bytearray(data), len(data), events)

    def feed(self, data: bytearray, end: int, events: list[Event]) -> None:
        """The same for the first ``end`` bytes of a read buffer, whose contents may be changed."""
        if self._stopped:
            return
        try:
            self._parse(data, end, events)
        except PeerError:
            self._stop()
            raise

    def _parse(self, data: bytearray, end: int, events: list[Event]) -> None:
        pos = 0
        if self._missing:
            pos = self._take(data, 0, end, events)
        elif self._partial:
            data = bytearray(self._partial) + data[:end]
            end = len(data)
            self._partial = b""
        masked, low, limit = not self._client, self._low, self._limit
        while end - pos >= 2 and not self._stopped:
            # The short cut, equal to _frame() for what most frames are: a message in one
            # frame that is all here, text or binary (the two first octets between which
            # there is no other), of less than 64 KiB.
            first = data[pos]
            length = data[pos + 1] - low
            start = pos + 2
            shortest = 0
            if length == LENGTH_16 and end - pos >= 4:
                length = data[pos + 2] << 8 | data[pos + 3]
                start = pos + 4
                shortest = LENGTH_16
            if masked:
                start += 4
            if (
                _FINAL_TEXT <= first <= _FINAL_BINARY
                and shortest <= length <= limit
                and start + length <= end
                and not self._opcode
                and (length < LENGTH_16 or shortest)
            ):
                pos = start + length
                events.append(
                    binary(data, start, pos, masked)
                    if first == _FINAL_BINARY
                    else _text(data, start, pos, masked)
                )
                continue
            after = self._frame(data, pos, end, events)
            if after < 0:
                break
            pos = after
        if pos < end and not self._stopped:
            self._partial = bytes(data[pos:end])

    def _frame(self, data: bytearray, pos: int, end: int, events: list[Event]) -> int:
        """Take the frame at ``pos``: where the rest starts, or -1 if it has to wait for more."""
        header = frames.parse_header(data, pos, end, not self._client)
        if header is None:
            return -1
        first, length, start = header
        opcode = first & 0x0F
        if opcode > BINARY:
            after: int = start + length
            if after > end:
                return -1
            self._control(opcode, binary(data, start, after, not self._client), events)
            return after
        if opcode == CONTINUATION:
            self._continue(first)
        else:
            self._begin(first)
        # Before anything is allocated. Not for a compressed frame: DEFLATE may spend any
        # number of bytes on nothing, so no length says that the message is too big; and
        # of such a frame nothing is kept but what it inflates to, which is limited.
        size = len(self._buffer) + length
        if self._max_size is not None and size > self._max_size and not self._compressed:
            raise MessageTooBig(f"message has {size} bytes or more; at most {self._max_size} are accepted")
        self._missing = length
        self._final = bool(first & FIN)
        self._key = b"" if self._client else bytes(data[start - 4 : start])
        return self._take(data, start, end, events)

    def _control(self, opcode: int, payload: bytes, events: list[Event]) -> None:
        # RFC 6455 §5.4: "Control frames MAY be injected in the middle of a fragmented
        # message." So nothing of the message's state is touched.
        if opcode == PING:
            events.append(Ping(payload))
        elif opcode == PONG:
            events.append(Pong(payload))
        else:
            events.append(frames.parse_close(payload))
            # §1.4: "after receiving a control frame indicating the connection should be
            # closed, a peer discards any further data received."
            self._stop()

    def _begin(self, first: int) -> None:
        # RFC 6455 §5.4: "The fragments of one message MUST NOT be interleaved between the
        # fragments of another message".
        if self._opcode:
            raise ProtocolError("message starts before the last one has ended")
        self._compressed = bool(first & RSV1)
        if self._compressed and self._deflate is None:
            raise ProtocolError("RSV1 is set and compression was not agreed")
        self._opcode = first & 0x0F
        self._fragments = 1

    def _continue(self, first: int) -> None:
        if not self._opcode:
            raise ProtocolError("continuation of no message")
        # RFC 7692 §6.1, as in frames.py.
        if first & RSV1:
            raise ProtocolError("RSV1 is set on a continuation")
        self._fragments += 1
        if self._fragments > _FREE_FRAGMENTS + len(self._buffer) // _BYTES_PER_FRAGMENT:
            raise PolicyViolation(f"message has too many fragments for its {len(self._buffer)} bytes")

    def _take(self, data: bytearray, pos: int, end: int, events: list[Event]) -> int:
        """Take what there is at ``pos`` of the data frame's payload: where the rest starts."""
        # min: compiled, a slice's bounds have to fit a pointer; a frame's length need not.
        after = pos + min(self._missing, end - pos)
        key = self._key
        chunk = piece(data, pos, after, key)
        self._missing -= len(chunk)
        turn = len(chunk) & 3
        self._key = key[turn:] + key[:turn]
        last = self._final and not self._missing
        if last and not self._compressed and not self._buffer:
            # The whole message in one piece.
            events.append(chunk if self._opcode == BINARY else _decode(chunk))
            self._opcode = 0
        else:
            self._gather(chunk, last, events)
        return after

    def _gather(self, chunk: bytes, last: bool, events: list[Event]) -> None:
        buffer = self._buffer
        too_big = False
        if self._compressed:
            assert self._deflate is not None
            self._deflate.decompress(chunk, last, buffer, self._max_size)
            too_big = self._max_size is not None and len(buffer) > self._max_size
        else:
            buffer += chunk
        if last and not too_big:
            events.append(bytes(buffer) if self._opcode == BINARY else _decode(buffer))
            buffer.clear()
            self._checked = 0
            self._opcode = 0
            return
        # Also before a message is called too big, so that the first wrong byte decides
        # in whatever pieces it came.
        if self._opcode == TEXT:
            self._check_text()
        if too_big:
            raise MessageTooBig(f"message inflates to more than {self._max_size} bytes")

    def _check_text(self) -> None:
        """Fail an incomplete text message at its first byte that is not UTF-8.

        RFC 6455 §8.1: "When an endpoint is to interpret a byte stream as UTF-8 but finds
        that the byte stream is not, in fact, a valid UTF-8 stream, that endpoint MUST
        _Fail the WebSocket Connection_." Autobahn (6.4.*) calls only the first byte strict.
        """
        with memoryview(self._buffer) as view, view[self._checked :] as rest:
            try:
                self._checked += utf_8_decode(rest, "strict", False)[1]
            except UnicodeDecodeError as error:
                raise _not_utf8(self._checked + error.start) from None
        # Of a surrogate, CPython's decoder awaits the third byte (its "surrogatepass" may
        # take it), though the second cannot follow the first in UTF-8.
        if b"\xed\xa0" <= self._buffer[self._checked :] < b"\xee":
            raise _not_utf8(self._checked)

    def _stop(self) -> None:
        self._stopped = True
        self._partial = b""
        self._buffer = bytearray()

    def message(self, message: str | bytes | bytearray | memoryview) -> bytes:
        """The frame of a message: text for a str, else binary.

        Raises TypeError for another type, and UnicodeEncodeError for a lone surrogate.
        """
        payload: bytes | bytearray | memoryview
        if isinstance(message, str):
            opcode, payload = TEXT, message.encode()
        elif isinstance(message, bytes):
            opcode, payload = BINARY, message
        else:
            opcode, payload = BINARY, _octets(message, "message must be a str")
        deflate = self._deflate
        if deflate is not None and len(payload) >= deflate.min_size:
            compressed = deflate.compress(payload)
            if compressed is not None:
                return build(opcode, compressed, self._client, rsv1=True)
        return build(opcode, payload, self._client)

    def ping(self, payload: bytes | bytearray | memoryview) -> bytes:
        """A ping frame. Raises ValueError for a payload over 125 bytes."""
        return self._build_control(PING, payload)

    def pong(self, payload: bytes | bytearray | memoryview) -> bytes:
        """A pong frame. Raises ValueError for a payload over 125 bytes."""
        return self._build_control(PONG, payload)

    def close(self, code: int | None, reason: str = "") -> bytes:
        """A Close frame. Raises what :func:`~endwell.wire.frames.close_payload` does."""
        return build(frames.CLOSE, frames.close_payload(code, reason), self._client)

    def _build_control(self, opcode: int, payload: bytes | bytearray | memoryview) -> bytes:
        payload = _octets(payload, "payload must be bytes")
        if len(payload) > MAX_CONTROL:
            raise ValueError(f"payload must be at most {MAX_CONTROL} bytes, not {len(payload)}")
        return build(opcode, payload, self._client)


def _decode(payload: bytes | bytearray) -> str:
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(error.start) from None


def _text(data: bytearray, start: int, end: int, masked: bool) -> str:
    try:
        return text(data, start, end, masked)
    except UnicodeDecodeError as error:
        raise _not_utf8(error.start) from None


def _not_utf8(position: int) -> InvalidData:
    return InvalidData(f"text is not UTF-8 at byte {position}")


def _octets(data: bytes | bytearray | memoryview, wanted: str) -> bytes | bytearray | memoryview:
    """``data`` such that its length counts bytes. Raises TypeError if it is not bytes-like."""
    if isinstance(data, memoryview):
        flat = data.ndim == 1 and data.itemsize == 1 and data.c_contiguous
        return data if flat else data.tobytes()
    if isinstance(data, bytes | bytearray):
        return data
    raise TypeError(f"{wanted} or bytes-like, not {type(data).__name__}")

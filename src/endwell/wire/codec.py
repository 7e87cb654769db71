"""The codec of one connection: parses and builds the messages of RFC 6455 §5.4-5.6."""

# size: one parser; all of its methods share the state of the incomplete message
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from ..ending import Close
from ..errors import MessageTooBig, PeerError, PolicyViolation, ProtocolError
from ..text import lone_surrogate, utf8
from . import frames
from .deflate import PerMessageDeflate
from .frames import BINARY, CONTINUATION, FIN, LENGTH_16, MAX_CONTROL, PING, PONG, RSV1, TEXT, build, new_key
from .payload import binary, frame, piece, put, reserve, text, unmask, whole
from .utf8 import check, decode, not_utf8

if TYPE_CHECKING:
    # Any object with the buffer protocol. collections.abc.Buffer exists since Python 3.12.
    from _typeshed import ReadableBuffer as Buffer
else:
    Buffer = bytes | bytearray | memoryview

__all__ = [
    "MAX_MESSAGES",
    "NO_BINARY",
    "Buffer",
    "Codec",
    "Control",
    "Event",
    "Ping",
    "Pong",
    "check_message",
    "octets",
]

#: The error for bytes if ``has_binary`` is False.
NO_BINARY = "message must be a str: this old protocol has no binary messages"

# A message may have _FREE_FRAGMENTS fragments, and one more for each _BYTES_PER_FRAGMENT bytes of data.
# Fragments are joined as they arrive, so they cost no memory, only time. The limit ends a message of endless
# empty fragments. Precedent: npm ws closes with 1008 "Too many message fragments" (CVE-2026-48779), but at a
# fixed 16,384, which legitimate streams of small fragments exceed.
_FREE_FRAGMENTS = 2**17
_BYTES_PER_FRAGMENT = 16

# The work after which one call stops and leaves the rest for the next call, in inflated bytes. DEFLATE
# inflates one byte to at most 1032, so one read of 256 KiB can hold hundreds of messages of max_size. It can
# also hold 131,072 empty compressed blocks, or 43,690 pings.
_MAX_WORK = 2**18
# The work of one frame. An uncompressed message in one frame is not counted as work; one call parses at most
# _MAX_MESSAGES of those.
_FRAME_WORK = 64
MAX_MESSAGES = 2**12
_MAX_MESSAGES = MAX_MESSAGES  # a C constant in the compiled module; other modules cannot import that
# Compressed payloads are inflated in pieces of this many bytes, and the work is checked after each piece.
# zlib needs at most a few milliseconds for a piece.
_INFLATE_STEP = 2**12

_FINAL_TEXT = FIN | TEXT
_FINAL_BINARY = FIN | BINARY
_RSV1 = RSV1

# For a payload up to this length, memory is reserved as soon as its header arrives.
_RESERVED = 2**26


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


#: A received control frame.
Control = Ping | Pong | Close
#: A received text message, binary message or control frame.
Event = str | bytes | Control


class Codec:
    """Parses received bytes to messages, and builds frames, for one connection.

    ``client`` is the role of this side. A received message above ``max_size`` bytes, counted after
    decompression, is refused; None: no limit.

    This class implements RFC 6455. The codecs of older protocol versions are subclasses (``hixie.py``,
    ``hybi.py``). A connection uses only the public attributes and methods of this class.
    """

    __slots__ = (
        "_buffer",
        "_checked",
        "_client",
        "_compressed",
        "_deflate",
        "_fast_limit",
        "_final",
        "_fragments",
        "_key",
        "_mask_bit",
        "_max_size",
        "_opcode",
        "_partial",
        "_stopped",
        "_work",
        "controls",
        "first",
        "has_binary",
        "has_close",
        "has_codes",
        "has_pings",
        "has_reply",
        "has_unparsed",
        "max_messages",
        "missing",
        "room",
        "room_fill",
        "share_key",
    )

    def __init__(
        self, client: bool, max_size: int | None = 2**20, deflate: PerMessageDeflate | None = None
    ) -> None:
        self._client = client
        self._max_size = max_size
        self._deflate = deflate
        #: Two codecs with equal values build the same frame for a message, so a broadcast can share it. None:
        #: no other codec builds the same frame. A client uses a new masking key for each frame, and with
        #: context takeover a frame depends on the messages before.
        self.share_key: object = None if client else () if deflate is None else deflate.share_key
        # For the fast path: the second byte of a frame without payload, and the longest payload.
        self._mask_bit = 0 if client else 0x80
        self._fast_limit = 2**16 - 1 if max_size is None else min(2**16 - 1, max_size)
        self._stopped = False
        #: Features that older protocol versions may lack: the closing handshake, its codes and reasons,
        #: pings, binary messages.
        self.has_close = self.has_codes = self.has_pings = self.has_binary = True
        #: Whether the peer answers a Close with a Close. If not, a server ends TCP after its own Close.
        self.has_reply = True
        #: Received control frames; the caller removes them.
        self.controls: list[Any] = []
        # An incomplete header or control frame, at most 130 bytes; or the unparsed rest, if `has_unparsed`.
        self._partial = b""
        #: Whether received bytes are not parsed yet. Then the caller calls :meth:`feed` again, without data.
        self.has_unparsed = False
        #: Number of messages after which one call stops and leaves the rest for the next call.
        # A float, because a rate limit computes it for each read, and a conversion costs more.
        self.max_messages: float = _MAX_MESSAGES
        self._work = 0
        #: Bytes of the current data frame's payload that have not arrived. If there is a ``room``, a driver
        #: may read them directly into it, behind its first ``room_fill`` bytes, and then call :meth:`read`.
        self.missing = 0
        self.room: bytearray | None = None
        self.room_fill = 0
        #: The first byte of the frame for the payload that :meth:`payload` returned. Negative: the payload is
        #: the whole frame.
        self.first = 0
        # Whether the received frame is the last of its message, and its masking key at the next byte.
        self._final = False
        self._key = b""
        # The opcode of the incomplete message (0: none), its data, and how much of that is checked as UTF-8.
        self._opcode = 0
        self._compressed = False
        self._fragments = 0
        self._buffer = bytearray()
        self._checked = 0

    def has_partial_message(self) -> bool:
        """Whether a message is received in part."""
        return self._opcode != 0 or self.missing > 0 or bool(self._partial)

    def partial_size(self) -> int:
        """The number of bytes received of the incomplete message."""
        return len(self._buffer) if self.room is None else self.room_fill

    def receive(self, data: bytes | bytearray | memoryview, events: list[Event]) -> None:
        """Parse the next bytes from the peer, and append messages and control frames to ``events``.

        Raises a PeerError if the peer broke a rule; ``events`` then has everything before the error. After an
        error or a Close, all further data is ignored.
        """
        self.controls = events
        self.feed(bytearray(data), len(data), events)
        while self.has_unparsed:
            self.feed(bytearray(), 0, events)

    def feed(self, data: bytearray, end: int, messages: list[Any]) -> None:
        """Parse the first ``end`` bytes of a read buffer, whose contents may be changed.

        Messages are appended to ``messages``, control frames to ``controls``. If the bytes are too much work
        for one call, the rest is left for the next call and ``has_unparsed`` is True. Raises as
        :meth:`receive` does.
        """
        if self._stopped:
            return
        self.has_unparsed = False
        self._work = 0
        try:
            self._parse(data, end, messages)
        except PeerError:
            self._stop()
            raise

    def read(self, count: int, messages: list[Any]) -> None:
        """Handle ``count`` bytes that were read into ``room``."""
        try:
            room = self.room
            assert room is not None
            if self._key:
                unmask(room, self.room_fill, self.room_fill + count, self._key)
            self._fill_room(count, messages)
        except PeerError:
            self._stop()
            raise

    def _parse(self, data: bytearray, end: int, messages: list[Any]) -> None:
        pos, before = 0, len(messages)
        if self._partial:
            data = bytearray(self._partial) + data[:end] if end else bytearray(self._partial)
            end = len(data)
            self._partial = b""
        if self.missing:
            pos = self._read_payload(data, 0, end, messages)
        # The number of messages that may still be parsed in this call.
        room = self.max_messages - (len(messages) - before) if self._work <= _MAX_WORK else 0
        masked, low, limit = not self._client, self._mask_bit, self._fast_limit
        while room >= 1 and end - pos >= 2 and not self._stopped:
            # The fast path, with the same result as _frame(). It handles most frames: a complete,
            # uncompressed text or binary message in one frame, of less than 64 KiB. (No valid first byte lies
            # between the two.)
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
                if first == _FINAL_BINARY:
                    messages.append(binary(data, start, pos, masked))
                else:
                    messages.append(_text(data, start, pos, masked))
                room -= 1
                continue
            after = self._frame(data, pos, end, messages)
            if after < 0:
                break
            pos = after
            room = self.max_messages - (len(messages) - before) if self._work <= _MAX_WORK else 0
        if pos < end and not self._stopped:
            self.has_unparsed = room < 1
            self._partial = binary(data, pos, end, False)

    def _frame(self, data: bytearray, pos: int, end: int, messages: list[Any]) -> int:
        """Parse the frame at ``pos``. Returns where the rest starts; -1 if the frame is incomplete."""
        header = frames.parse_header(data, pos, end, not self._client)
        if header is None:
            return -1
        self._work += _FRAME_WORK
        first, length, start = header
        opcode = first & 0x0F
        if opcode > BINARY:
            after: int = start + length
            if after > end:
                return -1
            self.controls.append(self._control(opcode, binary(data, start, after, not self._client)))
            return after
        if opcode == CONTINUATION:
            self._continue_message(first)
        else:
            self._begin_message(first)
        # Checked before memory is allocated. Not for a compressed frame: DEFLATE data of any length can
        # inflate to nothing, so its length does not prove that the message is too big. Only the inflated data
        # is kept, and that is limited. Both sides are compared by their difference, because in the compiled
        # build their sum could exceed 63 bits and become negative.
        if (
            self._max_size is not None
            and not self._compressed
            and length > self._max_size - len(self._buffer)
        ):
            raise MessageTooBig(f"message is above {self._max_size} bytes")
        self.missing = length
        self._final = bool(first & FIN)
        self._key = b"" if self._client else bytes(data[start - 4 : start])
        alone = self._final and not self._compressed and not self._buffer
        if alone and end - start < length <= _RESERVED:
            self.room = reserve(length)
            self.room_fill = 0
        return self._read_payload(data, start, end, messages)

    def _control(self, opcode: int, payload: bytes) -> Control:
        # RFC 6455 §5.4: "Control frames MAY be injected in the middle of a fragmented
        # message." So the state of the incomplete message does not change.
        if opcode == PING:
            return Ping(payload)
        if opcode == PONG:
            return Pong(payload)
        close = self.closing(payload)
        # §1.4: "after receiving a control frame indicating the connection should be
        # closed, a peer discards any further data received."
        self._stop()
        return close

    def closing(self, payload: bytes) -> Close:
        """Parse the body of a received Close. Raises as :func:`~endwell.wire.frames.parse_close` does."""
        return frames.parse_close(payload)

    def _begin_message(self, first: int) -> None:
        # RFC 6455 §5.4: "The fragments of one message MUST NOT be interleaved between the
        # fragments of another message".
        if self._opcode:
            raise ProtocolError("a message starts before the previous one has ended")
        self._compressed = bool(first & RSV1)
        if self._compressed and self._deflate is None:
            raise ProtocolError("RSV1 is set, but compression was not negotiated")
        self._opcode = first & 0x0F
        self._fragments = 1

    def _continue_message(self, first: int) -> None:
        if not self._opcode:
            raise ProtocolError("a continuation frame came without a message to continue")
        # RFC 7692 §6.1, as in frames.py.
        if first & RSV1:
            raise ProtocolError("RSV1 is set on a continuation")
        self._fragments += 1
        if self._fragments > _FREE_FRAGMENTS + len(self._buffer) // _BYTES_PER_FRAGMENT:
            raise PolicyViolation(f"message has too many fragments for its {len(self._buffer)} bytes")

    def _read_payload(self, data: bytearray, pos: int, end: int, messages: list[Any]) -> int:
        """Handle the part of the data frame's payload at ``pos``. Returns where the rest starts."""
        if self._compressed:
            return self._inflate(data, pos, end, messages)
        # min(), because in the compiled build the bounds of a slice must fit into Py_ssize_t.
        after = pos + min(self.missing, end - pos)
        if self.room is not None:
            put(self.room, self.room_fill, data, pos, after, self._key)
            self._fill_room(after - pos, messages)
            return after
        chunk = piece(data, pos, after, self._key)
        self._advance(len(chunk))
        last = self._final and not self.missing
        if last and not self._buffer:
            # The message is complete in one piece.
            messages.append(chunk if self._opcode == BINARY else decode(chunk))
            self._opcode = 0
        else:
            self._append_chunk(chunk, last, messages)
        return after

    def _inflate(self, data: bytearray, pos: int, end: int, messages: list[Any]) -> int:
        """Like :meth:`_read_payload` for a compressed frame. Stops early if one call is too much work."""
        while True:
            after = pos + min(self.missing, end - pos, _INFLATE_STEP)
            chunk = piece(data, pos, after, self._key)
            self._advance(after - pos)
            pos = after
            self._append_chunk(chunk, self._final and not self.missing, messages)
            if not self.missing or pos == end or self._work > _MAX_WORK:
                return pos

    def _advance(self, count: int) -> None:
        self.missing -= count
        turn = count & 3
        if turn:
            self._key = self._key[turn:] + self._key[:turn]

    def _fill_room(self, count: int, messages: list[Any]) -> None:
        """Handle ``count`` more bytes that are in ``room``."""
        room = self.room
        assert room is not None
        self.room_fill += count
        self._advance(count)
        if self.missing:
            if self._opcode == TEXT:
                self._checked = check(room, self._checked, self.room_fill)
            return
        self.room = None
        payload = whole(room)
        messages.append(payload if self._opcode == BINARY else decode(payload))
        self._checked = 0
        self._opcode = 0

    def _append_chunk(self, chunk: bytes, last: bool, messages: list[Any]) -> None:
        buffer = self._buffer
        too_big = False
        if self._compressed:
            assert self._deflate is not None
            self._work += self._deflate.decompress(chunk, last, buffer, self._max_size)
            too_big = self._max_size is not None and len(buffer) > self._max_size
        else:
            buffer += chunk
        if last and not too_big:
            messages.append(bytes(buffer) if self._opcode == BINARY else decode(buffer))
            buffer.clear()
            self._checked = 0
            self._opcode = 0
            return
        # Checked before the size, so that the error does not depend on how the message was split.
        if self._opcode == TEXT:
            self._checked = check(buffer, self._checked, len(buffer))
        if too_big:
            raise MessageTooBig(f"message inflates to more than {self._max_size} bytes")

    def _stop(self) -> None:
        self._stopped = True
        self.has_unparsed = False
        self._partial = b""
        self._buffer = bytearray()
        self.missing = 0
        self.room = None

    def message(self, message: str | Buffer) -> bytes:
        """The frame of a message: a text frame for a str, a binary frame for bytes-like data.

        Raises TypeError for another type, and ValueError for a lone surrogate.
        """
        payload = self.payload(message)
        return frame(self.first, payload, self.key())

    def payload(self, message: str | Buffer) -> bytes | bytearray | memoryview:
        """The payload of the frame that :meth:`message` builds; ``first`` is set to its first byte."""
        payload: bytes | bytearray | memoryview
        if isinstance(message, bytes):
            self.first, payload = _FINAL_BINARY, message
        elif isinstance(message, str):
            try:
                self.first, payload = _FINAL_TEXT, message.encode()
            except UnicodeEncodeError:
                raise lone_surrogate("message") from None
        else:
            self.first, payload = _FINAL_BINARY, octets(message, "message must be a str")
        deflate = self._deflate
        if deflate is not None and len(payload) >= deflate.min_size:
            compressed = deflate.compress(payload)
            if compressed is not None:
                self.first |= _RSV1
                return compressed
        return payload

    def key(self) -> bytes:
        """The masking key of the next frame: a new key for a client, empty for a server."""
        return new_key() if self._client else b""

    def ping(self, payload: bytes | bytearray | memoryview) -> bytes:
        """A ping frame. Raises ValueError for a payload above 125 bytes."""
        return self._build_control(PING, payload)

    def pong(self, payload: bytes | bytearray | memoryview) -> bytes:
        """A pong frame. Raises ValueError for a payload above 125 bytes."""
        return self._build_control(PONG, payload)

    def close(self, close: Close) -> bytes:
        """A Close frame."""
        return self.control(frames.CLOSE, frames.close_payload(close))

    def control(self, opcode: int, payload: bytes | bytearray | memoryview) -> bytes:
        """A control frame. The payload is not checked."""
        return build(opcode, payload, self._client)

    def _build_control(self, opcode: int, payload: bytes | bytearray | memoryview) -> bytes:
        payload = octets(payload, "payload must be bytes")
        if len(payload) > MAX_CONTROL:
            raise ValueError(f"payload must be at most {MAX_CONTROL} bytes, not {len(payload)}")
        return self.control(opcode, payload)


def _text(data: bytearray, start: int, end: int, masked: bool) -> str:
    try:
        return text(data, start, end, masked)
    except UnicodeDecodeError as error:
        raise not_utf8(error.start) from None


def octets(data: Buffer, wanted: str) -> bytes | bytearray | memoryview:
    """``data`` as an object whose length is in bytes. Raises TypeError if it is not bytes-like."""
    if isinstance(data, memoryview):
        flat = data.ndim == 1 and data.itemsize == 1 and data.c_contiguous
        return data if flat else data.tobytes()
    if isinstance(data, bytes | bytearray):
        return data
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"{wanted} or bytes-like, not {type(data).__name__}") from None
    # The copy releases the view, because objects such as array and mmap cannot be resized while a view
    # exists.
    with view:
        return view.tobytes()


def check_message(message: str | Buffer) -> None:
    """Raise TypeError for a message of a wrong type, and ValueError for a lone surrogate."""
    if isinstance(message, str):
        utf8(message, "message")
    elif not isinstance(message, bytes):
        octets(message, "message must be a str")

"""Messages of RFC 6455 §5.4-5.6 out of bytes, and into bytes, for one connection."""

# size: one parser; what it knows of a message is read and written everywhere in it
from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from ..ending import Close
from ..errors import MessageTooBig, PeerError, PolicyViolation, ProtocolError
from . import frames
from .deflate import PerMessageDeflate
from .frames import BINARY, CONTINUATION, FIN, LENGTH_16, MAX_CONTROL, PING, PONG, RSV1, TEXT, build, new_key
from .payload import binary, frame, piece, put, reserve, text, unmask, whole
from .utf8 import check, decode, not_utf8

if TYPE_CHECKING:
    # Whatever has the buffer protocol; collections.abc has a name for it since Python 3.12.
    from _typeshed import ReadableBuffer as Buffer
else:
    Buffer = bytes | bytearray | memoryview

__all__ = ["NO_BINARY", "Buffer", "Codec", "Control", "Event", "Ping", "Pong", "check_message", "octets"]

#: Why bytes are refused where ``has_binary`` is False.
NO_BINARY = "message must be a str: this old protocol has no binary messages"

# A message may have so many fragments, and one more for each 16 bytes of it. Fragments
# are joined as they come, so they cost time only, and a fragment that brings data has
# paid for its time; this ends the endless message that brings none. Precedent: ws
# closes with 1008 "Too many message fragments" (CVE-2026-48779), but at a bare
# 16,384, which honest streams of small fragments exceed.
_FREE_FRAGMENTS = 2**17
_BYTES_PER_FRAGMENT = 16

# Work of one call after which the rest of a read has to wait, in bytes inflated. DEFLATE makes
# up to 1032 bytes of one, and a read of 256 KiB would be as many messages of max_size; or it
# would be 131,072 compressed blocks of nothing, or 43,690 pings.
_AT_ONCE = 2**18
# What a frame costs, but for a message that is all in one and not compressed; of those there are at
# most so many in one call.
_FRAME = 64
_MESSAGES = 2**12
# Bytes of a compressed payload that are looked at before the work is: as many as zlib can spend
# a few milliseconds on.
_PIECE = 2**12

_FINAL_TEXT = FIN | TEXT
_FINAL_BINARY = FIN | BINARY
_RSV1 = RSV1

# Up to here a payload's length is believed: room is reserved for all of it.
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


#: What can be received beside messages.
Control = Ping | Pong | Close
#: What can be received: a text message, a binary message, a control frame.
Event = str | bytes | Control


class Codec:
    """The wire of one connection; ``client`` is our own role.

    A received message above ``max_size`` bytes (None: no limit), counted after
    decompression, is refused.

    This is RFC 6455. The codecs of older protocols are subclasses (``hixie.py``,
    ``hybi.py``): what a connection asks of its codec is the public part of this class.
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
        "_opcode",
        "_partial",
        "_stopped",
        "_work",
        "alike",
        "controls",
        "first",
        "has_binary",
        "has_close",
        "has_codes",
        "has_pings",
        "has_reply",
        "has_unparsed",
        "missing",
        "room",
        "there",
    )

    def __init__(
        self, client: bool, max_size: int | None = 2**20, deflate: PerMessageDeflate | None = None
    ) -> None:
        self._client = client
        self._max_size = max_size
        self._deflate = deflate
        #: Codecs in which this is equal frame every message alike; None: no other does, because a
        #: client masks with a new key each time, and context takeover remembers.
        self.alike: object = None if client else () if deflate is None else deflate.alike
        # For the short cut: the octet after the first of a frame without payload, and the
        # longest payload that is taken by it.
        self._low = 0 if client else 0x80
        self._limit = 2**16 - 1 if max_size is None else min(2**16 - 1, max_size)
        self._stopped = False
        #: What older protocols may lack: a closing handshake, codes and reasons in it, pings,
        #: binary messages.
        self.has_close = self.has_codes = self.has_pings = self.has_binary = True
        #: Whether a peer that gets our Close replies to it; else a server ends TCP behind its Close.
        self.has_reply = True
        #: The control frames that came, for whoever handles them to take away.
        self.controls: list[Any] = []
        # An incomplete header or control frame, at most 130 bytes; or what waits, if paused.
        self._partial = b""
        #: Whether bytes wait to be looked at: then :meth:`feed` has more to say without any.
        self.has_unparsed = False
        self._work = 0
        #: How much of a data frame's payload has not come yet. It may be read straight into
        #: ``room``, if there is one, behind what is ``there``; then call :meth:`read`.
        self.missing = 0
        self.room: bytearray | None = None
        self.there = 0
        #: The first octet of the frame for what :meth:`payload` has returned; if negative,
        #: that is the whole frame.
        self.first = 0
        # Whether that frame ends its message, and its key, turned to the next octet.
        self._final = False
        self._key = b""
        # The message that is coming (0: none), what there is of it, and how much of that
        # is known to be UTF-8.
        self._opcode = 0
        self._compressed = False
        self._fragments = 0
        self._buffer = bytearray()
        self._checked = 0

    def has_partial_message(self) -> bool:
        """Whether a message has begun to come, but not all of it has."""
        return self._opcode != 0 or self.missing > 0 or bool(self._partial)

    def partial_size(self) -> int:
        """How many bytes there are of the message that is coming."""
        return len(self._buffer) if self.room is None else self.there

    def receive(self, data: bytes | bytearray | memoryview, events: list[Event]) -> None:
        """Append to ``events`` what ``data``, the next bytes from the peer, completes.

        Raises the PeerError that the peer has committed; what came before it is in
        ``events``. After an error or a Close, whatever comes is ignored.
        """
        self.controls = events
        self.feed(bytearray(data), len(data), events)
        while self.has_unparsed:
            self.feed(bytearray(), 0, events)

    def feed(self, data: bytearray, end: int, messages: list[Any]) -> None:
        """The same for the first ``end`` bytes of a read buffer, whose contents may be changed.

        Control frames go to ``controls``. A part of the bytes may be left for the next
        call, if they are much work; then ``has_unparsed`` is True.
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
        """The same for ``count`` bytes that were read into ``room``."""
        try:
            room = self.room
            assert room is not None
            if self._key:
                unmask(room, self.there, self.there + count, self._key)
            self._put(count, messages)
        except PeerError:
            self._stop()
            raise

    def _parse(self, data: bytearray, end: int, messages: list[Any]) -> None:
        pos = 0
        if self._partial:
            data = bytearray(self._partial) + data[:end] if end else bytearray(self._partial)
            end = len(data)
            self._partial = b""
        if self.missing:
            pos = self._take(data, 0, end, messages)
        # 0 once it was enough work.
        room = _MESSAGES if self._work <= _AT_ONCE else 0
        masked, low, limit = not self._client, self._low, self._limit
        while room and end - pos >= 2 and not self._stopped:
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
            if self._work > _AT_ONCE:
                room = 0
        if pos < end and not self._stopped:
            self.has_unparsed = not room
            self._partial = binary(data, pos, end, False)

    def _frame(self, data: bytearray, pos: int, end: int, messages: list[Any]) -> int:
        """Take the frame at ``pos``: where the rest starts, or -1 if it has to wait for more."""
        header = frames.parse_header(data, pos, end, not self._client)
        if header is None:
            return -1
        self._work += _FRAME
        first, length, start = header
        opcode = first & 0x0F
        if opcode > BINARY:
            after: int = start + length
            if after > end:
                return -1
            self.controls.append(self._control(opcode, binary(data, start, after, not self._client)))
            return after
        if opcode == CONTINUATION:
            self._continue(first)
        else:
            self._begin(first)
        # Before anything is allocated. Not for a compressed frame: DEFLATE may spend any
        # number of bytes on nothing, so no length says that the message is too big; and
        # of such a frame nothing is kept but what it inflates to, which is limited.
        # Compared before anything is added: of 63 bits and one byte more the sum, compiled, is negative.
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
            self.there = 0
        return self._take(data, start, end, messages)

    def _control(self, opcode: int, payload: bytes) -> Control:
        # RFC 6455 §5.4: "Control frames MAY be injected in the middle of a fragmented
        # message." So nothing of the message's state is touched.
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
        """What a received Close frame says. Raises what :func:`~endwell.wire.frames.parse_close` does."""
        return frames.parse_close(payload)

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

    def _take(self, data: bytearray, pos: int, end: int, messages: list[Any]) -> int:
        """Take what there is at ``pos`` of the data frame's payload: where the rest starts."""
        if self._compressed:
            return self._inflate(data, pos, end, messages)
        # min: compiled, a slice's bounds have to fit a pointer; a frame's length need not.
        after = pos + min(self.missing, end - pos)
        if self.room is not None:
            put(self.room, self.there, data, pos, after, self._key)
            self._put(after - pos, messages)
            return after
        chunk = piece(data, pos, after, self._key)
        self._came(len(chunk))
        last = self._final and not self.missing
        if last and not self._buffer:
            # The whole message in one piece.
            messages.append(chunk if self._opcode == BINARY else decode(chunk))
            self._opcode = 0
        else:
            self._gather(chunk, last, messages)
        return after

    def _inflate(self, data: bytearray, pos: int, end: int, messages: list[Any]) -> int:
        """The same for a compressed one; a part may be left there, if it is much work."""
        while True:
            after = pos + min(self.missing, end - pos, _PIECE)
            chunk = piece(data, pos, after, self._key)
            self._came(after - pos)
            pos = after
            self._gather(chunk, self._final and not self.missing, messages)
            if not self.missing or pos == end or self._work > _AT_ONCE:
                return pos

    def _came(self, count: int) -> None:
        self.missing -= count
        turn = count & 3
        if turn:
            self._key = self._key[turn:] + self._key[:turn]

    def _put(self, count: int, messages: list[Any]) -> None:
        """``count`` more bytes of the message are in its room."""
        room = self.room
        assert room is not None
        self.there += count
        self._came(count)
        if self.missing:
            if self._opcode == TEXT:
                self._checked = check(room, self._checked, self.there)
            return
        self.room = None
        payload = whole(room)
        messages.append(payload if self._opcode == BINARY else decode(payload))
        self._checked = 0
        self._opcode = 0

    def _gather(self, chunk: bytes, last: bool, messages: list[Any]) -> None:
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
        # Also before a message is called too big, so that the first wrong byte decides
        # in whatever pieces it came.
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
        """The frame of a message: text for a str, else binary.

        Raises TypeError for another type, and UnicodeEncodeError for a lone surrogate.
        """
        payload = self.payload(message)
        return frame(self.first, payload, self.key())

    def payload(self, message: str | Buffer) -> bytes | bytearray | memoryview:
        """The payload of that frame; ``first`` is its first octet."""
        payload: bytes | bytearray | memoryview
        if isinstance(message, bytes):
            self.first, payload = _FINAL_BINARY, message
        elif isinstance(message, str):
            self.first, payload = _FINAL_TEXT, message.encode()
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
        """The key that a frame of ours is masked with: a client's is new each time, a server has none."""
        return new_key() if self._client else b""

    def ping(self, payload: bytes | bytearray | memoryview) -> bytes:
        """A ping frame. Raises ValueError for a payload over 125 bytes."""
        return self._build_control(PING, payload)

    def pong(self, payload: bytes | bytearray | memoryview) -> bytes:
        """A pong frame. Raises ValueError for a payload over 125 bytes."""
        return self._build_control(PONG, payload)

    def close(self, code: int | None, reason: str = "") -> bytes:
        """A Close frame. Raises what :func:`~endwell.wire.frames.close_payload` does."""
        return self.control(frames.CLOSE, frames.close_payload(code, reason))

    def control(self, opcode: int, payload: bytes | bytearray | memoryview) -> bytes:
        """A control frame; the payload is taken for what it may be."""
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
    """``data`` such that its length counts bytes. Raises TypeError if it is not bytes-like."""
    if isinstance(data, memoryview):
        flat = data.ndim == 1 and data.itemsize == 1 and data.c_contiguous
        return data if flat else data.tobytes()
    if isinstance(data, bytes | bytearray):
        return data
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"{wanted} or bytes-like, not {type(data).__name__}") from None
    # array, mmap and others, which cannot change their size while there is a view of them.
    with view:
        return view.tobytes()


def check_message(message: str | Buffer) -> None:
    """Raise what sending ``message`` would raise in any protocol: TypeError, or UnicodeEncodeError for a lone surrogate."""
    if isinstance(message, str):
        message.encode()
    elif not isinstance(message, bytes):
        octets(message, "message must be a str")

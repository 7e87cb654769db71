"""Two loggers at level DEBUG: ``endwell.wire`` for frames, ``endwell.wire.handshake`` for HTTP heads.

Whether a connection is traced is decided once, when it opens. A connection that is not traced has an ordinary
codec and no extra cost.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import count, cycle
from typing import Any

from ..ending import Close
from ..http import CREDENTIALS, Request, Response
from ..http.bearer import FIELD, PREFIX, RENEWAL
from .codec import Buffer, Codec
from .frames import BINARY, CLOSE, CONTINUATION, FIN, LENGTH_16, PING, PONG, RSV1, TEXT
from .hixie import MARK, SIZED, Hixie
from .hybi import Hybi03, first_of, modern
from .payload import frame

__all__ = [
    "TracedCodec",
    "TracedHixie",
    "TracedHybi03",
    "trace_request",
    "trace_response",
    "traces",
    "without_values",
]

logger = logging.getLogger("endwell.wire")
handshake_logger = logging.getLogger("endwell.wire.handshake")

#: Maximum number of payload bytes in a log line.
MAX_LOGGED = 64

#: RFC 6455 §5.2: "If 127, the following 8 bytes interpreted as a 64-bit unsigned integer".
LENGTH_64 = 127

#: hixie-76 §4.2: a frame of this type and of length 0 is the closing frame.
HIXIE_CLOSE = 0xFF

_NAMES = {
    CONTINUATION: "CONTINUATION",
    TEXT: "TEXT",
    BINARY: "BINARY",
    CLOSE: "CLOSE",
    PING: "PING",
    PONG: "PONG",
}
_RENEWAL = RENEWAL.encode()
_numbers = count(1)


def traces() -> bool:
    """Whether a connection that opens now logs its frames."""
    return logger.isEnabledFor(logging.DEBUG)


def trace_request(request: Request) -> None:
    """Log a sent request without credentials."""
    if handshake_logger.isEnabledFor(logging.DEBUG):
        target = without_values(request.target)
        _trace_head(">", f"{request.method} {target} HTTP/{request.version}", request.headers)


def trace_response(response: Response) -> None:
    """Log a received response without credentials."""
    if handshake_logger.isEnabledFor(logging.DEBUG):
        _trace_head("<", f"HTTP {response.status} {response.reason}".rstrip(), response.headers)


def _trace_head(arrow: str, first: str, fields: Iterable[tuple[str, str]]) -> None:
    handshake_logger.debug("%s %s", arrow, first)
    for name, value in fields:
        handshake_logger.debug("%s %s: %s", arrow, name, _format_value(name.lower(), value))


def _format_value(name: str, value: str) -> str:
    if name in CREDENTIALS:
        return "..."
    if name == FIELD.lower() and PREFIX in value:
        return "..."
    return _escaped(without_values(value) if name == "location" else value)


def without_values(target: str) -> str:
    """``target`` without the values of its query. A parameter without "=" may be a token: it is hidden."""
    path, question, query = target.partition("?")
    names = (part.partition("=") for part in query.split("&"))
    return (
        path
        + question
        + ("&".join(f"{name}=..." if equals else "..." for name, equals, _ in names) if query else "")
    )


class _Traced(Codec):
    """The base of the traced codecs. It logs each frame, in both directions."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._number = next(_numbers)
        self._incoming: _Frames | _HixieFrames = _Frames()
        # No shared frames: this codec would not log a frame that another connection's codec has built.
        self.share_key = None
        #: Whether the peer may send tokens in messages: then the log has no payload that can hide one.
        self.discreet = False

    def feed(self, data: bytearray, end: int, messages: list[Any]) -> None:
        """See :meth:`Codec.feed`."""
        if end:
            self._trace(bytes(data[:end]))
        super().feed(data, end, messages)

    def read(self, count: int, messages: list[Any]) -> None:
        """See :meth:`Codec.read`."""
        assert self.room is not None
        self._trace(bytes(memoryview(self.room)[self.room_fill : self.room_fill + count]))
        super().read(count, messages)

    def payload(self, message: str | Buffer) -> bytes:
        """The whole frame of a message."""
        payload = super().payload(message)
        whole = frame(self.first, payload, self.key())
        self._log(">", self.first, len(payload), bytes(payload[:MAX_LOGGED]))
        self.first = -1
        return whole

    def message(self, message: str | Buffer) -> bytes:
        """See :meth:`Codec.message`."""
        return self.payload(message)

    def control(self, opcode: int, payload: bytes | bytearray | memoryview) -> bytes:
        """See :meth:`Codec.control`."""
        self._log(">", self._first_of(opcode), len(payload), bytes(payload))
        return super().control(opcode, payload)

    def _first_of(self, opcode: int) -> int:
        return FIN | opcode

    def _trace(self, data: bytes) -> None:
        for first, length, start in self._incoming.feed(data):
            self._log("<", first, length, start)

    def _log(self, arrow: str, first: int, length: int, start: bytes) -> None:
        if self.discreet and arrow == "<" and (first & RSV1 or first & 0x0F == CONTINUATION):
            start = b""
        logger.debug("#%d %s %s", self._number, arrow, self._describe(first, length, start))

    def _describe(self, first: int, length: int, start: bytes) -> str:
        return _format_frame(first, length, start)


class TracedCodec(_Traced):
    """The codec of RFC 6455, with logging."""


class TracedHybi03(_Traced, Hybi03):
    """The codec of hybi-03, with logging. The log has the frame names of RFC 6455."""

    def _describe(self, first: int, length: int, start: bytes) -> str:
        # In hybi-03, the body of a Close has no meaning.
        return _format_frame(modern(first), length, start, has_codes=False)

    def _first_of(self, opcode: int) -> int:
        return first_of(opcode)


class TracedHixie(_Traced, Hixie):
    """The codec of hixie-75 or hixie-76, with logging."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._incoming = _HixieFrames()

    def payload(self, message: str | Buffer) -> bytes:
        """See :meth:`Hixie.payload`."""
        whole = Hixie.payload(self, message)
        self._log_whole(whole)
        return whole

    def close(self, close: Close) -> bytes:
        """See :meth:`Hixie.close`."""
        whole = super().close(close)
        self._log_whole(whole)
        return whole

    def _log_whole(self, whole: bytes) -> None:
        for first, length, start in _HixieFrames().feed(whole):
            self._log(">", first, length, start)

    def _describe(self, first: int, length: int, start: bytes) -> str:
        if first == 0:
            return _format_frame(FIN | TEXT, length, start)
        if first == HIXIE_CLOSE and not length:
            return _format_frame(FIN | CLOSE, 0, b"")
        return f"type {first:#04x} {start.hex()}{'...' if length > MAX_LOGGED else ''} ({length} bytes)"


class _Frames:
    """Finds the frames in a stream of bytes, without checking their validity."""

    def __init__(self) -> None:
        self._head = b""
        self._first = 0
        self._length = 0
        self._key = b""
        #: Missing bytes of the payload, and the start of the payload; None while a header is expected.
        self._missing = 0
        self._start: bytes | None = None

    def feed(self, data: bytes) -> Iterable[tuple[int, int, bytes]]:
        """The first byte, the length and the start of the payload of each frame that ``data`` completes."""
        view = memoryview(data)
        while True:
            if self._start is None:
                used = self._begin(bytes(view[:14]))
                view = view[used:]
                if self._start is None:
                    return
            room = MAX_LOGGED - len(self._start)
            self._start += bytes(view[: min(room, self._missing)])
            taken = min(self._missing, len(view))
            self._missing -= taken
            view = view[taken:]
            if self._missing:
                return
            start, self._start = self._start, None
            if self._key:
                start = bytes(octet ^ mask for octet, mask in zip(start, cycle(self._key), strict=False))
            yield self._first, self._length, start

    def _begin(self, data: bytes) -> int:
        """Add the bytes of ``data`` that belong to the header. Returns their number."""
        before = len(self._head)
        head = self._head + data
        size = 2
        if len(head) >= 2:
            low = head[1] & 0x7F
            size += {LENGTH_16: 2, LENGTH_64: 8}.get(low, 0)
            end = size
            size += 4 * (head[1] >> 7)
        if len(head) < size:
            self._head = head
            return len(data)
        self._first = head[0]
        self._length = self._missing = int.from_bytes(head[2:end], "big") if end > 2 else low
        self._key = head[end:size]
        self._start = b""
        self._head = b""
        return size - before


class _HixieFrames:
    """Finds the frames of hixie-75 and hixie-76: a type, then data up to a mark, or a length and data."""

    def __init__(self) -> None:
        #: The type of the incomplete frame; None between frames.
        self._type: int | None = None
        self._length = 0
        #: Missing bytes of the payload; None while the length is incomplete, or if there is none.
        self._missing: int | None = None
        self._start = b""

    def feed(self, data: bytes) -> Iterable[tuple[int, int, bytes]]:
        """The type, the length and the start of the payload of each frame that ``data`` completes."""
        pos = 0
        while pos < len(data):
            if self._type is None:
                self._type, self._length, self._missing, self._start = data[pos], 0, None, b""
                pos += 1
                continue
            if self._type < SIZED:
                mark = data.find(MARK, pos)
                stop = len(data) if mark < 0 else mark
                self._length += stop - pos
                over = mark >= 0
                after = stop + 1 if over else stop
            elif self._missing is None:
                octet = data[pos]
                stop, after = pos, pos + 1
                self._length = self._length << 7 | octet & 0x7F
                if not octet & 0x80:
                    self._missing = self._length
                over = self._missing == 0
            else:
                stop = after = pos + min(self._missing, len(data) - pos)
                self._missing -= stop - pos
                over = not self._missing
            self._start += data[pos : min(stop, pos + MAX_LOGGED - len(self._start))]
            pos = after
            if over:
                yield self._type, self._length, self._start
                self._type = None


def _format_frame(first: int, length: int, start: bytes, *, has_codes: bool = True) -> str:
    opcode = first & 0x0F
    words = [_NAMES.get(opcode, f"opcode {opcode}")]
    if opcode == CLOSE and length >= 2 and has_codes:
        words.append(str(int.from_bytes(start[:2], "big")))
        start = start[2:]
    if start:
        plain = opcode in ((TEXT, CLOSE) if has_codes else (TEXT,)) and not first & RSV1
        dots = "..." if length > MAX_LOGGED else ""
        if start.startswith(_RENEWAL) and plain:
            start, dots = _RENEWAL, "..."
        # The last character may be incomplete.
        words.append(
            (repr(start.decode(errors="ignore" if dots else "replace")) if plain else start.hex()) + dots
        )
    words.append(
        f"({length} bytes{', compressed' if first & RSV1 else ''}{'' if first & FIN else ', to be continued'})"
    )
    return " ".join(words)


def _escaped(text: str) -> str:
    """``text`` with escaped control characters, which could break a log line or steer a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

"""The loggers ``endwell.wire``, one line for each frame, and ``endwell.wire.handshake``, the heads; both at DEBUG.

Whether a connection is traced is asked once, when it opens. One that is not has an
ordinary codec, and pays nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from itertools import count, cycle
from typing import Any

from ..http import CREDENTIALS, Request, Response
from .codec import Buffer, Codec
from .deflate import PerMessageDeflate
from .frames import BINARY, CLOSE, CONTINUATION, FIN, LENGTH_16, PING, PONG, RSV1, TEXT
from .payload import frame

__all__ = ["TracedCodec", "trace_request", "trace_response", "traces"]

logger = logging.getLogger("endwell.wire")
handshake_logger = logging.getLogger("endwell.wire.handshake")

#: Bytes of a payload that a line shows.
MAX_LOGGED = 64

#: RFC 6455 §5.2: "If 127, the following 8 bytes interpreted as a 64-bit unsigned integer".
LENGTH_64 = 127

_NAMES = {
    CONTINUATION: "CONTINUATION",
    TEXT: "TEXT",
    BINARY: "BINARY",
    CLOSE: "CLOSE",
    PING: "PING",
    PONG: "PONG",
}
_numbers = count(1)


def traces() -> bool:
    """Whether the frames of a connection that opens now are logged."""
    return logger.isEnabledFor(logging.DEBUG)


def trace_request(request: Request) -> None:
    """Log a request that is sent, without credentials."""
    if handshake_logger.isEnabledFor(logging.DEBUG):
        path, query, values = request.target.partition("?")
        target = path + query + re.sub("=[^&]*", "=...", values)
        _trace_head(">", f"{request.method} {target} HTTP/{request.version}", request.headers)


def trace_response(response: Response) -> None:
    """Log an answer that came, without credentials."""
    if handshake_logger.isEnabledFor(logging.DEBUG):
        _trace_head("<", f"HTTP {response.status} {response.reason}".rstrip(), response.headers)


def _trace_head(arrow: str, first: str, fields: Iterable[tuple[str, str]]) -> None:
    handshake_logger.debug("%s %s", arrow, first)
    for name, value in fields:
        handshake_logger.debug(
            "%s %s: %s", arrow, name, "..." if name.lower() in CREDENTIALS else _escaped(value)
        )


class TracedCodec(Codec):
    """A codec that logs each frame of its connection, in both directions."""

    def __init__(
        self, client: bool, max_size: int | None = 2**20, deflate: PerMessageDeflate | None = None
    ) -> None:
        super().__init__(client, max_size, deflate)
        self._number = next(_numbers)
        self._incoming = _Frames()
        # A frame that another connection made for all would not be logged here.
        self.alike = None

    def feed(self, data: bytearray, end: int, messages: list[Any]) -> None:
        """See :meth:`Codec.feed`."""
        if end:
            self._trace(self._incoming.feed(bytes(data[:end])))
        super().feed(data, end, messages)

    def read(self, count: int, messages: list[Any]) -> None:
        """See :meth:`Codec.read`."""
        assert self.room is not None
        self._trace(self._incoming.feed(bytes(memoryview(self.room)[self.there : self.there + count])))
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
        self._log(">", FIN | opcode, len(payload), bytes(payload))
        return super().control(opcode, payload)

    def _trace(self, frames: Iterable[tuple[int, int, bytes]]) -> None:
        for first, length, start in frames:
            self._log("<", first, length, start)

    def _log(self, arrow: str, first: int, length: int, start: bytes) -> None:
        logger.debug("#%d %s %s", self._number, arrow, _format_frame(first, length, start))


class _Frames:
    """The frames in a stream of bytes, whatever a receiver thinks of them."""

    def __init__(self) -> None:
        self._head = b""
        self._first = 0
        self._length = 0
        self._key = b""
        #: Bytes of the payload that are still to come, and its beginning; None: a header comes.
        self._missing = 0
        self._start: bytes | None = None

    def feed(self, data: bytes) -> Iterable[tuple[int, int, bytes]]:
        """The first octet, the length and the beginning of each frame that ``data`` completes."""
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
        """Take of ``data`` what the header needs: how many bytes."""
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


def _format_frame(first: int, length: int, start: bytes) -> str:
    opcode = first & 0x0F
    words = [_NAMES.get(opcode, f"opcode {opcode}")]
    if opcode == CLOSE and length >= 2:
        words.append(str(int.from_bytes(start[:2], "big")))
        start = start[2:]
    if start:
        plain = opcode in (TEXT, CLOSE) and not first & RSV1
        dots = "..." if length > MAX_LOGGED else ""
        # A character may be cut at the end.
        words.append(
            (repr(start.decode(errors="ignore" if dots else "replace")) if plain else start.hex()) + dots
        )
    words.append(
        f"({length} bytes{', compressed' if first & RSV1 else ''}{'' if first & FIN else ', to be continued'})"
    )
    return " ".join(words)


def _escaped(text: str) -> str:
    """``text`` such that no peer breaks a line of the log, or steers a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

"""Frames of RFC 6455 §5.2: the header, masking keys, and the body of a Close."""

from __future__ import annotations

import os

from ..ending import Close
from ..errors import InvalidData, ProtocolError
from .payload import frame

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "FIN",
    "LENGTH_16",
    "MAX_CONTROL",
    "PING",
    "PONG",
    "RSV1",
    "TEXT",
    "build",
    "close_payload",
    "new_key",
    "parse_close",
    "parse_header",
]

CONTINUATION, TEXT, BINARY = 0x0, 0x1, 0x2
CLOSE, PING, PONG = 0x8, 0x9, 0xA
_OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))

FIN, RSV1, _RSV2, _RSV3 = 0x80, 0x40, 0x20, 0x10
_CONTROL = 0x08  # the opcode bit that is set in all control frames
_MASK = 0x80

#: RFC 6455 §5.2: in place of a length, "If 126, the following 2 bytes interpreted as a
#: 16-bit unsigned integer are the payload length."
LENGTH_16 = 126

#: RFC 6455 §5.5: "All control frames MUST have a payload length of 125 bytes or less".
MAX_CONTROL = 125

# RFC 6455 §10.3: "Clients MUST choose a new masking key for each frame, using an
# algorithm that cannot be predicted by end applications that provide data". os.urandom() is such an
# algorithm. A call for each frame would cost more than the frame, so keys are generated in batches.
# list.pop() and list.extend() are atomic, so two threads never get the same key.
_BATCH = 256
_keys: list[bytes] = []

if hasattr(os, "register_at_fork"):
    # Otherwise the parent and the child process would use the same keys.
    os.register_at_fork(after_in_child=_keys.clear)


def new_key() -> bytes:
    """An unpredictable masking key."""
    try:
        return _keys.pop()
    except IndexError:
        random = os.urandom(4 * _BATCH)
        _keys.extend([random[i : i + 4] for i in range(4, len(random), 4)])
        return random[:4]


def build(
    opcode: int, payload: bytes | bytearray | memoryview, masked: bool, fin: bool = True, rsv1: bool = False
) -> bytes:
    """One frame as bytes. The items of a memoryview must be single bytes."""
    first = opcode | (FIN if fin else 0) | (RSV1 if rsv1 else 0)
    return frame(first, payload, new_key() if masked else b"")


def parse_header(data: bytearray, pos: int, end: int, masked: bool) -> tuple[int, int, int] | None:
    """Parse the frame header at ``pos``.

    Returns the first byte, the length of the payload, and where the payload starts; None if the header is
    incomplete. A masking key is the four bytes before the payload. ``masked``: whether the peer's role
    requires a masked frame. Raises ProtocolError for every error that is visible in the header alone.
    """
    if end - pos < 2:
        return None
    first, second = data[pos], data[pos + 1]
    length = second & ~_MASK
    _check_start(first, length)
    # RFC 6455 §5.1: "The server MUST close the connection upon receiving a frame
    # that is not masked"; "A client MUST close a connection if it detects a masked frame."
    if bool(second & _MASK) is not masked:
        raise ProtocolError("a client's frame is not masked" if masked else "a server's frame is masked")
    start = pos + 2
    if length > 125:
        start += 2 if length == LENGTH_16 else 8
        if end < start:
            return None
        length = _extended_length(data[pos + 2 : start])
    if masked:
        start += 4
    return (first, length, start) if end >= start else None


def _check_start(first: int, length: int) -> None:
    # RFC 6455 §5.2: "If a nonzero value is received and none of the negotiated
    # extensions defines the meaning of such a nonzero value, the receiving endpoint
    # MUST _Fail the WebSocket Connection_." Only RSV1 can have one (RFC 7692 §6).
    if first & (_RSV2 | _RSV3):
        raise ProtocolError("RSV2 or RSV3 is set")
    opcode = first & 0x0F
    # §5.2: "If an unknown opcode is received, the receiving endpoint MUST _Fail
    # the WebSocket Connection_."
    if opcode not in _OPCODES:
        raise ProtocolError(f"opcode {opcode} is unknown")
    if opcode & _CONTROL:
        # §5.5: control frames "MUST have a payload length of 125 bytes or less and
        # MUST NOT be fragmented."
        if length > MAX_CONTROL:
            raise ProtocolError("control frame is longer than 125 bytes")
        if not first & FIN:
            raise ProtocolError("control frame is fragmented")
        # RFC 7692 §6.1: "An endpoint MUST NOT set the "Per-Message Compressed" bit of
        # control frames and non-first fragments of a data message. An endpoint
        # receiving such a frame MUST _Fail the WebSocket Connection_."
        if first & RSV1:
            raise ProtocolError("RSV1 is set on a control frame")


def _extended_length(field: bytearray) -> int:
    length = int.from_bytes(field, "big")
    # RFC 6455 §5.2: "in all cases, the minimal number of bytes MUST be used to
    # encode the length"
    if length < (126 if len(field) == 2 else 2**16):
        raise ProtocolError(f"length {length} is not in the shortest form")
    # §5.2: "the most significant bit MUST be 0"
    if length >= 2**63:
        raise ProtocolError("the most significant bit of the length is set")
    return length


# --- the body of a Close -----------------------------------------------------


def parse_close(payload: bytes) -> Close:
    """Parse the body of a received Close frame.

    Raises ProtocolError for a body of one byte or a code that is not valid on the wire, and InvalidData for a
    reason that is not UTF-8.
    """
    if not payload:
        return Close()
    # RFC 6455 §5.5.1: "If there is a body, the first two bytes of the body MUST be
    # a 2-byte unsigned integer (in network byte order) representing a status code"
    if len(payload) == 1:
        raise ProtocolError("a Close has a body of one byte")
    code = int.from_bytes(payload[:2], "big")
    try:
        reason = payload[2:].decode()
    except UnicodeDecodeError:
        raise InvalidData("the reason of a Close is not UTF-8") from None
    try:
        return Close(code, reason)
    except ValueError:
        raise ProtocolError(f"close code {code} is not valid on the wire") from None


def close_payload(close: Close) -> bytes:
    """The body of a Close frame to send."""
    return b"" if close.code is None else close.code.to_bytes(2, "big") + close.reason.encode()

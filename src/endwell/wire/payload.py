"""Payloads: masking, unmasking, and copying from a read buffer.

In the compiled build, ``_payload.pyx`` replaces these functions (see ``codec.pxd`` and others). In
plain Python, the only fast ways to mask are big integers and translation tables. A differential test compares
both versions.
"""

from __future__ import annotations

from struct import Struct
from typing import Any

__all__ = [
    "binary",
    "frame",
    "header",
    "mask",
    "piece",
    "put",
    "reserve",
    "text",
    "total",
    "unmask",
    "whole",
    "write",
]

_short_header = Struct("!BB").pack
_medium_header = Struct("!BBH").pack
_long_header = Struct("!BBQ").pack

# From about this number of bytes on, bytes.translate() on every fourth byte is faster than one big integer.
# Below it, the four slices cost more than they save.
_LARGE = 1024


def _xor(data: bytes | bytearray | memoryview, key: bytes | bytearray) -> bytes:
    size = len(data)
    keys = (key * ((size + 3) >> 2))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(size, "little")


# For each value of a key byte, the table that masks a payload byte.
_TABLES = [_xor(bytes(range(256)), bytes((octet,)) * 4) for octet in range(256)]


def mask(data: bytes | bytearray | memoryview, key: bytes | bytearray) -> bytes:
    """Mask or unmask ``data`` with the four bytes of ``key``.

    RFC 6455 §5.3: "transformed-octet-i = original-octet-i XOR
    masking-key-octet-j", with "j = i MOD 4".
    """
    if len(data) < _LARGE:
        return _xor(data, key)
    masked = bytearray(data)
    for i in range(4):
        masked[i::4] = masked[i::4].translate(_TABLES[key[i]])
    return bytes(masked)


def header(first: int, size: int, bit: int = 0) -> bytes:
    """The frame header for a payload of ``size`` bytes, without the key; ``bit`` is 0x80 with a key."""
    if size < 126:
        return _short_header(first, bit | size)
    if size < 2**16:
        return _medium_header(first, bit | 126, size)
    return _long_header(first, bit | 127, size)


def frame(first: int, payload: bytes | bytearray | memoryview, key: bytes) -> bytes:
    """A frame (RFC 6455 §5.2) with the first byte ``first``; masked unless ``key`` is empty."""
    if key:
        return header(first, len(payload), 0x80) + key + mask(payload, key)
    return header(first, len(payload)) + payload


def write(block: bytearray, at: int, first: int, payload: bytes | bytearray | memoryview, key: bytes) -> int:
    """Write the frame that :func:`frame` returns into ``block`` at ``at``. Returns where it ends.

    ``block`` grows if necessary.
    """
    made = frame(first, payload, key)
    end = at + len(made)
    block[at:end] = made
    return end


def binary(data: bytearray, start: int, end: int, masked: bool) -> bytes:
    """The payload ``data[start:end]``; if ``masked``, the four bytes before it are its key."""
    return mask(data[start:end], data[start - 4 : start]) if masked else bytes(data[start:end])


def piece(data: bytearray, start: int, end: int, key: bytes) -> bytes:
    """A piece of a payload, ``data[start:end]``; ``key`` is rotated to its first byte, or empty."""
    return mask(data[start:end], key) if key else bytes(data[start:end])


def text(data: bytearray, start: int, end: int, masked: bool) -> str:
    """Like :func:`binary`, decoded as UTF-8; may change ``data[start:end]``. Raises UnicodeDecodeError."""
    return binary(data, start, end, masked).decode()


# A payload that arrives in several reads is assembled in the object that will be delivered, so that a long
# payload is not copied again at its end.


def reserve(size: int) -> bytearray:
    """A buffer for a payload of ``size`` bytes. Its memory is not touched before the bytes arrive."""
    return bytearray()


def put(room: bytearray, at: int, data: bytearray, start: int, end: int, key: bytes) -> None:
    """Write a :func:`piece` into ``room`` at ``at``, where the previous piece ended."""
    room[at:] = piece(data, start, end, key)


def unmask(room: bytearray, at: int, end: int, key: bytes) -> None:
    """Unmask the bytes ``room[at:end]``, which were read into it; ``key`` is rotated to the first of them."""
    room[at:end] = mask(room[at:end], key)


def whole(room: bytearray) -> bytes:
    """The complete payload in ``room``."""
    return bytes(room)


def total(messages: list[Any], first: int) -> int:
    """The bytes and characters of the messages from index ``first`` on."""
    return sum(map(len, messages[first:]))

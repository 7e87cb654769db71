"""Payloads: masking, and taking them out of a read.

Compiled, ``_payload.pyx`` stands in for these functions (``codec.pxd`` and
``frames.pxd`` say so): in Python, masking has no fast form but whole integers and
tables. A differential test holds the two together.
"""

from __future__ import annotations

from struct import Struct

__all__ = ["binary", "frame", "header", "mask", "piece", "put", "reserve", "text", "unmask", "whole", "write"]

_short_header = Struct("!BB").pack
_medium_header = Struct("!BBH").pack
_long_header = Struct("!BBQ").pack

# From about this many bytes on, translating every fourth byte at once beats one
# big integer; below it, the four slices cost more than they save.
_LARGE = 1024


def _xor(data: bytes | bytearray | memoryview, key: bytes | bytearray) -> bytes:
    size = len(data)
    keys = (key * ((size + 3) >> 2))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(size, "little")


# For each octet of a key: what it makes of each octet of a payload.
_TABLES = [_xor(bytes(range(256)), bytes((octet,)) * 4) for octet in range(256)]


def mask(data: bytes | bytearray | memoryview, key: bytes | bytearray) -> bytes:
    """``data`` masked, or unmasked, with the four octets of ``key``.

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
    """What is before a payload of ``size`` octets, up to its key; ``bit`` is 0x80 if there is one."""
    if size < 126:
        return _short_header(first, bit | size)
    if size < 2**16:
        return _medium_header(first, bit | 126, size)
    return _long_header(first, bit | 127, size)


def frame(first: int, payload: bytes | bytearray | memoryview, key: bytes) -> bytes:
    """The frame that begins with the octet ``first``; masked, unless ``key`` is empty (RFC 6455 §5.2)."""
    if key:
        return header(first, len(payload), 0x80) + key + mask(payload, key)
    return header(first, len(payload)) + payload


def write(block: bytearray, at: int, first: int, payload: bytes | bytearray | memoryview, key: bytes) -> int:
    """Put the same frame into ``block`` at ``at``, which grows if it must: where the frame ends."""
    made = frame(first, payload, key)
    end = at + len(made)
    block[at:end] = made
    return end


def binary(data: bytearray, start: int, end: int, masked: bool) -> bytes:
    """The payload at ``data[start:end]``; if ``masked``, its key is the four octets before it."""
    return mask(data[start:end], data[start - 4 : start]) if masked else bytes(data[start:end])


def piece(data: bytearray, start: int, end: int, key: bytes) -> bytes:
    """A piece of a payload, ``data[start:end]``; ``key`` is turned to its first octet, or empty."""
    return mask(data[start:end], key) if key else bytes(data[start:end])


def text(data: bytearray, start: int, end: int, masked: bool) -> str:
    """The same, decoded; ``data`` may be changed there. Raises UnicodeDecodeError."""
    return binary(data, start, end, masked).decode()


# A payload that comes in several reads is put together in what will be delivered, so
# that a long one is not copied once more at its end.


def reserve(size: int) -> bytearray:
    """Room for a payload of ``size`` octets, which takes no memory before they come."""
    return bytearray()


def put(room: bytearray, at: int, data: bytearray, start: int, end: int, key: bytes) -> None:
    """Put :func:`piece` into ``room`` at ``at``, where the last piece has ended."""
    room[at:] = piece(data, start, end, key)


def unmask(room: bytearray, at: int, end: int, key: bytes) -> None:
    """Unmask the octets of ``room`` that a read has put there; ``key`` is turned to the first."""
    room[at:end] = mask(room[at:end], key)


def whole(room: bytearray) -> bytes:
    """The payload, when all of it has come."""
    return bytes(room)

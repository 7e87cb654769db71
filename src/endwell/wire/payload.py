"""Payloads: masking, and taking them out of a read.

Compiled, ``_payload.pyx`` stands in for these functions (``codec.pxd`` and
``frames.pxd`` say so): in Python, masking has no fast form but whole integers and
tables. A differential test holds the two together.
"""

from __future__ import annotations

__all__ = ["binary", "mask", "text"]

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


def binary(data: bytearray, start: int, end: int, masked: bool) -> bytes:
    """The payload at ``data[start:end]``; if ``masked``, its key is the four octets before it."""
    return mask(data[start:end], data[start - 4 : start]) if masked else bytes(data[start:end])


def text(data: bytearray, start: int, end: int, masked: bool) -> str:
    """The same, decoded; ``data`` may be changed there. Raises UnicodeDecodeError."""
    return binary(data, start, end, masked).decode()

"""Mutates octets into what a malicious or faulty peer might send."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tests.fuzz.targets import LONGEST

__all__ = ["mutated"]

#: Single octets at which parsers branch: lengths, flags, ends of ranges.
ODD = (0, 1, 9, 10, 13, 32, 34, 44, 58, 59, 61, 92, 125, 126, 127, 128, 129, 136, 137, 138, 193, 254, 255)

WORDS = (
    b"\r\n", b"\r\n\r\n", b"\n", b"\0", b"\xff", b"\xff\x00", b"\x80\x80", b": ", b", ", b"; ", b'="', b"\\",
    b"\x00\x00\xff\xff", b"\x7e\x00\x7e", b"\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", b"\x7f" + bytes(6) + b"\x01\x00",
    b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", b"\x88\x82\x00\x00\x00\x00\x03\xe8", b"\x89\x80\x00\x00\x00\x00",
    b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xc0\x80", b"\x03\xe8", b"\x03\xed", b"; retry 1-2s",
    b"GET / HTTP/1.1\r\n", b"Host: a\r\n", b"Host: [::1]:1\r\n", b"Origin: http://localhost\r\n", b"Upgrade: websocket\r\n",
    b"Connection: Upgrade\r\n", b"Sec-WebSocket-Version: 13\r\n", b"Sec-WebSocket-Version: 8\r\n",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b"Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\n",
    b"Sec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n", b"Sec-WebSocket-Draft: 3\r\n", b"Sec-WebSocket-Protocol: chat\r\n",
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n", b"Sec-WebSocket-Location: ws://localhost/\r\n",
    b"Sec-WebSocket-Origin: http://localhost\r\n", b"Content-Length: 3\r\n", b"Content-Length: 8\r\n",
    b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 101 X\r\n", b"HTTP/1.1 100 X\r\n", b"HTTP/1.1 403 X\r\n",
    b"3\r\nabc\r\n", b"0\r\n\r\n", b"http://", b"wss://", b"?endwell=heartbeat", b"permessage-deflate",
    b"; server_max_window_bits=", b"; client_max_window_bits", b"; client_no_context_takeover", b"constructor",
    b"a" * 130, b"%", b"@", b"[", b"]", b"#", b"/", b"?", b"\xc3\xa9", b"xn--",
    b"POST / HTTP/1.1\r\n", b"Content-Length: 0\r\n", b"3;a=b\r\nabc\r\n", b"PROXY TCP4 ", b"PROXY TCP6 ::1 ::1 1 2\r\n",
    b"PROXY UNKNOWN\r\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", b"X-Forwarded-For: 203.0.113.9, 10.0.0.2\n",
    b"X-Forwarded-Proto: https\n", b"X-Forwarded-Host: a:1\n", b'Forwarded: for="[::1]:1";proto=ws;host=a\n', b", for=10.0.0.2",
)  # fmt: skip


def mutated(data: bytes, others: Sequence[bytes], dice: Random) -> bytes:
    """``data`` with a few changes, some of them taken from ``others``."""
    made = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 2, 3, 5))):
        _change(made, others, dice)
    return bytes(made[:LONGEST])


def _change(made: bytearray, others: Sequence[bytes], dice: Random) -> None:
    size = len(made)
    at = dice.randrange(size + 1)
    end = min(size, at + dice.choice((1, 1, 2, 4, 8, 32, size)))
    match dice.randrange(9):
        case 0 if at < size:
            made[at] ^= 1 << dice.randrange(8)
        case 1 if at < size:
            made[at] = dice.choice(ODD)
        case 2 if at < size:
            made[at] = (made[at] + dice.choice((-1, 1))) & 0xFF
        case 3:
            del made[at:end]
        case 4:
            made[at:at] = made[at:end] * dice.choice((1, 1, 1, 2, 20))
        case 5:
            made[at:at] = dice.choice(WORDS)
        case 6:
            word = dice.choice(WORDS)
            made[at : at + len(word)] = word
        case 7:
            other = dice.choice(others)
            start = dice.randrange(len(other) + 1)
            made[at:end] = other[start : start + dice.choice((4, 16, 64, len(other)))]
        case _:
            made[at:at] = dice.randbytes(dice.choice((1, 2, 4, 8)))

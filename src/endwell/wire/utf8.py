"""Text: what is UTF-8, and the first byte that is not."""

from __future__ import annotations

from codecs import utf_8_decode

from ..errors import InvalidData

__all__ = ["check", "decode", "not_utf8"]


def decode(payload: bytes | bytearray) -> str:
    """The text of a whole message. Raises InvalidData."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(error.start) from None


def check(octets: bytes | bytearray, checked: int, end: int) -> int:
    """How many of the first ``end`` octets of an incomplete text are UTF-8; ``checked`` are known to be.

    Raises InvalidData for the first that cannot become UTF-8 any more. RFC 6455 §8.1:
    "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte
    stream is not, in fact, a valid UTF-8 stream, that endpoint MUST _Fail the
    WebSocket Connection_." Autobahn (6.4.*) calls only the first byte strict.
    """
    with memoryview(octets) as view, view[checked:end] as rest:
        try:
            checked += utf_8_decode(rest, "strict", False)[1]
        except UnicodeDecodeError as error:
            raise not_utf8(checked + error.start) from None
    # Of a surrogate, CPython's decoder awaits the third byte (its "surrogatepass" may
    # take it), though the second cannot follow the first in UTF-8.
    if b"\xed\xa0" <= octets[checked:end] < b"\xee":
        raise not_utf8(checked)
    return checked


def not_utf8(position: int) -> InvalidData:
    """The error of a text that is wrong at ``position``."""
    return InvalidData(f"text is not UTF-8 at byte {position}")

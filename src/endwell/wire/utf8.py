"""UTF-8: decoding complete messages and checking incomplete ones."""

from __future__ import annotations

from codecs import utf_8_decode

from ..errors import InvalidData

__all__ = ["check", "decode", "not_utf8"]


def decode(payload: bytes | bytearray) -> str:
    """The text of a complete message. Raises InvalidData."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(error.start) from None


def check(octets: bytes | bytearray, checked: int, end: int) -> int:
    """Check the bytes of an incomplete text from ``checked`` to ``end``.

    Returns how many bytes of the text are now checked; an incomplete character at the end is not. Raises
    InvalidData at the first byte after which the text cannot be UTF-8. RFC 6455 §8.1:
    "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte
    stream is not, in fact, a valid UTF-8 stream, that endpoint MUST _Fail the
    WebSocket Connection_." Autobahn (6.4.*) counts only a failure at the first wrong byte as strict.
    """
    with memoryview(octets) as view, view[checked:end] as rest:
        try:
            checked += utf_8_decode(rest, "strict", False)[1]
        except UnicodeDecodeError as error:
            raise not_utf8(checked + error.start) from None
    # For a surrogate, CPython's decoder waits for the third byte (because of "surrogatepass"), although in
    # UTF-8 the second byte cannot follow the first.
    if b"\xed\xa0" <= octets[checked:end] < b"\xee":
        raise not_utf8(checked)
    return checked


def not_utf8(position: int) -> InvalidData:
    """The error for a text that is not UTF-8 at ``position``."""
    return InvalidData(f"text is not UTF-8 at byte {position}")

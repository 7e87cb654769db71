"""What llhttp does not do for a client: unfolding header fields, and early detection of another protocol."""

from __future__ import annotations

import re

from ..errors import InvalidHandshake

__all__ = ["Start", "unfolded"]

#: Number of bytes that the error shows of a response that is not HTTP.
_SHOWN = 16
_EMPTY = b"\r\n"
_HTTP = b"HTTP/"
#: RFC 9112 §5.2: obs-fold = OWS CRLF RWS.
_FOLD = re.compile(rb"[ \t]*\r\n[ \t]+")


class Start:
    """Checks that the first bytes of a response are those of HTTP. ``secure`` is the scheme to use for TLS."""

    def __init__(self, secure: str = "wss://") -> None:
        self._octets = b""
        self._secure = secure

    def feed(self, data: bytes) -> None:
        """Add received bytes. Raises :exc:`InvalidHandshake` as soon as they cannot be HTTP.

        The check does not wait for the end of a line, because a server of another protocol may never send
        one.
        """
        if len(self._octets) >= len(_HTTP):
            return
        data = self._octets + data
        begin = 0
        # Empty lines may precede the status line. A CR or LF that is not one of them is not HTTP, however the
        # bytes are split into reads.
        while data.startswith(_EMPTY, begin):
            begin += len(_EMPTY)
        self._octets = start = data[begin : begin + 2 * _SHOWN]
        if start != _EMPTY[:1] and not start.startswith(_HTTP[: len(start)]):
            raise InvalidHandshake(
                f"the response is not HTTP: it begins with {start[:_SHOWN]!r}{_protocol_hint(start, self._secure)}"
            )


def unfolded(head: bytes) -> bytes:
    """The head of a response with each of its fields on one line.

    RFC 9112 §5.2: "A user agent that receives an obs-fold in a response message (...) MUST replace
    each received obs-fold with one or more SP octets prior to interpreting the field value."
    """
    if b"\r\n " not in head and b"\r\n\t" not in head:
        return head
    # §2.2: white space between the first line and the first field is not a fold. It is kept, and refused
    # later.
    first, end, fields = head.partition(b"\r\n")
    return head if fields[:1] in (b" ", b"\t") else first + end + _FOLD.sub(b" ", fields)


def _protocol_hint(start: bytes, secure: str) -> str:
    """The name of the other protocol, for the error; ``""`` if it is unknown."""
    # RFC 8446 §5.1: an alert or a handshake record of version 3.x.
    if start[:2] in (b"\x15\x03", b"\x16\x03"):
        return f"; this looks like TLS: use {secure}?"
    return "; this looks like SSH" if start.startswith(b"SSH-") else ""

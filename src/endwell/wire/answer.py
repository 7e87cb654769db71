"""What a client takes of an answer that llhttp does not: folded fields; and what it refuses sooner."""

from __future__ import annotations

import re

from ..errors import InvalidHandshake

__all__ = ["Start", "unfolded"]

#: Octets that are shown of an answer that is not HTTP.
_SHOWN = 16
_HTTP = b"HTTP/"
#: RFC 9112 §5.2: obs-fold = OWS CRLF RWS.
_FOLD = re.compile(rb"[ \t]*\r\n[ \t]+")


class Start:
    """The first octets of an answer, until they are known to be those of HTTP."""

    def __init__(self) -> None:
        self._octets = b""

    def take(self, data: bytes) -> None:
        """Take octets. Raises :exc:`InvalidHandshake` as soon as they are not HTTP.

        A server of another protocol may never send the end of a line.
        """
        if len(self._octets) >= len(_HTTP):
            return
        # Empty lines may come before the first one.
        self._octets = start = (self._octets + data[: 2 * _SHOWN]).lstrip(b"\r\n")
        if not start.startswith(_HTTP[: len(start)]):
            raise InvalidHandshake(
                f"the response is not HTTP: it begins with {start[:_SHOWN]!r}{_known(start)}"
            )


def unfolded(head: bytes) -> bytes:
    """The head of an answer with each of its fields on one line.

    RFC 9112 §5.2: "A user agent that receives an obs-fold in a response message (...) MUST replace
    each received obs-fold with one or more SP octets prior to interpreting the field value."
    """
    if b"\r\n " not in head and b"\r\n\t" not in head:
        return head
    # §2.2: white space between the first line and the first field is no fold. It stays, and is refused.
    first, end, fields = head.partition(b"\r\n")
    return head if fields[:1] in (b" ", b"\t") else first + end + _FOLD.sub(b" ", fields)


def _known(start: bytes) -> str:
    """What the octets of another protocol are, if that is known."""
    # RFC 8446 §5.1: an alert or a handshake record, of version 3.x.
    if start[:2] in (b"\x15\x03", b"\x16\x03"):
        return "; this looks like TLS: use wss://?"
    return "; this looks like SSH" if start.startswith(b"SSH-") else ""

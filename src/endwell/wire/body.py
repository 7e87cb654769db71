"""The body of an HTTP/1.1 request: its length, and the chunked coding (RFC 9112 §6 and §7)."""

from __future__ import annotations

import re

from ..errors import BadRequest, BodyTooLarge, LengthRequired, UnsupportedCoding
from ..http import Headers
from .hixie import CHALLENGE, is_challenged

__all__ = ["BodyReader", "body_length", "check_body"]

#: RFC 9110 §8.6: Content-Length = 1*DIGIT. More than 18 digits do not fit into 64 bits.
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)
#: RFC 9112 §7.1: chunk-size = 1*HEXDIG, then extensions, which are ignored.
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[\t\x20-\x7E\x80-\xFF]*)?")
#: The same strictness as in a head, because another recipient could read a malformed trailer differently.
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7E\x80-\xFF]*")
#: Methods whose request has content in nearly every case.
_WITH_CONTENT = frozenset(("POST", "PUT", "PATCH"))
#: Maximum bytes of the line of a chunk, and of all trailer fields. Precedent: Node.js limits the extensions of
#: a chunk to 16 KiB since CVE-2024-22019.
MAX_LINE = 256
MAX_TRAILERS = 8192


def body_length(method: str, version: str, headers: Headers) -> int | None:
    """The length of a request's body; None if it has the chunked coding.

    Raises a subclass of :exc:`RequestRefused` if two recipients could read the request differently.
    """
    codings = headers.get_all("Transfer-Encoding")
    lengths = headers.get_all("Content-Length")
    if codings:
        # RFC 9112 §6.1: a request with both fields "might indicate an attempt to perform request smuggling".
        # A server "MAY reject" it. "Transfer-Encoding was added in HTTP/1.1".
        if lengths or version == "1.0":
            raise BadRequest("Transfer-Encoding must not be combined with Content-Length or HTTP/1.0")
        names = [name.lower() for name in headers.list_of("Transfer-Encoding")]
        # §7.1: "A sender MUST NOT apply the chunked transfer coding more than once to a message body".
        if names[-1:] != ["chunked"] or names.count("chunked") > 1:
            raise BadRequest("the last Transfer-Encoding of a request must be chunked, once")
        if len(names) > 1:
            raise UnsupportedCoding("the only Transfer-Encoding that this server decodes is chunked")
        return None
    if not lengths:
        # RFC 1945 §7.2.2: a POST of HTTP/1.0 must have a valid Content-Length. In HTTP/1.1, a request without
        # both fields has no body (RFC 9112 §6.3).
        if version == "1.0" and method in _WITH_CONTENT:
            raise LengthRequired("a request of HTTP/1.0 with this method needs a Content-Length")
        return 0
    # RFC 9112 §6.3 allows a list of equal values. Two parsers may read it differently, so it is refused.
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise BadRequest("Content-Length must occur once, with a number")
    return int(lengths[0])


def check_body(method: str, version: str, headers: Headers, legacy: bool) -> bool:
    """Check what the head of a request says about its body. Returns whether the request may have one.

    Raises a subclass of :exc:`RequestRefused`.
    """
    if method not in ("GET", "HEAD"):
        body_length(method, version, headers)
        return True
    challenge = _length_of_challenge(headers, legacy)
    if "Upgrade" not in headers and not challenge:
        # RFC 9110 §9.3.1: "content received in a GET request has no generally defined semantics", but it is
        # framed as in any other request.
        return body_length(method, version, headers) != 0
    # The bytes of a body could be read as frames (request smuggling). No upgrade needs a body.
    if "Transfer-Encoding" in headers or headers.get_all("Content-Length") not in ([], ["0"], challenge):
        raise BodyTooLarge("this server accepts no request for an upgrade with a body")
    return False


def _length_of_challenge(headers: Headers, legacy: bool) -> list[str]:
    """The Content-Length that a hixie-76 request may have; the draft has none, but some clients send it."""
    return [str(CHALLENGE)] if legacy and is_challenged(headers) else []


class BodyReader:
    """Decodes a body of ``length`` bytes, or a chunked one if ``length`` is None, up to ``limit`` bytes."""

    def __init__(self, length: int | None, limit: int) -> None:
        if length is not None and length > limit:
            raise BodyTooLarge("the body of the request is too large")
        #: Whether the body is complete.
        self.complete = length == 0
        #: The bytes behind the body, once it is complete.
        self.rest = b""
        self._chunked = length is None
        # Bytes that are missing of the body, or of the current chunk.
        self._missing = length or 0
        self._room = limit
        # Bytes of an incomplete line of the chunked coding.
        self._line = b""
        self._after_chunk = self._in_trailers = False
        self._trailers = 0

    def receive(self, data: bytes) -> bytes:
        """Add received bytes. Returns the content in them.

        Raises a subclass of :exc:`RequestRefused` if the chunked coding is malformed, or the limit is exceeded.
        """
        if not self._chunked:
            content = data[: self._missing]
            self.rest = data[self._missing :]
            self._missing -= len(content)
            self.complete = not self._missing
            return content
        parts: list[bytes] = []
        at = 0
        while at < len(data) and not self.complete:
            if self._missing:
                part = data[at : at + self._missing]
                parts.append(part)
                at += len(part)
                self._missing -= len(part)
                self._after_chunk = not self._missing
            else:
                at = self._read_line(data, at)
        self.rest = data[at:]
        return b"".join(parts)

    def _read_line(self, data: bytes, at: int) -> int:
        """Read a line of the chunked coding, or a part of it. Returns where the rest begins."""
        # The line before a chunk ends with CR LF, and so do the chunk and each trailer field.
        newline = data.find(b"\n", at)
        end = len(data) if newline < 0 else newline + 1
        self._line += data[at:end]
        if len(self._line) > (MAX_TRAILERS if self._in_trailers else MAX_LINE):
            raise BadRequest("a line of the chunked coding is too long")
        # Checked before the line is complete, so that the error does not depend on how the bytes were split.
        if b"\r" in self._line[:-2] or (newline < 0 and self._line[-2:-1] == b"\r"):
            raise BadRequest("a line of the chunked coding contains CR")
        if newline < 0:
            return end
        line, self._line = self._line, b""
        if not line.endswith(b"\r\n"):
            raise BadRequest("a line of the chunked coding does not end with CR LF")
        self._take(line[:-2])
        return end

    def _take(self, line: bytes) -> None:
        if self._after_chunk:
            if line:
                raise BadRequest("a chunk is longer than its size")
            self._after_chunk = False
        elif self._in_trailers:
            self._trailers += len(line) + 2
            if self._trailers > MAX_TRAILERS:
                raise BadRequest("the trailer fields are too long")
            if line and _TRAILER.fullmatch(line) is None:
                raise BadRequest("a trailer field is malformed")
            self.complete = not line
        else:
            match = _CHUNK.fullmatch(line)
            if match is None:
                raise BadRequest("the size of a chunk is malformed")
            self._missing = int(match[1], 16)
            self._room -= self._missing
            if self._room < 0:
                raise BodyTooLarge("the body of the request is too large")
            self._in_trailers = not self._missing

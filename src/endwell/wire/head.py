"""HTTP/1.1 heads: a server reads requests, a client reads responses.

This module parses requests itself, and more strictly than llhttp (a test compares the two): no line
folding, no alternative spellings. httptools (llhttp) parses responses and bodies; this module limits them.
"""

# size: the readers of requests and of responses share the collection of a head and its checks.
from __future__ import annotations

import re
from sys import intern

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from ..errors import BadRequest, EndwellError, HeadTooLarge, InvalidHandshake, UnknownMethod
from ..http.bearer import MARK
from ..http.headers import TOKEN, Headers, checked_headers, copy_of, headers_of_lines, is_plain, octets_of
from ..http.request import Request, set_challenge, set_link, take_bearer
from ..http.response import Response
from ..options import Options
from .answer import Start, unfolded
from .body import check_body
from .hixie import CHALLENGE, PROOF, PROVING, has_proof, is_challenged
from .names import FIELD_NAMES, METHODS
from .target import check_hosts, origin_form

__all__ = ["RequestReader", "ResponseReader"]

#: The names of the fields that a head is searched for, by their size.
HOST_SIZE, LENGTH_SIZE, CODING_SIZE = len("host"), len("content-length"), len("transfer-encoding")
_FRAMING = frozenset(("content-length", "transfer-encoding"))
_MARK = MARK.encode()
_VERSIONS = {"HTTP/1.1": "1.1", "HTTP/1.0": "1.0"}
#: The bytes of a token, and the bytes of a field value (RFC 9110 §5.5): HTAB, SP, VCHAR, obs-text.
_TOKEN = "".join(TOKEN).encode()
#: Lines of such bytes. Possessive quantifiers, because there is only one way to match.
_LINES = re.compile(rb"(?:[\t\x20-\x7E\x80-\xFF]*+\r\n)*+")


class RequestReader:
    """Reads one request head for a server.

    ``remote_address`` becomes an attribute of the request. ``link`` is the ``ssl.SSLObject`` of
    a connection with TLS.
    """

    def __init__(self, options: Options, remote_address: object = None, link: object = None) -> None:
        self._options = options
        self._head: _Head | None = None
        # A request of hixie-76, while the bytes after its head are incomplete.
        self._challenged: Request | None = None
        self._remote_address = remote_address
        self._link = link
        # The fields of the last GET request, as received behind its target and as parsed, and its version.
        self._fields = b""
        self._headers: Headers | None = None
        self._version = ""
        #: The bytes after the head, once it is complete.
        self.rest = b""
        #: Whether the request may have a body.
        self.has_body = False

    def receive(self, data: bytes) -> Request | None:
        """Add received bytes. Returns the request once its head is complete; None before.

        If old protocol versions are allowed, a hixie-76 request is complete 8 bytes after its head.

        Raises a subclass of :exc:`RequestRefused`, which has the HTTP response.
        """
        if self._challenged is not None:
            return self._read_challenge(self._challenged, data)
        request = self._repeated(data)
        if request is not None:
            return request
        head = data
        lines = self._fast_path(data)
        if lines is None:
            if self._head is None:
                self._head = _Head(self._options, BadRequest, HeadTooLarge)
            complete = self._head.receive(data)
            if complete is None:
                return None
            head = complete
            self.rest = self._head.rest
            if _LINES.fullmatch(head) is None:
                raise BadRequest("the head contains a control character")
            lines = head.decode("latin-1").split("\r\n")
        legacy = bool(self._options.legacy)
        method, target, version, headers, self.has_body = _request(lines, legacy)
        # Interned, so that all requests share one string.
        request = Request(intern(method), target, headers, version, self._remote_address)
        if self._link:
            set_link(request, self._link)
        if _MARK in head and not is_plain(headers):
            try:
                take_bearer(request)
            except ValueError as exc:
                problem = str(exc)
                raise BadRequest(problem) from None
        if legacy and is_challenged(headers):
            data, self.rest = self.rest, b""
            return self._read_challenge(request, data)
        if self._head is None and method == "GET" and target == lines[0][4:-9] and not self.has_body:
            self._remember(data, headers, version)
        return request

    def _remember(self, data: bytes, headers: Headers, version: str) -> None:
        """Keep the fields of a request without a body, whose head was complete in the first read."""
        if "Upgrade" in headers:
            return  # there is no request after it
        start = data.find(b"\r\n") - len(b" HTTP/1.1")
        self._fields = data[start : len(data) - len(self.rest)]
        self._headers = copy_of(headers)
        self._version = version

    def _repeated(self, data: bytes) -> Request | None:
        """The request, if all after its target is the same as in an earlier one of this connection; else None.

        Most clients repeat the fields in each request. HTTP/2 compresses them for that reason (RFC 7541 §1).
        """
        headers, options = self._headers, self._options
        if headers is None or self._head is not None or not data.startswith(b"GET /"):
            return None
        start = data.find(b"\r\n") - len(b" HTTP/1.1")
        end = start + len(self._fields)
        if start <= len(b"GET ") or not data.startswith(self._fields, start):
            return None
        target = data[len(b"GET ") : start].decode("latin-1")
        # A target of another form is parsed in full, and a malformed one is refused there.
        if " " in target or "#" in target or not (target.isascii() and target.isprintable()):
            return None
        if end > options.max_line or end > options.max_head:
            return None
        self.rest, self.has_body = data[end:], False
        octets_of(headers)
        is_plain(headers)
        request = Request("GET", target, copy_of(headers), self._version, self._remote_address)
        if self._link:
            set_link(request, self._link)
        return request

    def _read_challenge(self, request: Request, data: bytes) -> Request | None:
        """Add bytes after the head of a hixie-76 request. Returns the request once it has 8 of them."""
        self.rest += data
        if len(self.rest) < CHALLENGE:
            self._challenged = request
            return None
        self._challenged = None
        set_challenge(request, self.rest[:CHALLENGE])
        self.rest = self.rest[CHALLENGE:]
        return request

    def take_rest(self) -> bytes:
        """Return and forget the bytes after the head; this object may live as long as the connection."""
        rest, self.rest, self._head = self.rest, b"", None
        return rest

    def _fast_path(self, data: bytes) -> list[str] | None:
        """The fast path, with the same result as :class:`_Head`. Returns the lines of the head, or None.

        It handles a head that is complete in the first read, not longer than ``max_line``, whose lines all end
        with CR LF and have no control characters.
        """
        end = data.find(b"\r\n\r\n") + len(b"\r\n\r\n")
        options = self._options
        if self._head is not None or end <= 4 or end > options.max_line or end > options.max_head:
            return None
        head = data[:end]
        lines = head.decode("latin-1").split("\r\n")
        if not lines[0] or len(lines) > options.max_headers + 3:
            return None
        # Printable text has no control characters, and no CR or LF. Other text may be valid, too.
        if not "".join(lines).isprintable() and _LINES.fullmatch(head) is None:
            return None
        self.rest = data[end:]
        return lines


class ResponseReader:
    """Reads one response for a client, with its body unless it is a 101.

    ``of_connect``: the request was a CONNECT to a proxy, so a 2xx has no body either.
    """

    def __init__(self, options: Options, of_connect: bool = False) -> None:
        self._head = _Head(options, InvalidHandshake, InvalidHandshake)
        self._message = _Message()
        self._parser = HttpResponseParser(self._message)
        self._response: Response | None = None  # without its body, once the head is complete
        # How many more bytes of the body are read. Chunk sizes and trailers count, too: a limit on the kept
        # bytes alone would not bound them.
        self._room = options.max_refusal
        # A 101 of hixie-76, while the bytes after its head are incomplete.
        self._proven: Response | None = None
        self._expects_proof = options.version in PROVING
        self._of_connect = of_connect
        self._start = Start("https:// for the proxy") if of_connect else Start()
        #: The bytes after the head of a 101, and of a 2xx to CONNECT.
        self.rest = b""

    def receive(self, data: bytes) -> Response | None:
        """Add received bytes. Returns the response once it is complete; None before.

        A 101 of hixie-76 has a body of 16 bytes. A body above ``max_refusal`` is cut off there. Raises
        :exc:`InvalidHandshake` if the response breaks HTTP or a limit.
        """
        if self._response is not None:
            return self._receive_body(self._response, data)
        if self._proven is not None:
            return self._receive_proof(self._proven, data)
        self._start.feed(data)
        head = self._head.receive(data)
        while head is not None:
            status = _status(self._parser, self._message, unfolded(head))
            response = Response(status, checked_headers(self._message.fields.copy()))
            if status == 101:
                if self._expects_proof and has_proof(response.headers):
                    return self._receive_proof(response, self._head.rest)
                self.rest = self._head.rest
                return response
            # RFC 9110 §9.3.6: "A client MUST ignore any Content-Length or Transfer-Encoding header
            # fields received in a successful response to CONNECT."
            if self._of_connect and 200 <= status <= 299:
                self.rest = self._head.rest
                return response
            if status >= 200:
                self._response = response
                return self._receive_body(response, self._head.rest)
            # RFC 9110 §15.2: "A client MUST be able to parse one or more 1xx
            # responses received prior to a final response". max_head limits all of them together.
            self._message = _Message()
            self._parser = HttpResponseParser(self._message)
            head = self._head.receive(b"")
        return None

    def refuses(self) -> bool:
        """Whether the head of a refusal is complete."""
        return self._response is not None

    def partial(self) -> Response | None:
        """The refusal, with the part of its body that has arrived; None while its head is incomplete.

        For a connection that ends before :meth:`receive` has returned the refusal. Its status is known, so it is
        told, although the body may be truncated. RFC 9112 §6.3: without a length and with no chunked coding at
        the end, "the message body length is determined by the number of octets received prior to the server
        closing the connection".
        """
        if self._response is None:
            return None
        return Response(self._response.status, self._response.headers, bytes(self._message.body))

    def _receive_proof(self, response: Response, data: bytes) -> Response | None:
        self.rest += data
        if len(self.rest) < PROOF:
            self._proven = response
            return None
        body, self.rest = self.rest[:PROOF], self.rest[PROOF:]
        return Response(response.status, response.headers, body)

    def _receive_body(self, response: Response, data: bytes) -> Response | None:
        message = self._message
        kept = data[: self._room]
        self._room -= len(kept)
        try:
            self._parser.feed_data(kept)
        except (HttpParserError, HttpParserUpgrade) as error:
            # Bytes after a complete response are ignored, because the connection ends here.
            if not message.complete:
                raise InvalidHandshake(f"the response's body is malformed: {error}") from None
        if message.complete or not self._room:
            return Response(response.status, response.headers, bytes(message.body))
        return None


class _Head:
    """Collects the bytes of a head and finds its end. It looks at each byte once.

    A parser that starts again at each read costs quadratic time (CVE-2023-43669).
    """

    def __init__(
        self, options: Options, malformed: type[EndwellError], too_large: type[EndwellError]
    ) -> None:
        self._options = options
        self._malformed = malformed
        self._too_large = too_large
        self._buffer = bytearray()
        self._start = 0  # start of the head
        self._line = 0  # start of the incomplete line
        self._searched = 0  # there is no LF between the start of that line and here
        self._lines = 0  # number of complete lines of the head

    @property
    def rest(self) -> bytes:
        """The bytes after the last returned head."""
        return bytes(self._buffer[self._start :])

    def receive(self, data: bytes) -> bytes | None:
        """Add received bytes. Returns the next head with its empty line, once it is complete."""
        buffer = self._buffer
        buffer += data
        while (newline := buffer.find(b"\n", self._searched)) >= 0:
            line, end = self._line, newline + 1
            self._check_limits(end)
            # RFC 9112 §2.2 allows a recipient to accept a bare LF as a line end, and a bare CR as white
            # space. Two parsers that choose differently make request smuggling possible, so both are refused.
            carriage_return = buffer.find(b"\r", line, end)
            if carriage_return < 0 or carriage_return + 2 != end:
                raise self._malformed("a line of the head does not end with CR LF, or contains CR")
            self._line = self._searched = end
            if carriage_return > line:
                self._count_line()
            elif self._lines:
                head = bytes(buffer[self._start : end])
                self._start, self._lines = end, 0
                return head
            else:
                # RFC 9112 §2.2: a server "SHOULD ignore at least one empty line
                # (CRLF) received prior to the request-line".
                self._start = end
        self._check_limits(len(buffer))
        self._searched = len(buffer)
        return None

    def _check_limits(self, end: int) -> None:
        """Raise if the line or the head that ends at ``end`` is too long."""
        max_line, max_head = self._options.max_line, self._options.max_head
        line = self._line + len(b"\r\n")  # no sum with max_line, which may be the largest C integer
        # Which limit the error names depends on the bytes only, not on how they were split.
        if end > max_head and max_head - line <= max_line:
            raise self._too_large(f"the head is above {max_head} bytes")
        if end - line > max_line:
            raise self._too_large(f"a line of the head is above {max_line} bytes")

    def _count_line(self) -> None:
        self._lines += 1
        limit = self._options.max_headers
        if self._lines > 1 + limit:  # the first line is not a field
            raise self._too_large(f"the head has more than {limit} fields")


class _Message:
    """The callbacks of httptools."""

    __slots__ = ("body", "complete", "fields", "headed")

    def __init__(self) -> None:
        self.fields: list[tuple[str, str]] = []
        self.headed = False
        self.body = bytearray()
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        # Latin-1 decodes every byte. RFC 9112 §5.1: white space around the value is not part of it; llhttp
        # keeps trailing white space.
        self.fields.append((name.decode("latin-1"), value.decode("latin-1").rstrip(" \t")))

    def on_headers_complete(self) -> None:
        self.headed = True

    def on_body(self, data: bytes) -> None:
        if not self.complete:  # the bytes may hold a second message
            self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


def _request(lines: list[str], legacy: bool) -> tuple[str, str, str, Headers, bool]:
    """Parse the lines of a head without control characters: method, target, version, fields, and if it has a body.

    RFC 9112 §5: field-line = field-name ":" OWS field-value OWS. So no line is folded. §5.1: "No whitespace
    is allowed between the field name and colon."
    """
    method, target, version = _request_line(lines[0])
    target, authority = origin_form(target)
    if method not in METHODS:
        raise UnknownMethod("the method is not known")
    lines = lines[1:-2]
    fields: list[tuple[str, str]] = []
    names: list[str] = []
    hosts: list[str] = []
    framed = method != "GET"
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest("a line of the head is not a name, a colon and a value")
        value = value.strip(" \t")
        size = len(name)
        if size == HOST_SIZE and name.lower() == "host":
            hosts.append(value)
        elif (size in (LENGTH_SIZE, CODING_SIZE)) and name.lower() in _FRAMING:
            framed = True
        fields.append((name, value))
        names.append(name)
    # All names in one check: a check for each name costs more than everything else here.
    if not FIELD_NAMES.issuperset(names) and (
        "" in names or "".join(names).encode("latin-1").translate(None, _TOKEN)
    ):
        raise BadRequest("the name of a field is not a token")
    check_hosts(hosts, version)
    if authority is None:
        headers = headers_of_lines("\r\n".join(lines), fields)
    else:
        # RFC 9112 §3.2.2: the server "MUST ignore the received Host header field
        # (if any) and instead use the host information of the request-target".
        others = [field for field in fields if field[0].lower() != "host"]
        headers = checked_headers([("Host", authority), *others])
        check_hosts([authority], version)
    has_body = framed and check_body(method, version, headers, legacy)
    return method, target, version, headers, has_body


def _request_line(line: str) -> tuple[str, str, str]:
    """Parse the request line: method, target and version."""
    words = line.split(" ")
    if len(words) != 3:
        raise BadRequest("the request line is not a method, a target and a version, with one space between")
    method, target, protocol = words
    if method not in METHODS and (not method or not TOKEN.issuperset(method)):
        raise BadRequest("the method is not a token")
    if not (target.isascii() and target.isprintable()):
        raise BadRequest("the target is not printable ASCII")
    version = _VERSIONS.get(protocol)
    if version is None:
        raise BadRequest("the version is neither HTTP/1.1 nor HTTP/1.0")
    return method, target, version


def _status(parser: HttpResponseParser, message: _Message, head: bytes) -> int:
    """Parse the head of a response. Returns its status."""
    try:
        parser.feed_data(head)
    except (HttpParserError, HttpParserUpgrade) as error:
        # llhttp raises HttpParserUpgrade after the fields of any 101.
        if not message.headed:
            raise InvalidHandshake(f"the response is malformed: {error}") from None
    status = parser.get_status_code()
    # llhttp also accepts RTSP, ICE, HTTP/2.0, the status 000 and a NUL in the reason phrase.
    if not head.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")) or status < 100 or b"\0" in head:
        raise InvalidHandshake("the response's first line is not one of HTTP/1.1 or HTTP/1.0")
    # RFC 9110 §15.2: "Since HTTP/1.0 did not define any 1xx status codes, a server
    # MUST NOT send a 1xx response to an HTTP/1.0 client". A 101 in HTTP/1.0 cannot switch protocols, either.
    if status < 200 and head.startswith(b"HTTP/1.0"):
        raise InvalidHandshake(f"the response has status {status} in HTTP/1.0")
    return status

"""HTTP/1.1 heads: a request for a server, an answer for a client.

A request is parsed here, and more strictly than llhttp does, which a test compares: no
body, no folding, no second spelling of anything. httptools (llhttp) parses an answer and its body,
except for the end of the head, the limits, and what is accepted beyond RFC 9112.
"""

from __future__ import annotations

from sys import intern

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from ..errors import BadRequest, BodyTooLarge, EndwellError, HeadTooLarge, InvalidHandshake, MethodNotAllowed
from ..http import TOKEN, Headers, Request, Response, checked_headers, headers_of_lines, set_challenge
from ..options import Options
from .answer import Start, unfolded
from .authority import parse_authority, split_authority
from .hixie import CHALLENGE, PROOF, PROVING, has_proof, is_challenged

__all__ = ["RequestReader", "ResponseReader"]

#: RFC 9110 §9, RFC 5789.
_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))
_VERSIONS = {"HTTP/1.1": "1.1", "HTTP/1.0": "1.0"}
#: The octets of a token, and those of a field's value (RFC 9110 §5.5): HTAB, SP, VCHAR, obs-text.
_TOKEN = "".join(TOKEN).encode()
_TEXT = bytes((*b"\t ", *range(0x21, 0x7F), *range(0x80, 0x100)))


class RequestReader:
    """Reads one request head on the server's side; what it came over is told with the request."""

    def __init__(self, options: Options, remote_address: object = None, secure: bool = False) -> None:
        self._options = options
        self._head: _Head | None = None
        # A request of hixie-76 whose octets after the head have not all come.
        self._challenged: Request | None = None
        self._remote_address = remote_address
        self._secure = secure
        #: The octets after the head, once it is complete.
        self.rest = b""

    def receive(self, data: bytes) -> Request | None:
        """Take octets; the request once its head is complete, None before.

        Where old protocols are spoken, a hixie-76 request is complete 8 octets later.

        Raises a subclass of :exc:`RequestRefused`, which carries the answer.
        """
        if self._challenged is not None:
            return self._challenge(self._challenged, data)
        head = self._whole(data)
        if head is None:
            if self._head is None:
                self._head = _Head(self._options, BadRequest, HeadTooLarge)
            head = self._head.receive(data)
            if head is None:
                return None
            self.rest = self._head.rest
        legacy = bool(self._options.legacy)
        method, target, version, headers = _request(head, legacy)
        # An interned string is one for all requests.
        request = Request(intern(method), target, headers, version, self._remote_address, self._secure)
        if legacy and is_challenged(headers):
            data, self.rest = self.rest, b""
            return self._challenge(request, data)
        return request

    def _challenge(self, request: Request, data: bytes) -> Request | None:
        """Take octets that follow the head of ``request``; it, once its own have come."""
        self.rest += data
        if len(self.rest) < CHALLENGE:
            self._challenged = request
            return None
        set_challenge(request, self.rest[:CHALLENGE])
        self.rest = self.rest[CHALLENGE:]
        return request

    def take_rest(self) -> bytes:
        """The octets after the head, once; whoever serves the connection may hold this object to its end."""
        rest, self.rest, self._head = self.rest, b"", None
        return rest

    def _whole(self, data: bytes) -> bytes | None:
        """The short cut, equal to :class:`_Head` for what most heads are.

        That is whole in the first read, not longer than a line may be, and every line of it
        ends with CR LF.
        """
        end = data.find(b"\r\n\r\n") + len(b"\r\n\r\n")
        options = self._options
        if self._head is not None or end <= 4 or end > options.max_line or end > options.max_head:
            return None
        lines = data.count(b"\r\n", 0, end)
        if (
            data.startswith(b"\r\n")
            or lines != data.count(b"\r", 0, end)
            or lines != data.count(b"\n", 0, end)
            or lines > options.max_headers + 2
        ):
            return None
        self.rest = data[end:]
        return data[:end]


class ResponseReader:
    """Reads one answer on the client's side, with its body unless it is a 101."""

    def __init__(self, options: Options) -> None:
        self._head = _Head(options, InvalidHandshake, InvalidHandshake)
        self._message = _Message()
        self._parser = HttpResponseParser(self._message)
        self._response: Response | None = None  # without its body, once the head is complete
        # Octets of the body as they come, chunk sizes and trailers included: a
        # bound on the octets kept alone would leave those without one.
        self._room = options.max_refusal
        # A 101 of hixie-76 whose octets after the head have not all come.
        self._proven: Response | None = None
        self._proves = options.version in PROVING
        self._start = Start()
        #: The octets after the head of a 101.
        self.rest = b""

    def receive(self, data: bytes) -> Response | None:
        """Take octets; the answer once it is complete, None before.

        The 101 of hixie-76 is complete 16 octets after its head, which are its body.
        Of a body above ``max_refusal`` the beginning is returned. Raises
        :exc:`InvalidHandshake` where the server breaks HTTP or a limit.
        """
        if self._response is not None:
            return self._receive_body(self._response, data)
        if self._proven is not None:
            return self._receive_proof(self._proven, data)
        self._start.take(data)
        head = self._head.receive(data)
        while head is not None:
            status = _status(self._parser, self._message, unfolded(head))
            response = Response(status, checked_headers(self._message.fields.copy()))
            if status == 101:
                if self._proves and has_proof(response.headers):
                    return self._receive_proof(response, self._head.rest)
                self.rest = self._head.rest
                return response
            if status >= 200:
                self._response = response
                return self._receive_body(response, self._head.rest)
            # RFC 9110 §15.2: "A client MUST be able to parse one or more 1xx
            # responses received prior to a final response". max_head bounds them all.
            self._message = _Message()
            self._parser = HttpResponseParser(self._message)
            head = self._head.receive(b"")
        return None

    def eof(self) -> Response | None:
        """TCP has ended; the answer if that was the mark of its end, else None."""
        if self._response is None:
            return None
        # RFC 9112 §6.3: without a length and with no chunked coding at the end,
        # "the message body length is determined by the number of octets received
        # prior to the server closing the connection".
        headers = self._response.headers
        codings = [name.lower() for name in headers.list_of("Transfer-Encoding")]
        if "Content-Length" in headers or codings[-1:] == ["chunked"]:
            return None
        return Response(self._response.status, headers, bytes(self._message.body))

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
            # What follows a complete answer is nobody's: the connection ends here.
            if not message.complete:
                raise InvalidHandshake(f"the response's body is malformed: {error}") from None
        if message.complete or not self._room:
            return Response(response.status, response.headers, bytes(message.body))
        return None


class _Head:
    """The octets of a head as they come, looked at once each, however they are split.

    A head parsed from its start at each read costs quadratic time (CVE-2023-43669).
    """

    def __init__(
        self, options: Options, malformed: type[EndwellError], too_large: type[EndwellError]
    ) -> None:
        self._options = options
        self._malformed = malformed
        self._too_large = too_large
        self._buffer = bytearray()
        self._start = 0  # of the head
        self._line = 0  # start of the line that is coming
        self._searched = 0  # no LF between the start of that line and here
        self._lines = 0  # complete ones of the head

    @property
    def rest(self) -> bytes:
        """What came after the head that was returned last."""
        return bytes(self._buffer[self._start :])

    def receive(self, data: bytes) -> bytes | None:
        """The next head with its empty line, once it is complete."""
        buffer = self._buffer
        buffer += data
        while (newline := buffer.find(b"\n", self._searched)) >= 0:
            line, end = self._line, newline + 1
            self._limit(end)
            # RFC 9112 §2.2 lets a recipient take a bare LF as a line's end, and a
            # bare CR as white space. Where two parsers choose differently a request
            # can be smuggled, so neither is taken.
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
        self._limit(len(buffer))
        self._searched = len(buffer)
        return None

    def _limit(self, end: int) -> None:
        """Raise if the line that is coming, or the head with it, is too long at ``end``."""
        max_line, max_head = self._options.max_line, self._options.max_head
        line = self._line + len(b"\r\n")  # and no sum with max_line, which may be the largest integer
        # Which of the two is named is a matter of the octets, not of how they are split.
        if end > max_head and max_head - line <= max_line:
            raise self._too_large(f"the head is above {max_head} bytes")
        if end - line > max_line:
            raise self._too_large(f"a line of the head is above {max_line} bytes")

    def _count_line(self) -> None:
        self._lines += 1
        limit = self._options.max_headers
        if self._lines > 1 + limit:  # the first line is no field
            raise self._too_large(f"the head has more than {limit} fields")


class _Message:
    """What httptools calls while it parses."""

    __slots__ = ("body", "complete", "fields", "headed")

    def __init__(self) -> None:
        self.fields: list[tuple[str, str]] = []
        self.headed = False
        self.body = bytearray()
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        # Latin-1 takes every octet. RFC 9112 §5.1 excludes the white space around
        # the value from it; llhttp leaves what trails.
        self.fields.append((name.decode("latin-1"), value.decode("latin-1").rstrip(" \t")))

    def on_headers_complete(self) -> None:
        self.headed = True

    def on_body(self, data: bytes) -> None:
        if not self.complete:  # or it is that of another message in the same octets
            self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


def _request(head: bytes, legacy: bool) -> tuple[str, str, str, Headers]:
    """Method, target, version and fields."""
    text = head.decode("latin-1")
    # Of an octet that may stand nowhere in a head nothing good can come. Its lines end with
    # CR LF, so that there is no other CR, nor LF.
    if head.translate(None, _TEXT).strip(b"\r\n"):
        raise BadRequest("the head contains a control character")
    first = text[: text.find("\r\n")]
    method, target, version = _request_line(first)
    target, authority = _origin_form(target)
    if method not in _METHODS:
        raise MethodNotAllowed("the method is not known")
    headers = headers_of_lines(text[len(first) + 2 : -4])
    _check_names(headers)
    _check_host(headers, version)
    if authority is not None:
        # RFC 9112 §3.2.2: the server "MUST ignore the received Host header field
        # (if any) and instead use the host information of the request-target".
        others = [(name, value) for name, value in headers if name.lower() != "host"]
        headers = checked_headers([("Host", authority), *others])
        _check_host(headers, version)
    # A body would leave octets that another party takes for a request or for
    # frames (request smuggling); neither an upgrade nor a page needs one.
    if method in ("GET", "HEAD") and (
        "Transfer-Encoding" in headers
        or headers.get_all("Content-Length") not in ([], ["0"], _length_of_challenge(headers, legacy))
    ):
        raise BodyTooLarge("a request with a body is not taken here")
    return method, target, version, headers


def _length_of_challenge(headers: Headers, legacy: bool) -> list[str]:
    """What Content-Length may say of hixie-76's octets; its draft has none, but some clients do."""
    return [str(CHALLENGE)] if legacy and is_challenged(headers) else []


def _request_line(line: str) -> tuple[str, str, str]:
    """Method, target and version."""
    words = line.split(" ")
    if len(words) != 3:
        raise BadRequest("the request line is not a method, a target and a version, with one space between")
    method, target, protocol = words
    if not method or not TOKEN.issuperset(method):
        raise BadRequest("the method is not a token")
    if not (target.isascii() and target.isprintable()):
        raise BadRequest("the target is not printable ASCII")
    version = _VERSIONS.get(protocol)
    if version is None:
        raise BadRequest("the version is neither HTTP/1.1 nor HTTP/1.0")
    return method, target, version


def _check_names(headers: Headers) -> None:
    """That each line is a name, a colon and a value; they hold no control character but HTAB.

    RFC 9112 §5: field-line = field-name ":" OWS field-value OWS. So no line is folded,
    and §5.1: "No whitespace is allowed between the field name and colon."
    """
    try:
        names = headers.names()
    except ValueError:
        raise BadRequest("a line of the head is not a name, a colon and a value") from None
    # All at once, because one look at each costs more than all the rest.
    if "" in names or "".join(names).encode("latin-1").translate(None, _TOKEN):
        raise BadRequest("the name of a field is not a token")


def _origin_form(target: str) -> tuple[str, str | None]:
    """The target as path and query, and the authority if it was in absolute-form."""
    # RFC 9112 §3.2: no form of a target has a fragment.
    if "#" in target:
        raise BadRequest("the target has a fragment")
    if target.startswith("/"):
        return target, None
    scheme, _, hierarchy = target.partition("://")
    if scheme.lower() not in ("http", "https", "ws", "wss"):
        raise BadRequest("the target is neither a path nor an http, https, ws or wss URI")
    # RFC 9112 §3.2.2: a server "MUST accept the absolute-form in requests".
    authority, path = split_authority(hierarchy)
    return path, authority


def _check_host(headers: Headers, version: str) -> None:
    # RFC 9112 §3.2: "A server MUST respond with a 400 (Bad Request) status code to
    # any HTTP/1.1 request message that lacks a Host header field and to any request
    # message that contains more than one Host header field line or a Host header
    # field with an invalid field value."
    hosts = headers.get_all("Host")
    if len(hosts) > 1 or (not hosts and version != "1.0"):
        raise BadRequest("the request needs one Host field")
    for host in hosts:
        try:
            parse_authority(host)
        except ValueError:
            raise BadRequest("the request's host is malformed") from None


def _status(parser: HttpResponseParser, message: _Message, head: bytes) -> int:
    """Parse the head of an answer; its status."""
    try:
        parser.feed_data(head)
    except (HttpParserError, HttpParserUpgrade) as error:
        # llhttp stops behind the fields of any 101.
        if not message.headed:
            raise InvalidHandshake(f"the response is malformed: {error}") from None
    status = parser.get_status_code()
    # llhttp takes RTSP, ICE, HTTP/2.0, the status 000 and a NUL in the phrase as well.
    if not head.startswith((b"HTTP/1.1 ", b"HTTP/1.0 ")) or status < 100 or b"\0" in head:
        raise InvalidHandshake("the response's first line is not one of HTTP/1.1 or HTTP/1.0")
    # RFC 9110 §15.2: "Since HTTP/1.0 did not define any 1xx status codes, a server
    # MUST NOT send a 1xx response to an HTTP/1.0 client"; nor can it switch by one.
    if status < 200 and head.startswith(b"HTTP/1.0"):
        raise InvalidHandshake(f"the response has status {status} in HTTP/1.0")
    return status

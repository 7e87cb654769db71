"""One call of an ASGI application for one HTTP request, from its head to the end of the response."""

# size: the events of one call depend on each other.
from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import Any, Protocol

from ..aio.awaiting import DONE
from ..aio.body import RequestBody
from ..aio.cancellation import is_cancelled
from ..aio.exchange import Exchange
from ..aio.syscalls import monotonic, thread_ident
from ..errors import ClientDisconnected, RequestRefused
from ..http.headers import TOKEN
from ..http.request import Request
from ..http.response import PHRASES, Response
from . import coroutines

__all__ = ["HttpCall"]

_TOKEN = "".join(TOKEN).encode()
_STATUS_LINES = {
    status: f"HTTP/1.1 {status} {PHRASES.get(status, '')}\r\n".encode() for status in range(200, 600)
}
#: Kinds of fields: those that the server itself writes, and those that it adds if they are missing.
ORDINARY, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION, DATE, SERVER = range(6)
#: The names of the fields that most responses have, which need no check, and their kind.
_KNOWN = {
    spelling: {
        b"content-length": CONTENT_LENGTH,
        b"transfer-encoding": TRANSFER_ENCODING,
        b"connection": CONNECTION,
        b"date": DATE,
        b"server": SERVER,
    }.get(name.lower(), ORDINARY)
    for name in (
        b"Accept-Ranges",
        b"Access-Control-Allow-Credentials",
        b"Access-Control-Allow-Headers",
        b"Access-Control-Allow-Methods",
        b"Access-Control-Allow-Origin",
        b"Allow",
        b"Cache-Control",
        b"Connection",
        b"Content-Disposition",
        b"Content-Encoding",
        b"Content-Length",
        b"Content-Security-Policy",
        b"Content-Type",
        b"Date",
        b"ETag",
        b"Last-Modified",
        b"Location",
        b"Referrer-Policy",
        b"Server",
        b"Set-Cookie",
        b"Transfer-Encoding",
        b"Vary",
        b"WWW-Authenticate",
        b"X-Content-Type-Options",
        b"X-Frame-Options",
    )
    for spelling in (name, name.lower())
}
#: Bytes of a body that are copied behind its head, because that costs less than a buffer of its own.
SMALL = 8192
#: Digits of a Content-Length that fit into 64 bits.
MAX_DIGITS = 18
NOT_BYTES = "the names and values of header fields must be bytes"


class Host(Protocol):
    """The server that runs the application."""

    @property
    def logger(self) -> logging.Logger:
        """The server's log."""
        ...

    def refused(self, exchange: Exchange, refusal: RequestRefused) -> None:
        """Answer with the response of ``refusal``."""
        ...

    def failed(self, request: Request, exc: BaseException | None, answered: bool) -> Response:
        """Log that the application has failed, with ``exc`` if it has raised; return the answer to the request.

        ``answered``: the answer has begun, so that there cannot be another one.
        """
        ...

    def stopping(self) -> Callable[[], RequestRefused] | None:
        """A function that makes the answer to a request whose task is cancelled by a stop, and counts it.

        None if no stop has cancelled it.
        """
        ...


# Numbers, because Python 3.11 looks up an Enum member with a call.
#: Which event of the response comes next.
START, BODY, TRAILERS, DONE_STAGE = range(4)
#: How the end of the body is shown to the client: there is none, by its length, in chunks, by the end of TCP.
NONE, LENGTH, CHUNKED, UNTIL_EOF = range(4)


class HttpCall:
    """Runs an application for one HTTP request.

    ``max_body`` limits the request's body, in bytes.
    """

    __slots__ = (
        "_body",
        "_close",
        "_digits",
        "_exchange",
        "_framing",
        "_head",
        "_host",
        "_keep",
        "_left",
        "_length",
        "_request",
        "_stage",
        "_status",
        "_thread",
        "_trailers",
        "_unread",
        "_waiters",
        "scope",
    )

    def __init__(self, exchange: Exchange, scope: dict[str, Any], host: Host, max_body: int | None) -> None:
        request = exchange.request
        assert request is not None
        self.scope = scope
        self._exchange = exchange
        self._request: Request = request
        self._host = host
        self._thread = thread_ident()
        self._body: RequestBody | None = None
        if exchange.has_body():
            self._body = exchange.request_body()
            self._body.limit(max_body)
        # Whether the application has not got the end of the request's body.
        self._unread = True
        self._waiters: set[asyncio.Future[None]] | None = None
        self._stage = START
        # The response: status, the parts of its head, and what the application has said about its framing.
        self._status = 0
        self._head: list[bytes] = []
        self._length: int | None = None
        # The length as the application has written it; empty if it has not.
        self._digits = b""
        self._close = self._keep = self._trailers = False
        self._framing = NONE
        # Bytes that are missing of a body with a length.
        self._left = 0
        self._exchange.watch(self._changed)  # the attribute has a C type

    # -- the application's task ---------------------------------------------------

    def cancelled(self, exc: BaseException) -> None:
        """The application was cancelled, because the server stops; or it has cancelled itself."""
        refuse = self._host.stopping() if is_cancelled() else None
        if refuse is not None:
            self._give_up(refuse)
        else:
            self._fail(exc)

    def raised(self, exc: BaseException) -> None:
        """The application has raised ``exc``."""
        if self._tells_the_end(exc):
            self._give_up(None)
        else:
            self._fail(exc)

    def returned(self, value: object) -> None:
        """The application has returned ``value``."""
        if self._stage != DONE_STAGE and not self._is_disconnected():
            what = "starting" if self._stage == START else "completing"
            self._host.logger.error("ASGI callable returned without %s response.", what)
            self._fail(None)
        elif value is not None:
            self._host.logger.error("ASGI callable should return None, but returned %r.", value)
        self._give_up(None)

    def _tells_the_end(self, exc: BaseException) -> bool:
        """Whether ``exc`` only says that the client has disconnected, so that it is not a fault."""
        if isinstance(exc, BaseExceptionGroup):
            return all(map(self._tells_the_end, exc.exceptions))
        # Starlette's, by name, because Starlette may not be installed.
        name = type(exc).__name__
        return (isinstance(exc, ClientDisconnected) or name == "ClientDisconnect") and self._is_disconnected()

    def _fail(self, exc: BaseException | None) -> None:
        exchange = self._exchange
        response = self._host.failed(self._request, exc, exchange.answered or exchange.is_gone())
        if self._stage != DONE_STAGE and not exchange.answered and not exchange.is_gone():
            self._stage = DONE_STAGE
            exchange.answer(response)
            self._wake()
        else:
            self._give_up(None)

    def _give_up(self, refuse: Callable[[], RequestRefused] | None) -> None:
        """Answer a request without a response with what ``refuse`` makes; cut an incomplete response."""
        if self._stage == DONE_STAGE:
            return
        self._stage = DONE_STAGE
        exchange = self._exchange
        if refuse is not None and not exchange.answered and not exchange.is_gone():
            self._host.refused(exchange, refuse())
        else:
            # RFC 9112 §8: the client sees that the response is incomplete.
            exchange.abort()
        self._wake()

    # -- receive --------------------------------------------------------------------

    def receive(self) -> Any:
        """ASGI's ``receive``."""
        if self._body is None and self._unread and not self._is_lost():
            self._unread = False
            return coroutines.returning({"type": "http.request", "body": b"", "more_body": False})
        return coroutines.receive(self)

    def part(self, content: bytes) -> dict[str, Any]:
        """The event for a part of the request's body."""
        assert self._body is not None
        self._unread = not self._body.at_end
        return {"type": "http.request", "body": content, "more_body": self._unread}

    def refuse(self, refusal: RequestRefused) -> None:
        """The body of the request breaks a rule."""
        self._unread = False
        if self._is_lost():
            return
        self._stage = DONE_STAGE
        if self._exchange.answered:
            self._exchange.abort()
        else:
            self._host.refused(self._exchange, refusal)

    def end(self) -> asyncio.Future[None] | None:
        """A future that ends with the response or with the connection; None if that is over."""
        if self._is_over():
            return None
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = set()
        self._waiters.add(waiter)
        return waiter

    def forget(self, waiter: asyncio.Future[None]) -> None:
        """The task that awaits ``waiter`` goes on. Some applications cancel thousands of calls of ``receive``."""
        if self._waiters is not None:
            self._waiters.discard(waiter)

    def body(self) -> RequestBody | None:
        """The body of the request; None if the application has got it, or nothing is to be read any more."""
        return None if self._is_lost() or not self._unread else self._body

    def _is_lost(self) -> bool:
        # A client that has half-closed TCP has sent its request before.
        return self._stage == DONE_STAGE or self._exchange.is_gone()

    def _is_over(self) -> bool:
        return self._stage == DONE_STAGE or self._is_disconnected()

    def _is_disconnected(self) -> bool:
        return self._exchange.is_gone() or self._exchange.half_closed

    def _changed(self) -> None:
        if self._waiters and self._is_over():
            self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    # -- send -------------------------------------------------------------------------

    def enter(self) -> None:
        """The event loop runs in this thread."""
        self._thread = thread_ident()

    def send(self, event: Any) -> Any:
        """ASGI's ``send``. Raises RuntimeError for an event out of order."""
        if self._thread != thread_ident():
            return coroutines.send_elsewhere(self, event)
        burst = False
        kind: str = event["type"]
        exchange = self._exchange
        if self._stage == DONE_STAGE:
            if not exchange.answered or self._status:
                raise RuntimeError(
                    f"Unexpected ASGI message '{kind}' sent, after response already completed."
                )
            return DONE  # the server has answered, because the body of the request broke a rule
        if exchange.is_gone():
            ending = exchange.ending
            assert ending is not None
            raise ClientDisconnected(ending)
        if self._stage == START:
            if kind == "http.response.start":
                self._begin(event)
            elif kind == "http.response.early_hint" and self._request.version != "1.0":
                self._hint(event)
            else:
                raise RuntimeError(f"Expected ASGI message 'http.response.start', but got '{kind}'.")
        elif self._stage == TRAILERS:
            if kind != "http.response.trailers":
                raise RuntimeError(f"Expected ASGI message 'http.response.trailers', but got '{kind}'.")
            self._send_trailers(event)
        elif kind == "http.response.body":
            body = event.get("body", b"")
            octets = body if type(body) is bytes else _octets(body)
            burst = self._send_body(octets, bool(event.get("more_body")))
        elif kind == "http.response.pathsend":
            return coroutines.send_file(self, exchange, event["path"])
        else:
            raise RuntimeError(f"Expected ASGI message 'http.response.body', but got '{kind}'.")
        if exchange.is_full():
            return coroutines.room(exchange)
        # An application that never waits, and a client that reads as fast, would starve other connections.
        return coroutines.give_way() if burst else DONE

    def _begin(self, event: dict[str, Any]) -> None:
        status = event["status"]
        line = _STATUS_LINES.get(status) if isinstance(status, int) else None
        if line is None:
            raise RuntimeError(f"Invalid HTTP status code '{status}' in response.")
        length: int | None = None
        digits = b""
        close = has_date = has_server = False
        head: list[bytes] = [line]
        values: list[bytes] = []
        headers = event.get("headers") or ()
        if not isinstance(headers, list | tuple):
            headers = list(headers)
        for field in headers:
            name, value = field
            known = _KNOWN.get(name) if type(name) is bytes else None
            kind = _kind_of(name) if known is None else known
            if kind in (ORDINARY, DATE, SERVER):
                head.append(name)
                head.append(b": ")
                head.append(value)
                head.append(b"\r\n")
                values.append(value)
                has_date = has_date or kind == DATE
                has_server = has_server or kind == SERVER
            elif kind == CONTENT_LENGTH:
                if length is not None or not value.isdigit() or len(value) > MAX_DIGITS:
                    raise RuntimeError("Content-Length must occur once, with a number")
                length, digits = int(value), bytes(value)
            else:
                options = value.lower().replace(b" ", b"").split(b",")
                if kind == CONNECTION:
                    # The server decides about the connection; the application may only end it.
                    close = close or b"close" in options
                elif options != [b"chunked"]:
                    raise RuntimeError("Transfer-Encoding must be chunked: the server encodes the body")
        try:
            content = b"".join(values)
        except TypeError:
            raise TypeError(NOT_BYTES) from None
        if 13 in content or 10 in content or 0 in content:  # CR, LF, NUL
            _check_values(headers)
        if not has_date:
            head.append(_DATE.line())
        if not has_server:
            head.append(b"server: endwell\r\n")
        self._status = int(status)
        self._head, self._length, self._digits, self._close = head, length, digits, close
        self._trailers = bool(event.get("trailers"))
        self._stage = BODY

    def _hint(self, event: dict[str, Any]) -> None:
        lines = _lines([(b"link", link) for link in event.get("links") or ()])
        self._exchange.write(b"HTTP/1.1 103 Early Hints\r\n%b\r\n" % lines)

    def _complete_head(self, size: int, more: bool) -> list[bytes]:
        """The parts of the head. ``size`` is that of the first part of the body, ``more`` whether others follow."""
        exchange, request, status = self._exchange, self._request, self._status
        keep = not self._close and exchange.keeps_alive()
        framing, length, digits = LENGTH, self._length, self._digits
        if status in (204, 304):
            # RFC 9110 §15.3.5 and §15.4.5: terminated by the end of the header section. §8.6: no
            # Content-Length in a 204; in a 304, it would be that of the 200.
            framing = NONE
            length = None if status == 204 else length
        elif status == 205:
            framing, length, digits = NONE, 0, b""  # §15.3.6: no content
        elif length is None:
            if not more and not self._trailers:
                length = size
            elif request.version != "1.0":
                framing = CHUNKED
            else:
                framing, keep = UNTIL_EOF, False
        if request.method == "HEAD":
            framing = NONE
        self._framing, self._left = framing, length or 0
        head = self._head
        if length is not None:
            head.append(b"content-length: ")
            head.append(digits or b"%d" % length)
            head.append(b"\r\n")
        elif framing == CHUNKED:
            head.append(b"transfer-encoding: chunked\r\n")
        if not keep:
            head.append(b"connection: close\r\n")
        elif request.version == "1.0":
            head.append(b"connection: keep-alive\r\n")
        head.append(b"\r\n")
        self._keep = keep
        return head

    def _send_body(self, body: bytes, more: bool) -> bool:
        """Send a part of the body. True if other tasks should run before the next one."""
        exchange = self._exchange
        if not exchange.answered:
            if self._length is not None:
                self._check_length(self._length, len(body), more)
            head = self._complete_head(len(body), more)
            if self._framing == LENGTH and len(body) <= SMALL:
                self._left -= len(body)
                head.append(body)
                body = b""
            exchange.start(self._status, b"".join(head), self._keep)
        elif self._framing == LENGTH:
            self._check_length(self._left, len(body), more)
        framing = self._framing
        if framing == LENGTH:
            self._left -= len(body)
            exchange.queue(body)
        elif framing == CHUNKED:
            if body:
                exchange.queue(b"%x\r\n" % len(body))
                exchange.queue(body)
                exchange.queue(b"\r\n")
            if not more:
                exchange.queue(b"0\r\n" if self._trailers else b"0\r\n\r\n")
        elif framing == UNTIL_EOF:
            exchange.queue(body)
        if more:
            return exchange.flush()
        if self._trailers:
            self._stage = TRAILERS
            return exchange.flush()
        self._finish()
        return False

    def _check_length(self, left: int, size: int, more: bool) -> None:
        """Raise RuntimeError if the body does not have the length that its head says."""
        if self._request.method == "HEAD" or self._status in (204, 205, 304):
            return
        if size > left:
            raise RuntimeError("Response content longer than Content-Length")
        if size < left and not more:
            raise RuntimeError("Response content shorter than Content-Length")

    def _finish(self) -> None:
        self._stage = DONE_STAGE
        self._exchange.finish()
        if self._waiters:
            self._wake()

    def _send_trailers(self, event: dict[str, Any]) -> None:
        lines = _lines(list(event.get("headers") or ()))
        chunked = self._framing == CHUNKED
        if chunked:
            self._exchange.queue(lines)
        if not event.get("more_trailers"):
            if chunked:
                self._exchange.queue(b"\r\n")
            self._finish()

    def begin_file(self, size: int) -> int:
        """Start a response whose body is a file of ``size`` bytes. Returns the bytes to send."""
        if self._length is None:
            self._length = size
        elif self._length != size:
            raise RuntimeError("Content-Length is not the size of the file")
        self._exchange.start(self._status, b"".join(self._complete_head(size, False)), self._keep)
        return size if self._framing == LENGTH else 0

    def end_file(self) -> None:
        """The file is sent."""
        if not self._exchange.is_gone():
            self._finish()


def _octets(body: object) -> bytes:
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    if body is None:
        return b""
    raise TypeError(f"the body of a response must be bytes, not {type(body).__name__}")


def _kind_of(name: object) -> int:
    """What a field that is not among the known ones means. Raises TypeError or ValueError if it has no name."""
    if isinstance(name, str):
        raise TypeError(NOT_BYTES)
    octets = bytes(name)  # type: ignore[call-overload]
    # HTTP/2's pseudo-header fields, and any name that is no token.
    if not octets or octets.translate(None, _TOKEN):
        raise ValueError(f"header name {octets!r} is not a token")
    return _KNOWN.get(octets.lower(), ORDINARY)


def _check_values(headers: Iterable[Any]) -> None:
    """Raise ValueError for a value that could be read as something else."""
    for name, value in headers:
        # RFC 9110 §5.5: "Field values containing CR, LF, or NUL characters are invalid and dangerous".
        if any(octet in bytes(value) for octet in b"\r\n\0"):
            raise ValueError(f"value of header {bytes(name).decode('latin-1')} contains CR, LF or NUL")


def _lines(headers: Iterable[Any]) -> bytes:
    """The lines of fields. Raises TypeError or ValueError if they could be read as something else."""
    lines: list[bytes] = []
    for name, value in headers:
        _kind_of(name)
        if isinstance(value, str):
            raise TypeError(NOT_BYTES)
        lines.append(b"%b: %b\r\n" % (name, value))
    _check_values(headers)
    return b"".join(lines)


class _DateField:
    """The Date field of the current second."""

    __slots__ = ("_line", "_since", "_until")

    def __init__(self) -> None:
        # When the line was made, and when the next second begins, on the clock of monotonic().
        self._since = self._until = 0.0
        self._line = b""

    def line(self) -> bytes:
        """Return the line of the field."""
        now = monotonic()
        # The clock may be a virtual one, whose times are before or after the others.
        if not self._since <= now < self._until:
            second, fraction = divmod(time.time(), 1)
            self._line = b"date: %b\r\n" % formatdate(second, usegmt=True).encode()
            # Last, because the loop of another thread may ask meanwhile.
            self._since, self._until = now, now + 1 - fraction
        return self._line


_DATE = _DateField()

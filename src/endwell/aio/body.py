"""The body of a request, read from the connection when the application asks for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from sys import maxsize
from typing import Any, Protocol
from urllib.parse import parse_qsl

from ..errors import (
    BadRequest,
    BodyTooLarge,
    ConcurrencyError,
    RequestRefused,
    RequestTimeout,
    UnsupportedMediaType,
)
from ..http import Query, Request
from ..options import Options
from ..protocol.connection import Connection
from ..protocol.pause import Pause
from ..wire.body import BodyReader, body_length
from .driver import Driver
from .patience import Patience
from .reactor import reactor_of
from .syscalls import monotonic

__all__ = ["RequestBody"]

#: Bytes that are read before the application asks for them. More wait in the kernel.
READ_AHEAD = 2**16
#: Maximum fields of a form. Precedent: Django's DATA_UPLOAD_MAX_NUMBER_FIELDS.
MAX_FIELDS = 1000
#: Maximum bytes of a body that are read and discarded so that its connection can be kept alive. Precedent: Go's
#: net/http reads up to 256 KiB after a handler.
MAX_SKIPPED = 256 * 1024
#: Bytes for which a client that sends a body slowly has another second. Precedent: the MinRate of Apache's
#: mod_reqtimeout.
MIN_RATE = 500
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Source(Protocol):
    """Where the bytes of a body come from."""

    answered: bool
    half_closed: bool

    def take_held(self) -> bytes:
        """Return and forget some of the bytes that were read behind the head; ``b""`` if there are none."""

    def body_over(self, rest: bytes) -> None:
        """Nothing more of the body is read. ``rest`` came behind it."""


class _Nowhere:
    """The source of a body from which nothing is read any more."""

    answered = half_closed = True

    def take_held(self) -> bytes:
        """Return nothing."""
        return b""

    def body_over(self, rest: bytes) -> None:
        """Do nothing."""


_NOWHERE = _Nowhere()


def _refuse_constant(name: str) -> object:
    # RFC 8259 §6: "Numeric values that cannot be represented in the grammar below (such as Infinity and NaN) are
    # not permitted."
    raise ValueError(f"{name} is not JSON")


class RequestBody:
    """Reads the body of ``request``."""

    def __init__(self, stream: Driver, core: Connection, request: Request, source: Source) -> None:
        self._stream = stream
        self._core = core
        self._request = request
        self._source: Source = source
        self._options: Options = core.options
        self._limit = core.options.max_body
        self._length = body_length(request.method, request.version, request.headers)
        # None until the application asks for the body.
        self._reader: BodyReader | None = None
        self._error: RequestRefused | None = None
        # Content that the application has not got, and its size.
        self._parts: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._timer: Patience | None = None
        # Seconds for which the application still waits for more; None if the time of the whole body is limited.
        self._patience: float | None = None
        # What is called once the rest of the body is skipped, and how many bytes more may be skipped.
        self._skipped: Callable[[bool], object] | None = None
        self._skippable = MAX_SKIPPED
        # What read() has got.
        self._kept: list[bytes] = []
        #: Whether the application has asked for the body, and it is incomplete.
        self.is_arriving = False
        #: When the body was complete; 0 before.
        self.completed_at = 0.0

    def limit(self, size: int | None) -> None:
        """Before the first :meth:`chunk`: limit the body to ``size`` bytes, and its rate instead of its time.

        The client has ``body_timeout`` seconds and another second for each 500 bytes, not counting the time in
        which the application does not wait for the body.
        """
        self._limit = size
        seconds = self._options.body_timeout
        self._patience = float(2**31) if seconds is None else seconds

    @property
    def is_over(self) -> bool:
        """Whether the whole body has been read from the connection."""
        return self._length == 0 if self._reader is None else self._reader.complete

    @property
    def is_missing(self) -> bool:
        """Whether more of the body can be read from the connection."""
        return not self.is_over and self._error is None

    @property
    def at_end(self) -> bool:
        """Whether the application has got the whole body."""
        return self.is_over and not self._parts

    def can_be_skipped(self) -> bool:
        """Whether what is missing of the body may be read and discarded after the answer."""
        if self.is_over:
            return True
        # A client that waits for a 100 may send the body after the answer, or not (RFC 9110 §10.1.1).
        if self._error is not None or (self._reader is None and self._is_expected()):
            return False
        return self._length is None or self._length <= MAX_SKIPPED

    def _is_expected(self) -> bool:
        request = self._request
        return request.version != "1.0" and "100-continue" in map(
            str.lower, request.headers.list_of("Expect")
        )

    async def chunk(self) -> bytes:
        """Return the next part of the body; ``b""`` at its end.

        Raises a subclass of :exc:`RequestRefused`, whose response is the answer to the request.
        """
        if self._waiter is not None:
            raise ConcurrencyError("another task is reading the body of this request")
        reader = self._reader or self._begin()
        while not self._parts and not reader.complete:
            if self._error is not None:
                raise self._error
            await self._wait()
        content, self._parts, self._size = b"".join(self._parts), [], 0
        return content

    async def _wait(self) -> None:
        loop = self._stream.loop
        self._waiter = waiter = loop.create_future()
        self._resume()
        if self._patience is None:
            timer = None
        else:
            timer = Patience(reactor_of(self._stream.loop), self._patience, self._time_out)
        try:
            await waiter
        finally:
            self._waiter = None
            if timer is not None and self._patience is not None:
                timer.cancel()
                self._patience -= timer.passed()

    async def read(self) -> bytes:
        """Return the whole body. It is kept."""
        while content := await self.chunk():
            self._kept.append(content)
        self._kept = [b"".join(self._kept)]
        return self._kept[0]

    def take_kept(self) -> bytes:
        """Return and forget what :meth:`read` has got."""
        kept, self._kept = b"".join(self._kept), []
        return kept

    def _begin(self) -> BodyReader:
        limit = self._limit
        self._reader = reader = BodyReader(self._length, maxsize if limit is None else limit)
        if not reader.complete:
            self.is_arriving = True
            rest = self._source.take_held()
            seconds = self._options.body_timeout
            if self._patience is None and self._skipped is None and seconds is not None:
                self._timer = Patience(reactor_of(self._stream.loop), seconds, self._time_out)
            self._stream.receive = self._receive
            if rest:
                while rest and self.is_arriving:
                    self._receive(rest, 0.0)
                    rest = self._source.take_held() if self.is_arriving else b""
            # RFC 9110 §10.1.1: a server "MAY omit sending a 100 (Continue) response if it has already
            # received some or all of the content".
            elif not self._source.answered and self._is_expected():
                self._core.open(CONTINUE)
                self._stream.settle()
            if self._source.half_closed and not reader.complete:
                self._end(BadRequest("the client ended TCP within the body of the request"))
        return reader

    def _receive(self, data: bytes, now: float) -> None:
        reader = self._reader
        assert reader is not None
        try:
            content = reader.receive(data)
        except RequestRefused as exc:
            self._end(exc)
            return
        if self._skipped is not None:
            self._skippable -= len(data)
            if reader.complete or self._skippable < 0:
                self._end(None if reader.complete else BodyTooLarge("the rest of the body is too large"))
            return
        if content:
            self._parts.append(content)
            self._size += len(content)
        if self._patience is not None and self._options.body_timeout is not None:
            self._patience = min(self._options.body_timeout, self._patience + len(content) / MIN_RATE)
        if reader.complete:
            self._end(None)
        elif self._size >= READ_AHEAD:
            self._core.pause(Pause.REQUEST)
        if content:
            self._wake()

    def _resume(self) -> None:
        if self.is_arriving and self._core.pauses() & Pause.REQUEST:
            self._core.resume(Pause.REQUEST)
            self._stream.settle()

    def _end(self, error: RequestRefused | None) -> None:
        """Stop reading: the body is complete, or has failed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.is_arriving = False
        self._error = self._error or error
        self.completed_at = monotonic()
        rest = b""
        if self._reader is not None:
            # Not kept, because request and body refer to each other, and may live until the garbage collection.
            rest, self._reader.rest = self._reader.rest, b""
        self._source.body_over(rest)
        self._wake()
        if self._skipped is not None:
            self._skipped(error is None)

    def skip(self, skipped: Callable[[bool], object]) -> None:
        """Read and discard the rest of the body after the answer. Then call ``skipped(complete)``.

        At most ``MAX_SKIPPED`` bytes are discarded. The caller limits the time.
        """
        self._skipped = skipped
        self._error = BadRequest("the answer was sent before the end of the body")
        self._parts, self._size = [], 0
        self._wake()
        if self._reader is None:
            try:
                self._begin()
            except RequestRefused:
                skipped(False)
            else:
                self._resume()
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.is_arriving:
            self._resume()
        else:  # it has failed
            skipped(False)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _time_out(self) -> None:
        if not self.is_arriving:
            return
        self._end(RequestTimeout("the body of the request did not arrive in time"))
        self._stream.settle()

    def release(self) -> None:
        """Nothing more is read."""
        self._source = _NOWHERE
        self._skipped = None

    def close(self) -> None:
        """The answer has begun, or the connection has ended: nothing more is read."""
        if self.is_arriving:
            self._end(BadRequest("the connection ended within the body of the request"))

    # -- what the body means ------------------------------------------------------

    def json(self, octets: bytes) -> Any:
        """Return ``octets`` as JSON."""
        try:
            return json.loads(octets, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise BadRequest("the body of the request is not JSON") from None

    def form(self, octets: bytes) -> Query:
        """Return ``octets`` as a form."""
        kind = (self._request.headers.get("Content-Type") or "").partition(";")[0]
        if kind.strip().lower() != "application/x-www-form-urlencoded":
            raise UnsupportedMediaType("the form must be of the type application/x-www-form-urlencoded")
        try:
            fields = parse_qsl(
                octets.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
            )
        except ValueError:
            raise BadRequest("the form is malformed, or has too many fields") from None
        return Query(fields)

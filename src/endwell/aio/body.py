"""The body of a request, read from the connection when the application asks for it."""

from __future__ import annotations

import asyncio
import json
from sys import maxsize
from typing import Any
from urllib.parse import parse_qsl

from ..errors import BadRequest, ConcurrencyError, RequestRefused, RequestTimeout, UnsupportedMediaType
from ..http import Query, Request
from ..options import Options
from ..protocol.connection import Connection
from ..protocol.pause import Pause
from ..wire.body import BodyReader, body_length
from .driver import Driver
from .syscalls import monotonic

__all__ = ["RequestBody"]

#: Bytes that are read before the application asks for them. More wait in the kernel.
READ_AHEAD = 2**16
#: Maximum fields of a form. Precedent: Django's DATA_UPLOAD_MAX_NUMBER_FIELDS.
MAX_FIELDS = 1000
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class RequestBody:
    """Reads the body of ``request``. ``rest`` are the bytes that came with its head."""

    def __init__(self, stream: Driver, core: Connection, request: Request, rest: bytes) -> None:
        self._stream = stream
        self._core = core
        self._request = request
        self._rest = rest
        self._options: Options = core.options
        # None until the application asks for the body.
        self._reader: BodyReader | None = None
        self._error: RequestRefused | None = None
        # Content that the application has not got, and its size.
        self._parts: list[bytes] = []
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        # What read() has got.
        self._kept: list[bytes] = []
        #: When the body was complete; 0 before.
        self.completed_at = 0.0

    @property
    def is_arriving(self) -> bool:
        """Whether the application has asked for the body, and it is incomplete."""
        return self._timer is not None

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
            self._waiter = self._stream.loop.create_future()
            self._resume()
            try:
                await self._waiter
            finally:
                self._waiter = None
        content, self._parts, self._size = b"".join(self._parts), [], 0
        return content

    async def read(self) -> bytes:
        """Return the whole body. It is kept."""
        while content := await self.chunk():
            self._kept.append(content)
        self._kept = [b"".join(self._kept)]
        return self._kept[0]

    def _begin(self) -> BodyReader:
        request, limit = self._request, self._options.max_body
        length = body_length(request.method, request.version, request.headers)
        self._reader = reader = BodyReader(length, maxsize if limit is None else limit)
        rest, self._rest = self._rest, b""
        if not reader.complete:
            seconds = self._options.body_timeout
            loop = self._stream.loop
            self._timer = loop.call_later(seconds if seconds is not None else 2**31, self._time_out)
            self._stream.receive = self._receive
            # RFC 9110 §10.1.1: a server "MAY omit sending a 100 (Continue) response if it has already
            # received some or all of the content".
            if rest:
                self._receive(rest, 0.0)
            elif request.version != "1.0" and "100-continue" in map(
                str.lower, request.headers.list_of("Expect")
            ):
                self._core.open(CONTINUE)
                self._stream.settle()
        return reader

    def _receive(self, data: bytes, now: float) -> None:
        reader = self._reader
        assert reader is not None
        try:
            content = reader.receive(data)
        except RequestRefused as exc:
            self._end(exc)
            return
        if content:
            self._parts.append(content)
            self._size += len(content)
        if reader.complete:
            self._end(None)
        elif self._size >= READ_AHEAD:
            self._core.pause(Pause.REQUEST)
        if content:
            self._wake()

    def _resume(self) -> None:
        if self._stream.receive is not None and self._core.pauses() & Pause.REQUEST:
            self._core.resume(Pause.REQUEST)
            self._stream.settle()

    def _end(self, error: RequestRefused | None) -> None:
        """Stop reading: the body is complete, or has failed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._error = error
        self._stream.receive = None
        self._core.pause(Pause.REQUEST)
        self.completed_at = monotonic()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _time_out(self) -> None:
        self._end(RequestTimeout("the body of the request did not arrive in time"))
        self._stream.settle()

    def close(self) -> None:
        """The answer has begun, or the connection has ended: nothing more is read."""
        if self.is_arriving:
            self._end(BadRequest("the connection ended within the body of the request"))

    # -- what the body means ------------------------------------------------------

    def json(self, octets: bytes) -> Any:
        """Return ``octets`` as JSON."""
        try:
            return json.loads(octets)
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

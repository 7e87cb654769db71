"""A response whose body is sent while the application produces it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable

from ..http import Request, StreamingResponse
from ..protocol.connection import Connection
from ..protocol.pause import Pause
from ..protocol.responding import complete_head, has_body
from .driver import Driver

__all__ = ["StreamedAnswer"]


class StreamedAnswer:
    """Sends one response chunk by chunk, as fast as the client reads.

    RFC 9112 §7.1: the chunked coding ends with a chunk of size 0, so a client sees that a response is
    incomplete. A client of HTTP/1.0 gets the bytes until the end of TCP.
    """

    def __init__(self, stream: Driver, core: Connection, request: Request) -> None:
        self._stream = stream
        self._core = core
        self._request = request
        self._waiter: asyncio.Future[None] | None = None
        # The task that waits for the next chunk, and whether it was cancelled because the client is gone.
        self._task: asyncio.Task[object] | None = None
        self._cancelled = False

    async def send(self, response: StreamingResponse) -> None:
        """Send the response, whose chunks are an async iterable.

        If the iterable raises, the connection is aborted. If the client disconnects, the iterable is closed.
        """
        chunks = response.chunks
        assert isinstance(chunks, AsyncIterable)
        head = complete_head(response, self._request, time.time())
        chunked = "Transfer-Encoding" in head.headers
        self._core.open(head.serialize())
        # Bytes of the client are discarded from now on, so that a reset is noticed.
        self._stream.receive = self._discard
        self._stream.eof = self._stop_reading
        self._core.resume(Pause.REQUEST)
        self._stream.settle()
        sends_body = has_body(response, self._request)
        iterator = aiter(chunks)
        self._task = asyncio.current_task()
        try:
            while sends_body and not self._core.ended:
                try:
                    chunk = await anext(iterator)
                except StopAsyncIteration:
                    break
                self._queue(chunk, chunked)
                await self._has_room()
        except asyncio.CancelledError:
            # Cancelled here, because the client has disconnected? Then the application goes on.
            if not self._cancelled or self._task is None or self._task.uncancel() > 0:
                self._abort()
                raise
        except BaseException:
            self._abort()
            raise
        finally:
            self._task = None
            aclose = getattr(iterator, "aclose", None)
            if aclose is not None:
                await aclose()
        if not self._core.ended:
            self._stream.receive = self._stream.eof = None
            self._core.refuse(b"0\r\n\r\n" if chunked and sends_body else b"", self._stream.now())
            self._stream.settle()

    def _queue(self, chunk: bytes | str, chunked: bool) -> None:
        if not isinstance(chunk, bytes | bytearray | memoryview | str):
            raise TypeError(f"a chunk of a response must be bytes or str, not {type(chunk).__name__}")
        octets = chunk.encode() if isinstance(chunk, str) else bytes(chunk)
        # A chunk of size 0 would end the response.
        if octets and not self._core.ended:
            self._core.open(b"%x\r\n%b\r\n" % (len(octets), octets) if chunked else octets)
            self._stream.settle()

    async def _has_room(self) -> None:
        """Wait until at most ``write_limit`` bytes wait for the client; abort if it accepts none for too long."""
        core, loop = self._core, self._stream.loop
        while not core.ended and core.outbox.size > core.options.write_limit:
            before = core.outbox.bytes_sent
            self._waiter = loop.create_future()
            timer = loop.call_later(core.options.write_timeout or 2**31, self._wake)
            try:
                await self._waiter
            finally:
                timer.cancel()
                self._waiter = None
            if not core.ended and core.outbox.bytes_sent == before:
                self._abort()

    def _abort(self) -> None:
        self._task = None  # it needs no cancellation
        self._stream.abort()

    def changed(self) -> None:
        """The connection has sent something, or has ended."""
        core = self._core
        if core.ended or core.outbox.size <= core.options.write_limit:
            self._wake()
        if core.ended and self._task is not None and self._waiter is None and not self._cancelled:
            # The iterable may wait for something else, for a long time.
            self._cancelled = True
            self._task.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _discard(self, data: bytes, now: float) -> None:
        pass

    def _stop_reading(self, now: float) -> None:
        # A client may half-close TCP after its request, and still read the response.
        self._core.pause(Pause.REQUEST)

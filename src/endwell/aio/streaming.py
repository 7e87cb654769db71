"""A response whose body is sent while the application produces it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Callable
from typing import Protocol

from ..http import Request, StreamingResponse
from ..protocol.responding import complete_head, has_body
from ..text import utf8
from .driver import Driver

__all__ = ["StreamedAnswer"]


class Exchange(Protocol):
    """The request that is answered in parts: see ``exchange.py``."""

    @property
    def gone(self) -> bool:
        """Whether the connection has ended."""
        ...

    def start(self, status: int, head: bytes, keep: bool) -> None:
        """Queue the head of the answer."""

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call ``watcher`` when the client has disconnected."""

    def queue(self, octets: bytes) -> None:
        """Queue a part of the answer."""

    def write(self, octets: bytes) -> None:
        """Send a part of the answer."""

    def is_full(self) -> bool:
        """Whether too much waits for the client."""
        ...

    async def room(self) -> None:
        """Wait until less waits for the client."""

    def finish(self) -> None:
        """The whole answer is queued."""

    def abort(self) -> None:
        """Cut the connection."""


class StreamedAnswer:
    """Sends one response chunk by chunk, as fast as the client reads.

    RFC 9112 §7.1: the chunked coding ends with a chunk of size 0, so a client sees that a response is
    incomplete. A client of HTTP/1.0 gets the bytes until the end of TCP.
    """

    def __init__(self, exchange: Exchange, stream: Driver, request: Request) -> None:
        self._exchange = exchange
        self._stream = stream
        self._request = request
        # The task while it waits for the next chunk, and whether it was cancelled because the client is gone.
        # At other times, a cancellation would reach the cleanup of the iterable.
        self._task: asyncio.Task[object] | None = None
        self._cancelled = False

    async def send(self, response: StreamingResponse, keep: bool) -> None:
        """Send the response, whose chunks are an async iterable.

        If the iterable raises, the connection is aborted. If the client disconnects, the iterable is closed.
        """
        chunks = response.chunks
        assert isinstance(chunks, AsyncIterable)
        exchange, request = self._exchange, self._request
        sends_body = has_body(response, request)
        # Only the end of TCP ends the body for a client of HTTP/1.0.
        keep = keep and not (sends_body and request.version == "1.0")
        head = complete_head(response, request, time.time(), keep)
        chunked = "Transfer-Encoding" in head.headers
        exchange.start(head.status, head.serialize(), keep)
        exchange.watch(self._changed)
        self._stream.settle()
        iterator = aiter(chunks)
        try:
            while sends_body and not exchange.gone:
                self._task = asyncio.current_task()
                try:
                    chunk = await anext(iterator)
                except StopAsyncIteration:
                    break
                self._task = None
                self._queue(chunk, chunked)
                # An iterable that never waits, and a client that reads as fast, would starve other connections.
                if self._stream.wrote():
                    await asyncio.sleep(0)
                if exchange.is_full():
                    await exchange.room()
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
        if not exchange.gone:
            if chunked and sends_body:
                exchange.write(b"0\r\n\r\n")
            exchange.finish()

    def _queue(self, chunk: bytes | str, chunked: bool) -> None:
        if not isinstance(chunk, bytes | bytearray | memoryview | str):
            raise TypeError(f"a chunk of a response must be bytes or str, not {type(chunk).__name__}")
        octets = utf8(chunk, "a chunk of a response") if isinstance(chunk, str) else bytes(chunk)
        # A chunk of size 0 would end the response.
        if octets and not self._exchange.gone:
            self._exchange.queue(b"%x\r\n%b\r\n" % (len(octets), octets) if chunked else octets)

    def _abort(self) -> None:
        self._task = None  # it needs no cancellation
        self._exchange.abort()

    def _changed(self) -> None:
        if self._exchange.gone and self._task is not None and not self._cancelled:
            # The iterable may wait for something else, for a long time.
            self._cancelled = True
            self._task.cancel()

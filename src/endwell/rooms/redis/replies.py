"""What Redis sends, in RESP2: all replies and publications of one read at a time.

redis-py awaits several coroutines for each reply, and the parser of hiredis would be another extension module. So
redis-py connects and writes, and :class:`Replies` reads in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis.exceptions import ConnectionError as LostError
from redis.exceptions import InvalidResponse

__all__ = ["Decoder", "Replies"]

_STATUS, _ERROR, _INTEGER, _BULK, _ARRAY = b"+-:$*"


class Decoder:
    """Splits a stream of bytes into replies.

    A status and a bulk string become ``bytes``, a null None, an array a list.

    Args:
        parse_error: Makes an exception of the text of an error.
    """

    def __init__(self, parse_error: Callable[[str], Exception]) -> None:
        self._parse_error = parse_error
        self._buffer = bytearray()
        #: The arrays that are not complete, the outer one first, each with its length.
        self._arrays: list[tuple[list[Any], int]] = []

    def feed(self, data: bytes) -> list[Any]:
        """Return the replies that are complete.

        Raises:
            InvalidResponse: The bytes are no RESP2.
        """
        value: Any
        replies: list[Any] = []
        buffer, arrays, at = self._buffer, self._arrays, 0
        buffer += data
        size = len(buffer)
        while (end := buffer.find(b"\r\n", at)) >= 0:
            kind, value = buffer[at], None
            if kind in (_BULK, _ARRAY, _INTEGER):
                number = int(buffer[at + 1 : end])
            following = end + 2
            if kind == _BULK:
                if number >= 0:
                    end = following + number
                    if size < end + 2:
                        break
                    value = bytes(buffer[following:end])
                    following = end + 2
            elif kind == _ARRAY:
                if number > 0:
                    arrays.append(([], number))
                    at = following
                    continue
                value = [] if number == 0 else None
            elif kind == _INTEGER:
                value = number
            elif kind == _STATUS:
                value = bytes(buffer[at + 1 : end])
            elif kind == _ERROR:
                value = self._parse_error(buffer[at + 1 : end].decode(errors="replace"))
            else:
                raise InvalidResponse(f"no reply of Redis: {bytes(buffer[at:end])[:100]!r}")
            at = following
            # The value may be the last one of an array, and that the last one of another.
            while arrays:
                items, length = arrays[-1]
                items.append(value)
                if len(items) < length:
                    break
                arrays.pop()
                value = items
            else:
                replies.append(value)
        del buffer[:at]
        return replies


class Replies(asyncio.Protocol):
    """Reads a connection of redis-py that is connected.

    Args:
        connection: The connection. redis-py has read everything that has arrived.
        received: Called with each reply. An exception ends the reading.
        finished: Called after the replies of each read.
    """

    def __init__(
        self, connection: Any, received: Callable[[Any], None], finished: Callable[[], None] | None = None
    ) -> None:
        self._decoder = Decoder(connection._parser.parse_error)
        self._received = received
        self._finished = finished
        self._error: Exception | None = None
        self._ended = asyncio.get_running_loop().create_future()
        transport = connection._writer.transport
        #: redis-py waits in it while too many bytes wait to be sent.
        self._streams = transport.get_protocol()
        transport.set_protocol(self)

    async def wait(self) -> None:
        """Wait until the connection fails, and raise the reason."""
        await asyncio.shield(self._ended)
        assert self._error is not None
        raise self._error

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
            self._ended.set_result(None)

    def data_received(self, data: bytes) -> None:
        """See :meth:`asyncio.Protocol.data_received`."""
        if self._error is not None:
            return
        try:
            for reply in self._decoder.feed(data):
                if isinstance(reply, LostError):  # for example, it loads its data
                    self._fail(reply)
                    break
                self._received(reply)
        except Exception as error:
            self._fail(error)
        finally:
            if self._finished is not None:
                self._finished()

    def connection_lost(self, exc: Exception | None) -> None:
        """See :meth:`asyncio.Protocol.connection_lost`."""
        self._streams.connection_lost(exc)
        self._fail(exc or EOFError("it has closed the connection"))

    def pause_writing(self) -> None:
        """See :meth:`asyncio.Protocol.pause_writing`."""
        self._streams.pause_writing()

    def resume_writing(self) -> None:
        """See :meth:`asyncio.Protocol.resume_writing`."""
        self._streams.resume_writing()

"""Reads the preamble of the PROXY protocol from a new connection, before anything else does."""

from __future__ import annotations

import _socket
import asyncio
import socket
from collections.abc import Callable

from ..wire.preamble import PreambleReader
from .patience import Patience
from .reactor import Reactor

__all__ = ["Preamble"]


class Preamble:
    """Waits for the preamble on ``sock``, for at most ``seconds``.

    ``done(address)`` is called with the client's address, or None if the peer is the client;
    ``failed(reason)`` if there is no valid preamble in time. The bytes after the preamble stay in the kernel.
    """

    def __init__(
        self,
        sock: _socket.socket,
        seconds: float | None,
        done: Callable[[object], None],
        failed: Callable[[str], None],
        reactor: Reactor,
    ) -> None:
        self._sock = sock
        self._reader = PreambleReader()
        self._done = done
        self._failed = failed
        self._reactor = reactor
        self._has_readers = reactor.has_readers
        self._loop = reactor.loop
        self._seconds = seconds
        self._timer: Patience | None = None
        # Without readers: the read of the next byte.
        self._next: asyncio.Future[bytes] | None = None
        self._entered = self._closed = False

    def begin(self) -> None:
        """Start reading."""
        if self._closed:
            return
        self._reactor.enter(watches=False)  # so that it notices stalls
        self._entered = True
        if self._seconds is not None:
            self._timer = Patience(self._reactor, self._seconds, self._expired)
        if not self._has_readers:
            self._wait()
            return
        try:
            self._loop.add_reader(self._sock.fileno(), self._read)
        except OSError:  # the loop cannot watch another socket
            self._fail("out of resources")
            return
        self._read()

    def abort(self) -> None:
        """Stop reading, and close the socket."""
        self._stop()
        if self._next is None:
            self._sock.close()
        else:
            # The loop watches the descriptor until the read is cancelled. The system must not give it to another
            # file before.
            self._next.cancel()

    def _stop(self) -> None:
        self._closed = True
        if self._has_readers:
            self._loop.remove_reader(self._sock.fileno())
        if self._timer is not None:
            self._timer.cancel()
        if self._entered:
            self._entered = False
            self._reactor.leave()

    def _wait(self) -> None:
        # The preamble is incomplete, so one byte more belongs to it. When it has come, _read() looks at the others.
        self._next = asyncio.ensure_future(self._loop.sock_recv(self._sock, 1))  # type: ignore[arg-type]
        self._next.add_done_callback(self._received)

    def _received(self, read: asyncio.Future[bytes]) -> None:
        self._next = None
        if self._closed:
            if not read.cancelled():
                read.exception()  # has been retrieved
            self._sock.close()
            return
        try:
            self._take(read.result())
        except (OSError, ValueError) as exc:
            self._fail(_reason(exc))
            return
        self._read()
        if not self._closed:
            self._wait()

    def _take(self, data: bytes) -> int:
        """Add the next bytes. Returns how many of them belong to the preamble."""
        if not data:
            raise ValueError("the connection ended before the preamble")
        return self._reader.receive(data)

    def _read(self) -> None:
        reader = self._reader
        try:
            while not reader.complete:
                # What is not complete yet is read now: it would be announced again and again.
                self._sock.recv(self._take(self._sock.recv(reader.wanted(), socket.MSG_PEEK)))
        except BlockingIOError:
            return
        except (OSError, ValueError) as exc:
            self._fail(_reason(exc))
            return
        self._stop()
        self._done(reader.address)

    def _expired(self) -> None:
        self._fail("no preamble in time")

    def _fail(self, reason: str) -> None:
        self._stop()
        self._failed(reason)


def _reason(exc: Exception) -> str:
    return str(exc) if isinstance(exc, ValueError) else "the connection ended before the preamble"

"""Reads the preamble of the PROXY protocol from a new connection, before anything else does."""

from __future__ import annotations

import _socket
import asyncio
import socket
from collections.abc import Callable

from ..wire.preamble import PreambleReader

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
    ) -> None:
        self._sock = sock
        self._reader = PreambleReader()
        self._done = done
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def begin(self) -> None:
        """Start reading."""
        if self._closed:
            return
        if self._seconds is not None:
            self._timer = self._loop.call_later(self._seconds, self._fail, "no preamble in time")
        try:
            self._loop.add_reader(self._sock.fileno(), self._read)
        except OSError:  # the loop cannot watch another socket
            self._fail("out of resources")
            return
        self._read()

    def close(self) -> None:
        """Stop reading."""
        self._closed = True
        self._loop.remove_reader(self._sock.fileno())
        if self._timer is not None:
            self._timer.cancel()

    def _read(self) -> None:
        reader = self._reader
        try:
            while not reader.complete:
                data = self._sock.recv(reader.wanted(), socket.MSG_PEEK)
                if not data:
                    self._fail("the connection ended before the preamble")
                    return
                # What is not complete yet is read now: it would be announced again and again.
                self._sock.recv(reader.receive(data))
        except BlockingIOError:
            return
        except (OSError, ValueError) as exc:
            self._fail(str(exc) if type(exc) is ValueError else "the preamble is malformed")
            return
        self.close()
        self._done(reader.address)

    def _fail(self, reason: str) -> None:
        self.close()
        self._failed(reason)

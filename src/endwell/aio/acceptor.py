"""Accepting connections on an event loop that cannot watch a listening socket."""

from __future__ import annotations

import _socket
import asyncio
import socket
from collections.abc import Callable

__all__ = ["Acceptor"]


class Acceptor:
    """Accepts one connection after the other, and calls ``ready(sock)`` when :meth:`take` has a result."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: _socket.socket,
        ready: Callable[[_socket.socket], object],
    ) -> None:
        # The loop needs a socket.socket, which has accept().
        self._own = socket.fromfd(sock.fileno(), sock.family, sock.type, sock.proto)
        self._own.setblocking(False)
        self._accepted: tuple[socket.socket, object] | None = None
        self._failure: OSError | None = None
        self._task = loop.create_task(self._accept(loop, sock, ready))
        self._task.add_done_callback(self._stopped)

    def take(self) -> tuple[socket.socket, object]:
        """Return the next connection and its peer's address. Raises OSError, also if there is none."""
        accepted, self._accepted = self._accepted, None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        if accepted is None:
            raise BlockingIOError
        return accepted

    def stop(self) -> None:
        """Accept no more connections."""
        self._task.cancel()

    def forked(self) -> None:
        """Close the descriptor in a forked child."""
        self._own.close()

    async def _accept(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: _socket.socket,
        ready: Callable[[_socket.socket], object],
    ) -> None:
        while True:
            try:
                accepted = await loop.sock_accept(self._own)
                accepted[0].setblocking(False)
                self._accepted = accepted
            except OSError as exc:
                self._failure = exc
            ready(sock)

    def _stopped(self, task: asyncio.Task[None]) -> None:
        self._own.close()
        if self._accepted is not None:
            self._accepted[0].close()

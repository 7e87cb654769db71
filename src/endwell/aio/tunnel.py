"""The tunnel through a proxy, before there is a driver: TLS to the proxy, and the dialogue with it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple

from ..protocol.proxy import Tunnel

__all__ = ["Link", "Session", "dig"]

#: Maximum number of bytes in one read.
READ_SIZE = 16 * 1024


class Session(NamedTuple):
    """The TLS session with a proxy."""

    ssl_object: ssl.SSLObject
    #: Encrypted bytes from the proxy, and to it.
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO


class Link(NamedTuple):
    """What a connection to a server is made of."""

    sock: Any
    #: The TLS session with the proxy; None if there is none.
    session: Session | None = None
    #: Bytes of the server that arrived with the last ones of the proxy. Only with a session.
    received: bytes = b""


async def dig(
    sock: socket.socket,
    tunnel: Tunnel,
    watches: bool,
    shake_hands: Callable[[ssl.MemoryBIO, ssl.MemoryBIO], ssl.SSLObject] | None = None,
    told: Callable[[], None] | None = None,
) -> Link:
    """Carry out the dialogue of ``tunnel`` on a socket that is connected to the proxy.

    ``watches``: whether the loop has ``add_reader``. ``shake_hands`` makes the ``ssl.SSLObject`` for a proxy
    with TLS; ``told`` is called when that TLS handshake is complete.

    Raises OSError, EOFError if the proxy ends TCP, and what ``tunnel`` raises.
    """
    pipe = _Pipe(sock, watches)
    if shake_hands is None:
        await _talk(pipe, tunnel)
        return Link(sock)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = Session(shake_hands(incoming, outgoing), incoming, outgoing)
    encrypted = _EncryptedPipe(pipe, session)
    await encrypted.shake_hands()
    if told is not None:
        told()
    await _talk(encrypted, tunnel)
    return Link(sock, session, encrypted.received)


async def _talk(pipe: _Pipe | _EncryptedPipe, tunnel: Tunnel) -> None:
    while True:
        if data := tunnel.output():
            await pipe.send(data)
        if tunnel.done:
            return
        if not await pipe.receive(tunnel.receive):
            tunnel.eof()
            raise EOFError


class _Pipe:
    """A non-blocking socket, from which no byte too many is read: those of the server stay in it."""

    def __init__(self, sock: socket.socket, watches: bool) -> None:
        self._sock = sock
        self._watches = watches
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        if not self._watches:
            await self._loop.sock_sendall(self._sock, data)
            return
        while data:
            try:
                data = data[self._sock.send(data) :]
            except BlockingIOError:
                await self._ready(self._loop.add_writer, self._loop.remove_writer)

    async def receive(self, take: Callable[[bytes], int]) -> bool:
        """Pass what has arrived to ``take``, which returns how much of it is taken. False at the end."""
        data = await self._peek()
        if not data:
            return False
        if self._watches:
            taken = take(data)
            while taken:
                taken -= len(self._sock.recv(taken))
        else:
            take(data)
        return True

    async def read(self) -> bytes:
        """Read what has arrived; empty at the end."""
        if not self._watches:
            return await self._loop.sock_recv(self._sock, READ_SIZE)
        while True:
            try:
                return self._sock.recv(READ_SIZE)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)

    async def _peek(self) -> bytes:
        if not self._watches:
            return await self._loop.sock_recv(self._sock, 1)  # the loop cannot peek
        while True:
            try:
                return self._sock.recv(READ_SIZE, socket.MSG_PEEK)
            except BlockingIOError:
                await self._ready(self._loop.add_reader, self._loop.remove_reader)

    async def _ready(self, add: Callable[..., object], remove: Callable[[int], object]) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        fd = self._sock.fileno()
        add(fd, _set, ready)
        try:
            await ready
        finally:
            remove(fd)


class _EncryptedPipe:
    """TLS over a pipe."""

    def __init__(self, pipe: _Pipe, session: Session) -> None:
        self._pipe = pipe
        self._session = session
        #: Bytes that were decrypted and not taken.
        self.received = b""

    async def shake_hands(self) -> None:
        """Do the TLS handshake."""
        while True:
            try:
                self._session.ssl_object.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    raise EOFError from None
            except ssl.SSLError:
                await self._flush()  # the alert with the reason
                raise
            else:
                await self._flush()
                return

    async def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        self._session.ssl_object.write(data)
        await self._flush()

    async def receive(self, take: Callable[[bytes], int]) -> bool:
        """See :meth:`_Pipe.receive`."""
        while True:
            try:
                data = self._session.ssl_object.read(READ_SIZE)
            except ssl.SSLWantReadError:
                await self._flush()  # an answer of TLS itself
                if not await self._fill():
                    return False  # without a close_notify, which many proxies do not send
            except ssl.SSLZeroReturnError:
                return False
            else:
                self.received = data[take(data) :] if data else b""
                return bool(data)

    async def _flush(self) -> None:
        if self._session.outgoing.pending:
            await self._pipe.send(self._session.outgoing.read())

    async def _fill(self) -> bool:
        """Read encrypted bytes. False at the end of TCP."""
        # Records without data may follow each other without end, so the loop and the timeout get their turn.
        await asyncio.sleep(0)
        data = await self._pipe.read()
        self._session.incoming.write(data)
        return bool(data)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)

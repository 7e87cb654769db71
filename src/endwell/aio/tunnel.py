"""The tunnel through a proxy, before there is a driver: TLS to the proxy, and the dialogue with it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, cast

from ..protocol.proxy import Tunnel

__all__ = ["Link", "Session", "dig", "dig_over_transport"]

#: Maximum number of bytes in one read.
READ_SIZE = 16 * 1024
#: Seconds of a TLS handshake, which ``open_timeout`` limits.
NO_TIMEOUT = 24 * 3600.0


class Session(NamedTuple):
    """The TLS session with a proxy."""

    ssl_object: ssl.SSLObject
    #: Encrypted bytes from the proxy, and to it.
    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO


class Link(NamedTuple):
    """What a connection to a server is made of."""

    sock: Any
    #: The TLS session with the proxy; None if there is none, or if the transport has it.
    session: Session | None = None
    #: Bytes of the server that arrived with the last ones of the proxy. Only with a session or a transport.
    received: bytes = b""
    #: The transport that has the socket, and TLS; None if there is none.
    transport: asyncio.Transport | None = None

    def close(self) -> None:
        """End TCP."""
        if self.transport is None:
            self.sock.close()
        else:
            self.transport.abort()

    async def shake_hands(self, tls: ssl.SSLContext, name: str, shutdown_timeout: float) -> Link:
        """Do the TLS handshake with the server over the transport.

        Raises OSError, EOFError, and ValueError for a name that TLS cannot have.
        """
        outer: Any = self.transport
        if type(outer).__module__ == "asyncio.sslproto":
            # In CPython 3.11.7 this method raises TypeError, and TCP stays open after a failed handshake.
            outer._force_close = lambda _: outer.abort()
        if self.received:
            self.close()
            raise ssl.SSLError(1, "the server has sent bytes before the TLS handshake")
        pipe = _TransportPipe()
        try:
            # The loop would log the ValueError.
            tls.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
            starting = asyncio.get_running_loop().start_tls(
                outer,
                pipe,
                tls,
                server_hostname=name,
                ssl_handshake_timeout=NO_TIMEOUT,
                ssl_shutdown_timeout=shutdown_timeout,
            )
            transport = await _shaken(starting)
            return Link(self.sock, received=bytes(pipe.data), transport=transport)
        except BaseException:
            self.close()
            raise


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


async def dig_over_transport(
    sock: socket.socket,
    tunnel: Tunnel,
    tls: ssl.SSLContext,
    name: str,
    told: Callable[[], None],
    shutdown_timeout: float,
) -> Link:
    """The same as :func:`dig` for a proxy with TLS, on a loop without ``add_reader``: the loop does TLS.

    ``shutdown_timeout``: seconds to wait for the close_notify of the proxy.
    """
    loop = asyncio.get_running_loop()
    pipe = _TransportPipe()

    async def connect() -> asyncio.Transport:
        transport, _ = await loop.create_connection(
            lambda: pipe,
            sock=sock,
            ssl=tls,
            server_hostname=name,
            ssl_handshake_timeout=NO_TIMEOUT,
            ssl_shutdown_timeout=shutdown_timeout,
        )
        return transport

    transport = await _shaken(connect())
    link = Link(transport.get_extra_info("socket"), transport=transport)
    try:
        told()
        await _talk(pipe, tunnel)
    except BaseException:
        link.close()
        raise
    return link._replace(received=bytes(pipe.data))


async def _shaken(starting: Awaitable[asyncio.Transport | None]) -> asyncio.Transport:
    """Return the transport of a TLS handshake. Raises OSError, and EOFError if the peer ends TCP within it."""
    try:
        transport = await starting
    except ConnectionResetError as exc:
        if exc.errno is None:  # asyncio's own, for an end of file
            raise EOFError from exc
        raise
    if transport is None or transport.is_closing():
        raise EOFError  # uvloop does not tell it
    return transport


async def _talk(pipe: _Pipe | _EncryptedPipe | _TransportPipe, tunnel: Tunnel) -> None:
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


class _TransportPipe(asyncio.Protocol):
    """A transport, whose data waits until it is taken."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._ended = False
        self._failure: BaseException | None = None
        self._changed = asyncio.Event()
        # None until connection_made(), which start_tls() does not call.
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self._transport is not None:
            self._transport.pause_reading()  # until the dialogue needs more
        self._changed.set()

    def eof_received(self) -> None:
        self._ended = True
        self._changed.set()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._ended, self._failure = True, exc
        self._changed.set()

    async def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        assert self._transport is not None
        self._transport.write(data)

    async def receive(self, take: Callable[[bytes], int]) -> bool:
        """See :meth:`_Pipe.receive`."""
        assert self._transport is not None
        self._changed.clear()
        if not self._ended:
            self._transport.resume_reading()
            await self._changed.wait()
        if not self.data:
            if isinstance(self._failure, OSError):
                raise self._failure
            return False
        taken = take(bytes(self.data))
        del self.data[:taken]
        if not self._ended:
            self._transport.resume_reading()
        return True


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)

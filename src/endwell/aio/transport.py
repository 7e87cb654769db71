"""The driver over an asyncio transport: for loops without ``add_reader``, and connections of another server.

A transport reports less than a socket. It reads and writes by itself, reports a failed write as the end of
the connection, and under TLS it cannot end only the sending. The classes declare what is missing.
"""

from __future__ import annotations

import _socket
import asyncio
import os
import socket
import ssl
from functools import partial
from typing import Any, cast

from ..protocol.connection import Connection
from ..protocol.deadline import LATE
from ..protocol.outbox import Outbox
from .driver import Driver
from .reactor import READ_SIZE, Reactor
from .syscalls import monotonic

__all__ = ["TlsTransportDriver", "TransportDriver"]

#: Seconds of the TLS handshake if ``open_timeout`` is None. Otherwise that limits it.
NO_TIMEOUT = 24 * 3600.0
#: Maximum number of bytes that the transport holds. The outbox keeps the others.
CHUNK_SIZE = 64 * 1024


class TransportDriver(Driver):
    """Is the protocol of a transport without TLS (:class:`asyncio.Protocol`).

    The transport is given by :meth:`connection_made`, which :meth:`start` and :meth:`over` lead to.
    """

    half_close = True

    def __init__(self, reactor: Reactor, core: Connection, remote_address: object = None) -> None:
        self._init_driver(reactor, core, remote_address)
        self._transport: asyncio.Transport | None = None
        self._starting: asyncio.Task[Any] | None = None
        # Data that arrived while reading was paused, and whether the end of file came behind it.
        self._arrived = b""
        self._at_eof = False
        # How many bytes at the head of the outbox were given to the transport. It has not sent all of them.
        self._given = 0
        # Whether this side has told the transport to close.
        self._closing = False
        # Whether there was a transport, and whether the loop has the socket of :meth:`start`.
        self._made = self._sock_given = False
        reactor.enter(watches=False)

    @classmethod
    def over(
        cls,
        reactor: Reactor,
        transport: asyncio.Transport,
        core: Connection,
        received: bytes = b"",
    ) -> TransportDriver:
        """Return a driver that takes over a connected transport from another protocol.

        ``received`` is data that has arrived for the core already. The caller calls :meth:`settle` when the
        core may read it.
        """
        of_tls = transport.get_extra_info("sslcontext") is not None
        driver = (TlsTransportDriver if of_tls else TransportDriver)(
            reactor, core, transport.get_extra_info("peername")
        )
        driver.take_over(transport, received)
        return driver

    def take_over(self, transport: asyncio.Transport, received: bytes) -> None:
        """Become the protocol of ``transport``; ``received`` is data that has arrived already."""
        self._arrived, self._waiting = received, bool(received)
        transport.set_protocol(self._protocol())
        self._attach(transport)

    def start(
        self, sock: _socket.socket, tls: ssl.SSLContext | None = None, server_hostname: str | None = None
    ) -> None:
        """Make a transport for a connected socket, with the TLS handshake if ``tls`` is given."""
        # A proactor knows the sockets that it has read from or connected by their objects.
        own = sock
        if not isinstance(own, socket.socket):
            own = socket.socket(sock.family, sock.type, sock.proto, sock.detach())
        self._starting = self.loop.create_task(self._start(own, tls, server_hostname))
        self._starting.add_done_callback(partial(self._started, own))

    async def _start(
        self, sock: socket.socket, tls: ssl.SSLContext | None, server_hostname: str | None
    ) -> None:
        self._sock_given = True
        options: dict[str, Any] = {}
        if tls is not None:
            # The core ends the handshake after open_timeout; the transport's own limit is too late for that.
            timeout = self.core.options.open_timeout
            options = {
                "ssl": tls,
                "ssl_handshake_timeout": NO_TIMEOUT if timeout is None else timeout + 2 * LATE,
                # A peer takes close_notify as the end. One that does not answer it waits for this long.
                "ssl_shutdown_timeout": self.core.options.linger_timeout + LATE,
            }
            if self.core.client:
                options["server_hostname"] = server_hostname
        if self.core.client:
            await self.loop.create_connection(self._protocol, sock=sock, **options)
        else:
            await self.loop.connect_accepted_socket(self._protocol, sock, **options)

    def _protocol(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", self)  # a compiled class cannot inherit from it

    def _started(self, sock: socket.socket, task: asyncio.Task[None]) -> None:
        self._starting = None
        if not self._sock_given:
            sock.close()  # otherwise it belongs to the transport
        if task.cancelled():
            self._released()
        elif (exc := task.exception()) is not None:
            self._lost(exc)

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport; None before it is made and after it has ended."""
        return self._transport

    # -- the transport's callbacks ------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Use ``transport``. Under TLS, the handshake is done."""
        self._attach(cast("asyncio.Transport", transport))
        self.settle()

    def data_received(self, data: bytes) -> None:
        """Data has arrived."""
        if self._is_open:
            self._arrived = self._arrived + data if self._arrived else data
            self._waiting = True
            if self._closing:
                self._read_on()  # this may be a call within transport.close()
            else:
                self.readable()

    def eof_received(self) -> bool:
        """The peer has ended its sending. Returns whether this side can still send."""
        self._at_eof = self._waiting = True
        if self._is_open:
            self.readable()
        return self.half_close and self._is_open

    def connection_lost(self, exc: BaseException | None) -> None:
        """The transport has ended, because of ``exc``, or of an end of file or a close."""
        self._transport = None
        self._lost(exc)

    def pause_writing(self) -> None:
        """The transport holds data that the system has not accepted; ``_write`` asks for the number of bytes."""

    def resume_writing(self) -> None:
        """The system has accepted all data that the transport had."""
        # Not now: asyncio calls it within a write of its own, and may not be told to close there.
        self.loop.call_soon(self.settle)

    def _attach(self, transport: asyncio.Transport) -> None:
        if not self._is_open:
            transport.abort()
            return
        self._transport = transport
        self._made = self._reading = True
        # The outbox holds what the system does not accept, so the transport calls resume_writing() for every
        # rest that it has.
        transport.set_write_buffer_limits(high=0)

    def _lost(self, exc: BaseException | None) -> None:
        """Handle the end of the transport: first what has arrived, then the end."""
        if not self._is_open:
            self._released()
            return
        self._given = 0
        if isinstance(exc, OSError) and (exc.errno is not None or isinstance(exc, ssl.SSLError)):
            self._write_failed(exc)
        elif exc is not None and not isinstance(exc, ConnectionError) and not self._closing:
            self.core.lost(exc, monotonic())
        else:
            # An error without a number is asyncio's own: a ConnectionResetError for an end of file in the TLS
            # handshake, a TimeoutError for a peer that does not answer close_notify.
            while self._has_more() and self._read_or_end():
                pass
            self.core.gone(monotonic())
        self.settle()

    # -- what the core asks for ---------------------------------------------------

    @property
    def sock(self) -> _socket.socket | None:
        """The transport's socket, with the methods that asyncio allows; None if it has none."""
        transport = self._transport
        return None if transport is None else transport.get_extra_info("socket")

    def _ask_local_address(self) -> object:
        return None if self._transport is None else self._transport.get_extra_info("sockname")

    def forked(self) -> None:
        """Release TCP in a forked child. Nothing is sent: the parent continues."""
        if (sock := self.sock) is not None:
            # The transport still has the number of the descriptor, which another file must not get.
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, sock.fileno())
            os.close(null)

    def _watch(self) -> None:
        reading = self._may_read()
        transport = self._transport
        if reading is not self._reading and transport is not None and not transport.is_closing():
            self._reading = reading
            self._set_reading(transport, reading)
            if not reading:
                self._not_reading = True
        if reading and self._has_more():
            self._read_on()
        self._writing = self._given > 0

    def _set_reading(self, transport: asyncio.Transport, reading: bool) -> None:
        if reading:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def _read(self) -> int:
        if self.core.has_unparsed():
            self.core.feed(self._buffer, 0, self.now())
            return READ_SIZE
        data = self._arrived
        if not data:
            if self._at_eof and self._waiting:
                self._waiting = False
                self._end_of_file()
            return 0
        count = len(data)
        if self.receive is not None:
            self._arrived, self._waiting = b"", self._at_eof
            self.receive(data, self.now())
            return count
        # The buffer has the type that the parser needs, and costs no allocation.
        count = min(count, READ_SIZE)
        self._buffer[:count] = data if count == len(data) else data[:count]
        self._arrived = data[count:]
        self._waiting = self._at_eof or bool(self._arrived)
        self.core.feed(self._buffer, count, self.now())
        return count

    def _flush(self) -> None:
        if self._transport is not None:
            Driver._flush(self)

    def _write(self) -> int:
        transport = self._transport
        assert transport is not None
        if not self._given and not transport.is_closing():
            data = _first(self.core.outbox)
            self._given = len(data)
            transport.write(data)
        if transport.is_closing():
            return -1  # a write has failed, which connection_lost() will report
        count = self._given - min(transport.get_write_buffer_size(), self._given)
        self._given -= count
        return count or -1

    def _half_close(self) -> None:
        self._half_closed = True
        if self._transport is not None:
            try:
                self._transport.write_eof()
            except OSError:
                pass  # ENOTCONN: the peer is gone, and connection_lost() reports how

    def _close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._unset_alarm()
        self._reactor.leave()
        self._arrived = b""
        if self._starting is not None:
            self._starting.cancel()
        transport = self._transport
        if transport is None:
            if self._starting is None:
                self._released()
        elif self.core.abort or self._closing or transport.get_write_buffer_size():
            sock = self.sock
            transport.abort()
            if sock is not None:
                _shut_down(sock)
        else:
            self._close_transport(transport)

    def _close_transport(self, transport: asyncio.Transport) -> None:
        transport.close()


class TlsTransportDriver(TransportDriver):
    """Is the protocol of a TLS transport: its sending cannot end before its receiving."""

    half_close = False

    def tls_object(self) -> ssl.SSLObject | None:
        """Return the transport's SSLObject; None before the handshake and after the end."""
        transport = self._transport
        return None if transport is None else transport.get_extra_info("ssl_object")

    def has_shaken_hands(self) -> bool:
        """Whether the TLS handshake was completed."""
        return self._made

    def _end_of_file(self) -> None:
        # The end of TLS: it may be a close_notify or a FIN, and this side cannot send any more.
        if self.eof is not None:
            self.eof(monotonic())
        elif not self._closing:  # otherwise connection_lost() follows at once
            self.core.gone(monotonic())

    def _set_reading(self, transport: asyncio.Transport, reading: bool) -> None:
        # A TLS transport that is paused reads on from TCP, up to 256 KiB. If it reads the end of TCP meanwhile, it
        # can send no more, and uvloop's drops the data. So TCP is paused, too: its end waits behind the data.
        limits = getattr(transport, "set_read_buffer_limits", None)
        if reading:
            if limits is not None:
                limits(high=1)
            transport.resume_reading()
        else:
            transport.pause_reading()
            if limits is not None:
                self._hold_tcp()
                # This may be a call within data_received(), after which the transport applies the limits again.
                self.loop.call_soon(self._hold_tcp)

    def _hold_tcp(self) -> None:
        transport = self._transport
        if not self._reading and transport is not None and not transport.is_closing():
            # The limits apply at each call, to the bytes that the transport has not decrypted. With 1, TCP is paused
            # if there are any. With 0, TCP is paused, or continues if it was paused and there are none.
            transport.set_read_buffer_limits(high=1)  # type: ignore[attr-defined]
            transport.set_read_buffer_limits(high=0)  # type: ignore[attr-defined]

    def _close_transport(self, transport: asyncio.Transport) -> None:
        # Otherwise asyncio does not read the peer's close_notify, and waits for it until its timeout.
        if not self._reading:
            self._reading = True
            self._set_reading(transport, True)
        transport.close()

    def _half_close(self) -> None:
        # Sends close_notify, and reads the peer's before TCP is closed.
        self._half_closed = self._closing = True
        if self._transport is not None:
            self._close_transport(self._transport)


def _shut_down(sock: _socket.socket) -> None:
    """End TCP: the end of a transport does not, while a forked child also has the descriptor."""
    try:
        # uvloop's socket has no shutdown().
        with socket.fromfd(sock.fileno(), sock.family, sock.type, sock.proto) as own:
            own.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # ENOTCONN, EBADF: it has ended


def _first(outbox: Outbox) -> bytes:
    """Return the first queued bytes for one write. The transport keeps them, so they must not change."""
    buffers = outbox.buffers()
    data = buffers[0]
    if len(buffers) == 1 and len(data) <= CHUNK_SIZE:
        return bytes(data)
    parts: list[bytes | memoryview] = []
    room = CHUNK_SIZE
    for part in buffers:
        parts.append(memoryview(part)[:room])
        room -= len(part)
        if room <= 0:
            break
    return b"".join(parts)

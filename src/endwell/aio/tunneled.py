"""The drivers of connections through a proxy with TLS: their outer TLS ends at the proxy.

On the reactor, so that the ends of TCP and of both TLS sessions are known as they are without a proxy.
"""

from __future__ import annotations

import _socket
import ssl
from collections.abc import Callable
from typing import Any, cast

from ..protocol.connection import Connection
from .reactor import Reactor
from .syscalls import part, receive
from .tls import TlsDriver

__all__ = ["TlsInTlsDriver", "TunneledDriver"]

#: Takes the place of the outer BIOs once TLS has ended.
_NO_BYTES = ssl.MemoryBIO()


class TunneledDriver(TlsDriver):
    """A connection without TLS of its own (``ws://``), in a TLS session with a proxy.

    The handshake of the session is complete.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: _socket.socket,
        core: Connection,
        remote_address: object,
        ssl_object: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        # size: the arguments of a TCP driver, and the session with the proxy.
        self._init_tls(reactor, sock, core, remote_address, ssl_object, incoming, outgoing)
        self._handshaking, self._shaken = False, True
        self._pending = self._waiting = incoming.pending > 0

    def tls_object(self) -> ssl.SSLObject | None:
        """Return None: the server did not take part in the session."""
        return None


class TlsInTlsDriver(TlsDriver):
    """TLS with the server (``wss://``), in a TLS session with a proxy.

    ``received`` is what the session has decrypted of the server's bytes.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: _socket.socket,
        core: Connection,
        remote_address: object,
        context: ssl.SSLContext,
        server_hostname: str | None,
        outer: ssl.SSLObject,
        outer_incoming: ssl.MemoryBIO,
        outer_outgoing: ssl.MemoryBIO,
        received: bytes,
    ) -> None:
        # size: the arguments of a TLS driver, and the session with the proxy.
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        incoming.write(received)
        ssl_object = context.wrap_bio(incoming, outgoing, server_side=False, server_hostname=server_hostname)
        self._outer: ssl.SSLObject | None = outer
        inner: Any = getattr(outer, "_sslobj", outer)
        self._read_outer = cast("Callable[[int, bytearray | memoryview], int] | None", inner.read)
        self._outer_incoming, self._outer_outgoing = outer_incoming, outer_outgoing
        self._init_tls(reactor, sock, core, remote_address, ssl_object, incoming, outgoing)

    # -- reading --------------------------------------------------------------

    def _fill(self) -> int:
        # Before the first read, the session may have records that arrived with the answer of the proxy.
        got = self._decrypt_outer()
        if got < 0:
            # One read, because a proxy may send records without data, without end.
            buffer = self._encrypted_buffer
            count = receive(self._fd, buffer)
            if count <= 0:
                return count
            self._outer_incoming.write(part(buffer, count))
            got = self._decrypt_outer()
        if got > 0:
            self._blocked = False
        return got

    def _decrypt_outer(self) -> int:
        """Decrypt all records of the proxy. Return the number of bytes, 0 at the end, -1 for none now.

        The size of the buffer, which means that another call may return more, if the end follows the bytes.
        """
        assert self._read_outer is not None
        got = 0
        # Its content is consumed before the next read.
        buffer = self._buffer
        try:
            while True:
                count = self._read_outer(len(buffer), buffer)
                if count == 0:
                    break
                self._incoming.write(part(buffer, count))
                got += count
        except ssl.SSLWantReadError:
            return got or -1
        except ssl.SSLZeroReturnError:
            pass  # the proxy's close_notify, after this side has sent its own
        except ssl.SSLError:
            if not got:
                raise  # otherwise the next call raises it again
        return len(self._encrypted_buffer) if got else 0

    # -- writing --------------------------------------------------------------

    def _take_records(self) -> bytes:
        if self._outgoing.pending:
            # A proxy that renegotiates (TLS 1.2) at this moment fails the connection: SSLWantReadError.
            assert self._outer is not None
            self._outer.write(self._outgoing.read())
        return self._outer_outgoing.read()

    def _has_unsent(self) -> bool:
        return self._outer_outgoing.pending > 0 or TlsDriver._has_unsent(self)

    def _congested(self) -> bool:
        # What the session adds to each record is less than what a connection may have of its own.
        return self._outer_outgoing.pending > 2**14 or TlsDriver._congested(self)

    # -- the end --------------------------------------------------------------

    def _notify(self) -> bool:
        """Send the close_notify to the server, then that to the proxy."""
        if not TlsDriver._notify(self):
            return False
        outer, self._outer = self._outer, None
        if outer is None:
            return True
        try:
            outer.unwrap()
        except (OSError, ValueError):
            pass  # WantRead: the proxy's close_notify has not come; it is not waited for
        try:
            return not self._send_records()
        except OSError:
            return True

    def _release(self) -> None:
        TlsDriver._release(self)
        self._outer = self._read_outer = None
        self._outer_incoming = self._outer_outgoing = _NO_BYTES

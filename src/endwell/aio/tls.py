"""The driver of a TLS connection, on the reactor: TLS over a non-blocking socket, through memory BIOs.

Why not ssl.SSLSocket: OpenSSL reads its socket twice for each record, the header and then the body.
Here one read gets all records that have arrived, and one write sends all that wait. It also keeps the
system's errors: SSLSocket turns a reset into an end of file.
"""

from __future__ import annotations

import _socket
import ssl
from collections.abc import Callable
from typing import Any, cast

from ..protocol.connection import Connection
from ..protocol.outbox import Outbox
from .driver import Driver
from .reactor import READ_SIZE, Reactor
from .syscalls import monotonic, part, receive, send
from .tcp import TcpDriver

__all__ = ["TlsDriver"]

#: Maximum number of bytes encrypted at a time, in records of 2**14 (RFC 8446 §5.1). Twice as many save 5 %
#: for messages of 1 MiB, but OpenSSL then keeps a third more than its peak memory.
WRITE_SIZE = 2 * 2**14
#: Bytes of TLS itself that may wait for the kernel before reading is paused. That is enough for the
#: certificates of a renegotiation, and for the overhead of the records of ``_write``.
MAX_OWN_BYTES = 2**14
#: Takes the place of both BIOs once TLS has ended.
_NO_BYTES = ssl.MemoryBIO()


class TlsDriver(TcpDriver):
    """TLS on a socket, from the handshake to the close_notify of both sides.

    The constructor raises OSError if there is no file descriptor left, and what ``context`` raises for
    ``server_hostname``.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: _socket.socket,
        core: Connection,
        remote_address: object,
        context: ssl.SSLContext,
        server_hostname: str | None = None,
    ) -> None:
        # size: a socket, a core and what TLS needs.
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        # Before the reactor counts this connection, because it may raise.
        ssl_object = context.wrap_bio(
            incoming, outgoing, server_side=not core.client, server_hostname=server_hostname
        )
        self._init_tls(reactor, sock, core, remote_address, ssl_object, incoming, outgoing)

    def _init_tls(
        self,
        reactor: Reactor,
        sock: _socket.socket,
        core: Connection,
        remote_address: object,
        ssl_object: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
    ) -> None:
        # size: every attribute of the class, in one place
        self._incoming, self._outgoing = incoming, outgoing
        self._ssl_object: ssl.SSLObject | None = ssl_object
        self._init_tcp(reactor, sock, core, remote_address)
        # The inner object has the same two methods, without a Python function around each.
        inner: Any = getattr(ssl_object, "_sslobj", ssl_object)
        self._read_plain = cast("Callable[[int, bytearray | memoryview], int] | None", inner.read)
        self._write_plain: Callable[[bytes | memoryview], int] | None = inner.write
        # Whether the handshake is in progress, and whether it has succeeded.
        self._handshaking, self._shaken = True, False
        # True if nothing can be sent before something is received: during a renegotiation.
        self._blocked = False
        # An error that is raised after the data before it was returned.
        self._error: ssl.SSLError | None = None
        # Whether data was read and not decrypted yet, or an end or error was found and not reported yet.
        self._pending = False
        # Encrypted data that the kernel has not accepted, except for what is in the outgoing BIO.
        self._unsent: bytes | memoryview = b""
        # How many plain bytes of the outbox these two contain.
        self._encrypted = 0
        self._notified = False
        self._encrypted_buffer = reactor.encrypted

    def tls_object(self) -> ssl.SSLObject | None:
        """Return the SSLObject, for certificates and the like; None once the connection sends no more."""
        return self._ssl_object

    def has_shaken_hands(self) -> bool:
        """Whether the TLS handshake was completed."""
        return self._shaken

    def forked(self) -> None:
        """Close the descriptor in a forked child. Nothing is sent: TLS continues in the parent."""
        TcpDriver.forked(self)
        self._handshaking = False

    def settle(self) -> None:
        """Do the I/O that the core asks for."""
        if self._is_open:
            if self._handshaking:
                self._do_handshake()
            if self._has_unsent() and not self.core.wants_write() and not self._out_of_buffers:
                self._flush()
        TcpDriver.settle(self)

    def push(self, frame: bytes) -> bool:
        """Send ``frame`` as after :meth:`wrote`, but call no callback, even if the socket fails.

        True if the caller has to schedule :meth:`uncork` for the next turn of the loop.
        """
        return Driver.push(self, frame)

    def push_last(self, frame: bytes) -> bool:
        """:meth:`push` if nothing is known to follow in this turn of the loop."""
        return self.push(frame)

    def _watch(self) -> None:
        if not self._handshaking:
            TcpDriver._watch(self)
        elif not self._reading:  # _do_handshake() watches for writing
            self._watch_reads()
            self._reading = True

    def _wants_writer(self) -> bool:
        return (TcpDriver._wants_writer(self) and not self._blocked) or self._has_unsent()

    def _may_read(self) -> bool:
        return not self._handshaking and not self._congested() and Driver._may_read(self)

    # -- the handshake --------------------------------------------------------

    def _do_handshake(self) -> None:
        """Do one step of the TLS handshake."""
        self.loop.remove_writer(self._fd)
        try:
            done = self._shake_hands()
            if done < 0:
                if self._has_unsent():
                    self.loop.add_writer(self._fd, self.settle)
                return
        except OSError as exc:
            self.core.lost(exc, monotonic(), isinstance(exc, ssl.SSLError))
        else:
            if done == 0:
                self._end_of_file()
        self._handshaking = False

    def _shake_hands(self) -> int:
        """Continue the handshake: 1 when it is done, 0 at the end of file, -1 if it has to wait."""
        assert self._ssl_object is not None
        done = False
        while not done:
            failure: OSError | None = None
            try:
                self._ssl_object.do_handshake()
                done = self._shaken = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                try:
                    self._send_records()  # the alert with the reason
                except OSError:
                    pass
                raise
            try:
                self._send_records()
            except OSError as exc:
                failure = exc  # the peer's alert with the reason may still be readable
            if not done or failure is not None:
                count = self._fill()
                if count <= 0:
                    if failure is not None:
                        raise failure
                    return count
        # Data that came together with the end of the handshake is not announced again.
        self._pending = self._waiting = self._incoming.pending > 0
        return 1

    # -- reading --------------------------------------------------------------

    def _read(self) -> int:
        if self._half_closed:
            return TcpDriver._read(self)  # discarded without decryption
        if self.core.has_unparsed():
            self.core.feed(self._buffer, 0, self.now())
            return READ_SIZE
        try:
            count = self._receive()
        except OSError as exc:
            return self._read_failed(exc)
        if count > 0:
            if self.receive is None:
                self.core.feed(self._buffer, count, self.now())
            else:
                self.receive(bytes(self._buffer[:count]), self.now())
        elif count < 0:
            return 0
        else:
            self._end_of_file()
        return count

    def _is_tls_error(self, exc: OSError) -> bool:
        return isinstance(exc, ssl.SSLError)

    def _receive(self) -> int:
        """Read and decrypt into the read buffer. Return the number of bytes, 0 at the end, -1 for none now.

        The peer's close_notify is an end, too.
        """
        if self._error is not None:
            raise self._error
        full = False
        if not self._pending:
            count = self._fill()
            if count <= 0:
                self._waiting = False
                return count
            full = count == len(self._encrypted_buffer)
        count = self._decrypt()
        self._waiting = full or self._pending
        return count

    def _fill(self) -> int:
        buffer = self._encrypted_buffer
        count = receive(self._fd, buffer)
        if count > 0:
            self._incoming.write(part(buffer, count))
            self._blocked = False
        return count

    def _decrypt(self) -> int:
        assert self._read_plain is not None
        buffer = self._buffer
        self._pending = ended = False
        got = 0
        try:
            # As long as a whole record fits, OpenSSL keeps none of it. Asking for more than there is would
            # cost an exception.
            while True:
                count = self._read_plain(len(buffer), memoryview(buffer)[got:] if got else buffer)
                got += count
                ended = count == 0
                if ended or not self._incoming.pending:
                    break
        except ssl.SSLWantReadError:
            return got or -1
        except ssl.SSLZeroReturnError:
            ended = True  # the peer's close_notify, after this side has sent its own
        except ssl.SSLError as exc:
            if not got:
                raise
            self._error = exc
        self._pending = got > 0 and (ended or self._error is not None)
        return got

    # -- writing --------------------------------------------------------------

    def _flush(self) -> None:
        if self._handshaking or self._write_error is not None:
            return
        if not self.core.outbox.size:
            try:
                self._send_records()  # records of TLS itself
            except OSError as exc:
                self._not_written(exc)
        else:
            Driver._flush(self)

    def _write(self) -> int:
        """Encrypt and write the first queued bytes. Return how many the kernel accepted, -1 for none now.

        The remaining bytes stay queued, and are not encrypted again.
        """
        if not self._encrypted:
            assert self._write_plain is not None
            data = _first(self.core.outbox)
            size = len(data)
            try:
                self._write_plain(data)
                self._encrypted = size
            except ssl.SSLWantReadError:
                self._blocked = True
            finally:
                del data  # a view that an exception refers to would prevent the block from growing
        # The rest of the encrypted data contains at most as many plain bytes as it is long.
        count = self._encrypted - min(self._send_records(), self._encrypted)
        self._encrypted -= count
        return count or -1

    def _has_unsent(self) -> bool:
        """Whether encrypted data waits for the kernel."""
        return bool(self._unsent) or self._outgoing.pending > 0

    def _congested(self) -> bool:
        """Whether so much data of TLS itself waits for the peer that reading has to pause.

        RFC 8446 §4.6.3: "If the request_update field is set to "update_requested", then the receiver MUST
        send a KeyUpdate of its own". OpenSSL does that for each request, even if the last answer was not sent
        yet.
        """
        return len(self._unsent) + self._outgoing.pending > self._encrypted + MAX_OWN_BYTES

    def _take_records(self) -> bytes:
        """Return the encrypted data that waits, once."""
        return self._outgoing.read()

    def _send_records(self) -> int:
        """Write the encrypted data. Return the number of bytes that are left."""
        while True:
            fresh = not self._unsent
            if fresh:
                self._unsent = self._take_records()
            if self._unsent:
                count = send(self._fd, self._unsent, len(self._unsent))
                if count < len(self._unsent):
                    self._unsent = memoryview(self._unsent)[max(count, 0) :]
                    return len(self._unsent) + self._outgoing.pending
                self._unsent = b""
            if fresh:
                return 0

    # -- the end --------------------------------------------------------------

    def _read_after_failure(self) -> None:
        if self._handshaking:
            self._bytes_left = 0
        Driver._read_after_failure(self)

    def _notify(self) -> bool:
        """Send the close_notify of this side; False if the kernel does not accept it now."""
        try:
            if not self._notified and self._ssl_object is not None:
                self._notified = True
                self._ssl_object.unwrap()
        except (OSError, ValueError):
            pass  # WantRead: the peer's close_notify has not come; it is not waited for
        try:
            return not self._send_records()
        except OSError:
            return True

    def _half_close(self) -> None:
        if self._notify():
            self._release()
            TcpDriver._half_close(self)

    def _close(self) -> None:
        if self._sock is None:
            return
        if self._handshaking:
            self.loop.remove_writer(self._fd)
        elif not self._half_closed and not self.core.abort and self._fd >= 0:
            self._notify()
        self._release()
        TcpDriver._close(self)

    def _release(self) -> None:
        """Free what only TLS needs."""
        self._ssl_object = self._read_plain = self._write_plain = self._error = None
        self._incoming = self._outgoing = _NO_BYTES
        self._unsent = b""
        self._waiting = self._pending = False


def _first(outbox: Outbox) -> bytes | memoryview:
    """Return the first queued bytes for one write: many small frames make one record."""
    if not outbox.sealed:
        assert outbox.block is not None
        return part(outbox.block, min(outbox.fill, WRITE_SIZE))
    buffers = outbox.buffers()
    data = buffers[0]
    if len(data) >= WRITE_SIZE:
        return memoryview(data)[:WRITE_SIZE]
    if len(buffers) == 1:
        return data
    parts, room = [], WRITE_SIZE
    for each in buffers:
        parts.append(each if len(each) <= room else each[:room])
        room -= len(each)
        if room <= 0:
            break
    return b"".join(parts)

"""TLS over a non-blocking socket, through memory BIOs.

Why not ssl.SSLSocket: OpenSSL reads its socket twice for each record, the header and then the body.
Here one read gets all records that have arrived, and one write sends all that wait. It also keeps the
system's errors: SSLSocket turns a reset into an end of file.
"""

from __future__ import annotations

import _socket
import ssl
from collections.abc import Callable
from typing import cast

from ..protocol.outbox import Outbox
from ..wire.payload import binary
from .reactor import Reactor
from .syscalls import receive, send

__all__ = ["TLS"]

#: Maximum number of bytes encrypted at a time, in records of 2**14 (RFC 8446 §5.1). Twice as many save 5 %
#: for messages of 1 MiB, but OpenSSL then keeps a third more than its peak memory.
WRITE_SIZE = 2 * 2**14
#: Bytes of TLS itself that may wait for the kernel before reading is paused. That is enough for the
#: certificates of a renegotiation, and for the overhead of the records of ``send``.
MAX_OWN_BYTES = 2**14
#: Up to this size a copy costs less than a memoryview.
COPY_LIMIT = 8192


class TLS:
    """TLS on ``sock``, from the handshake to the close_notify of both sides.

    The return values are those of ``syscalls.py``. Raises OSError, including ssl.SSLError; the constructor
    raises what ``context`` raises for ``server_hostname``.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: _socket.socket,
        context: ssl.SSLContext,
        server_hostname: str | None = None,
        *,
        server: bool = False,
    ) -> None:
        self._fd = sock.fileno()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        #: For certificates and the like.
        self.ssl_object = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server, server_hostname=server_hostname
        )
        #: True if :meth:`receive` may return data although the system announces none.
        self.waiting = False
        #: True if nothing can be sent before something is received: during a renegotiation.
        self.blocked = False
        # The inner object has the same two methods, without a Python function around each.
        inner = getattr(self.ssl_object, "_sslobj", self.ssl_object)
        self._read = cast("Callable[[int, bytearray | memoryview], int]", inner.read)
        self._write = inner.write
        # An error that is raised after the data before it was returned.
        self._error: ssl.SSLError | None = None
        # Whether data was read and not decrypted yet, or an end or error was found and not reported yet.
        self._pending = False
        # Encrypted data that the kernel has not accepted, except for what is in the outgoing BIO.
        self._unsent: bytes | memoryview = b""
        # How many plain bytes given to send() these two contain.
        self._encrypted = 0
        self._notified = False
        self._buffer = reactor.encrypted

    def handshake(self) -> int:
        """Continue the handshake: 1 when it is done, 0 at the end of file, -1 if it has to wait."""
        done = False
        while not done:
            failure: OSError | None = None
            try:
                self.ssl_object.do_handshake()
                done = True
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                try:
                    self.flush()  # the alert with the reason
                except OSError:
                    pass
                raise
            try:
                self.flush()
            except OSError as exc:
                failure = exc  # the peer's alert with the reason may still be readable
            if not done or failure is not None:
                count = self._fill()
                if count <= 0:
                    if failure is not None:
                        raise failure
                    return count
        # Data that came together with the end of the handshake is not announced again.
        self._pending = self.waiting = self._incoming.pending > 0
        return 1

    def receive(self, buffer: bytearray) -> int:
        """Read and decrypt into ``buffer``. Return the number of bytes, 0 at the end, -1 for none now.

        The peer's close_notify is an end, too.
        """
        if self._error is not None:
            raise self._error
        full = False
        if not self._pending:
            count = self._fill()
            if count <= 0:
                self.waiting = False
                return count
            full = count == len(self._buffer)
        count = self._decrypt(buffer)
        self.waiting = full or self._pending
        return count

    def _fill(self) -> int:
        count = receive(self._fd, self._buffer)
        if count > 0:
            few = count <= COPY_LIMIT
            self._incoming.write(
                binary(self._buffer, 0, count, False) if few else memoryview(self._buffer)[:count]
            )
            self.blocked = False
        return count

    def _decrypt(self, buffer: bytearray) -> int:
        self._pending = ended = False
        got = 0
        try:
            # As long as a whole record fits, OpenSSL keeps none of it. Asking for more than there is would
            # cost an exception.
            while True:
                count = self._read(len(buffer), memoryview(buffer)[got:] if got else buffer)
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

    def send(self, outbox: Outbox) -> int:
        """Encrypt and write the first queued bytes. Return how many the kernel accepted, -1 for none now.

        The remaining bytes stay queued, and are not encrypted again.
        """
        if not self._encrypted:
            data = _first(outbox)
            size = len(data)
            try:
                self._write(data)
                self._encrypted = size
            except ssl.SSLWantReadError:
                self.blocked = True
            finally:
                del data  # a view that an exception refers to would prevent the block from growing
        # The rest of the encrypted data contains at most as many plain bytes as it is long.
        count = self._encrypted - min(self.flush(), self._encrypted)
        self._encrypted -= count
        return count or -1

    def unsent(self) -> bool:
        """Whether encrypted data waits for the kernel."""
        return bool(self._unsent) or self._outgoing.pending > 0

    def congested(self) -> bool:
        """Whether so much data of TLS itself waits for the peer that reading has to pause.

        RFC 8446 §4.6.3: "If the request_update field is set to "update_requested", then the receiver MUST
        send a KeyUpdate of its own". OpenSSL does that for each request, even if the last answer was not sent
        yet.
        """
        return len(self._unsent) + self._outgoing.pending > self._encrypted + MAX_OWN_BYTES

    def flush(self) -> int:
        """Write the encrypted data. Return the number of bytes that are left."""
        while True:
            fresh = not self._unsent
            if fresh:
                self._unsent = self._outgoing.read()
            if self._unsent:
                count = send(self._fd, self._unsent, len(self._unsent))
                if count < len(self._unsent):
                    self._unsent = memoryview(self._unsent)[max(count, 0) :]
                    return len(self._unsent) + self._outgoing.pending
                self._unsent = b""
            if fresh:
                return 0

    def notify(self) -> bool:
        """Send the close_notify of this side; False if the kernel does not accept it now."""
        try:
            if not self._notified:
                self._notified = True
                self.ssl_object.unwrap()
        except (OSError, ValueError):
            pass  # WantRead: the peer's close_notify has not come; it is not waited for
        try:
            return not self.flush()
        except OSError:
            return True


def _first(outbox: Outbox) -> bytes | memoryview:
    """Return the first queued bytes for one write: many small frames make one record."""
    if not outbox.sealed:
        assert outbox.block is not None
        if outbox.fill <= COPY_LIMIT:
            return binary(outbox.block, 0, outbox.fill, False)
        return memoryview(outbox.block)[: min(outbox.fill, WRITE_SIZE)]
    buffers = outbox.buffers()
    data = buffers[0]
    if len(data) >= WRITE_SIZE:
        return memoryview(data)[:WRITE_SIZE]
    if len(buffers) == 1:
        return data
    parts, room = [], WRITE_SIZE
    for part in buffers:
        parts.append(part if len(part) <= room else part[:room])
        room -= len(part)
        if room <= 0:
            break
    return b"".join(parts)

"""TLS over a non-blocking socket, by way of memory.

Why not ssl.SSLSocket: OpenSSL reads its socket twice for each record, the header and then the
body. Here one read brings all records that have come, and one write takes all that are to
leave. It also keeps the system's errors as they are: SSLSocket makes an end of file of a reset.
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

#: Bytes encrypted at a time, at most, in records of 2**14 (RFC 8446 §5.1). Twice as many cost
#: 5 % less for messages of 1 MiB, and OpenSSL keeps a third more memory than the most that it had.
WRITE_SIZE = 2 * 2**14
#: Bytes of TLS's own that may wait for the system to take them before nothing more is read: a
#: renegotiation's certificates have room, and the overhead of what ``send`` is given.
OWN_SIZE = 2**14
#: So few bytes are sooner copied than a view of them is made.
FEW = 8192


class TLS:
    """TLS on ``sock``, from the handshake to the close_notify of both sides.

    Counts as the functions of ``syscalls.py`` do. Raises OSError, of which ssl.SSLError is
    one, and at first whatever ``context`` has against ``server_hostname``.
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
        #: True if :meth:`receive` may have something though the system announces nothing.
        self.waiting = False
        #: True if nothing can be sent before something is received: a renegotiation.
        self.blocked = False
        # The object inside has the same two methods, without a Python function around each.
        inner = getattr(self.ssl_object, "_sslobj", self.ssl_object)
        self._read = cast("Callable[[int, bytearray | memoryview], int]", inner.read)
        self._write = inner.write
        # The error that is told when what came before it has been.
        self._error: ssl.SSLError | None = None
        # Whether something was read and not yet decrypted, or decrypted and not yet told.
        self._left = False
        # What OpenSSL has encrypted and the system has not taken, but for the outgoing BIO.
        self._rest: bytes | memoryview = b""
        # How many bytes are in those two of what send() is given.
        self._sealed = 0
        self._notified = False
        self._buffer = reactor.encrypted

    def handshake(self) -> int:
        """Go on with the handshake: 1 once it is done, 0 at the end of file, -1 if it has to wait."""
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
                    self.flush()  # the alert, which tells the peer why
                except OSError:
                    pass
                raise
            try:
                self.flush()
            except OSError as exc:
                failure = exc  # the peer's alert, which says why, may still be readable
            if not done or failure is not None:
                count = self._fill()
                if count <= 0:
                    if failure is not None:
                        raise failure
                    return count
        # What came right behind the handshake is not announced again.
        self._left = self.waiting = self._incoming.pending > 0
        return 1

    def receive(self, buffer: bytearray) -> int:
        """Read into ``buffer`` what is there, decrypted: how many bytes, 0 at the end, -1 for nothing now.

        The peer's close_notify is an end, too.
        """
        if self._error is not None:
            raise self._error
        full = False
        if not self._left:
            count = self._fill()
            if count <= 0:
                self.waiting = False
                return count
            full = count == len(self._buffer)
        count = self._decrypt(buffer)
        self.waiting = full or self._left
        return count

    def _fill(self) -> int:
        count = receive(self._fd, self._buffer)
        if count > 0:
            few = count <= FEW
            self._incoming.write(
                binary(self._buffer, 0, count, False) if few else memoryview(self._buffer)[:count]
            )
            self.blocked = False
        return count

    def _decrypt(self, buffer: bytearray) -> int:
        self._left = ended = False
        got = 0
        try:
            # As long as a whole record has room, none of it stays in OpenSSL. Asking it for
            # more than there is would cost an exception.
            while True:
                count = self._read(len(buffer), memoryview(buffer)[got:] if got else buffer)
                got += count
                ended = count == 0
                if ended or not self._incoming.pending:
                    break
        except ssl.SSLWantReadError:
            return got or -1
        except ssl.SSLZeroReturnError:
            ended = True  # what their close_notify is called if ours is on its way already
        except ssl.SSLError as exc:
            if not got:
                raise
            self._error = exc
        self._left = got > 0 and (ended or self._error is not None)
        return got

    def send(self, outbox: Outbox) -> int:
        """Encrypt and write the first of what waits: how many bytes the system took, -1 for none now.

        What it did not take still waits, and is not encrypted again.
        """
        if not self._sealed:
            data = _first(outbox)
            size = len(data)
            try:
                self._write(data)
                self._sealed = size
            except ssl.SSLWantReadError:
                self.blocked = True
            finally:
                del data  # a view that an error keeps would keep the block from growing
        # What is left of the encrypted bytes holds no more of ours than it is long.
        count = self._sealed - min(self.flush(), self._sealed)
        self._sealed -= count
        return count or -1

    def unsent(self) -> bool:
        """Whether something encrypted waits for the system to take it."""
        return bool(self._rest) or self._outgoing.pending > 0

    def congested(self) -> bool:
        """Whether the peer has to take what TLS itself has to say before it is read from.

        RFC 8446 §4.6.3: "If the request_update field is set to "update_requested", then the
        receiver MUST send a KeyUpdate of its own". OpenSSL does that for each one, whether or
        not the last answer has left.
        """
        return len(self._rest) + self._outgoing.pending > self._sealed + OWN_SIZE

    def flush(self) -> int:
        """Write what is encrypted: how many bytes of it are left."""
        while True:
            fresh = not self._rest
            if fresh:
                self._rest = self._outgoing.read()
            if self._rest:
                count = send(self._fd, self._rest, len(self._rest))
                if count < len(self._rest):
                    self._rest = memoryview(self._rest)[max(count, 0) :]
                    return len(self._rest) + self._outgoing.pending
                self._rest = b""
            if fresh:
                return 0

    def notify(self) -> bool:
        """Send our close_notify; False if there is no room for it now."""
        try:
            if not self._notified:
                self._notified = True
                self.ssl_object.unwrap()
        except (OSError, ValueError):
            pass  # WantRead: theirs has not come yet, which nobody waits for
        try:
            return not self.flush()
        except OSError:
            return True


def _first(outbox: Outbox) -> bytes | memoryview:
    """The first bytes that wait, for one write: many small frames make one record."""
    if not outbox.sealed:
        assert outbox.block is not None
        if outbox.fill <= FEW:
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

"""The driver of a plain TCP or Unix socket, on the reactor."""

from __future__ import annotations

import _socket
import errno
import os
import socket
from collections.abc import Callable

from ..protocol.connection import Connection
from ..protocol.pause import Pause
from .driver import OUT_OF_BUFFERS, Driver
from .reactor import READ_SIZE, Reactor
from .syscalls import error_of, monotonic, receive, receive_past, send, send_many
from .tcpinfo import explain_timeout, seconds_since_ack

__all__ = ["TcpDriver"]

_REQUEST = int(Pause.REQUEST)


class TcpDriver(Driver):
    """Reads and writes a non-blocking socket directly.

    Raises OSError if there is no file descriptor left.
    """

    half_close = True
    reads_after_failed_write = True
    tcp_info = True
    not_sent_limit = True

    def __init__(
        self, reactor: Reactor, sock: _socket.socket, core: Connection, remote_address: object
    ) -> None:
        self._init_tcp(reactor, sock, core, remote_address)

    def _init_tcp(
        self, reactor: Reactor, sock: _socket.socket, core: Connection, remote_address: object
    ) -> None:
        self._init_driver(reactor, core, remote_address)
        self._sock: _socket.socket | None = sock
        self._fd = sock.fileno()
        #: True while reading is paused but a reset is noticed.
        self.errors_only = False
        reactor.enter()

    @property
    def sock(self) -> _socket.socket | None:
        """The socket; None once it is closed."""
        return self._sock

    def _ask_local_address(self) -> object:
        return None if self._sock is None else _address(self._sock.getsockname)

    def forked(self) -> None:
        """Close the descriptor in a forked child. Nothing is sent: TCP and TLS continue in the parent.

        Whatever the child does with the connection later fails with EBADF.
        """
        if self._sock is not None:
            self._sock.close()
            self._fd = -1
            self._writing = False

    def push(self, frame: bytes) -> bool:
        """Send ``frame`` as after :meth:`wrote`, but call no callback, even if the socket fails.

        True if the caller has to schedule :meth:`uncork` for the next turn of the loop.
        """
        outbox = self.core.outbox
        if self._corked or outbox.size:
            return Driver.push(self, frame)
        self._corked = True
        # Bypass the queue: with many connections, hardly any of their data is in the processor's cache.
        count = 0
        try:
            count = max(0, send(self._fd, frame, len(frame)))
        except OSError as exc:
            outbox.append(frame)
            self._write_failed(exc)
        else:
            if count == len(frame):
                outbox.bytes_sent += count
            else:
                outbox.append(frame)
                self.core.sent(count, monotonic())
        return True

    def push_last(self, frame: bytes) -> bool:
        """:meth:`push` if nothing is known to follow in this turn of the loop.

        If the kernel has accepted everything, nothing has to be done in the next turn.
        """
        uncork = self.push(frame)
        if uncork and not self.core.outbox.size and self._write_error is None:
            self._corked = False
            return False
        return uncork

    def _watch(self) -> None:
        reading = not self._out_of_buffers and self._may_read()
        if reading is not self._reading:
            if reading:
                self._watch_reads()
            # An answer that is produced for long: a reset is noticed, also behind a FIN.
            elif self.core.pauses() & _REQUEST and self.eof is None:
                self._reactor.remove_reader(self._fd)
            else:
                self._reactor.watch_errors_only(self._fd)
                self.errors_only = self._not_reading = True
            self._reading = reading
        if reading and self._has_more():
            self._read_on()
        writing = self._wants_writer() and not self._out_of_buffers and self._write_error is None
        if writing is not self._writing:
            if writing:
                self.loop.add_writer(self._fd, self.settle)
            else:
                self.loop.remove_writer(self._fd)
            self._writing = writing

    def _wants_writer(self) -> bool:
        return self.core.wants_write() or (self.core.half_close and not self._half_closed)

    def _watch_reads(self) -> None:
        if self.errors_only:
            self._reactor.watch_reads(self._fd, self)
            self.errors_only = False
        else:
            self._reactor.add_reader(self._fd, self)

    def _silence(self) -> float | None:
        return None if self._sock is None else seconds_since_ack(self._sock)

    def _look_for_error(self) -> None:
        if self._sock is not None and (number := error_of(self._sock)):
            self._write_failed(OSError(number, os.strerror(number)))

    def has_input(self) -> bool:
        """Whether there is data or the end of file to read."""
        if self._sock is None:
            return False
        if self._has_more():
            return True
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass  # the next read raises the error
        return True

    def hung_up(self) -> None:
        """Handle an event that announces an error or a hang-up, but no data."""
        if not self.errors_only:
            self.readable()
        elif self._sock is not None:
            number = error_of(self._sock) or errno.ECONNRESET
            self._write_failed(OSError(number, os.strerror(number)))
            self.settle()

    def _read(self) -> int:
        if self.core.has_unparsed():
            self.core.feed(self._buffer, 0, self.now())
            return READ_SIZE
        inside = 0
        try:
            codec = self.core.room()
            if codec is None or codec.room is None:
                count = receive(self._fd, self._buffer)
            else:
                count = receive_past(self._fd, codec.room, codec.room_fill, codec.missing, self._buffer)
                inside = min(count, codec.missing)
        except OSError as exc:
            return self._read_failed(exc)
        if count > 0:
            if self.receive is None:
                self.core.feed(self._buffer, count - inside, self.now(), inside)
            else:
                self.receive(bytes(self._buffer[:count]), self.now())
        elif count < 0:
            return 0
        else:
            self._end_of_file()
        return count

    def _read_failed(self, exc: OSError) -> int:
        if exc.errno in OUT_OF_BUFFERS:
            self._wait_for_buffers()
        elif self._sock is not None:
            self.core.lost(explain_timeout(exc, self._sock), monotonic(), self._is_tls_error(exc))
        return 0

    def _is_tls_error(self, exc: OSError) -> bool:
        return False

    def _write(self) -> int:
        outbox = self.core.outbox
        if outbox.sealed:
            return send_many(self._fd, outbox.buffers())
        assert outbox.block is not None
        return send(self._fd, outbox.block, outbox.fill)

    def _write_failed(self, exc: OSError) -> None:
        if self._sock is not None:
            Driver._write_failed(self, explain_timeout(exc, self._sock))

    def _half_close(self) -> None:
        """Half-close: send nothing more, but continue to read.

        A close with unread input would make the kernel send RST, which can destroy the Close in the peer's
        receive buffer (RFC 9112 §9.6 describes the same for HTTP).
        """
        assert self._sock is not None
        self._half_closed = True
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # ENOTCONN: the peer is gone, and the next read reports how

    def _close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return  # the reads after a failed write have ended the connection
        self._is_open = False
        if (self._reading or self.errors_only) and self._fd >= 0:  # negative in a forked child
            self._reactor.remove_reader(self._fd)
        if self._writing:
            self.loop.remove_writer(self._fd)
        self._unset_alarm()
        self._reactor.leave()
        if self.core.abort or not self._half_closed:
            try:
                # close() alone does not end TCP while a forked child also has the descriptor.
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # ENOTCONN: the peer has ended TCP
        sock.close()
        self._released()


def _address(ask: Callable[[], object]) -> object:
    """Return the address, or None if the socket has none any more."""
    try:
        return ask()
    except OSError:
        return None

"""The driver of a connection's socket, plain or TLS, on the event loop.

Why not an asyncio transport: a transport reports a failed write as the end of the connection and
discards what is still readable. A page that reloads while the server streams has sent Close 1001 by
then, and that Close would be lost. Here a failed write only ends the writing
(``docs/explanation/decisions.md``, "A Close must be seen").
"""

# size: the one driver of a socket; corking, fairness and the reads after a failed write depend on each other.
from __future__ import annotations

import _socket
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable

from ..protocol.connection import Connection
from ..protocol.deadline import NEVER
from ..protocol.pause import Pause
from .reactor import READ_SIZE, Reactor
from .syscalls import error_of, monotonic, receive, receive_past, send, send_many
from .tcpinfo import ACK_CLOCK_ERROR, explain_timeout, seconds_since_ack
from .tls import TLS

__all__ = ["Stream"]

#: Maximum number of reads in one turn of the loop, and seconds after which no other one follows, so that
#: one flooding peer does not starve the other connections.
MAX_READS = 4
READING_TIME = 0.01
#: Maximum number of bytes read after a failed write: more than a kernel's receive buffer holds.
MAX_BYTES_AFTER_FAILURE = 64 * 2**20
#: Bytes in the outbox from which on they are written without waiting for more.
FLUSH_SIZE = 64 * 1024
#: Sends in one turn of the loop after which the sender waits for the next turn. If the peer accepts all
#: data, a loop of sends would starve the other tasks without this limit.
BURST = 256
#: Errors that mean that the system has no memory for the socket now. That passes, so the connection waits
#: for ``OUT_OF_BUFFERS_DELAY`` seconds instead of ending.
OUT_OF_BUFFERS = {errno.ENOBUFS, errno.ENOMEM}
OUT_OF_BUFFERS_DELAY = 0.1

logger = logging.getLogger("endwell")

_REQUEST = int(Pause.REQUEST)


class Stream:
    """Connects one socket to one :class:`~endwell.protocol.connection.Connection`.

    :meth:`settle` is the only method that does the I/O that the core asks for.
    """

    def __init__(
        self,
        reactor: Reactor,
        sock: _socket.socket,
        core: Connection,
        remote_address: object,
        tls: TLS | None = None,
    ) -> None:
        self.loop = reactor.loop
        self.core = core
        #: Consumers of the data and of the end of file during the opening handshake. Otherwise the core gets
        #: both.
        self.receive: Callable[[bytes, float], None] | None = None
        self.eof: Callable[[float], None] | None = None
        #: Called when the state may have changed; the argument is True if a task may be resumed immediately.
        self.changed: Callable[[bool], None] | None = None
        #: True while even the first send of a turn of the loop waits for the following ones.
        self.delay_first_send = False
        #: Called when the socket is closed, which may be after the end of the connection.
        self.closed: Callable[[], object] | None = None
        #: A server's set of streams that have ended for the application while TCP is still open.
        self.lingering: set[Stream] | None = None
        #: The peer's address, in the format of the socket module.
        self.remote_address = remote_address
        self._local_address: object = None
        self._sock: _socket.socket | None = sock
        self._fd = sock.fileno()
        self._tls = tls
        self._handshaking = tls is not None
        self._reading = False
        #: True while reading is paused but a reset is noticed.
        self.errors_only = False
        # True if that is so now, or was at any time since the last tick.
        self._not_reading = False
        self._out_of_buffers = False
        self._resuming = False
        # The error of the failed write, and how many bytes may still be read after it.
        self._write_error: OSError | None = None
        self._bytes_left = 0
        self._writing = False
        self._half_closed = False
        self._alarm = NEVER
        self._corked = False
        self._burst = 0
        self._now = 0.0
        reactor.enter()
        self._reactor = reactor
        self._buffer = reactor.buffer

    @property
    def local_address(self) -> object:
        """The local address, queried at the first access; None if the socket was closed by then."""
        if self._local_address is None and self._sock is not None:
            self._local_address = _address(self._sock.getsockname)
        return self._local_address

    @property
    def sock(self) -> _socket.socket | None:
        """The socket; None once it is closed."""
        return self._sock

    def tls_object(self) -> ssl.SSLObject | None:
        """Return the SSLObject, for certificates and the like; None for a plain or closed socket."""
        return None if self._tls is None else self._tls.ssl_object

    def abort(self) -> None:
        """Cut the connection, whatever its state."""
        self.core.lost(ConnectionAbortedError(errno.ECONNABORTED, "cut by this side"), monotonic())
        self.settle()

    def forked(self) -> None:
        """Close the descriptor in a forked child. Nothing is sent: TCP and TLS continue in the parent.

        Whatever the child does with the connection later fails with EBADF.
        """
        if self._sock is not None:
            self._sock.close()
            self._fd = -1
            self._writing = self._handshaking = False

    def linger(self) -> None:
        """Note that the application knows the end while TCP is still open."""
        if self.lingering is not None:
            self.lingering.add(self)

    # -- what the core asks for becomes I/O --------------------------------------

    def settle(self) -> None:
        """Do the I/O that the core asks for."""
        if self._sock is not None:
            core = self.core
            if self._handshaking:
                self._do_handshake()
            unsent = core.wants_write() or (self._tls is not None and self._tls.unsent())
            if unsent and not self._handshaking and not self._out_of_buffers:
                self._flush()
            if core.ended:
                self._close()
            else:
                if core.half_close and not self._half_closed and not core.wants_write():
                    self._half_close()
                try:
                    self._watch()
                except OSError as exc:
                    # The loop cannot watch another socket (ENOSPC, ENOMEM), so no event would ever arrive.
                    core.lost(exc, monotonic())
                    self._close()
                else:
                    self._set_alarm()
        if self.changed is not None:
            self.changed(False)

    def now(self) -> float:
        """Return the time; during a read, the time of that read."""
        return self._now or monotonic()

    def wrote(self) -> bool:
        """Send what the application has queued, together with what follows soon.

        True if the application has queued so much in this turn of the loop that other tasks should run.

        While a read is handled, answers are collected until the end of the read. Otherwise the first message
        of a turn of the loop is written immediately, and the later ones at the end of the turn: nothing is
        delayed while the application waits.
        """
        self._burst += 1
        if not self._corked:
            self._corked = True
            self.loop.call_soon(self.uncork)
            if not self.delay_first_send:
                self.settle()
        elif self.core.outbox.size >= FLUSH_SIZE:
            self.settle()
        return self._burst >= BURST

    def push(self, frame: bytes) -> bool:
        """Send ``frame`` as after :meth:`wrote`, but call no callback, even if the socket fails.

        True if the caller has to schedule :meth:`uncork` for the next turn of the loop.
        """
        outbox = self.core.outbox
        corked, self._corked = self._corked, True
        if corked or outbox.size or self._tls is not None:
            outbox.append(frame)
            if not self._writing and (not corked or outbox.size >= FLUSH_SIZE):
                self._flush()
            return not corked
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

    def exceeds(self, limit: int) -> bool:
        """Whether more than ``limit`` bytes wait for the peer. Corked bytes are written first."""
        outbox = self.core.outbox
        if outbox.size > limit and not self._writing:
            self._flush()
        return outbox.size > limit

    def uncork(self) -> None:
        """Write what was corked: a turn of the loop is over."""
        self._corked = False
        self._burst = 0
        if self.core.outbox.size:
            self.settle()

    def _watch(self) -> None:
        reading = self._handshaking or (not self._out_of_buffers and self._may_read())
        if reading is not self._reading:
            if reading:
                self._watch_reads()
            elif self.core.pauses() & _REQUEST:
                self._reactor.remove_reader(self._fd)
            else:
                self._reactor.watch_errors_only(self._fd)
                self.errors_only = self._not_reading = True
            self._reading = reading
        if reading and self._has_more():
            self._read_on()
        if self._handshaking:
            return  # _do_handshake() watches for writing
        writing = self.core.wants_write() or (self.core.half_close and not self._half_closed)
        if self._tls is not None:
            writing = (writing and not self._tls.blocked) or self._tls.unsent()
        writing = writing and not self._out_of_buffers and self._write_error is None
        if writing is not self._writing:
            if writing:
                self.loop.add_writer(self._fd, self.settle)
            else:
                self.loop.remove_writer(self._fd)
            self._writing = writing

    def _watch_reads(self) -> None:
        if self.errors_only:
            self._reactor.watch_reads(self._fd, self)
            self.errors_only = False
        else:
            self._reactor.add_reader(self._fd, self)

    def _may_read(self) -> bool:
        return self.core.wants_read() and (self._tls is None or not self._tls.congested())

    def _has_more(self) -> bool:
        """Whether data was read from the socket and is not parsed yet."""
        return self.core.has_unparsed() or (self._tls is not None and self._tls.waiting)

    def _read_on(self) -> None:
        """Read in the next turn of the loop what the kernel does not announce again."""
        if not self._resuming:  # at most one pending call; otherwise they would multiply
            self._resuming = True
            self.loop.call_soon(self._resume)

    def _resume(self) -> None:
        assert self._resuming, "a second call to read on in one turn of the loop"
        self._resuming = False
        self._read_turn()

    def _wait_for_buffers(self) -> None:
        if not self._out_of_buffers:
            self._out_of_buffers = True
            self.loop.call_later(OUT_OF_BUFFERS_DELAY, self._try_again)

    def _try_again(self) -> None:
        self._out_of_buffers = False
        self.settle()

    def _set_alarm(self) -> None:
        # An alarm that is too early only checks again: cheaper than moving it each time.
        if self.core.deadline < self._alarm:
            self._unset_alarm()
            self._alarm = self.core.deadline
            self._reactor.set_alarm(self, self._alarm)

    def _unset_alarm(self) -> None:
        if self._alarm != NEVER:
            self._reactor.unset_alarm(self, self._alarm)
            self._alarm = NEVER

    def tick(self) -> None:
        """Check the deadlines: the alarm has expired."""
        try:
            self._do_late_io()
        finally:  # also after an exception
            self._unset_alarm()  # _do_late_io() may have set another one
            self._check_deadlines()

    def _do_late_io(self) -> None:
        """Do the I/O that a late loop has not done yet.

        Data in the kernel's buffer may prove that the peer is alive, or be the Close that is waited for.
        """
        if self._reading:
            self._read_turn()
        if self._writing and self._sock is not None:
            self._flush()

    def _check_deadlines(self) -> None:
        silence = None
        if self._not_reading and self._sock is not None:
            silence = seconds_since_ack(self._sock)
            self._not_reading = not self._reading
        now = monotonic()
        self.core.tick(now, None if silence is None else now - silence + ACK_CLOCK_ERROR)
        self.settle()

    # -- reading --------------------------------------------------------------

    def readable(self) -> None:
        """Read: there is data or an error."""
        if not self._resuming:  # otherwise _resume() reads in this turn
            self._read_turn()

    def _read_turn(self) -> None:
        """Read as much as one connection may in a turn of the loop."""
        core = self.core
        if self._write_error is not None:
            self._read_after_failure()
        elif not self._handshaking:
            began = 0.0
            for _ in range(MAX_READS):
                # The answer to the last read may have ended the connection.
                if self._sock is None or not self._may_read():
                    break
                self._now = monotonic()
                began = began or self._now
                count = self._read_or_end()
                if self.changed is not None:
                    corked, self._corked = self._corked, True
                    try:
                        self.changed(True)
                    finally:
                        self._corked = corked
                self._now = 0.0
                self._burst = 0
                if count < READ_SIZE and not (self._tls is not None and self._tls.waiting):
                    break  # another read would most likely return no data
                if monotonic() - began > READING_TIME:
                    break
        if core.is_open and core.outbox.size and not self._writing and not self._out_of_buffers:
            self._flush()
            quiet = not core.outbox.size and not core.inbox.messages and not self._has_more()
            if core.is_open and quiet and core.deadline >= self._alarm:
                # Everything is written. So the socket has no error, and the only change is room for waiting
                # senders.
                if self.changed is not None:
                    self.changed(False)
                return
        if self._reactor.ask_for_errors and self._sock is not None and (number := error_of(self._sock)):
            self._write_failed(OSError(number, os.strerror(number)))
        self.settle()

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

    def _read_or_end(self) -> int:
        try:
            return self._read()
        except Exception as exc:
            # Out of memory, or a defect of this library: the data is lost, so this connection cannot
            # continue. The others can.
            logger.exception("reading from %r failed", self.remote_address)
            self.core.lost(exc, monotonic())
            return 0

    def _read(self) -> int:
        """Read once. Return the number of bytes; 0 for none and for the end of file."""
        assert self._sock is not None
        if self.core.has_unparsed():
            self.core.feed(self._buffer, 0, self.now())
            return READ_SIZE
        inside = 0
        try:
            if self._tls is not None:
                count = self._tls.receive(self._buffer)
            elif (codec := self.core.room()) is None or codec.room is None:
                count = receive(self._fd, self._buffer)
            else:
                count = receive_past(self._fd, codec.room, codec.room_fill, codec.missing, self._buffer)
                inside = min(count, codec.missing)
        except OSError as exc:
            if exc.errno in OUT_OF_BUFFERS:
                self._wait_for_buffers()
            else:
                self.core.lost(explain_timeout(exc, self._sock), monotonic(), isinstance(exc, ssl.SSLError))
            return 0
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

    def _end_of_file(self) -> None:
        if self.eof is None:
            self.core.eof(monotonic())
        else:
            self.eof(monotonic())

    # -- writing --------------------------------------------------------------

    def _flush(self) -> None:
        assert self._sock is not None  # after close() the descriptor may belong to another socket
        core = self.core
        if self._write_error is not None:
            return
        try:
            if self._tls is not None and not core.outbox.size:
                self._tls.flush()  # records of TLS itself
            while core.outbox.size and core.wants_write():
                count = self._write()
                core.sent(max(count, 0), self.now())
                if count < 0:
                    return
        except OSError as exc:
            if exc.errno in OUT_OF_BUFFERS:
                self._wait_for_buffers()
                core.sent(0, self.now())
            else:
                self._write_failed(exc)

    def _write(self) -> int:
        outbox = self.core.outbox
        if self._tls is not None:
            return self._tls.send(outbox)
        if outbox.sealed:
            return send_many(self._fd, outbox.buffers())
        assert outbox.block is not None
        return send(self._fd, outbox.block, outbox.fill)

    def _write_failed(self, exc: OSError) -> None:
        """Handle a failed write: the peer's last messages may still be in the receive buffer."""
        if self._write_error is not None or self._sock is None:
            return
        self._write_error = explain_timeout(exc, self._sock)
        self.core.broken(self._write_error, monotonic())
        self._bytes_left = 0 if self._handshaking else MAX_BYTES_AFTER_FAILURE
        self._read_after_failure()

    def _read_after_failure(self) -> None:
        """Read on after a failed write, as much as one connection may in a turn of the loop; then end."""
        began = monotonic()
        for _ in range(MAX_READS):
            if self._bytes_left <= 0 or self._sock is None or monotonic() - began > READING_TIME:
                break
            count = self._read_or_end()
            if not count:
                self._bytes_left = 0
            self._bytes_left -= count
        if self._bytes_left > 0 and self._sock is not None:
            self._read_on()
            return
        failure = self._write_error
        assert failure is not None
        # No effect if an EOF or an error has ended the connection already.
        self.core.lost(failure, monotonic(), isinstance(failure, ssl.SSLError))

    # -- TLS and the end ------------------------------------------------------

    def _do_handshake(self) -> None:
        """Do one step of the TLS handshake."""
        assert self._tls is not None
        self.loop.remove_writer(self._fd)
        try:
            done = self._tls.handshake()
            if done < 0:
                if self._tls.unsent():
                    self.loop.add_writer(self._fd, self.settle)
                return
        except OSError as exc:
            self.core.lost(exc, monotonic(), isinstance(exc, ssl.SSLError))
        else:
            if done == 0:
                self._end_of_file()
        self._handshaking = False

    def _half_close(self) -> None:
        """Half-close: send nothing more, but continue to read.

        A close with unread input would make the kernel send RST, which can destroy the Close in the peer's
        receive buffer (RFC 9112 §9.6 describes the same for HTTP).
        """
        assert self._sock is not None
        if self._tls is not None and not self._tls.notify():
            return
        # Later input is discarded without decryption.
        self._tls = None
        self._half_closed = True
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # ENOTCONN: the peer is gone, and the next read reports how

    def _close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return  # the reads after a failed write have ended the connection
        forked = self._fd < 0
        if (self._reading or self.errors_only) and not forked:
            self._reactor.remove_reader(self._fd)
        if (self._writing or self._handshaking) and not forked:
            self.loop.remove_writer(self._fd)
        self._unset_alarm()
        self._reactor.leave()
        if self._tls is not None and not self._handshaking and not self.core.abort and not forked:
            self._tls.notify()
        self._tls = None
        if self.core.abort or not self._half_closed:
            try:
                # close() alone does not end TCP while a forked child also has the descriptor.
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # ENOTCONN: the peer has ended TCP
        sock.close()
        if self.lingering is not None:
            self.lingering.discard(self)
        if self.closed is not None:
            self.closed()
            self.closed = None


def _address(ask: Callable[[], object]) -> object:
    """Return the address, or None if the socket has none any more."""
    try:
        return ask()
    except OSError:
        return None

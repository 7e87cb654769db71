"""What all drivers have in common: a driver connects one core to the way by which its bytes come and go.

The subclasses are ``tcp.py`` and ``tls.py``, on the reactor, and ``transport.py``, over any asyncio transport.

Why not always an asyncio transport: a transport reports a failed write as the end of the connection and
discards what is still readable. A page that reloads while the server streams has sent Close 1001 by
then, and that Close would be lost. With the reactor, a failed write only ends the writing
(``docs/explanation/decisions.md``, "A Close must be seen").
"""

# size: corking, fairness and the reads after a failed write depend on each other.
from __future__ import annotations

import errno
import logging
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..protocol.connection import Connection
from ..protocol.core import Core
from ..protocol.deadline import NEVER
from ..protocol.pause import Pause
from .reactor import READ_SIZE, Reactor
from .syscalls import monotonic
from .tcpinfo import ACK_CLOCK_ERROR

if TYPE_CHECKING:
    import _socket

__all__ = ["Driver"]

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


class Driver:
    """Does the I/O of one :class:`~endwell.protocol.connection.Connection`, in :meth:`settle`.

    A subclass declares what its way of I/O can do, and implements ``_read``, ``_write``, ``_watch``,
    ``_half_close`` and ``_close``.
    """

    #: Whether this side can end its sending and continue to read. If not, TCP is closed instead.
    half_close = False
    #: Whether data that has arrived can still be read after a write has failed.
    reads_after_failed_write = False
    #: Whether the kernel tells when the peer last acknowledged data, and whether a reset is noticed while
    #: reading is paused.
    tcp_info = False
    #: Whether the bytes that the driver counts as sent were accepted by the kernel, which holds at most
    #: ``MAX_UNSENT`` of them (``tcpinfo.py``).
    not_sent_limit = False

    def __init__(self, reactor: Reactor, core: Connection, remote_address: object) -> None:
        self._init_driver(reactor, core, remote_address)

    # Not super().__init__(), which costs a compiled class thousands of instructions.
    def _init_driver(self, reactor: Reactor, core: Connection, remote_address: object) -> None:
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
        #: A server's set of drivers whose connection has ended for the application while TCP is still open.
        self.lingering: set[Driver] | None = None
        #: The peer's address, in the format of the socket module.
        self.remote_address = remote_address
        self._local_address: object = None
        # Whether the driver can still do I/O.
        self._is_open = True
        self._reading = False
        # True if reading is paused now, or was at any time since the last tick.
        self._not_reading = False
        # True if a read may return data although no event announces it.
        self._waiting = False
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
        self._reactor = reactor
        self._buffer = reactor.buffer

    @property
    def local_address(self) -> object:
        """The local address, queried at the first access; None if the socket was closed by then."""
        if self._local_address is None:
            self._local_address = self._ask_local_address()
        return self._local_address

    @property
    def sock(self) -> _socket.socket | None:
        """The socket; None if there is none, or once it is closed."""
        return None

    def tls_object(self) -> ssl.SSLObject | None:
        """Return the SSLObject, for certificates and the like; None for a plain or closed socket."""
        return None

    def has_shaken_hands(self) -> bool:
        """Whether the TLS handshake was completed, or there is no TLS."""
        return True

    def abort(self) -> None:
        """Cut the connection, whatever its state."""
        self.core.lost(ConnectionAbortedError(errno.ECONNABORTED, "cut by this side"), monotonic())
        self.settle()

    def forked(self) -> None:
        """Close the descriptor in a forked child. Nothing is sent: TCP and TLS continue in the parent.

        Whatever the child does with the connection later fails with EBADF.
        """

    def linger(self) -> None:
        """Note that the application knows the end while TCP is still open."""
        if self.lingering is not None:
            self.lingering.add(self)

    # -- what a subclass implements -----------------------------------------------

    def _ask_local_address(self) -> object:
        return None

    def _read(self) -> int:
        """Read once. Return the number of bytes; 0 for none and for the end of file."""
        raise NotImplementedError

    def _write(self) -> int:
        """Write from the outbox. Return the number of bytes that were accepted, -1 for none now."""
        raise NotImplementedError

    def _watch(self) -> None:
        """Ask for the events that are wanted now. Raises OSError if that is impossible."""
        raise NotImplementedError

    def _half_close(self) -> None:
        """Send nothing more, but continue to read."""
        raise NotImplementedError

    def _close(self) -> None:
        """Close, and release what the driver uses. May be called again."""
        raise NotImplementedError

    def _look_for_error(self) -> None:
        """Handle an error that no event announces."""

    def _silence(self) -> float | None:
        """Return the seconds since the peer's system last acknowledged data; None if that is unknown."""
        return None

    def has_input(self) -> bool:
        """Whether there is data or the end of file to read."""
        return self._is_open and self._has_more()

    # -- what the core asks for becomes I/O --------------------------------------

    def settle(self) -> None:
        """Do the I/O that the core asks for."""
        if self._is_open:
            core: Core = self.core
            if core.wants_write() and not self._out_of_buffers:
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
        outbox.append(frame)
        if not self._writing and (not corked or outbox.size >= FLUSH_SIZE):
            self._flush()
        return not corked

    def push_last(self, frame: bytes) -> bool:
        """:meth:`push` if nothing is known to follow in this turn of the loop."""
        return self.push(frame)

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

    def _may_read(self) -> bool:
        return self.core.wants_read()

    def _has_more(self) -> bool:
        """Whether data has arrived here and is not parsed yet."""
        return self.core.has_unparsed() or self._waiting

    def _read_on(self) -> None:
        """Read in the next turn of the loop what no event announces again."""
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

    # -- time -----------------------------------------------------------------

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
        if self._writing and self._is_open:
            self._flush()

    def _check_deadlines(self) -> None:
        silence = None
        if self._not_reading and self._is_open:
            silence = self._silence()
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
        core: Core = self.core
        if self._write_error is not None:
            self._read_after_failure()
        else:
            began = 0.0
            for _ in range(MAX_READS):
                # The answer to the last read may have ended the connection.
                if not self._is_open or not self._may_read():
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
                if count < READ_SIZE and not self._waiting:
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
        if self._reactor.ask_for_errors:
            self._look_for_error()
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

    def _end_of_file(self) -> None:
        if self.eof is None:
            self.core.eof(monotonic())
        else:
            self.eof(monotonic())

    # -- writing --------------------------------------------------------------

    def _flush(self) -> None:
        core: Core = self.core
        # After _close() the descriptor may belong to another socket.
        if self._write_error is not None or not self._is_open:
            return
        try:
            while core.outbox.size and core.wants_write():
                count = self._write()
                core.sent(max(count, 0), self.now())
                if count < 0:
                    return
        except OSError as exc:
            self._not_written(exc)

    def _not_written(self, exc: OSError) -> None:
        if exc.errno in OUT_OF_BUFFERS:
            self._wait_for_buffers()
            self.core.sent(0, self.now())
        else:
            self._write_failed(exc)

    def _write_failed(self, exc: OSError) -> None:
        """Handle a failed write: the peer's last messages may still be in the receive buffer."""
        if self._write_error is not None or not self._is_open:
            return
        self._write_error = exc
        self.core.broken(exc, monotonic())
        self._bytes_left = MAX_BYTES_AFTER_FAILURE
        self._read_after_failure()

    def _read_after_failure(self) -> None:
        """Read on after a failed write, as much as one connection may in a turn of the loop; then end."""
        began = monotonic()
        for _ in range(MAX_READS):
            if self._bytes_left <= 0 or not self._is_open or monotonic() - began > READING_TIME:
                break
            count = self._read_or_end()
            if not count:
                self._bytes_left = 0
            self._bytes_left -= count
        if self._bytes_left > 0 and self._is_open:
            self._read_on()
            return
        failure = self._write_error
        assert failure is not None
        # No effect if an EOF or an error has ended the connection already.
        self.core.lost(failure, monotonic(), isinstance(failure, ssl.SSLError))

    # -- the end --------------------------------------------------------------

    def _released(self) -> None:
        """Tell that TCP has ended."""
        if self.lingering is not None:
            self.lingering.discard(self)
        if self.closed is not None:
            self.closed()
            self.closed = None

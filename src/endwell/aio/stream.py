"""A connection's socket, plain or TLS, on the event loop.

Why not an asyncio transport: a transport reports a failed write as the end of the
connection and throws away what is still readable. A page that reloads while the
server streams has sent Close 1001 by then, and it would be lost. Here a failed
write only ends the writing (``docs/explanation/design.md``, "A Close must be seen").
"""

# size: the one driver of a socket; what leaves at once, what later and what is left to read belong together.
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
from .reactor import READ_SIZE, Reactor
from .syscalls import error_of, monotonic, receive, receive_past, send, send_many
from .tcpinfo import ACK_CLOCK_ERROR, explain_timeout, seconds_since_ack
from .tls import TLS

__all__ = ["Stream"]

#: Reads in one turn of the loop, and seconds after which there is no other, so that one
#: flooding peer starves nobody.
READS = 4
READING_TIME = 0.01
#: Bytes read after a failed write, at most: more than a kernel's receive buffer holds.
LAST_BYTES = 64 * 2**20
#: Bytes in the outbox at which they leave though more may follow soon.
FLUSH_SIZE = 64 * 1024
#: Sends in one turn of the loop after which the sender waits for the next: to a peer that
#: takes everything at once, a loop of sends would else never let anybody else run.
BURST = 256
#: The system has no memory for a socket now. That passes, so the connection waits for so
#: many seconds instead of ending.
OUT_OF_BUFFERS = {errno.ENOBUFS, errno.ENOMEM}
OUT_OF_BUFFERS_DELAY = 0.1

logger = logging.getLogger("endwell")


class Stream:
    """Joins one socket to one :class:`~endwell.protocol.connection.Connection`.

    :meth:`settle` is the only place that turns the core's wishes into I/O.
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
        #: Who consumes what is read, if not the core: the opening.
        self.receive: Callable[[bytes, float], None] | None = None
        self.eof: Callable[[float], None] | None = None
        #: Called when something may have changed; True where a task may be resumed at once.
        self.changed: Callable[[bool], None] | None = None
        #: True while nothing may be read, whatever the core says.
        self.reading_paused = False
        #: True while even the first send of a turn of the loop waits for what follows it.
        self.delay_first_send = False
        #: Called when the socket is closed, which may be after the end was told.
        self.closed: Callable[[], object] | None = None
        #: A server's streams whose end was told before TCP ended; this one is added to them then.
        self.lingering: set[Stream] | None = None
        #: The peer's, as the socket module gives it.
        self.remote_address = remote_address
        self._local_address: object = None
        self._sock: _socket.socket | None = sock
        self._fd = sock.fileno()
        self._tls = tls
        self._handshaking = tls is not None
        self._reading = False
        #: Not reading, but to be told of a reset.
        self.errors_only = False
        # So now, or for a while since the last tick.
        self._not_reading = False
        self._out_of_buffers = False
        self._resuming = False
        # Why nothing can be written any more, and how much is still read then.
        self._failure: OSError | None = None
        self._left = 0
        self._writing = False
        self._finished = False
        self._alarm = NEVER
        self._corked = False
        self._burst = 0
        self._now = 0.0
        reactor.enter()
        self._reactor = reactor
        self._buffer = reactor.buffer

    @property
    def local_address(self) -> object:
        """Our own, asked for at the first look; None where the connection was over by then."""
        if self._local_address is None and self._sock is not None:
            self._local_address = _address(self._sock.getsockname)
        return self._local_address

    @property
    def sock(self) -> _socket.socket | None:
        """The socket; None once it is closed."""
        return self._sock

    def tls_object(self) -> ssl.SSLObject | None:
        """The TLS side of the socket, for certificates and the like; None if plain or over."""
        return None if self._tls is None else self._tls.ssl_object

    def abort(self) -> None:
        """Cut the connection, whatever its state."""
        self.core.lost(ConnectionAbortedError(errno.ECONNABORTED, "cut by this side"), monotonic())
        self.settle()

    def forked(self) -> None:
        """Close this process's descriptor after a fork; TCP and TLS go on in the parent, so nothing is sent."""
        if self._sock is not None:
            self._sock.close()

    def linger(self) -> None:
        """The end was told, and TCP goes on without anything that was told it."""
        if self.lingering is not None:
            self.lingering.add(self)

    # -- the one place that turns wishes into I/O --------------------------------

    def settle(self) -> None:
        """Do what the core wants by now."""
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
                if core.half_close and not self._finished and not core.wants_write():
                    self._finish()
                try:
                    self._watch()
                except OSError as exc:
                    # The system can watch no socket more (ENOSPC, ENOMEM): nobody would ever hear of it.
                    core.lost(exc, monotonic())
                    self._close()
                else:
                    self._set_alarm()
        if self.changed is not None:
            self.changed(False)

    def now(self) -> float:
        """The time; while a read is being handled, that of the read."""
        return self._now or monotonic()

    def wrote(self) -> bool:
        """The application has queued something: let it leave, with what follows soon.

        True if it has queued so much in this turn of the loop that others should have one.

        While a read is being handled, answers collect until that is done. Otherwise the first of a turn of
        the loop leaves at once, later ones at its end: nothing is held while the application waits.
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
        """Send ``frame`` as after :meth:`wrote`, but run nobody's code, whatever becomes of the socket.

        True if the caller has to have :meth:`uncork` called in the next turn of the loop.
        """
        outbox = self.core.outbox
        corked, self._corked = self._corked, True
        if corked or outbox.size or self._tls is not None:
            outbox.append(frame)
            if not self._writing and (not corked or outbox.size >= FLUSH_SIZE):
                self._flush()
            return not corked
        # Past the queue: of many connections, hardly anything is in the processor's cache.
        count = 0
        try:
            count = max(0, send(self._fd, frame, len(frame)))
        except OSError as exc:
            outbox.append(frame)
            self._read_what_is_left(exc)
        else:
            if count == len(frame):
                outbox.bytes_sent += count
            else:
                outbox.append(frame)
                self.core.sent(count, monotonic())
        return True

    def exceeds(self, limit: int) -> bool:
        """Whether more than ``limit`` bytes wait for the peer; what is only held back leaves first."""
        outbox = self.core.outbox
        if outbox.size > limit and not self._writing:
            self._flush()
        return outbox.size > limit

    def uncork(self) -> None:
        """A turn of the loop is over: what was held back in it leaves."""
        self._corked = False
        self._burst = 0
        if self.core.outbox.size:
            self.settle()

    def _watch(self) -> None:
        reading = self._handshaking or (not self._out_of_buffers and self._may_read())
        if reading is not self._reading:
            if reading:
                self._listen()
            elif self.reading_paused:
                self._reactor.remove_reader(self._fd)
            else:
                self._reactor.watch_errors_only(self._fd)
                self.errors_only = self._not_reading = True
            self._reading = reading
        if reading and self._has_more():
            self._read_on()
        if self._handshaking:
            return  # the handshake watches for writing by itself
        writing = self.core.wants_write() or (self.core.half_close and not self._finished)
        if self._tls is not None:
            writing = (writing and not self._tls.blocked) or self._tls.unsent()
        writing = writing and not self._out_of_buffers and self._failure is None
        if writing is not self._writing:
            if writing:
                self.loop.add_writer(self._fd, self.settle)
            else:
                self.loop.remove_writer(self._fd)
            self._writing = writing

    def _listen(self) -> None:
        if self.errors_only:
            self._reactor.watch_reads(self._fd, self)
            self.errors_only = False
        else:
            self._reactor.add_reader(self._fd, self)

    def _may_read(self) -> bool:
        return (
            not self.reading_paused
            and self.core.wants_read()
            and (self._tls is None or not self._tls.congested())
        )

    def _has_more(self) -> bool:
        """Whether something was read from the socket and has not been looked at."""
        return self.core.has_unparsed() or (self._tls is not None and self._tls.waiting)

    def _read_on(self) -> None:
        """Read in the next turn of the loop what the kernel does not announce again."""
        if not self._resuming:  # one call at a time, or they would multiply from turn to turn
            self._resuming = True
            self.loop.call_soon(self._resume)

    def _resume(self) -> None:
        assert self._resuming, "a second call to read on in one turn of the loop"
        self._resuming = False
        self._take_turn()

    def _wait_for_buffers(self) -> None:
        if not self._out_of_buffers:
            self._out_of_buffers = True
            self.loop.call_later(OUT_OF_BUFFERS_DELAY, self._try_again)

    def _try_again(self) -> None:
        self._out_of_buffers = False
        self.settle()

    def _set_alarm(self) -> None:
        # One that is too early looks again then: cheaper than moving it each time.
        if self.core.deadline < self._alarm:
            self._unset_alarm()
            self._alarm = self.core.deadline
            self._reactor.set_alarm(self, self._alarm)

    def _unset_alarm(self) -> None:
        if self._alarm != NEVER:
            self._reactor.unset_alarm(self, self._alarm)
            self._alarm = NEVER

    def tick(self) -> None:
        """The alarm rings."""
        try:
            self._catch_up()
        finally:  # whatever that has led to, time goes on
            self._unset_alarm()  # one that was set since this one rang would ring beside the next
            self._judge()

    def _catch_up(self) -> None:
        """Do what the loop may have come too late for.

        What lies in the kernel's buffer may prove that the peer lives, or be the Close that is waited for.
        """
        if self._reading:
            self._take_turn()
        if self._writing and self._sock is not None:
            self._flush()

    def _judge(self) -> None:
        silence = None
        if self._not_reading and self._sock is not None:
            silence = seconds_since_ack(self._sock)
            self._not_reading = not self._reading
        now = monotonic()
        self.core.tick(now, None if silence is None else now - silence + ACK_CLOCK_ERROR)
        self.settle()

    # -- reading --------------------------------------------------------------

    def readable(self) -> None:
        """There is something to read, or an error."""
        if not self._resuming:  # else this connection has its turn anyway
            self._take_turn()

    def _take_turn(self) -> None:
        """Read, as much as one connection may in a turn of the loop."""
        core = self.core
        if self._failure is not None:
            self._read_last()
        elif not self._handshaking:
            began = 0.0
            for _ in range(READS):
                # What was read may have been answered, and the answer may have ended it all.
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
                    break  # another read would most likely bring nothing now
                if monotonic() - began > READING_TIME:
                    break
        if core.is_open and core.outbox.size and not self._writing and not self._out_of_buffers:
            self._flush()
            quiet = not core.outbox.size and not core.inbox.messages and not self._has_more()
            if core.is_open and quiet and core.deadline >= self._alarm:
                # All is said: the socket took it, so it has no error, and nothing else has
                # changed but that there is room again for whoever waits to send.
                if self.changed is not None:
                    self.changed(False)
                return
        if self._reactor.ask_for_errors and self._sock is not None and (number := error_of(self._sock)):
            self._read_what_is_left(OSError(number, os.strerror(number)))
        self.settle()

    def has_input(self) -> bool:
        """Whether there is something to read, or the end."""
        if self._sock is None:
            return False
        if self._has_more():
            return True
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass  # reading will say which
        return True

    def hung_up(self) -> None:
        """There is an error, or the end, and nothing that was asked for."""
        if not self.errors_only:
            self.readable()
        elif self._sock is not None:
            number = error_of(self._sock) or errno.ECONNRESET
            self._read_what_is_left(OSError(number, os.strerror(number)))
            self.settle()

    def _read_or_end(self) -> int:
        try:
            return self._read()
        except Exception as exc:
            # No memory, or a fault of ours: what was read is lost, so this connection
            # cannot go on; every other one can.
            logger.exception("reading from %r failed", self.remote_address)
            self.core.lost(exc, monotonic())
            return 0

    def _read(self) -> int:
        """One read: how many bytes it brought, 0 for none, at the end too."""
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
        assert self._sock is not None  # or the descriptor may be another's by now
        core = self.core
        if self._failure is not None:
            return
        try:
            if self._tls is not None and not core.outbox.size:
                self._tls.flush()  # of TLS's own
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
                self._read_what_is_left(exc)

    def _write(self) -> int:
        outbox = self.core.outbox
        if self._tls is not None:
            return self._tls.send(outbox)
        if outbox.sealed:
            return send_many(self._fd, outbox.buffers())
        assert outbox.block is not None
        return send(self._fd, outbox.block, outbox.fill)

    def _read_what_is_left(self, exc: OSError) -> None:
        """The socket failed with ``exc``: the peer's last words may still lie in the receive buffer."""
        if self._failure is not None or self._sock is None:
            return
        self._failure = explain_timeout(exc, self._sock)
        self.core.broken(self._failure, monotonic())
        self._left = 0 if self._handshaking else LAST_BYTES
        self._read_last()

    def _read_last(self) -> None:
        """Read on after a failed write, as much as one connection may in a turn of the loop; then it is over."""
        began = monotonic()
        for _ in range(READS):
            if self._left <= 0 or self._sock is None or monotonic() - began > READING_TIME:
                break
            count = self._read_or_end()
            if not count:
                self._left = 0
            self._left -= count
        if self._left > 0 and self._sock is not None:
            self._read_on()
            return
        failure = self._failure
        assert failure is not None
        # Unless EOF or an error came, which decided: nothing more is to be had.
        self.core.lost(failure, monotonic(), isinstance(failure, ssl.SSLError))

    # -- TLS and the end ------------------------------------------------------

    def _do_handshake(self) -> None:
        """A step of the TLS handshake."""
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

    def _finish(self) -> None:
        """Half-close: nothing more will be said, but reading goes on.

        Closing with unread input would make the kernel send RST, which can destroy
        the Close in the peer's buffer (RFC 9112 §9.6 tells the same of HTTP).
        """
        assert self._sock is not None
        if self._tls is not None and not self._tls.notify():
            return
        # What still comes is discarded undecrypted.
        self._tls = None
        self._finished = True
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # ENOTCONN: the peer is gone already, and reading will say how

    def _close(self) -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return  # what was left to read after a failed write has been answered and ended
        if self._reading or self.errors_only:
            self._reactor.remove_reader(self._fd)
        if self._writing or self._handshaking:
            self.loop.remove_writer(self._fd)
        self._unset_alarm()
        self._reactor.leave()
        if self._tls is not None and not self._handshaking and not self.core.abort:
            self._tls.notify()
        self._tls = None
        if self.core.abort or not self._finished:
            try:
                # close() alone ends nothing while a forked child has the descriptor, too.
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # ENOTCONN: the peer has ended it
        sock.close()
        if self.lingering is not None:
            self.lingering.discard(self)
        if self.closed is not None:
            self.closed()
            self.closed = None


def _address(ask: Callable[[], object]) -> object:
    """The address, or None where there is none any more."""
    try:
        return ask()
    except OSError:
        return None

"""One connection without I/O. Inputs are bytes and the time; outputs are messages, bytes and one deadline.

A driver reports events with ``receive``, ``eof``, ``broken``, ``lost``, ``tick`` and ``sent``. It passes the
application's calls to ``send``, ``ping`` and ``close``. After each call it reads these attributes:

- ``inbox``: messages for the application;
- ``outbox``: bytes for the socket; the driver reports to ``sent`` how many were written;
- ``deadline``: when to call ``tick`` at the latest, or NEVER; it may become later without notice;
- ``wants_read()``: False while reading from the socket should pause. That is so while the inbox is full. A
  driver that moves messages to another queue sets ``receiver_full`` while that queue is full. It is also so
  while ``AHEAD`` bytes have arrived that the application has not asked for. The driver calls ``want_message``
  when the application waits, for a message or for room to send, and ``partial_size`` is not 0;
- ``stop_delivery``: the driver sets it when the application gets no more messages, because the connection is
  about to be closed;
- ``has_unparsed()``: True if received bytes are not parsed yet; while ``wants_read()``, the driver calls
  ``feed`` again, without data;
- ``half_close``: shut down the sending side of TCP once the outbox is empty;
- ``abort``: try to write the outbox once, then abort the connection;
- ``answering``: a received Close is not answered until the application has handled the messages before it;
  the driver then calls ``handled``;
- ``over`` and ``ending``: set once, when the ending is known; TCP may last until ``ended``.

Precedent for the interface: aioquic's ``get_timer`` and ``handle_timer``.
"""

# size: one state machine; its parts depend on each other.
from __future__ import annotations

from collections.abc import Callable
from sys import maxsize
from typing import Protocol

from ..advice import RetryAdvice
from ..codes import Retry, describe
from ..ending import Cause, Close, Ending, Initiator, TcpEnd
from ..errors import PeerError
from ..options import Options
from ..wire.codec import Buffer, Codec, Control, Ping, Pong
from ..wire.frames import close_payload
from .closing import TABLE, Cue, Do, State, cause_of, tcp_end_of
from .deadline import LATE, NEVER, after
from .heartbeat import ANSWER, QUESTION
from .inbox import Inbox
from .keepalive import Keepalive, Verdict
from .outbox import Outbox

__all__ = ["AHEAD", "Connection"]

#: Bytes of messages, including an incomplete one, that are read before the application asks for more.
#: Precedent: HTTP/2's flow control counts bytes, not messages. A message of the default ``max_size`` fits, so
#: it is read even while the handler is busy.
AHEAD = 2**20
_AHEAD = AHEAD  # a C constant in the compiled module; other modules cannot import that
#: If at least this number of bytes is missing, reading directly into the payload's buffer is faster.
_DIRECT_READ = 16 * 1024
# Module globals, because Python 3.11 looks up an Enum member with a call.
_OPENING, _OPEN, _LINGERING, _ENDED = State.OPENING, State.OPEN, State.LINGERING, State.ENDED
_ANSWERING, _DISCARDING = State.ANSWERING, State.DISCARDING
_ACCEPTED, _WE_CLOSE, _THEY_CLOSE, _EOF = Cue.ACCEPTED, Cue.WE_CLOSE, Cue.THEY_CLOSE, Cue.EOF
_PEER_CLOSED, _PEER_VANISHED = Cause.PEER_CLOSED, Cause.PEER_VANISHED
_LOCAL = Initiator.LOCAL
#: The last cue and its exception, before the connection has ended.
_NO_CUE: tuple[Cue, BaseException | None] = (_WE_CLOSE, None)

#: The share of ``max_lifetime`` by which a connection may end sooner, so that connections that opened
#: together do not close together. Precedent: gRPC's MAX_CONNECTION_AGE varies by a tenth.
_LIFETIME_JITTER = 0.1
#: The reason of that Close. It advises the client to reconnect within a second.
_RECONNECT_REASON = RetryAdvice(0, 1).reason(Cause.LIFETIME_REACHED.meaning)


class Receiver(Protocol):
    """The part of an application's receiver that the connection needs; see ``aio/quiescence.py``."""

    def is_waiting(self) -> bool:
        """Whether the application waits for a message now, so it has handled all messages that it read."""
        ...


class Connection:
    """One side of a WebSocket connection. Times are seconds on a monotonic clock."""

    def __init__(self, client: bool, options: Options, now: float, opened_at: float = 0.0) -> None:
        # size: every attribute of the state machine, in one place.
        self.client = client
        self.options = options
        self.state = _OPENING
        #: Whether messages can be sent: the state is OPEN or ANSWERING. Every message tests it.
        self.is_open = False
        #: Whether the state is ANSWERING.
        self.answering = False
        #: Whether the ending is known: the state is DISCARDING or ENDED.
        self.over = False
        #: Whether the state is ENDED.
        self.ended = False
        self.inbox = Inbox()
        #: Bytes of the incomplete message, and whether the application waits for a message.
        self.partial_size, self.message_wanted = 0, False
        self.receiver_full = self.stop_delivery = False
        self._max_queue = options.max_queue
        # A message of the allowed size always fits into an empty inbox.
        self._max_waiting = options.max_size or maxsize
        self.outbox = Outbox(options.write_timeout)
        self.keepalive = Keepalive(options.ping_interval, options.ping_timeout)
        self.deadline = self._expires_at = NEVER
        self.half_close = False
        self.abort = False
        #: The Close that was received; None before.
        self.received: Close | None = None
        #: Whether there is a TCP connection; a client's driver sets it.
        self.connected = not client
        #: Called once, right before the connection stops being open. Messages that wait elsewhere are sent in
        #: this call, or never.
        self.last_call: Callable[[], None] | None = None
        #: The application's receiver, if it has one; cleared at the end.
        self.receiver: Receiver | None = None

        self._codec: Codec | None = None
        self._parsing = self._heartbeat = False
        self._pong: bytes | None = None
        self._close: Close | None = None
        self._close_size = 0
        self._sent: Close | None = None
        self._fault: PeerError | None = None
        self._write_error: BaseException | None = None
        self._opened_at = opened_at
        self._began_at = self.opened = self._last_message_at = now
        self._state_deadline = after(now, options.open_timeout)
        # When the ending is reported even if TCP has not ended.
        self._report_at = NEVER
        # Whether the peer's FIN came before the answer to its Close, or to its HTTP request, was sent.
        self._eof = False
        # Start and end of the last stall of this process, and the stalled seconds since the peer's last data.
        self._stalled_since = self._stalled_until = self._stalled_for = 0.0
        self._messages_in = self._messages_out = self._bytes_in = self._dropped = 0

        self._cause: Cause | None = None
        self._initiator = _LOCAL
        self._exception: BaseException | None = None
        # The last cue and its exception, which determine `Ending.tcp`.
        self._last_cue = _NO_CUE
        self._ended_at = 0.0
        self._ending: Ending | None = None
        self._rearm()

    # -- the opening handshake ------------------------------------------------

    def open(self, head: bytes) -> None:
        """Queue the head of the opening handshake: a client's request, a server's 101."""
        self.outbox.append(head)

    def accept(self, codec: Codec, now: float, heartbeat: bool = False, jitter: float = 0.0) -> None:
        """The opening handshake succeeded. From now on ``codec`` parses and builds the frames.

        ``heartbeat``: the client is a page that has requested a heartbeat. ``jitter``, in [0, 1), determines
        how much earlier than ``max_lifetime`` the connection ends.
        """
        if self.options.max_lifetime is not None:
            self._expires_at = now + self.options.max_lifetime * (1 - _LIFETIME_JITTER * jitter)
        self.outbox.bytes_sent = -self.outbox.size  # the ending does not count the heads
        self._codec = codec
        self._parsing = True
        self._cue(_ACCEPTED, now)
        if heartbeat:
            self._heartbeat = True
            self._answer_heartbeat()

    def requested(self) -> None:
        """Server: the request is complete. The application limits the time of its answer: no deadline."""
        self._state_deadline = NEVER
        self._rearm()

    def refuse(self, response: bytes, now: float, exc: BaseException | None = None) -> None:
        """Server: answer the opening request with ``response``, then end TCP.

        ``exc`` names the rule that the request broke; None if it broke none.
        """
        self.outbox.append(response)
        self._cue(Cue.REFUSED if exc is None else Cue.THEY_ERR, now, Cause.HANDSHAKE_REJECTED, exc)

    def fail_opening(
        self, cause: Cause, now: float, exc: BaseException | None = None, initiator: Initiator | None = None
    ) -> None:
        """Client: the opening handshake failed."""
        self._cue(Cue.WE_CLOSE, now, cause, exc)
        if initiator is not None:
            self._initiator = initiator

    # -- events from the driver -----------------------------------------------

    def wants_read(self) -> bool:
        """Whether the driver should read from the socket.

        Only an open connection pauses reading. A full inbox must not block the closing handshake, nor keep
        the driver from reading the data that is left after a failed write.
        """
        return not self._eof and (self._must_read() or not (self._inbox_full() or self._has_read_ahead()))

    def has_unparsed(self) -> bool:
        """Whether received bytes are not parsed yet."""
        codec = self._codec
        return self._parsing and codec is not None and codec.has_unparsed

    def _must_read(self) -> bool:
        return not self._parsing or not self.is_open or self._write_error is not None

    def _inbox_full(self) -> bool:
        inbox = self.inbox
        return (
            self.receiver_full
            or self.stop_delivery
            or inbox.waiting() >= self._max_queue
            or inbox.size >= self._max_waiting
        )

    def _has_read_ahead(self) -> bool:
        return self.inbox.size + self.partial_size >= _AHEAD and not self.message_wanted

    def want_message(self) -> bool:
        """The application waits for the next message. True if reading was paused before this call."""
        held_back = not self.wants_read()
        self.message_wanted = True
        return held_back

    def receive(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """``data`` was received."""
        self.feed(bytearray(data), len(data), now)

    def room(self) -> Codec | None:
        """The codec, if a long payload is incomplete; else None.

        The driver may then read directly into the codec's ``room``, and pass the number of bytes to
        :meth:`feed`.
        """
        codec = self._codec
        return (
            codec if codec is not None and codec.room is not None and codec.missing >= _DIRECT_READ else None
        )

    def feed(self, data: bytearray, end: int, now: float, inside: int = 0) -> None:
        """``inside`` bytes were read into the codec's room, then ``end`` bytes into the read buffer ``data``.

        The contents of ``data`` may be changed.
        """
        if end or inside:
            self.keepalive.last_heard = now
        codec = self._codec
        if not self._parsing or codec is None:
            return
        self._bytes_in += inside + end
        messages = self.inbox.messages
        before = len(messages)
        # While reading cannot pause, messages that do not fit into the inbox are dropped.
        full = self._must_read() and self._inbox_full()
        try:
            if inside:
                codec.read(inside, messages)
            if end or codec.has_unparsed:
                codec.feed(data, end, messages)
        except PeerError as exc:
            # The connection fails 10 ms later, so that the application can answer the messages before the
            # error. That includes a client whose messages came with the 101, before connect() has returned.
            # Autobahn counts only that as strict (3.2-3.4, 4.*, 5.15).
            self._fault, self._state_deadline = exc, now + 0.01
            self._rearm()
        arrived = len(messages) - before
        if arrived and self._heartbeat:
            arrived -= self._take_heartbeats(messages, before)
        self.partial_size = codec.partial_size()
        if arrived:
            self.message_wanted = False
            self._messages_in += arrived
            self._last_message_at = now
            if full:
                self._dropped += arrived
                del messages[before:]
            else:
                self.inbox.count(before)
        if codec.controls:
            self._handle_controls(codec.controls, now)
        if not self.is_open or not self.inbox.messages:
            self._fail_on_fault(now)

    def _handle_controls(self, controls: list[Control], now: float) -> None:
        for control in controls:
            if isinstance(control, Ping):
                self._answer_ping(control.payload)
            elif isinstance(control, Pong):
                self.keepalive.pong_received(control.payload, now)
            else:
                self.received = control
                behind = self.is_open and self._handler_busy() and not self._says_reconnect(control)
                self._cue(Cue.CLOSE_BEHIND if behind else _THEY_CLOSE, now, _PEER_CLOSED)
        controls.clear()

    def _handler_busy(self) -> bool:
        """Whether a message is unread, or the application is still handling a message that it has read."""
        if self.inbox.messages:
            return True
        return self.receiver is not None and self.messages_consumed() > 0 and not self.receiver.is_waiting()

    def _says_reconnect(self, close: Close) -> bool:
        """Client: whether the server's Close says to reconnect, as the Close of a server that stops does.

        Such a server reads no more messages, so the client's application must not be able to send one.
        """
        return self.client and close.code is not None and describe(close.code).retry is Retry.NOW

    def handled(self, now: float) -> None:
        """The application waits for a message, and there is none. A received Close is answered now."""
        self._cue(Cue.HANDLED, now)

    def _take_heartbeats(self, messages: list[str | bytes | None], before: int) -> int:
        """Remove and answer the page's heartbeat questions in the new messages. Returns their number."""
        rest = [message for message in messages[before:] if message != QUESTION]
        count = len(messages) - before - len(rest)
        if count:
            messages[before:] = rest
            # One answer is enough for all questions. If the outbox is full, no answer is needed: the queued
            # data proves the same once it is sent. So a page that asks without reading uses no memory.
            if self.is_open and self.outbox.size <= self.options.write_limit:
                self._answer_heartbeat()
        return count

    def _answer_heartbeat(self) -> None:
        assert self._codec is not None
        self.outbox.append(self._codec.message(ANSWER))

    def eof(self, now: float) -> None:
        """The peer ended its side of TCP."""
        if self._write_error is not None:
            self.lost(self._write_error, now)
        elif self.state is _LINGERING and self._codec is None and self.wants_write():
            # A client may half-close TCP after the request ("nc -N") and still wait for the answer.
            self._eof = True
        else:
            self._cue(_EOF, now, _PEER_VANISHED)

    def broken(self, exc: BaseException, now: float) -> None:
        """A write failed. No more data can be sent, but data that can still be read decides the ending.

        A page that reloads sends Close 1001 and drops TCP. If the server writes at that moment, its write
        fails before it has read the Close. So the driver continues to read, until ``eof`` or ``lost``.
        """
        self._write_error = exc
        self.outbox.stuck_at = NEVER
        self._rearm()

    def wants_write(self) -> bool:
        """Whether the outbox has data that can still be sent."""
        return self.outbox.size > 0 and self._write_error is None

    def lost(self, exc: BaseException, now: float, tls: bool = False) -> None:
        """TCP failed with ``exc``; with ``tls``, TLS failed."""
        self._cue(Cue.LOST, now, cause_of(exc, tls), exc)

    def sent(self, count: int, now: float) -> None:
        """The kernel accepted ``count`` bytes of the outbox; 0 if its send buffer was full."""
        stuck_at = self.outbox.stuck_at
        if self.outbox.consume(count, now):
            self.keepalive.last_heard = now
        if self.state is _LINGERING:
            self._sent_in_lingering(count, now)
        if self._pong is not None and self.outbox.size <= self.options.write_limit:
            self._answer_ping(self._pong)
        if self.outbox.stuck_at != stuck_at:
            self._rearm()

    def _sent_in_lingering(self, count: int, now: float) -> None:
        """``count`` bytes were sent in the state LINGERING."""
        if self._eof and not self.outbox.size:
            self._cue(_EOF, now, _PEER_VANISHED)
        elif self._codec is None:
            if count:
                # The client may read an HTTP response slowly, if it accepts some bytes in time.
                self._arm(now)
                self._rearm()
        elif (self._eof and count) or (self._report_at == NEVER and (self._eof or not self.outbox.size)):
            # The local Close was sent. If the peer's FIN came before it, the only open question is whether
            # the peer still accepts the answers.
            self._report_at = now + self.options.linger_timeout
            self._rearm()

    def tick(self, now: float, confirmed: float | None = None) -> None:
        """Handle every deadline that has passed at ``now``.

        ``confirmed`` is when the peer's kernel last acknowledged data. While reading is paused, that is the
        only sign that the peer is alive.
        """
        due = self.deadline
        self._fail_on_fault(now)
        if confirmed is not None:
            self.keepalive.last_heard = max(self.keepalive.last_heard, confirmed)
        if now - due > LATE:
            self.stalled(due, now - due, now)
        if self.state is _OPEN:
            self._tick_open(now, not_reading=confirmed is None and not self.wants_read())
        elif now >= self._state_deadline:
            self._cue(Cue.TIME_UP, now, Cause.HANDSHAKE_FAILED)
        elif now >= self._report_at:
            self._cue(_EOF if self._eof else Cue.TIME_UP if self.client else Cue.LINGERED, now)
        self._rearm()

    def has_partial_message(self) -> bool:
        """Whether a message is received in part."""
        return self._codec is not None and self._codec.has_partial_message()

    def has_sent(self) -> bool:
        """Whether the application has ever sent a message."""
        return self._messages_out > 0

    def messages_consumed(self) -> int:
        """The number of messages that the application has read."""
        return self._messages_in - self._dropped - len(self.inbox)

    def stalled(self, since: float, seconds: float, now: float) -> None:
        """The loop, the process or the machine was stalled for ``seconds``, from ``since`` on.

        Time during which this process was stalled does not count against the peer: all deadlines move by that
        amount. A client sends a ping immediately, to find out whether the peer is still there. A server sends
        its pings when they are due, because otherwise it would send the pings of all connections at once.
        """
        if since < self._stalled_until:  # two timers reported the same stall
            seconds -= self._stalled_until - since
            since = self._stalled_until
        if seconds <= LATE or self.ended:
            return
        if self.keepalive.last_heard > self._stalled_since:
            self._stalled_for = 0.0
        self._stalled_since, self._stalled_until = since, now
        self._stalled_for += seconds
        self._state_deadline += now - since
        self._report_at += now - since
        self.outbox.stuck_at += now - since
        if self.keepalive.stalled(now - since) and self.client:
            self.keepalive.probe(now)
            self.keepalive.last_payload = self.ping(None, now)
        self._rearm()

    # -- calls of the application ---------------------------------------------

    def send(self, message: str | Buffer, now: float) -> bool:
        """Queue a message. False if the connection is not open; then nothing is queued.

        Raises TypeError if ``message`` is neither a str nor bytes-like, and UnsupportedByProtocol for bytes
        if the protocol has only text.
        """
        codec = self._codec
        if not self.is_open or codec is None:
            return False
        payload = codec.payload(message)
        if codec.first >= 0:
            self.outbox.append_frame(codec.first, payload, codec.key())
        else:
            self.outbox.append(bytes(payload))
        self._messages_out += 1
        self._last_message_at = now
        return True

    def takes_binary(self) -> bool:
        """Whether the protocol has binary messages; only hixie-75 and -76 have none."""
        codec = self._codec
        return codec is None or codec.has_binary

    def share(self, message: str | Buffer, frames: dict[object, bytes], now: float) -> bytes | None:
        """The frame of a broadcast message, which the caller queues; None if the connection is not open.

        ``frames`` holds the frames made for other connections of the same broadcast, which this connection
        may use. Raises as :meth:`send` does.
        """
        codec = self._codec
        if not self.is_open or codec is None:
            return None
        frame = None if codec.share_key is None else frames.get(codec.share_key)
        if frame is None:
            frame = codec.message(message)
            if codec.share_key is not None:
                frames[codec.share_key] = frame
        self._messages_out += 1
        self._last_message_at = now
        return frame

    def ping(self, payload: bytes | None, now: float) -> bytes | None:
        """Queue a ping. Returns its payload, by which ``keepalive.answered`` names it; None if not open.

        Raises ValueError for a payload above 125 bytes, or one of an unanswered ping, and
        UnsupportedByProtocol if the protocol has no pings.
        """
        if self._codec is None:
            return None
        if not self.is_open:
            if payload is not None and self._codec.has_pings:
                self._codec.ping(payload)  # an application's mistake raises at any time
            return None
        payload = self.keepalive.new_payload() if payload is None else payload
        frame = self._codec.ping(payload)
        self.keepalive.ping_sent(payload, now)
        self.outbox.append(frame)
        return payload

    def close(self, code: int | None, reason: str, now: float, cause: Cause = Cause.APP_CLOSED) -> None:
        """Start the closing handshake. Has no effect if it has started already.

        Raises ValueError for a code or a reason that may not be sent; then nothing has changed.
        """
        close_payload(code, reason)
        self._close = self._close or Close(code, reason)
        self._cue(_WE_CLOSE, now, cause)

    # -- the ending -----------------------------------------------------------

    @property
    def ending(self) -> Ending | None:
        """The `Ending` of the connection, computed at the first access after the end; None before."""
        if self._ending is None and self.over:
            assert self._cause is not None
            sent = self._sent if not self.outbox.size else None
            clean = self.received is not None and sent is not None
            self._ending = Ending(
                cause=self._cause,
                initiator=self._initiator,
                clean=clean if self._codec is None or self._codec.has_close else None,
                received=self.received,
                sent=sent,
                tcp=tcp_end_of(*self._last_cue) if self.connected else TcpEnd.NONE,
                exception=self._exception,
                opened_at=self._opened_at,
                duration=self._ended_at - self._began_at,
                messages_in=self._messages_in,
                messages_out=self._messages_out,
                bytes_in=self._bytes_in,
                bytes_out=self.outbox.bytes_sent,
                unsent_bytes=max(0, self.outbox.size - self._close_size),
                dropped_messages=self._dropped,
                latency=self.keepalive.latency,
                stalled=self._stalled_for if self.keepalive.last_heard <= self._stalled_since else 0.0,
            )
        return self._ending

    def _cue(
        self, cue: Cue, now: float, cause: Cause | None = None, exception: BaseException | None = None
    ) -> None:
        """Make the transition for ``cue``. Only this method assigns the state."""
        self._fail_on_fault(now)
        row = TABLE.get((self.state, cue))
        if row is None:
            return
        is_open = row.state is _OPEN or row.state is _ANSWERING
        if self.is_open and not is_open and self.last_call is not None:
            self.last_call()
            self.last_call = None
        if self._cause is None and cause is not None:
            self._cause = cause
            self._initiator = cause.initiator
        self._exception = self._exception or exception
        self.state = row.state
        self.is_open = is_open
        self.answering = row.state is _ANSWERING
        self.ended = row.state is _ENDED
        for do in row.do:
            _DO[do](self, now)
        if self.state is not _OPEN:
            self.keepalive.stop()
        if not self.over and (self.ended or self.state is _DISCARDING):
            self.over = True
            self._ended_at = now
            self._last_cue = cue, exception
            self._report_at = NEVER
            if not self.ended:
                # Computed now, because TCP continues and later bytes do not belong to the ending.
                self._ending = self.ending
        if self.ended:
            self._parsing = False
            self._state_deadline = NEVER
            self.receiver = None
        self._rearm()
        if self.state is _LINGERING:
            self._sent_in_lingering(0, now)

    def _fail_on_fault(self, now: float) -> None:
        """Fail the connection if the peer broke a rule. Called before any other cue is handled."""
        fault, self._fault = self._fault, None
        if fault is not None:
            if self.state is _OPEN:
                self._close = fault.close
            self._cue(Cue.THEY_ERR, now, fault.cause, fault)

    def _send_close(self, now: float) -> None:
        close, codec = self._close, self._codec
        assert close is not None and codec is not None
        frame = codec.close(close.code, close.reason)
        self._close_size = len(frame)
        self.outbox.append(frame)
        not_transmitted = close.code is not None and not codec.has_codes
        self._sent = Close(close.code, close.reason, not_transmitted) if not_transmitted else close
        if not codec.has_close or not (codec.has_reply or self.client):
            # The FIN takes the place of the Close: for a protocol without a Close, in either role.
            self.half_close = True

    def _echo_close(self, now: float) -> None:
        # RFC 6455 §5.5.1: "When sending a Close frame in response, the endpoint
        # typically echos the status code it received."
        self._close = self.received
        self._send_close(now)

    def _stop_parsing(self, now: float) -> None:
        self._parsing = False

    def _fin(self, now: float) -> None:
        self.half_close = self.half_close or not self.client

    def _hold_eof(self, now: float) -> None:
        self._eof = True

    def _arm(self, now: float) -> None:
        self._state_deadline = now + self.options.close_timeout

    def _arm_answer(self, now: float) -> None:
        self._state_deadline = now + self.options.answer_timeout

    def _disarm(self, now: float) -> None:
        self._state_deadline = NEVER

    def _start_keepalive(self, now: float) -> None:
        self.opened = self._last_message_at = now
        if self._codec is not None and self._codec.has_pings:
            self.keepalive.start(now)

    def _abort(self, now: float) -> None:
        self.abort = True

    # -- time -----------------------------------------------------------------

    def _tick_open(self, now: float, not_reading: bool) -> None:
        options = self.options
        if now >= self.outbox.stuck_at:
            self._end_with(Cause.WRITE_TIMEOUT, Cue.STUCK, now)
        elif now >= self._expires_at:
            reason = Cause.LIFETIME_REACHED.meaning if self.client else _RECONNECT_REASON
            self._end_with(Cause.LIFETIME_REACHED, Cue.WE_CLOSE, now, reason)
        elif now >= after(self._last_message_at, options.idle_timeout):
            self._end_with(Cause.IDLE_TIMEOUT, Cue.WE_CLOSE, now)
        else:
            verdict = self.keepalive.tick(now, not_reading)
            if verdict is Verdict.PING:
                self.keepalive.last_payload = self.ping(None, now)
            elif verdict is Verdict.SILENT:
                self._end_with(Cause.KEEPALIVE_TIMEOUT, Cue.SILENT, now)

    def _end_with(self, cause: Cause, cue: Cue, now: float, reason: str = "") -> None:
        self._close = Close(cause.close_code, reason or cause.meaning)
        self._cue(cue, now, cause)

    def _rearm(self) -> None:
        """Set ``deadline`` to the earliest of all deadlines."""
        if self.state is _OPEN:
            self.deadline = min(
                self._state_deadline,
                self.keepalive.deadline,
                self.outbox.stuck_at,
                after(self._last_message_at, self.options.idle_timeout),
                self._expires_at,
            )
        else:
            self.deadline = min(self._state_deadline, self._report_at)

    def _answer_ping(self, payload: bytes) -> None:
        """Answer a ping; while the outbox is above ``write_limit``, only remember its payload.

        RFC 6455 §5.5.3: "If an endpoint receives a Ping frame and has not yet sent
        Pong frame(s) in response to previous Ping frame(s), the endpoint MAY elect
        to send a Pong frame for only the most recently processed Ping frame." So a
        peer that sends pings and does not read costs the memory of one payload.
        """
        if not self.is_open or self._codec is None:
            return
        if self.outbox.size > self.options.write_limit:
            self._pong = payload
        else:
            self._pong = None
            self.outbox.append(self._codec.pong(payload))


#: The method for each action of the closing table.
_DO = {
    Do.SEND_CLOSE: Connection._send_close,
    Do.ECHO_CLOSE: Connection._echo_close,
    Do.STOP_PARSING: Connection._stop_parsing,
    Do.FIN: Connection._fin,
    Do.HOLD_EOF: Connection._hold_eof,
    Do.ARM: Connection._arm,
    Do.ARM_ANSWER: Connection._arm_answer,
    Do.DISARM: Connection._disarm,
    Do.KEEPALIVE: Connection._start_keepalive,
    Do.ABORT: Connection._abort,
}

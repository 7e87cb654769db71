"""One connection, without I/O: bytes and time go in; messages, bytes and one deadline come out.

A driver calls ``receive``, ``eof``, ``broken``, ``lost``, ``tick`` and ``sent``
for what happened, ``send``, ``ping`` and ``close`` for what the application
wants, and after each call looks at the plain attributes:

- ``inbox``: messages for the application;
- ``outbox``: what is for the socket (then tell ``sent`` how much it took);
- ``deadline``: when to call ``tick`` at the latest, NEVER if not at all; it may move later without
  notice;
- ``wants_read()``: False while the inbox is full, so that the peer is held back; a driver that
  takes the messages elsewhere sets ``sated`` while that place is full. Also while ``AHEAD`` bytes
  have come that the application has not asked for: call ``want`` when it waits, for a message or
  for room to send, and ``coming``, what there is of the next message, is not 0;
- ``parting``: set to give the application nothing more, for the connection is about to close;
- ``has_unparsed()``: a part of what was received waits; while ``wants_read()``, ``feed`` again, with nothing;
- ``half_close``: end the sending side of TCP once the outbox is empty;
- ``abort``: try the outbox once, then cut;
- ``answering``: the peer's Close waits for the application to come back from the messages before it: then
  call ``handled``;
- ``over`` and ``ending``: set once, when the ending is known; TCP may go on until ``ended``.

Precedent for the shape: aioquic's ``get_timer`` and ``handle_timer``.
"""

# size: one state machine; a part of it apart would not be understood without the rest.
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

#: Bytes of messages, and of the one that is coming, that are read before the application wants
#: more. Precedent: HTTP/2's flow control counts bytes, whatever they are bytes of. Not smaller: a
#: message of the default ``max_size`` is taken from the peer though the handler is busy.
AHEAD = 2**20
_AHEAD = AHEAD  # compiled, a number of C, which other modules cannot import
#: From so many missing bytes on, a read into the payload's room pays.
_LONG = 16 * 1024
# Those of each connection's life: Python 3.11 finds a member of an Enum by a call.
_OPENING, _OPEN, _LINGERING, _ENDED = State.OPENING, State.OPEN, State.LINGERING, State.ENDED
_ANSWERING, _DISCARDING = State.ANSWERING, State.DISCARDING
_ACCEPTED, _WE_CLOSE, _THEY_CLOSE, _EOF = Cue.ACCEPTED, Cue.WE_CLOSE, Cue.THEY_CLOSE, Cue.EOF
_PEER_CLOSED, _PEER_VANISHED = Cause.PEER_CLOSED, Cause.PEER_VANISHED
_LOCAL = Initiator.LOCAL
#: What ended a connection that has not ended.
_NOTHING: tuple[Cue, BaseException | None] = (_WE_CLOSE, None)

#: The share of ``max_lifetime`` by which a connection may end sooner, so that those that came
#: together do not leave together. Precedent: gRPC's MAX_CONNECTION_AGE varies by a tenth.
_SPREAD = 0.1
#: What a client is told then: there is nothing to wait for.
_COME_BACK = RetryAdvice(0, 1).reason(Cause.LIFETIME_REACHED.meaning)


class Receiver(Protocol):
    """Where an application waits for messages; the whole of it is in ``aio/quiescence.py``."""

    def is_waiting(self) -> bool:
        """Whether it waits now: it has come back from all messages that it took."""
        ...


class Connection:
    """One side of a WebSocket connection. Times are seconds on any monotonic clock."""

    def __init__(self, client: bool, options: Options, now: float, opened_at: float = 0.0) -> None:
        # size: every attribute of the state machine, in one place.
        self.client = client
        self.options = options
        self.state = _OPENING
        #: Whether messages can be sent, which is asked for with every one: the state is OPEN or ANSWERING.
        self.is_open = False
        #: Whether it is ANSWERING.
        self.answering = False
        #: Whether the ending is known: the state is DISCARDING or ENDED.
        self.over = False
        #: Whether it is ENDED.
        self.ended = False
        self.inbox = Inbox()
        #: The bytes of the message that is coming, and whether the application waits for it.
        self.partial_size, self.message_wanted = 0, False
        self.receiver_full = self.stop_delivery = False
        self._max_queue = options.max_queue
        # One message always has room, so this holds back a second one only.
        self._max_waiting = options.max_size or maxsize
        self.outbox = Outbox(options.write_timeout)
        self.keepalive = Keepalive(options.ping_interval, options.ping_timeout)
        self.deadline = self._expires = NEVER
        self.half_close = False
        self.abort = False
        #: The peer's Close, as soon as it came.
        self.received: Close | None = None
        #: Whether there is a TCP connection at all; a client's driver sets it.
        self.connected = not client
        #: Called once, before the connection stops being open: what has been accepted elsewhere
        #: is sent now or never.
        self.last_call: Callable[[], None] | None = None
        #: Where the application waits for messages, if it has a place; cleared at the end.
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
        self._began = self.opened = self._active = now
        self._state_deadline = after(now, options.open_timeout)
        # When the end is told though TCP has not ended; whether the peer has ended its side of TCP, and
        # our answer to its Close, or to its HTTP request, is still to leave.
        self._tell_at = NEVER
        self._eof = False
        # When our own side stood still the last time, and for how long since the peer was heard.
        self._stalled_since = self._stalled_until = self._stalled_for = 0.0
        self._messages_in = self._messages_out = self._bytes_in = self._dropped = 0

        self._cause: Cause | None = None
        self._initiator = _LOCAL
        self._exception: BaseException | None = None
        # What ended it: TCP's end is told from these.
        self._last = _NOTHING
        self._ended = 0.0
        self._ending: Ending | None = None
        self._rearm()

    # -- the opening ----------------------------------------------------------

    def open(self, head: bytes) -> None:
        """Queue a head of the opening handshake: a client's request, a server's 101."""
        self.outbox.append(head)

    def accept(self, codec: Codec, now: float, heartbeat: bool = False, jitter: float = 0.0) -> None:
        """The opening handshake succeeded; from here on ``codec`` reads and writes.

        ``heartbeat``: the client is a page that has asked for one. ``jitter``, in [0, 1), decides
        how much sooner than after ``max_lifetime`` the connection ends.
        """
        if self.options.max_lifetime is not None:
            self._expires = now + self.options.max_lifetime * (1 - _SPREAD * jitter)
        self.outbox.bytes_sent = -self.outbox.size  # the ending counts what came after the heads
        self._codec = codec
        self._parsing = True
        self._cue(_ACCEPTED, now)
        if heartbeat:
            self._heartbeat = True
            self._answer_heartbeat()

    def requested(self) -> None:
        """Server: the whole request has come. The application bounds the time of its answer, so there is no deadline."""
        self._state_deadline = NEVER
        self._rearm()

    def refuse(self, response: bytes, now: float, exc: BaseException | None = None) -> None:
        """Server: answer the opening request with ``response``, then end TCP.

        ``exc`` is the rule that the request broke, if it broke one.
        """
        self.outbox.append(response)
        self._cue(Cue.REFUSED if exc is None else Cue.THEY_ERR, now, Cause.HANDSHAKE_REJECTED, exc)

    def fail_opening(
        self, cause: Cause, now: float, exc: BaseException | None = None, initiator: Initiator | None = None
    ) -> None:
        """Client: give the opening handshake up."""
        self._cue(Cue.WE_CLOSE, now, cause, exc)
        if initiator is not None:
            self._initiator = initiator

    # -- what happened --------------------------------------------------------

    def wants_read(self) -> bool:
        """Whether the driver should read from the socket.

        Only an open connection holds its peer back: a full inbox must not block
        the closing handshake, nor hide what is readable after a failed write.
        """
        return not self._eof and (self._must_read() or not (self._full() or self._ahead()))

    def has_unparsed(self) -> bool:
        """Whether a part of what was received waits for the rest to be taken."""
        codec = self._codec
        return self._parsing and codec is not None and codec.has_unparsed

    def _must_read(self) -> bool:
        return not self._parsing or not self.is_open or self._write_error is not None

    def _full(self) -> bool:
        inbox = self.inbox
        return (
            self.receiver_full
            or self.stop_delivery
            or inbox.waiting() >= self._max_queue
            or inbox.size >= self._max_waiting
        )

    def _ahead(self) -> bool:
        return self.inbox.size + self.partial_size >= _AHEAD and not self.message_wanted

    def want_message(self) -> bool:
        """The application waits, until the next message has come; True if the peer was held back meanwhile."""
        held_back = not self.wants_read()
        self.message_wanted = True
        return held_back

    def receive(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """``data`` came."""
        self.feed(bytearray(data), len(data), now)

    def room(self) -> Codec | None:
        """The codec, if a long payload is coming, which a read may put into its ``room``.

        Then tell :meth:`feed` so.
        """
        codec = self._codec
        return codec if codec is not None and codec.room is not None and codec.missing >= _LONG else None

    def feed(self, data: bytearray, end: int, now: float, inside: int = 0) -> None:
        """``inside`` bytes came into the codec's room, then ``end`` into a read buffer, which may be changed."""
        if end or inside:
            self.keepalive.last_heard = now
        codec = self._codec
        if not self._parsing or codec is None:
            return
        self._bytes_in += inside + end
        messages = self.inbox.messages
        before = len(messages)
        # Where the peer cannot be held back, messages that find no room are dropped.
        full = self._must_read() and self._full()
        try:
            if inside:
                codec.read(inside, messages)
            if end or codec.has_unparsed:
                codec.feed(data, end, messages)
        except PeerError as exc:
            # 10 ms later: what came before it may still be answered, even by a client that
            # has not got hold of its WebSocket yet, because all of it came with the 101.
            # Autobahn calls only that strict (3.2-3.4, 4.*, 5.15).
            self._fault, self._state_deadline = exc, now + 0.01
            self._rearm()
        came = len(messages) - before
        if came and self._heartbeat:
            came -= self._take_heartbeats(messages, before)
        self.partial_size = codec.partial_size()
        if came:
            self.message_wanted = False
            self._messages_in += came
            self._active = now
            if full:
                self._dropped += came
                del messages[before:]
            else:
                self.inbox.count(before)
        if codec.controls:
            self._control(codec.controls, now)
        if not self.is_open or not self.inbox.messages:
            self._judge(now)

    def _control(self, controls: list[Control], now: float) -> None:
        for control in controls:
            if isinstance(control, Ping):
                self._answer(control.payload)
            elif isinstance(control, Pong):
                self.keepalive.pong_received(control.payload, now)
            else:
                self.received = control
                behind = self.is_open and self._handler_busy() and not self._is_told_to_return(control)
                self._cue(Cue.CLOSE_BEHIND if behind else _THEY_CLOSE, now, _PEER_CLOSED)
        controls.clear()

    def _handler_busy(self) -> bool:
        """Whether the application has a message to take, or has not come back from one that it took."""
        if self.inbox.messages:
            return True
        return self.receiver is not None and self.messages_consumed() > 0 and not self.receiver.is_waiting()

    def _is_told_to_return(self, close: Close) -> bool:
        """Whether a server says to come back elsewhere or later, as one does that stops.

        It takes no message any more, so a client must not believe that its next question was sent.
        """
        return self.client and close.code is not None and describe(close.code).retry is Retry.NOW

    def handled(self, now: float) -> None:
        """The application waits for a message, and there is none: a Close of the peer is answered now."""
        self._cue(Cue.HANDLED, now)

    def _take_heartbeats(self, messages: list[str | bytes | None], before: int) -> int:
        """Answer the page's questions among the new messages, and take them out: how many there were."""
        rest = [message for message in messages[before:] if message != QUESTION]
        count = len(messages) - before - len(rest)
        if count:
            messages[before:] = rest
            # One answer is as good as many; and where the peer takes nothing, none is needed:
            # what is queued proves as much once it moves. So a page that asks without
            # reading costs nothing.
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
            # A client may end its side after the request ("nc -N") and still wait for the answer.
            self._eof = True
        else:
            self._cue(_EOF, now, _PEER_VANISHED)

    def broken(self, exc: BaseException, now: float) -> None:
        """A write failed. Nothing more can leave, but what is left to read decides the ending.

        A page that reloads sends Close 1001 and drops TCP; a server that is writing
        at that moment sees its write fail first. So the driver reads on, to ``eof``
        or ``lost``.
        """
        self._write_error = exc
        self.outbox.stuck_at = NEVER
        self._rearm()

    def wants_write(self) -> bool:
        """Whether the outbox has something that could still leave."""
        return self.outbox.size > 0 and self._write_error is None

    def lost(self, exc: BaseException, now: float, tls: bool = False) -> None:
        """TCP failed with ``exc``, or ``tls`` did."""
        self._cue(Cue.LOST, now, cause_of(exc, tls), exc)

    def sent(self, count: int, now: float) -> None:
        """The system took ``count`` bytes of the outbox; none, if it could take none."""
        stuck_at = self.outbox.stuck_at
        if self.outbox.take(count, now):
            self.keepalive.last_heard = now
        if self.state is _LINGERING:
            self._left(count, now)
        if self._pong is not None and self.outbox.size <= self.options.write_limit:
            self._answer(self._pong)
        if self.outbox.stuck_at != stuck_at:
            self._rearm()

    def _left(self, count: int, now: float) -> None:
        """``count`` bytes have left while TCP is waited for."""
        if self._eof and not self.outbox.size:
            self._cue(_EOF, now, _PEER_VANISHED)
        elif self._codec is None:
            if count:
                # An HTTP answer may take as long as its reader needs, if only it moves.
                self._arm(now)
                self._rearm()
        elif (self._eof and count) or (self._tell_at == NEVER and (self._eof or not self.outbox.size)):
            # Our Close has left. With a FIN that came before it, there is nothing to learn any more but
            # whether the peer still takes the answers.
            self._tell_at = now + self.options.linger_timeout
            self._rearm()

    def tick(self, now: float, confirmed: float | None = None) -> None:
        """The time is ``now``.

        ``confirmed`` is when the peer's system last acknowledged something: of a peer that
        is not read from nothing else can be known.
        """
        due = self.deadline
        self._judge(now)
        if confirmed is not None:
            self.keepalive.last_heard = max(self.keepalive.last_heard, confirmed)
        if now - due > LATE:
            self.stalled(due, now - due, now)
        if self.state is _OPEN:
            self._tick_open(now, not_reading=confirmed is None and not self.wants_read())
        elif now >= self._state_deadline:
            self._cue(Cue.TIME_UP, now, Cause.HANDSHAKE_FAILED)
        elif now >= self._tell_at:
            self._cue(_EOF if self._eof else Cue.TIME_UP if self.client else Cue.LINGERED, now)
        self._rearm()

    def has_partial_message(self) -> bool:
        """Whether a message has begun to come, but not all of it has."""
        return self._codec is not None and self._codec.has_partial_message()

    def has_sent(self) -> bool:
        """Whether the application has ever sent a message."""
        return self._messages_out > 0

    def messages_consumed(self) -> int:
        """How many messages the application has taken."""
        return self._messages_in - self._dropped - len(self.inbox)

    def stalled(self, since: float, seconds: float, now: float) -> None:
        """Our own side stood still for ``seconds``, from ``since`` on: the loop, the process, the machine.

        Nobody is judged by a time that we have let run down: as far as our clock went on
        meanwhile, it does not count. A client asks at once whether the peer is still there. A
        server's pings go out as they are due, or it would send them all in one moment.
        """
        if since < self._stalled_until:  # two clocks were late by the same standstill
            seconds -= self._stalled_until - since
            since = self._stalled_until
        if seconds <= LATE or self.ended:
            return
        if self.keepalive.last_heard > self._stalled_since:
            self._stalled_for = 0.0
        self._stalled_since, self._stalled_until = since, now
        self._stalled_for += seconds
        self._state_deadline += now - since
        self._tell_at += now - since
        self.outbox.stuck_at += now - since
        if self.keepalive.stalled(now - since) and self.client:
            self.keepalive.probe(now)
            self.keepalive.last_payload = self.ping(None, now)
        self._rearm()

    # -- what the application wants -------------------------------------------

    def send(self, message: str | Buffer, now: float) -> bool:
        """Queue a message. False: the connection is not open, and nothing was queued.

        Raises TypeError for anything that is no message, and Unsupported for bytes where
        there is only text.
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
        self._active = now
        return True

    def takes_binary(self) -> bool:
        """Whether the protocol has binary messages, as all but the oldest have."""
        codec = self._codec
        return codec is None or codec.has_binary

    def share(self, message: str | Buffer, frames: dict[object, bytes], now: float) -> bytes | None:
        """The frame of a message for many, which is not queued yet; None: the connection is not open.

        ``frames`` goes from one connection to the next, with what others can use. Raises as
        :meth:`send` does.
        """
        codec = self._codec
        if not self.is_open or codec is None:
            return None
        frame = None if codec.alike is None else frames.get(codec.alike)
        if frame is None:
            frame = codec.message(message)
            if codec.alike is not None:
                frames[codec.alike] = frame
        self._messages_out += 1
        self._active = now
        return frame

    def ping(self, payload: bytes | None, now: float) -> bytes | None:
        """Queue a ping; its payload, which ``answered`` will name, or None if not open.

        Raises ValueError for a payload over 125 bytes, or one that is still unanswered,
        and Unsupported where there are no pings.
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
        """Begin to close. Without effect if that has begun already.

        Raises ValueError for a code or reason that may not be sent; then nothing changed.
        """
        close_payload(code, reason)
        self._close = self._close or Close(code, reason)
        self._cue(_WE_CLOSE, now, cause)

    # -- the ending -----------------------------------------------------------

    @property
    def ending(self) -> Ending | None:
        """How it ended, computed at the first look after the end; before it, None."""
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
                tcp=tcp_end_of(*self._last) if self.connected else TcpEnd.NONE,
                exception=self._exception,
                opened_at=self._opened_at,
                duration=self._ended - self._began,
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
        """Look the row up and go there: the only place that assigns the state."""
        self._judge(now)
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
            self._ended = now
            self._last = cue, exception
            self._tell_at = NEVER
            if not self.ended:
                # Made now: TCP goes on, and nothing of that belongs to it.
                self._ending = self.ending
        if self.ended:
            self._parsing = False
            self._state_deadline = NEVER
            self.receiver = None
        self._rearm()
        if self.state is _LINGERING:
            self._left(0, now)

    def _judge(self, now: float) -> None:
        """Fail the connection if the peer broke a rule; comes before any other cue."""
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
            # The end of TCP has to say it: where there is no Close, in either role.
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
        self.opened = self._active = now
        if self._codec is not None and self._codec.has_pings:
            self.keepalive.start(now)

    def _cut(self, now: float) -> None:
        self.abort = True

    # -- time -----------------------------------------------------------------

    def _tick_open(self, now: float, not_reading: bool) -> None:
        options = self.options
        if now >= self.outbox.stuck_at:
            self._end_for(Cause.WRITE_TIMEOUT, Cue.STUCK, now)
        elif now >= self._expires:
            reason = Cause.LIFETIME_REACHED.meaning if self.client else _COME_BACK
            self._end_for(Cause.LIFETIME_REACHED, Cue.WE_CLOSE, now, reason)
        elif now >= after(self._active, options.idle_timeout):
            self._end_for(Cause.IDLE_TIMEOUT, Cue.WE_CLOSE, now)
        else:
            verdict = self.keepalive.tick(now, not_reading)
            if verdict is Verdict.PING:
                self.keepalive.last_payload = self.ping(None, now)
            elif verdict is Verdict.SILENT:
                self._end_for(Cause.KEEPALIVE_TIMEOUT, Cue.SILENT, now)

    def _end_for(self, cause: Cause, cue: Cue, now: float, reason: str = "") -> None:
        self._close = Close(cause.close_code, reason or cause.meaning)
        self._cue(cue, now, cause)

    def _rearm(self) -> None:
        """Bring ``deadline`` up to date with everything that waits for a time."""
        if self.state is _OPEN:
            self.deadline = min(
                self._state_deadline,
                self.keepalive.deadline,
                self.outbox.stuck_at,
                after(self._active, self.options.idle_timeout),
                self._expires,
            )
        else:
            self.deadline = min(self._state_deadline, self._tell_at)

    def _answer(self, payload: bytes) -> None:
        """Answer a ping, or remember it while the peer takes nothing.

        RFC 6455 §5.5.3: "If an endpoint receives a Ping frame and has not yet sent
        Pong frame(s) in response to previous Ping frame(s), the endpoint MAY elect
        to send a Pong frame for only the most recently processed Ping frame." So a
        peer that pings without reading costs one payload.
        """
        if not self.is_open or self._codec is None:
            return
        if self.outbox.size > self.options.write_limit:
            self._pong = payload
        else:
            self._pong = None
            self.outbox.append(self._codec.pong(payload))


#: What each action of the closing table is here.
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
    Do.ABORT: Connection._cut,
}

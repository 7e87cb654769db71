"""One connection without I/O. Inputs are bytes and the time; outputs are messages, bytes and one deadline.

A driver reports events with ``receive``, ``eof``, ``broken``, ``lost``, ``gone``, ``tick`` and ``sent``. It
passes the application's calls to ``send``, ``ping`` and ``close``. After each call it reads these attributes:

- ``receiver``: the application; after each event the driver calls its ``deliver``;
- ``inbox``: messages for the application, the queue of the receiver;
- ``outbox``: bytes for the socket; the driver reports to ``sent`` how many were written;
- ``deadline``: when to call ``tick`` at the latest, or NEVER; it may become later without notice;
- ``wants_read()``: False while reading from the socket should pause; ``pauses()`` has the reasons. That is so
  while the inbox is full, and while ``AHEAD`` bytes have arrived that the application has not asked for. The
  receiver calls ``want_message`` when the application waits, for a message or for room to send, and
  ``partial_size`` is not 0;
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

from collections.abc import Mapping
from sys import maxsize
from typing import Any

from ..codes import Retry, describe
from ..ending import Cause, Close
from ..errors import PeerError, PolicyViolation
from ..options import Options
from ..wire.codec import MAX_MESSAGES, Buffer, Codec, Control, Ping, Pong
from ..wire.frames import TEXT
from ..wire.payload import total
from .closing import Closing, Cue, State
from .control import ControlChannel
from .deadline import LATE, NEVER, after
from .inbox import Inbox
from .limiter import Limiter
from .liveness import Verdict
from .pause import Pause
from .receiver import Receiver
from .record import Noted
from .recorder import Recorder

__all__ = ["AHEAD", "Connection"]

#: Bytes of messages, including an incomplete one, that are read before the application asks for more.
#: Precedent: HTTP/2's flow control counts bytes, not messages. A message of the default ``max_size`` fits, so
#: it is read even while the handler is busy.
AHEAD = 2**20
_AHEAD = AHEAD  # a C constant in the compiled module; other modules cannot import that
#: If at least this number of bytes is missing, reading directly into the payload's buffer is faster.
_DIRECT_READ = 16 * 1024
# Module globals, because Python 3.11 looks up an Enum member with a call.
_OPEN, _LINGERING = State.OPEN, State.LINGERING
_ACCEPTED, _THEY_CLOSE = Cue.ACCEPTED, Cue.THEY_CLOSE
_PEER_CLOSED = Cause.PEER_CLOSED
_NOTHING, _PING, _UNAUTHORIZED = Verdict.NOTHING, Verdict.PING, Verdict.UNAUTHORIZED
_NOTE_OPENED, _NOTE_PINGED = int(Noted.OPENED), int(Noted.PINGED)
_NOTE_PONG, _NOTE_PONGS = int(Noted.PONG), int(Noted.PONGS)
_NOTE_PING, _NOTE_PING_UNREAD = int(Noted.PING), int(Noted.PING_UNREAD)
_NOTE_DUE, _NOTE_DUE_UNREAD = int(Noted.DUE), int(Noted.DUE_UNREAD)
_NOTE_TICK, _NOTE_TICK_UNREAD = int(Noted.TICK), int(Noted.TICK_UNREAD)
_NOTE_STALLED = int(Noted.STALLED)
_NOTE_PEER_CLOSE, _NOTE_PEER_CLOSE_BEHIND = int(Noted.PEER_CLOSE), int(Noted.PEER_CLOSE_BEHIND)
_REQUEST, _DELIVERY, _EOF = int(Pause.REQUEST), int(Pause.DELIVERY), int(Pause.EOF)
_INBOX, _NOT_ASKED, _RATE = int(Pause.INBOX), int(Pause.AHEAD), int(Pause.RATE)


class Connection(Closing):
    """One side of a WebSocket connection. Times are seconds on a monotonic clock."""

    def __init__(self, client: bool, options: Options, now: float, opened_at: float = 0.0) -> None:
        self._init_closing(client, options, now, opened_at)
        # A message of the allowed size always fits into an empty inbox.
        self.inbox = Inbox(options.max_queue, options.max_size or maxsize)
        #: Bytes of the incomplete message, and whether the application waits for a message.
        self.partial_size, self.message_wanted = 0, False
        # The reasons to pause reading that were set from outside.
        self._paused = 0
        self._control: ControlChannel | None = None
        self._pong: bytes | None = None
        self._limiter: Limiter | None = None
        if client and options.recorder is not False:
            self._recorder = Recorder(now)

    # -- the opening handshake ------------------------------------------------

    def open(self, head: bytes) -> None:
        """Queue the head of the opening handshake: a client's request, a server's 101."""
        self.outbox.append(head)

    def accept(
        self, codec: Codec, now: float, control: ControlChannel | None = None, jitter: float = 0.0
    ) -> None:
        """The opening handshake succeeded. From now on ``codec`` parses and builds the frames.

        ``control``: the control channel that the peer has asked for, if it has. ``jitter``, in [0, 1),
        determines how much earlier than ``max_lifetime`` the connection ends.
        """
        self.limit_lifetime(now, jitter)
        self.outbox.bytes_sent = -self.outbox.size  # the ending does not count the heads
        self._codec = codec
        self._parsing = True
        self._paused &= ~_REQUEST
        if self.options.recorder is not False:
            self._begin_recording(now)
        self.cue(_ACCEPTED, now)
        if control is not None:
            self._control = control
            self._send_control(control.greetings())

    def _begin_recording(self, now: float) -> None:
        """Note the opening. A server records from here on: most of its requests do not become a WebSocket."""
        recorder = self._recorder
        if recorder is None:
            recorder = self._recorder = Recorder(now)
            if self._stalled_for:
                self._note(_NOTE_STALLED, self._stalled_until)
                self._add_stall(self._stalled_since, self._stalled_for)
        # The bytes count from here on.
        recorder.count_from(0, 0, 0, 0)
        self._note(_NOTE_OPENED, now)

    def _add_stall(self, since: float, seconds: float) -> None:
        """Add a stall to the cue, and the stalls before."""
        recorder = self._recorder
        assert recorder is not None
        for time in (since, seconds, self._stalled_since, self._stalled_until, self._stalled_for):
            recorder.add_float(time)

    def use(self, options: Options) -> None:
        """Server, before :meth:`accept`: the route's options, which differ in what is negotiated and in ``max_size``."""
        self.options = options
        self.inbox = Inbox(options.max_queue, options.max_size or maxsize)

    def limit(self, limiter: Limiter) -> None:
        """Server, before :meth:`accept`: limit the rate of messages."""
        self._limiter = limiter

    def requested(self) -> None:
        """Server: the request is complete. The application limits the time of its answer: no deadline."""
        self._state_deadline = NEVER
        self.rearm()

    def limit_request(self, until: float) -> None:
        """Server, before the answer has ended: abort the connection at ``until``."""
        self._state_deadline = until
        self.rearm()

    def next_request(self, now: float, opened_at: float) -> None:
        """Server: the first bytes of another request on this connection have arrived."""
        self._began_at, self._opened_at = now, opened_at
        self.limit_request(after(now, self.options.open_timeout))

    def refuse(self, response: bytes, now: float, exc: BaseException | None = None) -> None:
        """Server: answer the opening request with ``response``, then end TCP.

        ``exc`` names the rule that the request broke; None if it broke none.
        """
        self._paused &= ~_REQUEST
        if response:
            self.outbox.append(response)
        self.cue(Cue.REFUSED if exc is None else Cue.THEY_ERR, now, Cause.HANDSHAKE_REJECTED, exc)

    # -- events from the driver -----------------------------------------------

    def wants_read(self) -> bool:
        """Whether the driver should read from the socket."""
        return not self.pauses()

    def pauses(self) -> int:
        """The reasons for which reading is paused, as bits of :class:`Pause`; 0 if it is not.

        Only an open connection pauses reading for its application. A full inbox must not block the closing
        handshake, nor keep the driver from reading the data that is left after a failed write.
        """
        if self._eof:
            return _EOF
        if self._must_read():
            return self._paused & _REQUEST
        if self.inbox.is_full():
            return self._paused | _INBOX
        if self.inbox.size + self.partial_size >= _AHEAD and not self.message_wanted:
            return self._paused | _NOT_ASKED
        return self._paused

    def pause(self, reason: int) -> None:
        """Pause reading for ``reason``, a :class:`Pause`, until :meth:`resume`."""
        self._paused |= int(reason)

    def resume(self, reason: int) -> None:
        """End a pause."""
        self._paused &= ~int(reason)

    def deliver_to(self, receiver: Receiver) -> None:
        """Deliver messages to ``receiver``: the unread ones now, the others when they come."""
        unread, self.inbox, self.receiver = self.inbox, receiver.inbox, receiver
        if unread is not self.inbox:
            self.inbox.messages.extend(unread)
            self.inbox.count(0)

    def has_unparsed(self) -> bool:
        """Whether received bytes are not parsed yet."""
        codec = self._codec
        return self._parsing and codec is not None and codec.has_unparsed

    def _must_read(self) -> bool:
        return not self._parsing or not self.is_open or self._write_error is not None

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
            self.last_heard = now
        codec = self._codec
        if not self._parsing or codec is None:
            return
        self.bytes_in += inside + end
        messages = self.inbox.messages
        before = len(messages)
        # While reading cannot pause, messages that do not fit into the inbox are dropped.
        full = self._must_read() and (self._paused & _DELIVERY or self.inbox.is_full())
        limiter = self._limiter
        if limiter is not None:
            codec.max_messages = limiter.room(now) if self.is_open else MAX_MESSAGES
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
            self.rearm()
        if self._control is not None and len(messages) > before:
            self._take_control(self._control, messages, before)
        arrived = len(messages) - before
        self.partial_size = codec.partial_size()
        if limiter is not None and self.is_open:
            size = total(messages, before) if limiter.counts_bytes else 0
            if not limiter.passes(arrived, size, now):
                self._admit(messages, before, now)
        if arrived:
            self.message_wanted = self.message_wanted and len(messages) == before
            self.messages_in += arrived
            self.last_message_at = self._last_received_at = now
            if full:
                self.dropped_messages += arrived
                del messages[before:]
            else:
                self.inbox.count(before)
        if codec.controls:
            self._handle_controls(codec.controls, now)
        if self._fault is not None and (not self.is_open or not self.inbox.waiting()):
            self.fail_on_fault(now)

    def _admit(self, messages: list[str | bytes | None], first: int, now: float) -> None:
        """Apply the rate limits to the messages from index ``first`` on."""
        limiter, arrived = self._limiter, len(messages)
        assert limiter is not None
        if limiter.closing is not None:
            del messages[first:]
        else:
            limiter.admit(messages, first, now)
            if limiter.paused_until:
                self._paused |= _RATE
                self._resume_at = limiter.paused_until
                self.rearm()
            if limiter.closing is not None and self._fault is None:
                self._fault, self._state_deadline = PolicyViolation(limiter.reason(now)), now + 0.01
                self.rearm()
        self.dropped_messages += arrived - len(messages)

    def _handle_controls(self, controls: list[Control], now: float) -> None:
        for control in controls:
            if isinstance(control, Ping):
                self._answer_ping(control.payload)
            elif isinstance(control, Pong):
                if self._recorder is not None:
                    self._note_pong(control.payload, now)
                self.pong_received(control.payload, now)
            else:
                self.received = control
                behind = self.is_open and self._handler_busy() and not self._says_reconnect(control)
                if self._recorder is not None:
                    self._note(_NOTE_PEER_CLOSE_BEHIND if behind else _NOTE_PEER_CLOSE, now)
                self.cue(Cue.CLOSE_BEHIND if behind else _THEY_CLOSE, now, _PEER_CLOSED)
        controls.clear()

    def _note_pong(self, payload: bytes, now: float) -> None:
        """Note a pong, with the number of pings that it answers."""
        unanswered = self._unanswered
        if unanswered is None or payload not in unanswered:
            return
        count = list(unanswered).index(payload) + 1
        if count == 1:
            self._note_event(_NOTE_PONG, now)
        elif self._note_event(_NOTE_PONGS, now):
            assert self._recorder is not None
            self._recorder.add(count)

    def _handler_busy(self) -> bool:
        """Whether a message is unread, or the application is still handling a message that it has read."""
        if self.inbox.waiting():
            return True
        return self.receiver is not None and self.messages_consumed() > 0 and not self.receiver.is_waiting()

    def _says_reconnect(self, close: Close) -> bool:
        """Client: whether the server's Close says to reconnect, as the Close of a server that stops does.

        Such a server reads no more messages, so the client's application must not be able to send one.
        """
        return self.client and close.code is not None and describe(close.code).retry is Retry.NOW

    def _take_control(self, control: ControlChannel, messages: list[str | bytes | None], first: int) -> None:
        """Remove the messages of the control channel from index ``first`` on, and answer them."""
        answers = control.take(messages, first)
        # If the outbox is full, no answer is needed: the queued data proves the same once it is sent. So a
        # peer that asks without reading uses no memory.
        if self.is_open and self.outbox.size <= self.options.write_limit:
            self._send_control(answers)

    def _send_control(self, messages: list[str]) -> None:
        """Send messages of the control channel, which are not counted, and not compressed: see :meth:`say`."""
        codec = self._codec
        assert codec is not None
        for message in messages:
            # hixie-75 and -76 have no compression.
            frame = codec.control(TEXT, message.encode()) if codec.has_binary else codec.message(message)
            self.outbox.append(frame)

    def sent(self, count: int, now: float) -> None:
        """The kernel accepted ``count`` bytes of the outbox; 0 if its send buffer was full."""
        stuck_at = self.outbox.stuck_at
        # The last write before an abort changes no ending: a replay knows nothing of what came later.
        if self.outbox.consume(count, now) and not self.over:
            self.last_heard = now
        if self.state is _LINGERING:
            self.sent_in_lingering(count, now)
        if self._pong is not None and self.outbox.size <= self.options.write_limit:
            self._answer_ping(self._pong)
        if self.outbox.stuck_at != stuck_at:
            self.rearm()

    def tick(self, now: float, confirmed: float | None = None) -> None:
        """Handle every deadline that has passed at ``now``.

        ``confirmed`` is when the peer's kernel last acknowledged data, if reading has paused since the last
        call. While it pauses, that is the only sign that the peer is alive.
        """
        due = self.deadline
        self.fail_on_fault(now)
        if confirmed is not None:
            self.last_heard = max(self.last_heard, confirmed)
        if now - due > LATE:
            self.stalled(due, now - due, now)
        if now >= self._resume_at:
            self._resume_at = NEVER
            self._paused &= ~_RATE
        if self.state is _OPEN:
            reading = self.wants_read()
            if confirmed is not None or not reading:  # no message could come
                self._last_received_at = now
            reprobed = self._reprobed
            verdict = self.check(now, confirmed is None and not reading)
            if self._recorder is not None and (verdict is not _NOTHING or reprobed):
                self._note_tick(verdict, confirmed is None and not reading, now)
            if verdict is _PING:
                self.last_payload = self._queue_ping(None, now)
            elif verdict is not _NOTHING:
                if verdict is _UNAUTHORIZED:
                    self.pause(_DELIVERY)  # what comes from now on is not authorized
                self.end_for(verdict, now)
        else:
            self.time_up(now)
        self.rearm()

    def _note_tick(self, verdict: Verdict, unread: bool, now: float) -> None:
        """Note a deadline that had an effect. Without one, a tick changes nothing that a later one does not change."""
        if verdict is _PING:
            self._note(_NOTE_PING_UNREAD if unread else _NOTE_PING, now)
        elif verdict is _NOTHING:
            self._note(_NOTE_TICK_UNREAD if unread else _NOTE_TICK, now)
        elif self._note(_NOTE_DUE_UNREAD if unread else _NOTE_DUE, now):
            assert self._recorder is not None
            self._recorder.add_float(self.last_message_at)
            self._recorder.add_float(self._last_received_at)
            self._recorder.add_float(self._lifetime_ends_at)
            self._recorder.add_float(self._authorized_until)

    def has_partial_message(self) -> bool:
        """Whether a message is received in part."""
        return self._codec is not None and self._codec.has_partial_message()

    def has_sent(self) -> bool:
        """Whether the application has ever sent a message."""
        return self.messages_out > 0

    def messages_consumed(self) -> int:
        """The number of messages that the application has read."""
        return self.messages_in - self.dropped_messages - len(self.inbox)

    def stalled(self, since: float, seconds: float, now: float) -> None:
        """The loop, the process or the machine was stalled for ``seconds``, from ``since`` on.

        Time during which this process was stalled does not count against the peer: all deadlines move by that
        amount. A client sends a ping immediately, to find out whether the peer is still there. A server sends
        its pings when they are due, because otherwise it would send the pings of all connections at once.
        """
        if self._recorder is not None and seconds > LATE and self._note_event(_NOTE_STALLED, now):
            self._add_stall(since, seconds)
        if not self.ended and self.shift(since, seconds, now) and self.client:
            self.probe(now)
            self.last_payload = self._queue_ping(None, now)

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
        self.messages_out += 1
        self.last_message_at = now
        return True

    def say(self, message: str) -> None:
        """Queue a message of the control channel, if the connection is open. It is not counted and not compressed.

        A secret that is compressed together with other messages can be guessed from their size (CRIME).
        """
        if self.is_open and self._codec is not None:
            self.outbox.append(self._codec.control(TEXT, message.encode()))

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
        self.messages_out += 1
        self.last_message_at = now
        return frame

    def share_all(self, messages: list[str | bytes], frames: dict[object, bytes], now: float) -> bytes | None:
        """:meth:`share` for several messages: their frames together."""
        codec = self._codec
        if not self.is_open or codec is None:
            return None
        together = None if codec.share_key is None else frames.get(codec.share_key)
        if together is None:
            if len(messages) == 1:
                together = codec.message(messages[0])
            else:
                together = b"".join([codec.message(message) for message in messages])
            if codec.share_key is not None:
                frames[codec.share_key] = together
        self.messages_out += len(messages)
        self.last_message_at = now
        return together

    def ping(self, payload: bytes | None, now: float) -> bytes | None:
        """Queue a ping. Returns its payload, by which ``answered`` names it; None if not open.

        Raises ValueError for a payload above 125 bytes, or one of an unanswered ping, and
        UnsupportedByProtocol if the protocol has no pings.
        """
        queued = self._queue_ping(payload, now)
        if self._recorder is not None and queued is not None:
            self._note_event(_NOTE_PINGED, now)
        return queued

    def _queue_ping(self, payload: bytes | None, now: float) -> bytes | None:
        if self._codec is None:
            return None
        if not self.is_open:
            if payload is not None and self._codec.has_pings:
                self._codec.ping(payload)  # an application's mistake raises at any time
            return None
        payload = self.new_payload() if payload is None else payload
        frame = self._codec.ping(payload)
        self.ping_sent(payload, now)
        self.outbox.append(frame)
        return payload

    def restore(self, values: Mapping[str, Any]) -> None:
        """Replay: set what messages have left, which are not replayed one by one."""
        get = values.get
        self.messages_in = get("messages_in", self.messages_in)
        self.messages_out = get("messages_out", self.messages_out)
        self.bytes_in = get("bytes_in", self.bytes_in)
        self.dropped_messages = get("dropped_messages", self.dropped_messages)
        self.outbox.bytes_sent = get("bytes_out", self.outbox.bytes_sent)
        self.outbox.size = get("unsent", self.outbox.size)
        self.outbox.stuck_at = get("stuck_at", self.outbox.stuck_at)
        self.last_heard = get("heard", self.last_heard)
        self.last_message_at = get("last_message_at", self.last_message_at)
        self._last_received_at = get("last_received_at", self._last_received_at)
        self._stalled_since = get("stalled_since", self._stalled_since)
        self._stalled_until = get("stalled_until", self._stalled_until)
        self._stalled_for = get("stalled_for", self._stalled_for)
        self._report_at = get("report_at", self._report_at)
        self.latency = get("latency", self.latency)
        if "last_ping" in values:  # the cues since then are not in the record
            self.last_ping, self._awaiting = values["last_ping"], True
        self._lifetime_ends_at = get("expires", self._lifetime_ends_at)
        self._authorized_until = get("authorized_until", self._authorized_until)
        self._expires_at = min(self._lifetime_ends_at, self._authorized_until)

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

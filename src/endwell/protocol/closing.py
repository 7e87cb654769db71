"""The states of a connection, their transitions in one table, and the machine that makes them.

Rules of this file:

1. `TABLE` has every transition. `Closing.cue()` looks the rows up; it is the only function that assigns the
   state.
2. Each pair of a state and a cue is in `TABLE` or in `IGNORED`.
3. The *first* closing cue determines the cause and the initiator of the ending.

The server ends TCP first, so only it half-closes (``FIN``). RFC 6455 §7.1.1:
"the underlying TCP connection, in most normal cases, SHOULD be closed first by
the server, so that it holds the TIME_WAIT state and not the client".

A received Close is handled after the messages that arrived before it (`ANSWERING`). RFC 6455 §5.5.1: "An
endpoint MAY delay sending a Close frame until its current message is sent".
"""

# size: the table and its machine; more than half of it is the table.
from __future__ import annotations

import errno
from enum import Enum
from itertools import product
from typing import Any

from ..advice import RetryAdvice
from ..codes import CloseCode
from ..ending import Cause, Close, Ending, Initiator, TcpEnd, code_of
from ..errors import PeerError
from ..options import Options
from ..wire.codec import Codec
from .deadline import NEVER
from .liveness import Liveness, Verdict
from .receiver import Receiver
from .record import Noted, Record
from .recorder import Recorder

__all__ = [
    "ERROR_KINDS",
    "IGNORED",
    "RECORDED_OPTIONS",
    "TABLE",
    "Closing",
    "Cue",
    "Do",
    "Row",
    "State",
    "WindowClosed",
    "cause_of",
    "tcp_end_of",
]


class _IdentityEnum(Enum):
    """The base of the table's enums. It hashes by identity; Enum's own hash is a Python call per lookup."""

    __hash__ = object.__hash__


class State(_IdentityEnum):
    """The state of a connection."""

    OPENING = "the opening handshake is in progress"
    OPEN = "messages can be sent and received"
    ANSWERING = "a Close was received; the application handles the messages before it, and may still send"
    CLOSING = "the local Close is sent, the peer's Close is awaited"
    LINGERING = "nothing more will be sent; the end of TCP is awaited"
    DISCARDING = "the ending is reported; a server reads and discards data until TCP ends"
    ENDED = "the connection has ended"


class Cue(_IdentityEnum):
    """An event that can change the state."""

    ACCEPTED = "the opening handshake succeeded"
    REFUSED = "the server answers the opening request with an HTTP status"
    WE_CLOSE = "the local application or this library closes the connection"
    THEY_CLOSE = "a Close was received, and no message before it is unread or being handled"
    CLOSE_BEHIND = "a Close was received after messages that are unread or being handled"
    HANDLED = "the application asks for the next message, and there is none"
    THEY_ERR = "the peer broke a rule of the protocol"
    SILENT = "a ping was not answered"
    STUCK = "the peer accepts no data"
    TIME_UP = "the deadline of this state passed; for a client in LINGERING, also linger_timeout"
    LINGERED = "server: linger_timeout passed since everything was sent, and TCP has not ended"
    EOF = "the peer ended TCP (FIN)"
    LOST = "TCP or TLS failed (RST and others)"
    GONE = "TCP has ended, and the driver does not know how"


class Do(_IdentityEnum):
    """An action of a transition."""

    SEND_CLOSE = "queue the local Close"
    ECHO_CLOSE = "queue a Close with the peer's code"
    STOP_PARSING = "discard all data that is read from now on"
    FIN = "server: half-close TCP once everything queued is sent"
    HOLD_EOF = "handle the peer's FIN later: once the answers are sent, or once the peer has accepted none of them for linger_timeout"
    ARM = "set the deadline of this state to close_timeout"
    ARM_ANSWER = "set the deadline of this state to answer_timeout"
    DISARM = "remove the deadline"
    LIVENESS = "start to send pings and to watch the limits of an open connection"
    ABORT = "abort the connection without waiting"


class Row:
    """A transition: the next state, and the actions on the way there."""

    __slots__ = ("do", "state")

    def __init__(self, state: State, do: tuple[Do, ...]) -> None:
        self.state = state
        self.do = do


_ANSWERED = Row(State.LINGERING, (Do.FIN, Do.ARM))
_DONE = Row(State.LINGERING, (Do.STOP_PARSING, Do.FIN, Do.ARM))
_ECHOED = Row(State.LINGERING, (Do.ECHO_CLOSE, Do.FIN, Do.ARM))
_CUT = Row(State.ENDED, (Do.ABORT,))
# A peer that seems dead gets a Close only if the send buffer has room for it: one attempt, no waiting.
_CUT_WITH_CLOSE = Row(State.ENDED, (Do.SEND_CLOSE, Do.ABORT))
_GONE = Row(State.ENDED, ())

# fmt: off
TABLE: dict[tuple[State, Cue], Row] = {
    (State.OPENING,   Cue.ACCEPTED):   Row(State.OPEN, (Do.DISARM, Do.LIVENESS)),
    (State.OPENING,   Cue.REFUSED):    _ANSWERED,
    (State.OPENING,   Cue.THEY_ERR):   _ANSWERED,
    (State.OPENING,   Cue.WE_CLOSE):   _CUT,
    (State.OPENING,   Cue.TIME_UP):    _CUT,
    (State.OPENING,   Cue.EOF):        _CUT,
    (State.OPENING,   Cue.LOST):       _CUT,
    (State.OPENING,   Cue.GONE):       _CUT,

    (State.OPEN,      Cue.WE_CLOSE):   Row(State.CLOSING, (Do.SEND_CLOSE, Do.ARM)),
    # RFC 6455 §5.5.1: "If an endpoint receives a Close frame and did not
    # previously send a Close frame, the endpoint MUST send a Close frame in response."
    (State.OPEN,      Cue.THEY_CLOSE): Row(State.LINGERING, (Do.ECHO_CLOSE, Do.STOP_PARSING, Do.FIN, Do.ARM)),
    (State.OPEN,      Cue.CLOSE_BEHIND): Row(State.ANSWERING, (Do.STOP_PARSING, Do.ARM_ANSWER)),
    # RFC 6455 §7.1.7, _Fail the WebSocket Connection_: "SHOULD send a Close
    # frame with an appropriate status code before proceeding to _Close the
    # WebSocket Connection_. (...) MUST NOT continue to attempt to process data".
    (State.OPEN,      Cue.THEY_ERR):   Row(State.LINGERING, (Do.SEND_CLOSE, Do.STOP_PARSING, Do.FIN, Do.ARM)),
    # No close_timeout for a peer that seems dead.
    (State.OPEN,      Cue.SILENT):     _CUT_WITH_CLOSE,
    (State.OPEN,      Cue.STUCK):      _CUT_WITH_CLOSE,
    (State.OPEN,      Cue.EOF):        _GONE,
    (State.OPEN,      Cue.LOST):       _GONE,
    (State.OPEN,      Cue.GONE):       _GONE,

    (State.ANSWERING, Cue.HANDLED):    _ECHOED,
    (State.ANSWERING, Cue.WE_CLOSE):   _ECHOED,
    (State.ANSWERING, Cue.TIME_UP):    _ECHOED,
    # The peer may have half-closed TCP, and may still read the answers.
    (State.ANSWERING, Cue.EOF):        Row(State.ANSWERING, (Do.HOLD_EOF,)),
    (State.ANSWERING, Cue.LOST):       _GONE,
    (State.ANSWERING, Cue.GONE):       _GONE,

    (State.CLOSING,   Cue.THEY_CLOSE): _DONE,
    (State.CLOSING,   Cue.THEY_ERR):   _DONE,
    (State.CLOSING,   Cue.TIME_UP):    _CUT,
    (State.CLOSING,   Cue.EOF):        _CUT,
    (State.CLOSING,   Cue.LOST):       _CUT,
    (State.CLOSING,   Cue.GONE):       _CUT,

    (State.LINGERING, Cue.EOF):        _GONE,
    (State.LINGERING, Cue.TIME_UP):    _CUT,
    (State.LINGERING, Cue.LOST):       _CUT,
    (State.LINGERING, Cue.GONE):       _GONE,
    (State.LINGERING, Cue.LINGERED):   Row(State.DISCARDING, ()),

    # The deadline of LINGERING stays: close_timeout covers both states together.
    (State.DISCARDING, Cue.EOF):       _GONE,
    (State.DISCARDING, Cue.TIME_UP):   _CUT,
    (State.DISCARDING, Cue.LOST):      _CUT,
    (State.DISCARDING, Cue.GONE):       _GONE,
}
# fmt: on

#: These cues matter only while a received Close is waiting to be answered, or while TCP is lingering.
_DELAYED_CUES = [Cue.CLOSE_BEHIND, Cue.HANDLED, Cue.LINGERED]
_HANDSHAKE_CUES = [Cue.ACCEPTED, Cue.REFUSED]
_PEER_CUES = [Cue.THEY_CLOSE, Cue.THEY_ERR, Cue.SILENT, Cue.STUCK]

#: Pairs that have no effect: a second close, the deadline of another state, any cue after the end.
IGNORED: frozenset[tuple[State, Cue]] = frozenset(
    {
        *product([State.OPENING], [Cue.THEY_CLOSE, Cue.SILENT, Cue.STUCK, *_DELAYED_CUES]),
        *product([State.OPEN], [Cue.ACCEPTED, Cue.REFUSED, Cue.TIME_UP, Cue.HANDLED, Cue.LINGERED]),
        *product([State.ANSWERING], [*_HANDSHAKE_CUES, *_PEER_CUES, Cue.CLOSE_BEHIND, Cue.LINGERED]),
        *product([State.CLOSING], [*_HANDSHAKE_CUES, Cue.WE_CLOSE, Cue.SILENT, Cue.STUCK, *_DELAYED_CUES]),
        *product(
            [State.LINGERING], [*_HANDSHAKE_CUES, *_PEER_CUES, Cue.WE_CLOSE, Cue.CLOSE_BEHIND, Cue.HANDLED]
        ),
        *product([State.DISCARDING], [*_HANDSHAKE_CUES, *_PEER_CUES, Cue.WE_CLOSE, *_DELAYED_CUES]),
        *product([State.ENDED], Cue),
    }
)


class WindowClosed(TimeoutError):
    """The peer's kernel answers window probes, but has accepted no data for too long."""


def cause_of(exc: BaseException, tls: bool) -> Cause:
    """The cause of the ending for an error of the operating system, or of TLS."""
    if isinstance(exc, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return Cause.CONNECTION_RESET
    if isinstance(exc, WindowClosed):
        return Cause.WRITE_TIMEOUT
    return Cause.TLS_ERROR if tls else Cause.NETWORK_ERROR


def tcp_end_of(cue: Cue, exc: BaseException | None) -> TcpEnd:
    """How TCP ended, from the last cue and the error that came with it."""
    if cue is Cue.EOF:
        return TcpEnd.FIN
    if cue is Cue.GONE:
        return TcpEnd.UNKNOWN
    if cue is Cue.LINGERED:
        return TcpEnd.OPEN
    if cue is not Cue.LOST:
        return TcpEnd.TIMEOUT if cue is Cue.TIME_UP else TcpEnd.ABORTED
    if isinstance(exc, ConnectionAbortedError):
        return TcpEnd.ABORTED
    if isinstance(exc, ConnectionResetError | BrokenPipeError):
        return TcpEnd.RST
    if isinstance(exc, OSError) and exc.errno == errno.ETIMEDOUT:
        return TcpEnd.TIMEOUT
    return TcpEnd.ERROR


#: The kinds of errors that determine the cause and the end of TCP, the first that fits.
ERROR_KINDS: dict[str, type[BaseException]] = {
    "peer": PeerError,
    "aborted": ConnectionAbortedError,
    "reset": ConnectionResetError,
    "pipe": BrokenPipeError,
    "window": WindowClosed,
    "os": OSError,
    "other": BaseException,
}
#: The options that the closing and the liveness of a connection use.
RECORDED_OPTIONS = (
    "open_timeout",
    "close_timeout",
    "answer_timeout",
    "linger_timeout",
    "ping_interval",
    "ping_timeout",
    "write_timeout",
    "idle_timeout",
    "stale_after",
)


def _kind_of(exc: BaseException | None) -> list[Any] | None:
    """What a record has of an error: its kind, the cause of a PeerError, whether the system says ETIMEDOUT."""
    if exc is None:
        return None
    kind = next(name for name, base in ERROR_KINDS.items() if isinstance(exc, base))
    return [
        kind,
        exc.cause.value if isinstance(exc, PeerError) else None,
        isinstance(exc, OSError) and exc.errno == errno.ETIMEDOUT,
    ]


# Module globals, because Python 3.11 looks up an Enum member with a call.
_OPENING, _OPEN, _ANSWERING, _LINGERING = State.OPENING, State.OPEN, State.ANSWERING, State.LINGERING
_DISCARDING, _ENDED = State.DISCARDING, State.ENDED
_WE_CLOSE, _EOF = Cue.WE_CLOSE, Cue.EOF
_PEER_VANISHED = Cause.PEER_VANISHED
_LOCAL = Initiator.LOCAL
_NOTE_CLOSE, _NOTE_FAILED, _NOTE_FAULT = int(Noted.CLOSE), int(Noted.FAILED), int(Noted.FAULT)
_NOTE_HANDLED, _NOTE_EOF, _NOTE_BROKEN = int(Noted.HANDLED), int(Noted.EOF), int(Noted.BROKEN)
_NOTE_LOST, _NOTE_GONE, _NOTE_TIME_UP = int(Noted.LOST), int(Noted.GONE), int(Noted.TIME_UP)
_NOTE_SENT = int(Noted.SENT)
_NORMAL = (CloseCode.NORMAL_CLOSURE, CloseCode.GOING_AWAY)
#: The index of each cause and initiator, which the recorder notes.
_CAUSES = {cause: at for at, cause in enumerate(Cause)}
_INITIATORS = {initiator: at for at, initiator in enumerate(Initiator)}
#: The last cue and its exception, before the connection has ended.
_NO_CUE: tuple[Cue, BaseException | None] = (_WE_CLOSE, None)
#: The reason of the Close after `max_lifetime`. It advises the client to reconnect within a second.
_RECONNECT_REASON = RetryAdvice(0, 1).reason(Cause.LIFETIME_REACHED.meaning)
#: The reason of the Close at the end of the authorization.
_UNAUTHORIZED_REASON = RetryAdvice(0, 1).reason("authorization expired: fetch a new token")


class Closing(Liveness):
    """The closing machine of one connection. Its inputs are cues and the time, its output is the `Ending`."""

    def __init__(self, client: bool, options: Options, now: float, opened_at: float = 0.0) -> None:
        self._init_closing(client, options, now, opened_at)

    def _init_closing(self, client: bool, options: Options, now: float, opened_at: float) -> None:
        # size: every attribute of the class, in one place
        self._init_liveness(options, now)
        self.client = client
        self.state = _OPENING
        #: Whether messages can be sent: the state is OPEN or ANSWERING. Every message tests it.
        self.is_open = False
        #: Whether the state is ANSWERING.
        self.answering = False
        #: Whether the ending is known: the state is DISCARDING or ENDED.
        self.over = False
        #: Whether the state is ENDED.
        self.ended = False
        #: Whether the driver should half-close TCP once the outbox is empty.
        self.half_close = False
        #: Whether the driver should try to write the outbox once, then abort the connection.
        self.abort = False
        #: The Close that was received; None before.
        self.received: Close | None = None
        #: Whether there is a TCP connection; a client's driver sets it.
        self.connected = not client
        #: The application's receiver; None before there is an application, and after the end.
        self.receiver: Receiver | None = None
        #: Numbers of messages: received, sent, and dropped because the inbox was full.
        self.messages_in = self.messages_out = self.dropped_messages = 0
        #: Number of bytes received after the opening handshake.
        self.bytes_in = 0

        # The flight recorder; None if the option is off, and before a server's opening handshake succeeds.
        self._recorder: Recorder | None = None
        self._codec: Codec | None = None
        # Whether received data is parsed; otherwise it is discarded.
        self._parsing = False
        self._close: Close | None = None
        self._close_size = 0
        self._sent: Close | None = None
        self._fault: PeerError | None = None
        self._write_error: BaseException | None = None
        # Whether the peer's FIN came before the answer to its Close, or to its HTTP request, was sent.
        self._eof = False
        self._opened_at = opened_at
        self._began_at = now
        self._ended_at = 0.0
        #: The cause of the ending, once it is known, and who began it.
        self.cause: Cause | None = None
        self.initiator = _LOCAL
        self._exception: BaseException | None = None
        # The last cue and its exception, which determine `Ending.tcp`.
        self._last_cue = _NO_CUE
        self._ending: Ending | None = None
        self.rearm()

    @property
    def bytes_out(self) -> int:
        """Number of bytes sent after the opening handshake."""
        return self.count_bytes_out()

    def count_bytes_out(self) -> int:
        """:attr:`bytes_out`."""
        return max(0, self.outbox.bytes_sent)

    @property
    def ending(self) -> Ending | None:
        """The `Ending` of the connection, computed at the first access after the end; None before."""
        if self._ending is None and self.over:
            assert self.cause is not None
            clean = self.end_clean()
            self._ending = Ending(
                cause=self.cause,
                initiator=self.initiator,
                clean=None if clean < 0 else clean > 0,
                received=self.received,
                sent=self._transmitted_close(),
                tcp=tcp_end_of(*self._last_cue) if self.connected else TcpEnd.NONE,
                exception=self._exception,
                opened_at=self._opened_at,
                duration=self.seconds_open(),
                messages_in=self.messages_in,
                messages_out=self.messages_out,
                bytes_in=self.bytes_in,
                bytes_out=self.bytes_out,
                unsent_bytes=self.unsent_bytes(),
                dropped_messages=self.dropped_messages,
                latency=self.latency,
                stalled=self.seconds_stalled(),
            )
            if self._recorder is not None and not self._is_normal() and not self._ending.ok:
                # The object is frozen, but has no reader yet.
                object.__setattr__(self._ending, "record", self.record())
        return self._ending

    def end_code(self) -> int:
        """:attr:`Ending.code` without making the `Ending`.

        To make it costs more than everything else at the end of a connection. This and the following methods are for
        what counts the ends.
        """
        sent, received = self._transmitted_close(), self.received
        first = (sent or received) if self.initiator is _LOCAL else (received or sent)
        if first is None or first.code is None or first.not_transmitted:
            return code_of(first)
        return first.code  # without the call, for almost all connections

    def end_clean(self) -> int:
        """:attr:`Ending.clean`: 1 for true, 0 for false, -1 for None."""
        if self._codec is not None and not self._codec.has_close:
            return -1
        return self.received is not None and self._transmitted_close() is not None

    def _transmitted_close(self) -> Close | None:
        """The Close of this side if the system has accepted it, else None."""
        return self._sent if not self.outbox.size else None

    def seconds_open(self) -> float:
        """Seconds from the opening handshake to the end."""
        return self._ended_at - self._began_at

    def unsent_bytes(self) -> int:
        """Number of bytes that were queued and not sent at the end, without those of the Close."""
        unsent = self.outbox.size - self._close_size
        return max(0, unsent)

    # -- cues -----------------------------------------------------------------

    def close(self, close: Close, now: float, cause: Cause = Cause.APP_CLOSED) -> None:
        """Start the closing handshake with ``close``. Has no effect if it has started already."""
        if self._recorder is not None:
            self._note_cause(_NOTE_CLOSE, now, cause)
        if not self.over:
            self._close = self._close or close
        self.cue(_WE_CLOSE, now, cause)

    def handled(self, now: float) -> None:
        """The application waits for a message, and there is none. A received Close is answered now."""
        if self._recorder is not None and self.answering:
            self._note(_NOTE_HANDLED, now)
        self.cue(Cue.HANDLED, now)

    def eof(self, now: float) -> None:
        """The peer ended its side of TCP."""
        if self._recorder is not None:
            self._note(_NOTE_EOF, now)
        if self._write_error is not None:
            self.lost(self._write_error, now)
        elif self.state is _LINGERING and self._codec is None and self.wants_write():
            # A client may half-close TCP after the request ("nc -N") and still wait for the answer.
            self._eof = True
        else:
            self.cue(_EOF, now, _PEER_VANISHED)

    def broken(self, exc: BaseException, now: float) -> None:
        """A write failed. No more data can be sent, but data that can still be read decides the ending.

        A page that reloads sends Close 1001 and drops TCP. If the server writes at that moment, its write
        fails before it has read the Close. So the driver continues to read, until ``eof`` or ``lost``.
        """
        if self._recorder is not None:
            self._note(_NOTE_BROKEN, now)
        self._write_error = exc
        self.outbox.stuck_at = NEVER
        self.rearm()

    def lost(self, exc: BaseException, now: float, tls: bool = False) -> None:
        """TCP failed with ``exc``; with ``tls``, TLS failed."""
        if self._recorder is not None and self._note(_NOTE_LOST, now):
            self._recorder.add(tls)
        self.cue(Cue.LOST, now, cause_of(exc, tls), exc)

    def gone(self, now: float) -> None:
        """TCP has ended, and the driver does not know how. No effect if an EOF or an error came before."""
        if self._recorder is not None:
            self._note(_NOTE_GONE, now)
        self.cue(Cue.GONE, now, _PEER_VANISHED)

    def fail_opening(
        self, cause: Cause, now: float, exc: BaseException | None = None, initiator: Initiator | None = None
    ) -> None:
        """Client: the opening handshake failed."""
        if self._recorder is not None and self._note_cause(_NOTE_FAILED, now, cause):
            self._recorder.add(_INITIATORS[cause.initiator if initiator is None else initiator])
        self.cue(_WE_CLOSE, now, cause, exc)
        if initiator is not None:
            self.initiator = initiator

    def refused(self) -> None:
        """Client: the server has refused, but not all of its response has arrived. That is the cause of any end."""
        if self.cause is None:
            self.cause, self.initiator = Cause.HANDSHAKE_REJECTED, Initiator.PEER

    def wants_write(self) -> bool:
        """Whether the outbox has data that can still be sent."""
        return self.outbox.size > 0 and self._write_error is None

    def end_for(self, verdict: Verdict, now: float) -> None:
        """End the open connection for the reason that ``verdict`` names."""
        cause, cue = _ENDINGS[verdict]
        reason = cause.meaning
        if verdict is Verdict.EXPIRED and not self.client:
            reason = _RECONNECT_REASON
        elif verdict is Verdict.UNAUTHORIZED:
            reason = _UNAUTHORIZED_REASON
        self._close = Close(cause.close_code, reason)
        self.cue(cue, now, cause)

    def time_up(self, now: float) -> None:
        """The deadline of a state other than OPEN may have passed."""
        is_up = now >= self._state_deadline or now >= self._report_at
        if self._recorder is not None and is_up and self._note(_NOTE_TIME_UP, now):
            self._recorder.add_float(self._report_at)
        if now >= self._state_deadline:
            self.cue(Cue.TIME_UP, now, Cause.HANDSHAKE_FAILED)
        elif now >= self._report_at:
            self.cue(_EOF if self._eof else Cue.TIME_UP if self.client else Cue.LINGERED, now)

    def cue(
        self, cue: Cue, now: float, cause: Cause | None = None, exception: BaseException | None = None
    ) -> None:
        """Make the transition for ``cue``. Only this method assigns the state."""
        self.fail_on_fault(now)
        row = TABLE.get((self.state, cue))
        if row is None:
            return
        is_open = row.state is _OPEN or row.state is _ANSWERING
        if self.is_open and not is_open and self.receiver is not None:
            self.receiver.last_call()
        if self.cause is None and cause is not None:
            self.cause = cause
            self.initiator = cause.initiator
        self._exception = self._exception or exception
        self.state = row.state
        self.is_open = is_open
        self.answering = row.state is _ANSWERING
        self.ended = row.state is _ENDED
        for do in row.do:
            _DO[do](self, now)
        if self.state is not _OPEN:
            self.stop()
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
        self.rearm()
        if self.state is _LINGERING:
            self.sent_in_lingering(0, now)

    def fail_on_fault(self, now: float) -> None:
        """Fail the connection if the peer broke a rule. Called before any other cue is handled."""
        fault, self._fault = self._fault, None
        if fault is not None:
            if self._recorder is not None:
                self._note(_NOTE_FAULT, now)
            if self.state is _OPEN:
                self._close = fault.close
            self.cue(Cue.THEY_ERR, now, fault.cause, fault)

    def sent_in_lingering(self, count: int, now: float) -> None:
        """``count`` bytes were sent in the state LINGERING."""
        if self._eof and not self.outbox.size:
            if self._recorder is not None:
                self._note(_NOTE_SENT, now)
            self.cue(_EOF, now, _PEER_VANISHED)
        elif self._codec is None:
            if count:
                # The client may read an HTTP response slowly, if it accepts some bytes in time.
                self._arm(now)
                self.rearm()
        elif (self._eof and count) or (self._report_at == NEVER and (self._eof or not self.outbox.size)):
            # The local Close was sent. If the peer's FIN came before it, the only open question is whether
            # the peer still accepts the answers.
            self._report_at = now + self.options.linger_timeout
            self.rearm()

    # -- the flight recorder ----------------------------------------------------

    def _is_normal(self) -> bool:
        """Whether ``Ending.ok`` is True, for the most frequent endings only: the property costs more."""
        received, sent = self.received, self._sent
        return (
            received is not None
            and received.code in _NORMAL
            and (sent is None or sent.code in _NORMAL)
            and self._codec is not None
            and self._codec.has_codes
        )

    def _note(self, noted: int, now: float) -> bool:
        """Note a cue, a :class:`~endwell.protocol.recorder.Noted`. False after the end."""
        self.fail_on_fault(now)  # before any other cue
        return self._note_event(noted, now)

    def _note_event(self, noted: int, now: float) -> bool:
        """Note what is no cue. A fault waits on: the record has the order in which both had an effect."""
        if self._recorder is None or self.over:
            return False
        outbox = self.outbox
        self._recorder.note(
            noted,
            now,
            self.messages_in,
            self.bytes_in,
            self.messages_out,
            max(0, outbox.bytes_sent),
            self.last_heard,
            outbox.size,
            outbox.stuck_at,
        )
        return True

    def _note_cause(self, noted: int, now: float, cause: Cause) -> bool:
        """Note that this side closes for ``cause``, if that has an effect."""
        self.fail_on_fault(now)
        if self._recorder is None or (self.state, _WE_CLOSE) not in TABLE or not self._note(noted, now):
            return False
        self._recorder.add(_CAUSES[cause])
        return True

    def record(self) -> Record | None:
        """The record of the ended connection, also if it ended normally; None without a recorder."""
        recorder = self._recorder
        return None if recorder is None else Record(self._record_head(), recorder.recording())

    def _record_head(self) -> dict[str, Any]:
        """What a record has besides the cues."""
        codec, options, close = self._codec, self.options, self._close
        protocol = None
        if codec is not None:
            protocol = {
                "close": codec.has_close,
                "codes": codec.has_codes,
                "pings": codec.has_pings,
                "reply": codec.has_reply,
            }
        return {
            "role": "client" if self.client else "server",
            "protocol": protocol,
            "connected": self.connected,
            "options": {name: getattr(options, name) for name in RECORDED_OPTIONS},
            "began": self._began_at,
            "opened": self.opened,
            "ended": self._ended_at,
            "last_ping": self.last_ping,
            "stalls": [self._stalled_since, self._stalled_until, self._stalled_for],
            "close": None if close is None else [close.code, close.reason],
            "close_size": self._close_size,
            "errors": {
                "first": _kind_of(self._exception),
                "last": _kind_of(self._last_cue[1]),
                "write": _kind_of(self._write_error),
            },
        }

    # -- actions --------------------------------------------------------------

    def _send_close(self, now: float) -> None:
        close, codec = self._close, self._codec
        assert close is not None and codec is not None
        frame = codec.close(close)
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

    def _begin_liveness(self, now: float) -> None:
        self.begin(now, self._codec is not None and self._codec.has_pings)

    def _abort(self, now: float) -> None:
        self.abort = True


#: The method for each action of the table.
_DO = {
    Do.SEND_CLOSE: Closing._send_close,
    Do.ECHO_CLOSE: Closing._echo_close,
    Do.STOP_PARSING: Closing._stop_parsing,
    Do.FIN: Closing._fin,
    Do.HOLD_EOF: Closing._hold_eof,
    Do.ARM: Closing._arm,
    Do.ARM_ANSWER: Closing._arm_answer,
    Do.DISARM: Closing._disarm,
    Do.LIVENESS: Closing._begin_liveness,
    Do.ABORT: Closing._abort,
}

#: The cause and the cue for each verdict that ends a connection.
_ENDINGS = {
    Verdict.SILENT: (Cause.KEEPALIVE_TIMEOUT, Cue.SILENT),
    Verdict.STUCK: (Cause.WRITE_TIMEOUT, Cue.STUCK),
    Verdict.EXPIRED: (Cause.LIFETIME_REACHED, Cue.WE_CLOSE),
    Verdict.UNAUTHORIZED: (Cause.AUTH_EXPIRED, Cue.WE_CLOSE),
    Verdict.IDLE: (Cause.IDLE_TIMEOUT, Cue.WE_CLOSE),
    Verdict.STALE: (Cause.IDLE_TIMEOUT, Cue.WE_CLOSE),
}

"""The states of a connection and their transitions, in one table.

Rules of this file:

1. `TABLE` has every transition. `Connection._cue()` looks the rows up; it is the only function that
   assigns the state.
2. Each pair of a state and a cue is in `TABLE` or in `IGNORED`.
3. The *first* closing cue determines the cause and the initiator of the ending.

The server ends TCP first, so only it half-closes (``FIN``). RFC 6455 §7.1.1:
"the underlying TCP connection, in most normal cases, SHOULD be closed first by
the server, so that it holds the TIME_WAIT state and not the client".

A received Close is handled after the messages that arrived before it (`ANSWERING`). RFC 6455 §5.5.1: "An
endpoint MAY delay sending a Close frame until its current message is sent".
"""

from __future__ import annotations

import errno
from enum import Enum
from itertools import product
from typing import NamedTuple

from ..ending import Cause, TcpEnd

__all__ = ["IGNORED", "TABLE", "Cue", "Do", "Row", "State", "WindowClosed", "cause_of", "tcp_end_of"]


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
    KEEPALIVE = "start to send pings"
    ABORT = "abort the connection without waiting"


class Row(NamedTuple):
    """A transition: the next state, and the actions on the way there."""

    state: State
    do: tuple[Do, ...]


_ANSWERED = Row(State.LINGERING, (Do.FIN, Do.ARM))
_DONE = Row(State.LINGERING, (Do.STOP_PARSING, Do.FIN, Do.ARM))
_ECHOED = Row(State.LINGERING, (Do.ECHO_CLOSE, Do.FIN, Do.ARM))
_CUT = Row(State.ENDED, (Do.ABORT,))
# A peer that seems dead gets a Close only if the send buffer has room for it: one attempt, no waiting.
_CUT_WITH_CLOSE = Row(State.ENDED, (Do.SEND_CLOSE, Do.ABORT))
_GONE = Row(State.ENDED, ())

# fmt: off
TABLE: dict[tuple[State, Cue], Row] = {
    (State.OPENING,   Cue.ACCEPTED):   Row(State.OPEN, (Do.DISARM, Do.KEEPALIVE)),
    (State.OPENING,   Cue.REFUSED):    _ANSWERED,
    (State.OPENING,   Cue.THEY_ERR):   _ANSWERED,
    (State.OPENING,   Cue.WE_CLOSE):   _CUT,
    (State.OPENING,   Cue.TIME_UP):    _CUT,
    (State.OPENING,   Cue.EOF):        _CUT,
    (State.OPENING,   Cue.LOST):       _CUT,

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

    (State.ANSWERING, Cue.HANDLED):    _ECHOED,
    (State.ANSWERING, Cue.WE_CLOSE):   _ECHOED,
    (State.ANSWERING, Cue.TIME_UP):    _ECHOED,
    # The peer may have half-closed TCP, and may still read the answers.
    (State.ANSWERING, Cue.EOF):        Row(State.ANSWERING, (Do.HOLD_EOF,)),
    (State.ANSWERING, Cue.LOST):       _GONE,

    (State.CLOSING,   Cue.THEY_CLOSE): _DONE,
    (State.CLOSING,   Cue.THEY_ERR):   _DONE,
    (State.CLOSING,   Cue.TIME_UP):    _CUT,
    (State.CLOSING,   Cue.EOF):        _CUT,
    (State.CLOSING,   Cue.LOST):       _CUT,

    (State.LINGERING, Cue.EOF):        _GONE,
    (State.LINGERING, Cue.TIME_UP):    _CUT,
    (State.LINGERING, Cue.LOST):       _CUT,
    (State.LINGERING, Cue.LINGERED):   Row(State.DISCARDING, ()),

    # The deadline of LINGERING stays: close_timeout covers both states together.
    (State.DISCARDING, Cue.EOF):       _GONE,
    (State.DISCARDING, Cue.TIME_UP):   _CUT,
    (State.DISCARDING, Cue.LOST):      _CUT,
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

"""How a connection moves from its first octet to its last: one table.

Rules of this file:

1. ``TABLE`` holds every transition. ``Connection`` looks rows up in one
   function, and nobody else assigns the state.
2. Each pair of a state and a cue stands in ``TABLE`` or in ``IGNORED``.
3. The *first* closing cue names the cause and the initiator of the ending;
   what comes after it only finishes the job.

The server ends TCP first, so only it half-closes (``FIN``). RFC 6455 §7.1.1:
"the underlying TCP connection, in most normal cases, SHOULD be closed first by
the server, so that it holds the TIME_WAIT state and not the client".

A Close takes its place behind the messages that came before it (``ANSWERING``). RFC 6455
§5.5.1: "An endpoint MAY delay sending a Close frame until its current message is sent".
"""

from __future__ import annotations

import errno
from enum import Enum
from itertools import product
from typing import NamedTuple

from ..ending import Cause, TcpEnd

__all__ = ["IGNORED", "TABLE", "Cue", "Do", "Row", "State", "WindowClosed", "cause_of", "tcp_end_of"]


class _Word(Enum):
    """What the table is made of; looked up by identity, where Enum would hash its name by a call."""

    __hash__ = object.__hash__


class State(_Word):
    """Where a connection stands."""

    OPENING = "the opening handshake is under way"
    OPEN = "messages flow"
    ANSWERING = "the peer's Close came; the application handles the messages before it, and may still send"
    CLOSING = "our Close is sent, theirs is awaited"
    LINGERING = "nothing more to say; waiting for TCP to end"
    DISCARDING = "the ending is told; a server reads and discards until TCP ends"
    ENDED = "over"


class Cue(_Word):
    """Anything that can happen to the state."""

    ACCEPTED = "the opening handshake succeeded"
    REFUSED = "we answer the opening request with an HTTP status"
    WE_CLOSE = "our application or this library closes"
    THEY_CLOSE = "the peer's Close came, and no message that came before it is unread or being handled"
    CLOSE_BEHIND = "the peer's Close came behind messages that are unread or being handled"
    HANDLED = "the application has come back for the next message, and there is none"
    THEY_ERR = "the peer broke a rule"
    SILENT = "a ping went unanswered"
    STUCK = "the peer takes no data"
    TIME_UP = "the deadline of this state passed; for a client that lingers, linger_timeout too"
    LINGERED = "server: linger_timeout passed since all was sent, and TCP has not ended"
    EOF = "the peer ended TCP (FIN)"
    LOST = "TCP or TLS failed (RST and others)"


class Do(_Word):
    """What a transition asks for."""

    SEND_CLOSE = "queue our Close"
    ECHO_CLOSE = "queue our Close with the peer's code"
    STOP_PARSING = "read and discard from here on"
    FIN = "server: half-close TCP once everything queued has left"
    HOLD_EOF = "keep the FIN of the peer until the answers have left, or until the peer has taken none of them for linger_timeout"
    ARM = "give this state close_timeout seconds"
    ARM_ANSWER = "give this state answer_timeout seconds"
    DISARM = "take the deadline of the old state away"
    KEEPALIVE = "start pinging"
    ABORT = "cut the connection without waiting"


class Row(NamedTuple):
    """The answer to a cue: the next state, and what to do on the way."""

    state: State
    do: tuple[Do, ...]


_ANSWERED = Row(State.LINGERING, (Do.FIN, Do.ARM))
_DONE = Row(State.LINGERING, (Do.STOP_PARSING, Do.FIN, Do.ARM))
_ECHOED = Row(State.LINGERING, (Do.ECHO_CLOSE, Do.FIN, Do.ARM))
_CUT = Row(State.ENDED, (Do.ABORT,))
# "If it fits": a Close for a peer that seems dead is queued, tried once, and not waited for.
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
    # A peer that is dead costs no close_timeout.
    (State.OPEN,      Cue.SILENT):     _CUT_WITH_CLOSE,
    (State.OPEN,      Cue.STUCK):      _CUT_WITH_CLOSE,
    (State.OPEN,      Cue.EOF):        _GONE,
    (State.OPEN,      Cue.LOST):       _GONE,

    (State.ANSWERING, Cue.HANDLED):    _ECHOED,
    (State.ANSWERING, Cue.WE_CLOSE):   _ECHOED,
    (State.ANSWERING, Cue.TIME_UP):    _ECHOED,
    # It may be half of a close: the peer may still read the answers.
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

    # Under the deadline of LINGERING: close_timeout is for both together.
    (State.DISCARDING, Cue.EOF):       _GONE,
    (State.DISCARDING, Cue.TIME_UP):   _CUT,
    (State.DISCARDING, Cue.LOST):      _CUT,
}
# fmt: on

#: Only the peer's Close, while the connection is open, and what follows it, has these.
_BEHIND = [Cue.CLOSE_BEHIND, Cue.HANDLED, Cue.LINGERED]
_OPENED = [Cue.ACCEPTED, Cue.REFUSED]
_HEARD = [Cue.THEY_CLOSE, Cue.THEY_ERR, Cue.SILENT, Cue.STUCK]

#: Pairs that change nothing: closing twice, a deadline that is another state's,
#: anything after the end.
IGNORED: frozenset[tuple[State, Cue]] = frozenset(
    {
        *product([State.OPENING], [Cue.THEY_CLOSE, Cue.SILENT, Cue.STUCK, *_BEHIND]),
        *product([State.OPEN], [Cue.ACCEPTED, Cue.REFUSED, Cue.TIME_UP, Cue.HANDLED, Cue.LINGERED]),
        *product([State.ANSWERING], [*_OPENED, *_HEARD, Cue.CLOSE_BEHIND, Cue.LINGERED]),
        *product([State.CLOSING], [*_OPENED, Cue.WE_CLOSE, Cue.SILENT, Cue.STUCK, *_BEHIND]),
        *product([State.LINGERING], [*_OPENED, *_HEARD, Cue.WE_CLOSE, Cue.CLOSE_BEHIND, Cue.HANDLED]),
        *product([State.DISCARDING], [*_OPENED, *_HEARD, Cue.WE_CLOSE, *_BEHIND]),
        *product([State.ENDED], Cue),
    }
)


class WindowClosed(TimeoutError):
    """The peer's system is there, but has taken no data for too long."""


def cause_of(exc: BaseException, tls: bool) -> Cause:
    """The cause that an error of the system, or of TLS, stands for."""
    if isinstance(exc, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return Cause.CONNECTION_RESET
    if isinstance(exc, WindowClosed):
        return Cause.WRITE_TIMEOUT
    return Cause.TLS_ERROR if tls else Cause.NETWORK_ERROR


def tcp_end_of(cue: Cue, exc: BaseException | None) -> TcpEnd:
    """How TCP ended, by the cue that was the last, and the error that came with it."""
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

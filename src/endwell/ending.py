"""How a connection ended: one frozen record, computed once.

Exceptions, logs, metrics and the reconnect policy read an :class:`Ending` and
nothing else. Nobody has to parse the text of an exception.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from .codes import CloseCode, Retry, describe

__all__ = ["Cause", "Close", "Ending", "Initiator", "TcpEnd"]


class Initiator(Enum):
    """Who ended the connection."""

    PEER = "peer"  #: the other side, with a Close (or an HTTP refusal)
    LOCAL = "local"  #: our application or this library
    NETWORK = "network"  #: nobody said so: TCP or TLS ended below the protocol


class TcpEnd(Enum):
    """How the transport ended."""

    FIN = "fin"  #: both sides ended TCP in order
    RST = "rst"  #: the peer reset it
    TIMEOUT = "timeout"  #: the peer did not end it in time, so we did
    ABORTED = "aborted"  #: we cut it without waiting
    ERROR = "error"  #: the system or TLS reported another error
    OPEN = (
        "open"  #: the peer had not ended it when the ending was told, ``linger_timeout`` after the last Close
    )
    NONE = "none"  #: there was no connection


class Cause(Enum):
    """Why a connection ended: a bounded set, fit to be a metrics label.

    Each member is also its row: ``meaning``, ``initiator``, the ``close_code`` that
    is sent when this side ends the connection for that cause (None: no Close is
    sent), and ``retry``, whether a client should come back where the Close code
    does not say.
    """

    meaning: str
    initiator: Initiator
    close_code: CloseCode | None
    retry: Retry

    def __new__(
        cls,
        label: str,
        meaning: str,
        initiator: Initiator,
        close_code: CloseCode | None,
        retry: Retry,
    ) -> Cause:
        self = object.__new__(cls)
        self._value_ = label
        self.meaning = meaning
        self.initiator = initiator
        self.close_code = close_code
        self.retry = retry
        return self

    # fmt: off
    PEER_CLOSED = ("peer_closed", "the peer closed", Initiator.PEER, None, Retry.LATER)
    APP_CLOSED = ("app_closed", "the application closed", Initiator.LOCAL, CloseCode.NORMAL_CLOSURE, Retry.NEVER)
    HANDLER_RETURNED = ("handler_returned", "the handler returned", Initiator.LOCAL, CloseCode.NORMAL_CLOSURE, Retry.NEVER)
    HANDLER_ERROR = ("handler_error", "the handler raised an exception", Initiator.LOCAL, CloseCode.INTERNAL_ERROR, Retry.LATER)
    SERVER_DRAINED = ("server_drained", "the server is stopping", Initiator.LOCAL, CloseCode.GOING_AWAY, Retry.NOW)
    REPLACED = ("replaced", "a newer connection took over", Initiator.LOCAL, CloseCode.REPLACED, Retry.NEVER)
    PROTOCOL_ERROR = ("protocol_error", "the peer broke the protocol", Initiator.LOCAL, CloseCode.PROTOCOL_ERROR, Retry.NEVER)
    INVALID_DATA = ("invalid_data", "the peer sent text that is not UTF-8", Initiator.LOCAL, CloseCode.INVALID_DATA, Retry.NEVER)
    MESSAGE_TOO_BIG = ("message_too_big", "the peer sent a message above the limit", Initiator.LOCAL, CloseCode.MESSAGE_TOO_BIG, Retry.NEVER)
    POLICY_LIMIT = ("policy_limit", "the peer exceeded a limit", Initiator.LOCAL, CloseCode.POLICY_VIOLATION, Retry.NEVER)
    SLOW_PEER = ("slow_peer", "the peer took messages too slowly", Initiator.LOCAL, CloseCode.TRY_AGAIN_LATER, Retry.LATER)
    KEEPALIVE_TIMEOUT = ("keepalive_timeout", "the peer did not answer a ping", Initiator.LOCAL, CloseCode.GOING_AWAY, Retry.NOW)
    WRITE_TIMEOUT = ("write_timeout", "the peer stopped taking data", Initiator.LOCAL, CloseCode.GOING_AWAY, Retry.NOW)
    IDLE_TIMEOUT = ("idle_timeout", "no message went either way for too long", Initiator.LOCAL, CloseCode.GOING_AWAY, Retry.NOW)
    LIFETIME_REACHED = ("lifetime_reached", "the connection reached its maximum lifetime", Initiator.LOCAL, CloseCode.SERVICE_RESTART, Retry.NOW)
    PEER_VANISHED = ("peer_vanished", "the peer ended TCP without a Close", Initiator.NETWORK, None, Retry.NOW)
    CONNECTION_RESET = ("connection_reset", "the connection was reset", Initiator.NETWORK, None, Retry.NOW)
    NETWORK_ERROR = ("network_error", "the network failed", Initiator.NETWORK, None, Retry.LATER)
    TLS_ERROR = ("tls_error", "TLS failed", Initiator.NETWORK, None, Retry.LATER)
    HANDSHAKE_REJECTED = ("handshake_rejected", "the opening handshake was refused", Initiator.LOCAL, None, Retry.LATER)
    HANDSHAKE_FAILED = ("handshake_failed", "the opening handshake failed", Initiator.LOCAL, None, Retry.LATER)
    CANCELLED = ("cancelled", "the task was cancelled", Initiator.LOCAL, CloseCode.GOING_AWAY, Retry.NEVER)
    # fmt: on


@dataclass(frozen=True, slots=True)
class Close:
    """A Close frame: its code (None if it carried none) and its reason."""

    code: int | None = None
    reason: str = ""
    #: We closed with them, and the peer was not told: its protocol has no codes (hixie-76).
    not_transmitted: bool = False

    def __str__(self) -> str:
        if self.code is None:
            return "no code"
        row = describe(self.code)
        name = f" {row.name}" if isinstance(row, CloseCode) else ""
        # repr: a peer's text never reaches a log with its control characters alive.
        not_transmitted = " (unsaid)" if self.not_transmitted else ""
        return f"{self.code}{name}" + (f" {self.reason!r}" if self.reason else "") + not_transmitted


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How and why a connection ended, told once and the same to everybody.

    Times are in seconds, sizes in bytes on the wire.
    """

    #: Why it ended.
    cause: Cause
    #: Who ended it: the first closing event decides.
    initiator: Initiator
    #: Whether the closing handshake was completed in both directions;
    #: None where the protocol has none (hixie-75).
    clean: bool | None
    #: The peer's Close, if one came.
    received: Close | None = None
    #: Our Close, if it was handed to the system; its code and reason may have gone unsaid.
    sent: Close | None = None
    #: How the transport ended.
    tcp: TcpEnd = TcpEnd.FIN
    #: What the system, TLS or the protocol check reported, if anything.
    exception: BaseException | None = None
    #: Wall-clock time at which TCP was there, as ``time.time()``.
    opened_at: float = 0.0
    #: Seconds from then to the end.
    duration: float = 0.0
    #: Whole messages received, and accepted from the application.
    messages_in: int = 0
    messages_out: int = 0
    #: WebSocket octets received and sent, after the opening handshake.
    bytes_in: int = 0
    bytes_out: int = 0
    #: Bytes accepted by ``send()`` that never left this process.
    unsent_bytes: int = 0
    #: Messages that came after our Close and found no room in the queue.
    dropped_messages: int = 0
    #: The last ping's round trip, if one was answered.
    latency: float | None = None
    #: Seconds for which our own side stood still after the peer's last sign of life: a blocked event
    #: loop, a stopped process, a machine that slept. Only what lasted a second or two is noticed.
    stalled: float = 0.0

    @property
    def _first(self) -> Close | None:
        if self.initiator is Initiator.LOCAL:
            return self.sent or self.received
        return self.received or self.sent

    @property
    def _rejected(self) -> bool:
        """Whether the peer answered our Close with PROTOCOL_ERROR."""
        answer = self.received if self.initiator is Initiator.LOCAL and self.sent is not None else None
        return answer is not None and answer.code == CloseCode.PROTOCOL_ERROR != self.code

    @property
    def code(self) -> int:
        """The code of the Close that came first; 1005 if it said none, 1006 if there was no Close."""
        first = self._first
        if first is None:
            return CloseCode.ABNORMAL_CLOSURE
        return CloseCode.NO_STATUS_RCVD if first.code is None or first.not_transmitted else first.code

    @property
    def reason(self) -> str:
        """The reason of the Close that came first, or ``""``."""
        return "" if self._first is None or self._first.not_transmitted else self._first.reason

    @property
    def ok(self) -> bool:
        """Whether this was an ordinary ending.

        A page that reloads sends Close 1001 and drops TCP without waiting for our
        answer. That is ordinary, so the peer's Close decides, not ``clean``.

        A peer that answers our Close with 1002 has failed the connection, and its application was
        told of a fault (WebKit does that to 1012, 1013 and 1014): that is not ordinary.

        Where the protocol has no Close, TCP has to have ended in order, and no fault may
        have been found. A code of ours counts even if it could not be said.
        """
        if self.clean is None:
            closed = self.tcp is TcpEnd.FIN and self.exception is None
        else:
            closed = self.received is not None and not self._rejected
        first = self._first
        code = CloseCode.NO_STATUS_RCVD if first is None or first.code is None else first.code
        return closed and describe(code).clean

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready copy, with ``code``, ``reason`` and the sentence beside the fields."""
        row: dict[str, Any] = {"code": self.code, "reason": self.reason, "text": str(self)}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Enum):
                value = value.value
            elif isinstance(value, Close):
                value = {"code": value.code, "reason": value.reason, "unsaid": value.not_transmitted}
            elif isinstance(value, BaseException):
                value = f"{type(value).__name__}: {value}"
            row[field.name] = value
        return row

    def __str__(self) -> str:
        """One plain sentence."""
        if self.cause is Cause.PEER_CLOSED and self.received is not None:
            head = f"peer closed with {self.received}"
        elif self.sent is not None:
            head = f"{self.cause.meaning}; we closed with {self.sent}"
            if self.received is None and self.tcp is TcpEnd.TIMEOUT:
                head += ", unanswered"
            elif self._rejected:
                head += f", answered with {self.received}"
        else:
            head = self.cause.meaning
            if self.exception is not None:
                head += f" ({type(self.exception).__name__}: {str(self.exception)!r})"
        clean = {True: "clean", False: "not clean", None: "without a closing handshake"}[self.clean]
        stalled = f"; before that, this side stood still for {self.stalled:.1f} s" if self.stalled else ""
        return f"{head}; {clean}, after {self.duration:.1f} s{stalled}"

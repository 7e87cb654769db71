"""How a connection ended: one frozen record, computed once.

Exceptions, logs, metrics and the retry policy all read the same `Ending`. No caller has to parse the
text of an exception.
"""
# size: the record with both of its forms, the dict and the sentence

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from typing import Any

from .codes import CloseCode, Retry, describe
from .fields import count, flag, mapping, member, number, optional, seconds, text
from .text import utf8

__all__ = ["MAX_REASON", "Cause", "Close", "Ending", "Initiator", "TcpEnd", "code_of"]

#: Maximum number of bytes in the reason of a Close: a control frame has at most 125 (RFC 6455 §5.5).
MAX_REASON = 123


class Initiator(Enum):
    """The side that ended the connection.

    Example:
        ```python
        from endwell import Cause, Initiator

        print(Cause.PEER_VANISHED.initiator is Initiator.NETWORK)
        ```
    """

    PEER = "peer"  #: The peer sent a Close, or refused the handshake with an HTTP status.
    LOCAL = "local"  #: The local application or this library ended it.
    NETWORK = "network"  #: TCP or TLS ended without a Close from either side.


class TcpEnd(Enum):
    """How the TCP connection ended.

    Example:
        ```python
        from endwell import Cause, Ending, Initiator, TcpEnd

        ending = Ending(
            cause=Cause.CONNECTION_RESET, initiator=Initiator.NETWORK, clean=False, tcp=TcpEnd.RST
        )
        print(ending.tcp.value)
        ```
    """

    FIN = "fin"  #: Both sides sent FIN.
    RST = "rst"  #: The peer reset the connection.
    TIMEOUT = "timeout"  #: The peer did not end TCP in time, so this side did.
    ABORTED = "aborted"  #: This side aborted the connection without waiting.
    ERROR = "error"  #: The operating system or TLS reported another error.
    #: The peer had not ended TCP when the ending was reported, `linger_timeout` after the last Close.
    OPEN = "open"
    #: TCP has ended, and an asyncio transport did not tell how. Only `ENDWELL_DRIVER=transport`, a loop without
    #: `add_reader` and a foreign server use one.
    UNKNOWN = "unknown"
    NONE = "none"  #: There was no TCP connection.


class Cause(Enum):
    """Why a connection ended. The set is small and fixed, so it can be a metrics label.

    Each member has these attributes:

    - `meaning`: the cause as a phrase for people;
    - `initiator`: the side that ends the connection;
    - `close_code`: the close code that this side sends for the cause; None if it sends no Close;
    - `retry`: whether a client should reconnect when no close code says so.

    Example:
        ```python
        from endwell import Cause

        cause = Cause("keepalive_timeout")
        print(cause.meaning, cause.close_code, cause.retry)
        ```
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
    SHED = ("shed", "the server moved the connection to another server", Initiator.LOCAL, CloseCode.SERVICE_RESTART, Retry.NOW)
    AUTH_EXPIRED = ("auth_expired", "the authorization expired", Initiator.LOCAL, CloseCode.UNAUTHORIZED, Retry.LATER)
    AUTH_REFUSED = ("auth_refused", "the new token was refused", Initiator.LOCAL, CloseCode.UNAUTHORIZED, Retry.NEVER)
    AUTH_REVOKED = ("auth_revoked", "the authorization was revoked", Initiator.LOCAL, CloseCode.FORBIDDEN, Retry.NEVER)
    REPLACED = ("replaced", "a newer connection took over", Initiator.LOCAL, CloseCode.REPLACED, Retry.NEVER)
    PROTOCOL_ERROR = ("protocol_error", "the peer broke the protocol", Initiator.LOCAL, CloseCode.PROTOCOL_ERROR, Retry.NEVER)
    INVALID_DATA = ("invalid_data", "the peer sent text that is not UTF-8", Initiator.LOCAL, CloseCode.INVALID_DATA, Retry.NEVER)
    MESSAGE_TOO_BIG = ("message_too_big", "the peer sent a message above the limit", Initiator.LOCAL, CloseCode.MESSAGE_TOO_BIG, Retry.NEVER)
    POLICY_LIMIT = ("policy_limit", "the peer exceeded a limit", Initiator.LOCAL, CloseCode.POLICY_VIOLATION, Retry.NEVER)
    SLOW_PEER = ("slow_peer", "the peer took messages too slowly", Initiator.LOCAL, CloseCode.TRY_AGAIN_LATER, Retry.LATER)
    ROOM_GAP = ("room_gap", "messages of a room were lost", Initiator.LOCAL, CloseCode.TRY_AGAIN_LATER, Retry.LATER)
    KEEPALIVE_TIMEOUT = ("keepalive_timeout", "the peer did not answer a ping", Initiator.LOCAL, CloseCode.GOING_AWAY, Retry.NOW)
    WRITE_TIMEOUT = ("write_timeout", "the peer stopped taking data", Initiator.LOCAL, CloseCode.GOING_AWAY, Retry.NOW)
    IDLE_TIMEOUT = ("idle_timeout", "no message for too long", Initiator.LOCAL, CloseCode.GOING_AWAY, Retry.NOW)
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
    """A Close frame (RFC 6455 §5.5.1).

    `str()` gives the code with its name, and the reason as a `repr`.

    Raises:
        ValueError: The code is never valid in a Close (1005, 1006, 1015, unassigned codes), the reason is longer
            than 123 bytes of UTF-8 or contains a lone surrogate, or there is a reason without a code.
        TypeError: The code is not an int or None, or the reason is not a str.

    Example:
        ```python
        from endwell import Close

        print(Close(1001, "server restarting"))
        ```
    """

    #: The close code; None if the frame carried none.
    code: int | None = None
    #: The reason; "" if the frame carried none.
    reason: str = ""
    #: True if this side closed with the code and the reason but could not send them, because the
    #: protocol has no codes (hixie-76).
    not_transmitted: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str):
            raise TypeError(f"reason must be a str, not {type(self.reason).__name__}")
        if self.code is None:
            # RFC 6455 §5.5.1: "If there is a body, the first two bytes of the body MUST be a 2-byte
            # unsigned integer (...) representing a status code".
            if self.reason:
                raise ValueError("reason needs a code: a Close carries both or neither")
            return
        if not isinstance(self.code, int):
            raise TypeError(f"code must be an int or None, not {type(self.code).__name__}")
        # The rules of RFC 6455 §7.4 are the same for a Close that is sent and for one that is received.
        if not describe(self.code).may_send:
            raise ValueError(f"code {int(self.code)} may not be sent in a Close")
        size = len(utf8(self.reason, "reason"))
        # §5.5: "All control frames MUST have a payload length of 125 bytes or less".
        if size > MAX_REASON:
            raise ValueError(f"reason must be at most {MAX_REASON} bytes of UTF-8, not {size}")

    def __str__(self) -> str:
        if self.code is None:
            return "no code"
        row = describe(self.code)
        name = f" {row.name}" if isinstance(row, CloseCode) else ""
        # repr() escapes control characters, so that a peer's text cannot break a log line.
        not_transmitted = " (not transmitted)" if self.not_transmitted else ""
        return f"{self.code}{name}" + (f" {self.reason!r}" if self.reason else "") + not_transmitted


def code_of(first: Close | None) -> int:
    """The code of a connection whose first Close is ``first``; see :attr:`Ending.code`."""
    if first is None:
        return _ABNORMAL_CLOSURE
    return _NO_STATUS_RCVD if first.code is None or first.not_transmitted else first.code


# Not looked up in the enum for each ending.
_ABNORMAL_CLOSURE = CloseCode.ABNORMAL_CLOSURE
_NO_STATUS_RCVD = CloseCode.NO_STATUS_RCVD


class _MayHaveRecord:
    """The attribute `record`, which is no field, because `__init__` would need 1,000 instructions for it."""

    __slots__ = ("record",)

    #: The last cues of the connection, if the option `recorder` is on and `ok` is False; otherwise None. It has no
    #: content of messages. `endwell replay` reads it. Two endings that differ only in this attribute are equal.
    record: Mapping[str, Any] | None

    def __getattr__(self, name: str) -> None:
        if name != "record":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending(_MayHaveRecord):
    """How and why a connection ended.

    It is computed once. `ws.ending`, `ConnectionClosed.ending` and the `on_close` callbacks all get the same
    object. Times are in seconds, sizes in bytes of frames, without those that TLS adds. `str()` gives one
    sentence for a log. `as_dict()` has all fields.

    Example:
        ```python
        import asyncio

        from endwell import Server, connect

        server = Server()


        @server.websocket("/")
        async def bye(ws):
            await ws.close(4001, "bye")


        async def main():
            async with server.serving(port=0):
                async with connect(f"ws://127.0.0.1:{server.port}/") as ws:
                    async for message in ws:
                        print(message)
            print(ws.ending)
            print(ws.ending.cause, ws.ending.code, ws.ending.ok)


        asyncio.run(main())
        ```
    """

    #: Why the connection ended.
    cause: Cause
    #: The side that ended the connection. The first closing event decides.
    initiator: Initiator
    #: Whether both sides completed the closing handshake; None if the protocol has none (hixie-75).
    clean: bool | None
    #: The Close that the peer sent; None if none arrived.
    received: Close | None = None
    #: The Close that this side wrote to the socket; None if it wrote none.
    sent: Close | None = None
    #: How the TCP connection ended.
    tcp: TcpEnd = TcpEnd.FIN
    #: The error that the operating system, TLS or the protocol check reported; None if there was none.
    exception: BaseException | None = None
    #: Wall-clock time at which the TCP connection was established, in seconds as `time.time()` counts them.
    opened_at: float = 0.0
    #: Seconds from `opened_at` to the end.
    duration: float = 0.0
    #: Number of complete messages received.
    messages_in: int = 0
    #: Number of messages accepted by `send()`.
    messages_out: int = 0
    #: Bytes received after the opening handshake.
    bytes_in: int = 0
    #: Bytes sent after the opening handshake.
    bytes_out: int = 0
    #: Bytes accepted by `send()` that were never written to the socket.
    unsent_bytes: int = 0
    #: Number of messages that were dropped: those that arrived after the local Close while the queue was full,
    #: and those above a `Limit`.
    dropped_messages: int = 0
    #: Round-trip time of the last answered ping, in seconds; None if no ping was answered.
    latency: float | None = None
    #: Seconds for which this process was stalled after the last data from the peer: a blocked event loop, a
    #: stopped process, a suspended machine. Stalls shorter than a second or two are not detected.
    stalled: float = 0.0

    @property
    def _first(self) -> Close | None:
        if self.initiator is Initiator.LOCAL:
            return self.sent or self.received
        return self.received or self.sent

    @property
    def _rejected(self) -> bool:
        """Whether the peer answered this side's Close with PROTOCOL_ERROR."""
        answer = self.received if self.initiator is Initiator.LOCAL and self.sent is not None else None
        return answer is not None and answer.code == CloseCode.PROTOCOL_ERROR != self.code

    @property
    def code(self) -> int:
        """The code of the first Close frame of the connection, sent or received.

        1006 if there was no Close frame. 1005 if it had no code, or if the protocol could not transmit the
        code (hixie-76).
        """
        return code_of(self._first)

    @property
    def reason(self) -> str:
        """The reason of the first Close, sent or received; `""` if there is none."""
        return "" if self._first is None or self._first.not_transmitted else self._first.reason

    @property
    def ok(self) -> bool:
        """Whether the connection ended normally, without a fault.

        True if the peer sent a Close and the first close code is a normal one (`CloseCode.clean`).

        `clean` does not matter: a page that reloads sends Close 1001 and drops TCP without waiting for the
        answer. That is a normal ending.

        If the peer answers this side's Close with 1002, the value is False: the peer has failed the
        connection and reported an error to its application. WebKit does that to 1012, 1013 and 1014.

        hixie-75 has no Close. There, both sides must have sent FIN, without an error. If this side closed with
        a code that its protocol could not transmit (hixie-76), that code decides.
        """
        if self.clean is None:
            closed = self.tcp is TcpEnd.FIN and self.exception is None
        else:
            closed = self.received is not None and not self._rejected
        first = self._first
        code = CloseCode.NO_STATUS_RCVD if first is None or first.code is None else first.code
        return closed and describe(code).clean

    def as_dict(self) -> dict[str, Any]:
        """A copy that `json.dumps()` accepts: every field, `code`, `reason`, and the sentence as `text`.

        `record` is left out if there is none.

        The values are str, int, float, bool, None and dicts of these, without enums.
        """
        row: dict[str, Any] = {"code": int(self.code), "reason": self.reason, "text": str(self)}
        for name in _NAMES:
            row[name] = getattr(self, name)
        row["cause"] = self.cause.value
        row["initiator"] = self.initiator.value
        row["tcp"] = self.tcp.value
        for name in ("received", "sent"):
            if (close := row[name]) is not None:
                code = None if close.code is None else int(close.code)
                row[name] = {"code": code, "reason": close.reason, "not_transmitted": close.not_transmitted}
        if self.exception is not None:
            row["exception"] = f"{_type_name(self.exception)}: {self.exception}"
        if self.record is not None:
            row["record"] = dict(self.record)
        return row

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Ending:
        """The ending from which `as_dict()` made `values`, for example after `json.loads()`.

        `as_dict()` keeps only the type and the text of `exception`. So the `exception` here is of another
        type; `str()` and `as_dict()` of the new ending are the same as those of the old one.

        Fields that this version does not know are ignored, and those that follow from others: `code`,
        `reason`, `text`. Fields with a default may be absent.

        Args:
            values: The dict.

        Raises:
            TypeError: A value has a wrong type, or `values` is not a dict. The message names the field.
            ValueError: A value is not valid, or a field without a default is absent. The message names the
                field.

        Example:
            ```python
            import json

            from endwell import Cause, Ending, Initiator

            ending = Ending(cause=Cause.PEER_VANISHED, initiator=Initiator.NETWORK, clean=False)
            line = json.dumps(ending.as_dict())
            print(Ending.from_dict(json.loads(line)) == ending)
            ```
        """
        values = mapping("an ending", values)
        named: dict[str, Any] = {}
        for each in fields(Ending):
            if each.name in values:
                named[each.name] = _READERS[each.name](each.name, values[each.name])
            elif each.default is MISSING:
                raise ValueError(f"{each.name} is absent: an ending has this field")
        ending = Ending(**named)
        record = optional(mapping)("record", values.get("record"))
        if record is not None:
            object.__setattr__(ending, "record", record)
        return ending

    # Those of the dataclass would leave `record` out of copies and pickles.
    def __getstate__(self) -> list[Any]:
        return [*(getattr(self, name) for name in _NAMES), self.record]

    def __setstate__(self, state: list[Any]) -> None:
        for name, value in zip((*_NAMES, "record"), state, strict=False):
            object.__setattr__(self, name, value)

    def __str__(self) -> str:
        """One sentence for people and logs."""
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
                head += f" ({_type_name(self.exception)}: {str(self.exception)!r})"
        clean = {True: "clean", False: "not clean", None: "without a closing handshake"}[self.clean]
        stalled = f"; before that, this side was stalled for {self.stalled:.1f} s" if self.stalled else ""
        return f"{head}; {clean}, after {self.duration:.1f} s{stalled}"


class _RecordedError(Exception):
    """The exception of an Ending that was made from a dict: the name of the original type, and the text."""

    def __str__(self) -> str:
        return str(self.args[1])

    def __eq__(self, other: object) -> bool:
        return self.args == other.args if isinstance(other, _RecordedError) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.args)


def _type_name(exception: BaseException) -> str:
    recorded = isinstance(exception, _RecordedError)
    return str(exception.args[0]) if recorded else type(exception).__name__


def _read_exception(name: str, value: Any) -> _RecordedError:
    type_name, colon, said = text(name, value).partition(": ")
    if not colon:
        raise ValueError(f"{name} must be the name of a type, a colon and a text")
    if not type_name.isprintable():  # `Ending.__str__` writes it as it is
        raise ValueError(f"{name} has a control character in the name of the type")
    return _RecordedError(type_name, said)


def _read_close(name: str, value: Any) -> Close:
    values = mapping(name, value)
    not_transmitted = flag(f"{name}.not_transmitted", values.get("not_transmitted", False))
    try:
        return Close(values.get("code"), values.get("reason", ""), not_transmitted)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}.{error}") from None


_NAMES = tuple(field.name for field in fields(Ending))
#: How `Ending.from_dict` reads each field.
_READERS = {
    "cause": member(Cause),
    "initiator": member(Initiator),
    "clean": optional(flag),
    "received": optional(_read_close),
    "sent": optional(_read_close),
    "tcp": member(TcpEnd),
    "exception": optional(_read_exception),
    "opened_at": number,
    "duration": seconds,
    "latency": optional(seconds),
    "stalled": seconds,
    **dict.fromkeys(
        ("messages_in", "messages_out", "bytes_in", "bytes_out", "unsent_bytes", "dropped_messages"), count
    ),
}

"""The close codes, as one table.

Validity checks, the choice of the exception, the retry policy, `endwell why` and the documentation all read
this table, so a new code is one row.

Sources: RFC 6455 §7.4 and the IANA registry "WebSocket Close Code Number".
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

__all__ = ["RANGES", "CloseCode", "CodeRange", "Retry", "describe"]


class Retry(Enum):
    """Whether a client should reconnect after an ending.

    Example:
        ```python
        from endwell import CloseCode, Retry

        print(CloseCode.SERVICE_RESTART.retry is Retry.NOW)
        ```
    """

    NEVER = "never"  #: Do not reconnect: the connection would end the same way.
    NOW = "now"  #: Reconnect after a short random delay, which keeps many clients from reconnecting at once.
    LATER = "later"  #: Reconnect after a back-off.


class CloseCode(IntEnum):
    """The close codes registered with IANA, and two codes of endwell in the range for private use.

    Sources: RFC 6455 §7.4 and the IANA registry "WebSocket Close Code Number". Each member is an `int` with
    these attributes:

    - `meaning`: what the sender of the code states;
    - `usual`: the usual cause;
    - `advice`: what to do about it;
    - `may_send`: whether an application may pass the code to `close()`;
    - `may_receive`: whether the code is legal in a Close frame;
    - `clean`: whether the code is a normal ending (`ConnectionClosedOK`) or a fault;
    - `retry`: whether a client should reconnect.

    Example:
        ```python
        from endwell import CloseCode

        code = CloseCode(1001)
        print(code.name, code.clean, code.retry, code.usual)
        ```
    """

    meaning: str
    usual: str
    advice: str
    may_send: bool
    may_receive: bool
    clean: bool
    retry: Retry

    def __new__(
        # size: one parameter for each column of the table
        cls,
        code: int,
        meaning: str,
        usual: str,
        advice: str,
        wire: str,
        clean: bool,
        retry: Retry,
    ) -> CloseCode:
        self = int.__new__(cls, code)
        self._value_ = code
        self.meaning = meaning
        self.usual = usual
        self.advice = advice
        self.may_send = "send" in wire
        self.may_receive = "receive" in wire
        self.clean = clean
        self.retry = retry
        return self

    NORMAL_CLOSURE = (
        1000,
        "the purpose of the connection has been fulfilled",
        "the application closed, or its handler returned",
        "nothing: this is how a connection should end",
        "send receive",
        True,
        Retry.NEVER,
    )
    GOING_AWAY = (
        1001,
        "an endpoint is going away: a server stops, or a user leaves a page",
        "a reload, a closed tab, a navigation, a deploy",
        "a client whose server went away reconnects; a server forgets the page",
        "send receive",
        True,
        Retry.NOW,
    )
    PROTOCOL_ERROR = (
        1002,
        "the peer broke the WebSocket protocol",
        "a bug in one of the two libraries, or a proxy that alters bytes",
        "read the reason: it names the rule; a capture of the bytes shows the frame",
        "send receive",
        False,
        Retry.NEVER,
    )
    UNSUPPORTED_DATA = (
        1003,
        "the endpoint does not accept this type of data",
        "a binary message sent to a text-only application, or the reverse",
        "send the type that the application expects",
        "send receive",
        False,
        Retry.NEVER,
    )
    RESERVED = (
        1004,
        "reserved: a meaning might be defined in the future",
        "a peer that uses invalid codes",
        "fix the peer: this code is never valid on the wire",
        "nowhere",
        False,
        Retry.NEVER,
    )
    NO_STATUS_RCVD = (
        1005,
        "the Close frame carried no code (local only, never on the wire)",
        "a page that called close() without arguments",
        "nothing: the closing handshake was done",
        "nowhere",
        True,
        Retry.LATER,
    )
    ABNORMAL_CLOSURE = (
        1006,
        "the connection ended without a Close frame (local only, never on the wire)",
        "a killed process, a suspended laptop, a lost network, a proxy that cut an idle tunnel",
        "read ending.cause and ending.tcp, which distinguish these cases",
        "nowhere",
        False,
        Retry.NOW,
    )
    INVALID_DATA = (
        1007,
        "a message's data does not match its type, such as text that is not UTF-8",
        "binary data sent as text",
        "send bytes as a binary message",
        "send receive",
        False,
        Retry.NEVER,
    )
    POLICY_VIOLATION = (
        1008,
        "a message violates the endpoint's policy",
        "a client that lost its authorization, or one that exceeded a limit",
        "read the reason; an unchanged reconnect will end the same way",
        "send receive",
        False,
        Retry.NEVER,
    )
    MESSAGE_TOO_BIG = (
        1009,
        "a message is too big to be processed",
        "a message above the receiver's max_size",
        "send smaller messages, or raise max_size on the receiving side",
        "send receive",
        False,
        Retry.NEVER,
    )
    MANDATORY_EXTENSION = (
        1010,
        "the client needs an extension that the server did not negotiate (clients only)",
        "a proxy that strips extension headers",
        "enable the extension on the server",
        "send receive",
        False,
        Retry.NEVER,
    )
    INTERNAL_ERROR = (
        1011,
        "the server met an unexpected condition",
        "an exception in the server's handler: its log has the traceback",
        "fix the handler; a client may try again later",
        "send receive",
        False,
        Retry.LATER,
    )
    SERVICE_RESTART = (
        1012,
        "the service is restarting",
        "a deploy",
        "reconnect after a short random delay",
        "send receive",
        True,
        Retry.NOW,
    )
    TRY_AGAIN_LATER = (
        1013,
        "the service is overloaded",
        "a limit on connections, or a server that sheds load",
        "reconnect after a back-off, not immediately",
        "send receive",
        False,
        Retry.LATER,
    )
    BAD_GATEWAY = (
        1014,
        "a gateway received an invalid response from the server behind it",
        "a proxy whose backend is down or restarting",
        "check the backend; a client may try again later",
        "send receive",
        False,
        Retry.LATER,
    )
    TLS_HANDSHAKE = (
        1015,
        "the TLS handshake failed (local only, never on the wire)",
        "an expired or untrusted certificate, or a wrong host name",
        "fix the certificate or the trust store",
        "nowhere",
        False,
        Retry.LATER,
    )
    UNAUTHORIZED = (
        3000,
        "the client must be authorized to perform this request",
        "a token that is missing or expired",
        "obtain a new token before reconnecting",
        "send receive",
        False,
        Retry.NEVER,
    )
    FORBIDDEN = (
        3003,
        "the client is authorized but lacks the permission",
        "an account without access to this resource",
        "do not reconnect: the answer will be the same",
        "send receive",
        False,
        Retry.NEVER,
    )
    TIMEOUT = (
        3008,
        "the endpoint took too long to respond",
        "an application-level deadline",
        "try again later",
        "send receive",
        False,
        Retry.LATER,
    )
    # No registered code has these meanings. The numbers are high because applications number their codes from
    # 4000 on, and applications that use 4000 plus an HTTP status stay below 4600.
    PAGE_LEFT = (
        4990,
        "the user left or hid the page, and endwell.js closed in time",
        "a reload, a closed tab, another page",
        "wait a little before treating the user as gone: a reloaded page reconnects immediately",
        "send receive",
        True,
        Retry.NOW,
    )
    REPLACED = (
        4991,
        "a newer connection of the same client has replaced this one",
        "a reload whose new page connected before the old page's Close arrived, or a second tab",
        "nothing: a reconnect would replace the newer connection",
        "send receive",
        True,
        Retry.NEVER,
    )


@dataclass(frozen=True, slots=True)
class CodeRange:
    """A range of codes that have no name. The attributes are those of `CloseCode`."""

    first: int
    last: int
    meaning: str
    usual: str
    advice: str
    may_send: bool
    may_receive: bool
    clean: bool = False
    retry: Retry = Retry.NEVER


_WRONG = ("a peer that uses invalid codes", "fix the peer: this code is never valid on the wire")

#: RFC 6455 §7.4.2, "Reserved Status Code Ranges".
RANGES = (
    CodeRange(0, 999, "not used", *_WRONG, False, False),
    CodeRange(1000, 2999, "reserved for the protocol and its extensions", *_WRONG, False, False),
    CodeRange(
        3000,
        3999,
        "reserved for libraries, frameworks and applications; registered with IANA",
        "a library's own ending",
        "look the code up in the documentation of the peer's library",
        True,
        True,
        retry=Retry.LATER,
    ),
    CodeRange(
        4000,
        4999,
        "private use, by agreement between the two applications",
        "an ending that the application defined",
        "look the code up in the application",
        True,
        True,
        retry=Retry.LATER,
    ),
    CodeRange(5000, 65535, "outside the ranges of the protocol", *_WRONG, False, False),
)


_REGISTERED = {int(row): row for row in CloseCode}


def describe(code: int) -> CloseCode | CodeRange:
    """The row of a close code: its `CloseCode` if it is registered, else the `CodeRange` that contains it.

    Raises ValueError for a number that does not fit into the two bytes of a Close frame.
    """
    if code in _REGISTERED:
        return _REGISTERED[code]
    for row in RANGES:
        if row.first <= code <= row.last:
            return row
    raise ValueError(f"code must be between 0 and 65535, not {code!r}")

"""The truth table: each way in which a connection can end, and what the application learns about it.

This is the only place that states the expected endings. The tests compare the library with it, for each
kind of application. The endwell column of ``docs/explanation/endings.md`` is generated from it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from endwell import (
    Cause,
    Close,
    CloseCode,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    Initiator,
    InvalidData,
    MessageTooBig,
    ProtocolError,
    TcpEnd,
    WebSocket,
)
from endwell.aio.driver import Driver
from endwell.aio.transport import TlsTransportDriver
from tests.raw import RawPeer, Seen
from tests.wire.peer import TEXT

__all__ = [
    "CLIENT_COLUMN",
    "CLIENT_TRANSPORT_COLUMN",
    "ENDINGS",
    "OURS",
    "SERVER_COLUMN",
    "SERVER_TRANSPORT_COLUMN",
    "End",
    "Report",
    "answers",
    "closes",
    "resets",
    "sends",
    "vanishes",
]

LOCAL, PEER, NETWORK = Initiator.LOCAL, Initiator.PEER, Initiator.NETWORK
OK, ERROR = ConnectionClosedOK, ConnectionClosedError

#: The ``max_size`` of the connections in the table.
MAX_SIZE = 1000

#: For endings that only keepalive detects, after ``ping_interval + ping_timeout``.
KEEPALIVE = {"ping_interval": 0.2, "ping_timeout": 0.2}


@dataclass(frozen=True)
class Report:
    """What the application learns; a Close without a code counts as 1005, no Close as None."""

    cause: Cause
    initiator: Initiator
    clean: bool | None
    received: Close | None
    sent: int | None
    code: int
    close_code: int
    tcp: TcpEnd
    raises: type[ConnectionClosed]
    #: Whether the code that we sent could not be transmitted.
    not_transmitted: bool = False

    @classmethod
    def by(cls, ws: WebSocket, raised: ConnectionClosed) -> Report:
        """What ``ws`` reports after ``recv()`` has ``raised``."""
        ending = ws.ending
        assert ending is not None
        assert ws.close_code is not None
        sent = None
        if ending.sent is not None:
            sent = CloseCode.NO_STATUS_RCVD if ending.sent.code is None else ending.sent.code
        return cls(
            ending.cause,
            ending.initiator,
            ending.clean,
            ending.received,
            sent,
            ending.code,
            ws.close_code,
            ending.tcp,
            type(raised),
            ending.sent is not None and ending.sent.not_transmitted,
        )

    def by_driver(self, driver: type[Driver]) -> Report:
        """What ``driver`` lets the application know: without a half-close, it does not see how TCP ends."""
        unknown = self.tcp is TcpEnd.FIN and not driver.half_close
        return replace(self, tcp=TcpEnd.UNKNOWN) if unknown else self

    def __str__(self) -> str:
        """The wording of the documentation."""
        name = f"`{self.cause.name}`"
        if self.initiator is LOCAL:
            return f"{name}, sent {self.sent}"
        if self.received is None:
            return f"{name}, {self.code}"
        reason = f' "{self.received.reason}"' if self.received.reason else ""
        return f"{name}, {self.code}{reason}"


@dataclass(frozen=True)
class End:
    """One way in which a connection ends: the action of the peer and the expected report."""

    act: Callable[[RawPeer], Awaitable[Seen | None]]
    expected: Report
    #: The type of :attr:`Ending.exception`.
    exception: type[BaseException] | None = None
    #: The options that detect a silent peer; their sum is the delay in seconds.
    options: Mapping[str, float] = field(default_factory=dict)
    #: Whether the peer's kernel acknowledges nothing, which the sender's kernel detects.
    lost: bool = False


# -- what the peer does: it acts, then reads to the end of TCP -----------------


def closes(code: int | None, reason: str = "") -> Callable[[RawPeer], Awaitable[Seen]]:
    async def act(peer: RawPeer) -> Seen:
        await peer.close(code, reason)
        return await peer.read_to_the_end()

    return act


def sends(opcode: int, payload: bytes) -> Callable[[RawPeer], Awaitable[Seen]]:
    async def act(peer: RawPeer) -> Seen:
        await peer.frame(opcode, payload)
        return await peer.read_to_the_end()

    return act


async def vanishes(peer: RawPeer) -> Seen:
    peer.fin()
    return await peer.read_to_the_end()


async def resets(peer: RawPeer) -> None:
    peer.reset()


async def is_silent(peer: RawPeer) -> Seen:
    return await peer.read_to_the_end()


async def _is_lost(peer: RawPeer) -> None:
    await peer.vanish()


async def answers(peer: RawPeer) -> Seen:
    return await peer.read_to_the_end(answer=True)


# -- what the application learns -------------------------------------------------


def _closed(code: int | None, reason: str = "", raises: type[ConnectionClosed] = OK) -> End:
    """The peer sends a Close, and we answer with the same code."""
    shown = 1005 if code is None else code
    received = Close(code, reason)
    expected = Report(Cause.PEER_CLOSED, PEER, True, received, shown, shown, shown, TcpEnd.FIN, raises)
    return End(closes(code, reason), expected)


def _wrong(opcode: int, payload: bytes, cause: Cause, code: int, exception: type[BaseException]) -> End:
    """The peer breaks a rule: we send a Close, which it does not answer."""
    expected = Report(cause, LOCAL, False, None, code, code, 1006, TcpEnd.FIN, ERROR)
    return End(sends(opcode, payload), expected, exception)


def _ours(cause: Cause, code: int, reason: str = "", raises: type[ConnectionClosed] = OK) -> End:
    """This side sends a Close, and the peer answers with the same code."""
    expected = Report(cause, LOCAL, True, Close(code, reason), code, code, code, TcpEnd.FIN, raises)
    return End(answers, expected)


#: What a peer or the network can do to both a server and a client.
ENDINGS: dict[str, End] = {
    "Close 1000": _closed(1000, "bye"),
    "Close 1001": _closed(1001, "bye"),
    "Close 1012": _closed(1012, "bye"),
    "Close 4001": _closed(4001, "custom", ERROR),
    "Close without a code": _closed(None),
    "FIN": End(
        vanishes, Report(Cause.PEER_VANISHED, NETWORK, False, None, None, 1006, 1006, TcpEnd.FIN, ERROR)
    ),
    "RST": End(
        resets,
        Report(Cause.CONNECTION_RESET, NETWORK, False, None, None, 1006, 1006, TcpEnd.RST, ERROR),
        ConnectionError,
    ),
    "bad opcode": _wrong(0x3, b"", Cause.PROTOCOL_ERROR, 1002, ProtocolError),
    "bad UTF-8": _wrong(TEXT, b"\xff", Cause.INVALID_DATA, 1007, InvalidData),
    "message too big": _wrong(TEXT, bytes(MAX_SIZE + 1), Cause.MESSAGE_TOO_BIG, 1009, MessageTooBig),
    "silent peer": End(
        is_silent,
        Report(Cause.KEEPALIVE_TIMEOUT, LOCAL, False, None, 1001, 1001, 1006, TcpEnd.ABORTED, ERROR),
        options=KEEPALIVE,
    ),
    "network lost": End(
        _is_lost,
        Report(Cause.NETWORK_ERROR, NETWORK, False, None, None, 1006, 1006, TcpEnd.TIMEOUT, ERROR),
        TimeoutError,
        lost=True,
    ),
}

#: Endings that a server initiates, as its own handler learns of them.
OURS: dict[str, End] = {
    "handler returns": _ours(Cause.HANDLER_RETURNED, 1000),
    "handler raises": _ours(Cause.HANDLER_ERROR, 1011, raises=ERROR),
    "stop": _ours(Cause.SERVER_DRAINED, 1001, "server stopping; retry 0-1s"),
}


# -- the text of the documentation -------------------------------------------------


def _at_once(ending: str) -> str:
    return f"{ENDINGS[ending].expected}; told at once"


def _sending(ending: str) -> str:
    return f"{ENDINGS[ending].expected}; `send()` raises `{ENDINGS[ending].expected.raises.__name__}`"


def _client(*endings: str) -> str:
    return " / ".join(
        f"{ENDINGS[name].expected}: {ENDINGS[name].expected.raises.__name__.removeprefix('ConnectionClosed')}"
        for name in endings
    )


_stop = OURS["stop"].expected

#: The endwell column of the server table, by the title of the row.
SERVER_COLUMN: dict[str, str] = {
    'peer Close 1000 "bye"': str(ENDINGS["Close 1000"].expected),
    'peer Close 4001 "custom"': str(ENDINGS["Close 4001"].expected),
    "peer Close, no code": str(ENDINGS["Close without a code"].expected),
    "FIN, no Close": str(ENDINGS["FIN"].expected),
    "RST": str(ENDINGS["RST"].expected),
    "bad opcode": str(ENDINGS["bad opcode"].expected),
    "bad UTF-8": str(ENDINGS["bad UTF-8"].expected),
    "message too big": str(ENDINGS["message too big"].expected),
    "silent peer, reading": str(ENDINGS["silent peer"].expected),
    "silent peer, handler busy": _at_once("silent peer"),
    "RST, handler busy": _at_once("RST"),
    "Close 1000, handler busy": f"answered; {_at_once('Close 1000')}",
    "RST, send-only handler": _sending("RST"),
    "Close 1000, send-only": _sending("Close 1000"),
    "*peer's view:* handler returns": str(OURS["handler returns"].expected.sent),
    "handler raises": f"{OURS['handler raises'].expected.sent}, empty reason; logged once",
    "stop, reading handler": f"{_stop.sent}; the loop ends, `{_stop.cause.name}`",
    "stop, sleeping handler": f"{_stop.sent} and told at once; cancelled at 4/5 of `grace`; a thread is left alone",
}

#: The endwell column of the client table.
CLIENT_COLUMN: dict[str, str] = {
    "1000 / 1001": _client("Close 1000", "Close 1001"),
    "1012 / 4001": _client("Close 1012", "Close 4001"),
    "no code": _client("Close without a code"),
    "FIN / RST": _client("FIN", "RST"),
    "server protocol error": _client("bad opcode"),
    "silent server": _client("silent peer"),
    "503 + `Retry-After: 7`": "`HandshakeRejected`, with the whole `response`",
}


def _over_a_transport(*endings: End) -> str:
    """How a cell differs over an asyncio transport; the tests check that nothing else does."""
    unknown = any(end.expected.by_driver(TlsTransportDriver) != end.expected for end in endings)
    return "the same; with TLS, `tcp` is `UNKNOWN`" if unknown else "the same"


_BY_NAME = {**ENDINGS, **OURS}

#: The column of the driver over an asyncio transport, by the row's title.
SERVER_TRANSPORT_COLUMN: dict[str, str] = {
    title: _over_a_transport(*(_BY_NAME[name] for name in names))
    for title, names in {
        'peer Close 1000 "bye"': ["Close 1000"],
        'peer Close 4001 "custom"': ["Close 4001"],
        "peer Close, no code": ["Close without a code"],
        "FIN, no Close": ["FIN"],
        "RST": ["RST"],
        "bad opcode": ["bad opcode"],
        "bad UTF-8": ["bad UTF-8"],
        "message too big": ["message too big"],
        "silent peer, reading": ["silent peer"],
        "silent peer, handler busy": ["silent peer"],
        "RST, handler busy": ["RST"],
        "Close 1000, handler busy": ["Close 1000"],
        "RST, send-only handler": ["RST"],
        "Close 1000, send-only": ["Close 1000"],
        "*peer's view:* handler returns": ["handler returns"],
        "handler raises": ["handler raises"],
        "stop, reading handler": ["stop"],
        "stop, sleeping handler": ["stop"],
    }.items()
}

CLIENT_TRANSPORT_COLUMN: dict[str, str] = {
    title: _over_a_transport(*(_BY_NAME[name] for name in names))
    for title, names in {
        "1000 / 1001": ["Close 1000", "Close 1001"],
        "1012 / 4001": ["Close 1012", "Close 4001"],
        "no code": ["Close without a code"],
        "FIN / RST": ["FIN", "RST"],
        "server protocol error": ["bad opcode"],
        "silent server": ["silent peer"],
        "503 + `Retry-After: 7`": [],
    }.items()
}

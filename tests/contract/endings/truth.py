"""The truth table: each way in which a connection can end, and what the application is told about it.

It is the only place that says what is right. The tests hold the library to it, whatever
the application is doing at the time, and the endwell column of ``docs/explanation/endings.md`` is written from it.
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
    "Told",
    "answers",
    "closes",
    "resets",
    "sends",
    "vanishes",
]

LOCAL, PEER, NETWORK = Initiator.LOCAL, Initiator.PEER, Initiator.NETWORK
OK, ERROR = ConnectionClosedOK, ConnectionClosedError

#: The limit on messages under which the table is measured.
MAX_SIZE = 1000

#: For the endings of which only pings can tell: after the two together.
KEEPALIVE = {"ping_interval": 0.2, "ping_timeout": 0.2}


@dataclass(frozen=True)
class Told:
    """What the application is told; a Close without a code counts as 1005, no Close as None."""

    cause: Cause
    initiator: Initiator
    clean: bool | None
    received: Close | None
    sent: int | None
    code: int
    close_code: int
    tcp: TcpEnd
    raises: type[ConnectionClosed]
    #: Whether the code that we sent could not be said.
    not_transmitted: bool = False

    @classmethod
    def by(cls, ws: WebSocket, raised: ConnectionClosed) -> Told:
        """What ``ws`` tells, now that ``recv()`` has ``raised``."""
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

    def by_driver(self, driver: type[Driver]) -> Told:
        """What ``driver`` lets the application know: without a half-close, it does not see how TCP ends."""
        unknown = self.tcp is TcpEnd.FIN and not driver.half_close
        return replace(self, tcp=TcpEnd.UNKNOWN) if unknown else self

    def __str__(self) -> str:
        """As the documentation puts it."""
        name = f"`{self.cause.name}`"
        if self.initiator is LOCAL:
            return f"{name}, sent {self.sent}"
        if self.received is None:
            return f"{name}, {self.code}"
        reason = f' "{self.received.reason}"' if self.received.reason else ""
        return f"{name}, {self.code}{reason}"


@dataclass(frozen=True)
class End:
    """One way in which a connection ends: what the peer does, and what is told."""

    act: Callable[[RawPeer], Awaitable[Seen | None]]
    told: Told
    #: What :attr:`Ending.exception` is.
    exception: type[BaseException] | None = None
    #: What makes us find out that the peer says nothing, after so many seconds together.
    options: Mapping[str, float] = field(default_factory=dict)
    #: Whether the peer's kernel acknowledges nothing; the sender's kernel notices that.
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


# -- what is told --------------------------------------------------------------


def _closed(code: int | None, reason: str = "", raises: type[ConnectionClosed] = OK) -> End:
    """The peer closes: its Close, and ours in answer, with the same code."""
    shown = 1005 if code is None else code
    received = Close(code, reason)
    told = Told(Cause.PEER_CLOSED, PEER, True, received, shown, shown, shown, TcpEnd.FIN, raises)
    return End(closes(code, reason), told)


def _wrong(opcode: int, payload: bytes, cause: Cause, code: int, exception: type[BaseException]) -> End:
    """The peer breaks a rule: our Close, which it does not answer."""
    told = Told(cause, LOCAL, False, None, code, code, 1006, TcpEnd.FIN, ERROR)
    return End(sends(opcode, payload), told, exception)


def _ours(cause: Cause, code: int, reason: str = "", raises: type[ConnectionClosed] = OK) -> End:
    """This side closes, and the peer's answer is the same."""
    told = Told(cause, LOCAL, True, Close(code, reason), code, code, code, TcpEnd.FIN, raises)
    return End(answers, told)


#: What a peer, or the network, can do to a server and to a client alike.
ENDINGS: dict[str, End] = {
    "Close 1000": _closed(1000, "bye"),
    "Close 1001": _closed(1001, "bye"),
    "Close 1012": _closed(1012, "bye"),
    "Close 4001": _closed(4001, "custom", ERROR),
    "Close without a code": _closed(None),
    "FIN": End(
        vanishes, Told(Cause.PEER_VANISHED, NETWORK, False, None, None, 1006, 1006, TcpEnd.FIN, ERROR)
    ),
    "RST": End(
        resets,
        Told(Cause.CONNECTION_RESET, NETWORK, False, None, None, 1006, 1006, TcpEnd.RST, ERROR),
        ConnectionError,
    ),
    "bad opcode": _wrong(0x3, b"", Cause.PROTOCOL_ERROR, 1002, ProtocolError),
    "bad UTF-8": _wrong(TEXT, b"\xff", Cause.INVALID_DATA, 1007, InvalidData),
    "message too big": _wrong(TEXT, bytes(MAX_SIZE + 1), Cause.MESSAGE_TOO_BIG, 1009, MessageTooBig),
    "silent peer": End(
        is_silent,
        Told(Cause.KEEPALIVE_TIMEOUT, LOCAL, False, None, 1001, 1001, 1006, TcpEnd.ABORTED, ERROR),
        options=KEEPALIVE,
    ),
    "network lost": End(
        _is_lost,
        Told(Cause.NETWORK_ERROR, NETWORK, False, None, None, 1006, 1006, TcpEnd.TIMEOUT, ERROR),
        TimeoutError,
        lost=True,
    ),
}

#: What a server does by itself; told as it is to its own handler.
OURS: dict[str, End] = {
    "handler returns": _ours(Cause.HANDLER_RETURNED, 1000),
    "handler raises": _ours(Cause.HANDLER_ERROR, 1011, raises=ERROR),
    "stop": _ours(Cause.SERVER_DRAINED, 1001, "server stopping; retry 0-1s"),
}


# -- what the documentation says -----------------------------------------------


def _at_once(ending: str) -> str:
    return f"{ENDINGS[ending].told}; told at once"


def _sending(ending: str) -> str:
    return f"{ENDINGS[ending].told}; `send()` raises `{ENDINGS[ending].told.raises.__name__}`"


def _client(*endings: str) -> str:
    return " / ".join(
        f"{ENDINGS[name].told}: {ENDINGS[name].told.raises.__name__.removeprefix('ConnectionClosed')}"
        for name in endings
    )


_stop = OURS["stop"].told

#: The endwell column of the server's table, by the row's title.
SERVER_COLUMN: dict[str, str] = {
    'peer Close 1000 "bye"': str(ENDINGS["Close 1000"].told),
    'peer Close 4001 "custom"': str(ENDINGS["Close 4001"].told),
    "peer Close, no code": str(ENDINGS["Close without a code"].told),
    "FIN, no Close": str(ENDINGS["FIN"].told),
    "RST": str(ENDINGS["RST"].told),
    "bad opcode": str(ENDINGS["bad opcode"].told),
    "bad UTF-8": str(ENDINGS["bad UTF-8"].told),
    "message too big": str(ENDINGS["message too big"].told),
    "silent peer, reading": str(ENDINGS["silent peer"].told),
    "silent peer, handler busy": _at_once("silent peer"),
    "RST, handler busy": _at_once("RST"),
    "Close 1000, handler busy": f"answered; {_at_once('Close 1000')}",
    "RST, send-only handler": _sending("RST"),
    "Close 1000, send-only": _sending("Close 1000"),
    "*peer's view:* handler returns": str(OURS["handler returns"].told.sent),
    "handler raises": f"{OURS['handler raises'].told.sent}, empty reason; logged once",
    "stop, reading handler": f"{_stop.sent}; the loop ends, `{_stop.cause.name}`",
    "stop, sleeping handler": f"{_stop.sent} and told at once; cancelled at 4/5 of `grace`; a thread is left alone",
}

#: The endwell column of the client's table.
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
    unknown = any(end.told.by_driver(TlsTransportDriver) != end.told for end in endings)
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

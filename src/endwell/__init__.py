"""WebSocket servers and clients for asyncio. Every connection has an `Ending`: how and why it ended."""

# This import is the first one, because it applies ENDWELL_PURE to the modules imported after it.
from .build import __version__, compiled  # isort: split

from .advice import RetryAdvice
from .aio.broadcast import BroadcastReport
from .aio.websocket import WebSocket
from .client.connect import connect
from .client.reconnecting import reconnecting
from .client.retry import History, RetryPolicy, StopReason
from .client.state import ClientPhase, ClientState
from .client.token import Token
from .codes import CloseCode, Retry
from .ending import Cause, Close, Ending, Initiator, TcpEnd
from .errors import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    EndwellError,
    GaveUp,
    HandshakeError,
    HandshakeRejected,
    InvalidData,
    InvalidHandshake,
    MessageTooBig,
    PolicyViolation,
    ProtocolError,
    ProxyError,
    RequestRefused,
    StopReconnecting,
    UnsupportedByProtocol,
)
from .http import Accept, Headers, Request, Response, TLSInfo
from .limit import Limit
from .options import Deflate, Options
from .server.app import Server
from .server.drain.report import DrainReport
from .server.drain.timetable import Drain
from .server.sessions import Sessions

__all__ = [
    "Accept",
    "BroadcastReport",
    "Cause",
    "ClientPhase",
    "ClientState",
    "Close",
    "CloseCode",
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "Deflate",
    "Drain",
    "DrainReport",
    "Ending",
    "EndwellError",
    "GaveUp",
    "HandshakeError",
    "HandshakeRejected",
    "Headers",
    "History",
    "Initiator",
    "InvalidData",
    "InvalidHandshake",
    "Limit",
    "MessageTooBig",
    "Options",
    "PolicyViolation",
    "ProtocolError",
    "ProxyError",
    "Request",
    "RequestRefused",
    "Response",
    "Retry",
    "RetryAdvice",
    "RetryPolicy",
    "Server",
    "Sessions",
    "StopReason",
    "StopReconnecting",
    "TLSInfo",
    "TcpEnd",
    "Token",
    "UnsupportedByProtocol",
    "WebSocket",
    "__version__",
    "compiled",
    "connect",
    "reconnecting",
]

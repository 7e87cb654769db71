"""WebSockets that end well: one engine, one closing table, one truthful Ending for each connection."""

# First of all, because it obeys ENDWELL_PURE for every module imported after it.
from .build import __version__, compiled  # isort: split

from .aio.websocket import WebSocket
from .client.connect import connect
from .codes import CloseCode, Retry
from .ending import Cause, Close, Ending, Initiator, TcpEnd
from .errors import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    EndwellError,
    HandshakeError,
    HandshakeFailed,
    HandshakeRejected,
    InvalidData,
    InvalidHandshake,
    MessageTooBig,
    PolicyViolation,
    ProtocolError,
)
from .http import Headers, Request, Response
from .options import Deflate, Options
from .server.app import Server

__all__ = [
    "Cause",
    "Close",
    "CloseCode",
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "Deflate",
    "Ending",
    "EndwellError",
    "HandshakeError",
    "HandshakeFailed",
    "HandshakeRejected",
    "Headers",
    "Initiator",
    "InvalidData",
    "InvalidHandshake",
    "MessageTooBig",
    "Options",
    "PolicyViolation",
    "ProtocolError",
    "Request",
    "Response",
    "Retry",
    "Server",
    "TcpEnd",
    "WebSocket",
    "__version__",
    "compiled",
    "connect",
]

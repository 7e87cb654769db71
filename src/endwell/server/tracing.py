"""What a server tells of each opening handshake, for traces."""

from __future__ import annotations

from contextvars import Context
from typing import Protocol

from ..aio.exchange import Exchange
from ..aio.websocket import WebSocket

__all__ = ["Tracing"]


class Tracing(Protocol):
    """Told of each request for a WebSocket, and of its outcome: an answer or a disconnect. Must not raise."""

    def requested(self, exchange: Exchange, context: Context) -> None:
        """A client asks for a WebSocket. The code that answers it, and the handler, run in ``context``.

        The handler runs in ``exchange.context``, which may be replaced until the answer.
        """

    def answered(self, exchange: Exchange, status: int) -> None:
        """An answer begins; of any request."""

    def gone(self, exchange: Exchange) -> None:
        """The client has disconnected before the answer; of any request."""

    def returned(self, ws: WebSocket) -> None:
        """The handler of an open connection has returned or raised."""

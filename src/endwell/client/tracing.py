"""What a client tells of each attempt to connect, for traces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..aio.websocket import WebSocket
from ..http import Headers
from ..protocol.uri import WebSocketURI

__all__ = ["Attempt", "begin"]


class Attempt(Protocol):
    """Told of one attempt to connect, including its redirects. Must not raise."""

    def headers(self, uri: WebSocketURI, headers: Headers) -> Headers:
        """Return the headers for the request to ``uri``, which is the first one or one after a redirect."""
        ...

    def opened(self, ws: WebSocket) -> None:
        """The attempt has succeeded."""

    def failed(self, exc: BaseException) -> None:
        """The attempt has failed, or was cancelled."""


#: Begins an attempt, in the task that connects; None if nothing needs it.
begin: Callable[[], Attempt] | None = None

"""The events of an open WebSocket: what an ASGI application awaits for each message."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from ..aio.awaiting import DONE, Receive
from ..aio.sending import mark_coroutine_function
from ..aio.syscalls import thread_ident
from ..aio.websocket import WebSocket
from . import coroutines

__all__ = ["Events", "ReceiveEvent"]


class Script(Protocol):
    """The rest of the events: before the answer to the request, and at the end."""

    def receive(self) -> Coroutine[Any, Any, dict[str, Any]]:
        """Receive an event while the WebSocket is not open."""
        ...

    def send(self, event: dict[str, Any]) -> Coroutine[Any, Any, None]:
        """Handle an event that is not a message on an open WebSocket."""
        ...

    def disconnected(self) -> dict[str, Any]:
        """The event of the end."""
        ...


class ReceiveEvent(Receive):
    """The awaitable that ``receive()`` returns, while the WebSocket is open and afterwards."""

    def __init__(self, ws: WebSocket, disconnected: Callable[[], dict[str, Any]]) -> None:
        Receive.__init__(self, ws._stream, ws._slot, Receive.NONE)
        self._disconnected = disconnected

    def step(self) -> Any:
        """Return the event, or the slot to wait on."""
        value = Receive.step(self)
        if value is self._slot:
            return value
        if type(value) is str:
            return {"type": "websocket.receive", "text": value}
        if value is None:
            return self._disconnected()
        return {"type": "websocket.receive", "bytes": value}


class Events:
    """The callables ``receive`` and ``send`` of one ASGI application call."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._thread = thread_ident()
        # The WebSocket between the acceptance and the application's Close.
        self._ws: WebSocket | None = None
        self._receive: ReceiveEvent | None = None

    def open(self, ws: WebSocket) -> None:
        """Use ``ws`` from now on."""
        self._ws = ws
        self._receive = ReceiveEvent(ws, self._script.disconnected)

    def close(self) -> None:
        """The application has closed: it may send nothing more."""
        self._ws = None

    def enter(self) -> None:
        """The event loop runs in this thread."""
        self._thread = thread_ident()

    def receive(self) -> Any:
        """ASGI's ``receive``: return an awaitable of the next event."""
        if self._receive is None:
            return self._script.receive()
        return self._receive

    def send(self, event: Any) -> Any:
        """ASGI's ``send``: send ``event``, and return an awaitable of its completion."""
        if self._thread != thread_ident():
            return coroutines.send_elsewhere(self, event)
        ws = self._ws
        if ws is None or not ws._core.is_open or event["type"] != "websocket.send":
            return self._script.send(event)
        message = event.get("bytes")
        if message is None:
            message = event.get("text")
        sent = ws.send(message)
        return sent if sent is DONE else coroutines.sent(sent)


# asgiref warns of a callable without the mark; synchronous consumers of Channels pass `send` to it.
for _function in (Events.receive, Events.send):
    mark_coroutine_function(_function)

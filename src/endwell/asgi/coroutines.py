"""The coroutines of the ASGI callables. Not compiled, because some libraries accept only Python's coroutines."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from ..errors import ClientDisconnected, ConnectionClosed

if TYPE_CHECKING:
    from .websocket import WebSocketCall

__all__ = ["connect", "refuse", "sent"]


async def sent(sending: Awaitable[None]) -> None:
    """Await ``sending`` as ASGI's ``send()``."""
    try:
        await sending
    except ConnectionClosed as exc:
        raise ClientDisconnected(exc.ending) from None


async def refuse(call: WebSocketCall) -> None:
    """Raise ClientDisconnected with the ending."""
    raise ClientDisconnected(await call.ended())


async def connect(call: WebSocketCall) -> dict[str, Any]:
    """Receive an event before the request is answered."""
    if not call.connected:
        call.connected = True
        return {"type": "websocket.connect"}
    await call.answered()
    event: dict[str, Any] = await call.events.receive() if call.ws is not None else call.disconnected()
    return event

"""``Server.broadcast()``: asyncio and blocking WebSockets together, called from any thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

from ..aio.broadcast import BroadcastReport, Slow, broadcast
from ..aio.websocket import WebSocket
from ..errors import ConcurrencyError
from ..sync.portal import Portal
from ..sync.websocket import WebSocket as BlockingWebSocket
from ..sync.websocket import bridge_of
from ..wire.codec import Buffer

__all__ = ["broadcast_from_anywhere"]

Connections = Iterable[WebSocket | BlockingWebSocket]
Message = str | Buffer


def broadcast_from_anywhere(
    connections: Connections, message: Message, slow: Slow, find_portal: Callable[[], Portal | None]
) -> BroadcastReport:
    """Broadcast in the event loop of ``find_portal()``, which is None while the server does not serve."""
    running, portal = _running_loop(), find_portal()
    if portal is None and running is None and isinstance(connections, Iterable):
        connections = list(connections)
        portal = find_portal()  # the server may have begun to serve before the connections were listed
        if connections and portal is None:
            raise ConcurrencyError("broadcast() was called in a thread while its server does not serve")
    if portal is None or portal.loop is running:
        return _broadcast(connections, message, slow)
    if running is not None:
        raise ConcurrencyError(
            "broadcast() was called in another event loop than the server's; use "
            "loop.call_soon_threadsafe() with the server's loop"
        )
    # Iterate in the loop, because an iterable such as Server.connections changes there at any time.
    return portal.run(_broadcast_soon, connections, message, slow)


async def _broadcast_soon(connections: Connections, message: Message, slow: Slow) -> BroadcastReport:
    return _broadcast(connections, message, slow)


def _broadcast(connections: Connections, message: Message, slow: Slow) -> BroadcastReport:
    if not isinstance(connections, Iterable):
        return broadcast(connections, message, slow)  # raises the TypeError
    receivers = list(connections)
    try:
        # A second test of each member would add a third to the cost of a broadcast.
        return broadcast(receivers, message, slow)  # type: ignore[arg-type]  # broadcast() refuses other types
    except TypeError:  # raised before anything is sent
        blocking = {bridge_of(ws).ws: ws for ws in receivers if isinstance(ws, BlockingWebSocket)}
        if not blocking:
            raise
    for ws in blocking.values():
        if bridge_of(ws).portal.loop is not asyncio.get_running_loop():
            raise ConcurrencyError(
                "broadcast() got a blocking WebSocket whose event loop is not the server's"
            )
        # Keep the order: messages that threads have sent before go out before the broadcast.
        bridge_of(ws).queue_staged()
    engines = [bridge_of(ws).ws if isinstance(ws, BlockingWebSocket) else ws for ws in receivers]
    report = broadcast(engines, message, slow)
    return replace(
        report,
        slow=tuple(blocking.get(ws, ws) for ws in report.slow),
        unsupported=tuple(blocking.get(ws, ws) for ws in report.unsupported),
    )


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

"""A broadcast to WebSockets of both faces, from any thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
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
    connections: Connections, message: Message, slow: Slow, portal: Portal | None
) -> BroadcastReport:
    """Broadcast in the event loop of ``portal``, which is that of the server while it serves."""
    running = _running_loop()
    if portal is None or portal.loop is running:
        return _broadcast(connections, message, slow)
    if running is not None:
        raise ConcurrencyError(
            "broadcast() was called in another event loop than the server's; use "
            "loop.call_soon_threadsafe() with the server's loop"
        )
    # The iterable, such as Server.connections, may change in the loop at any time: the loop reads it.
    return portal.run(_broadcast_soon, connections, message, slow)


async def _broadcast_soon(connections: Connections, message: Message, slow: Slow) -> BroadcastReport:
    return _broadcast(connections, message, slow)


def _broadcast(connections: Connections, message: Message, slow: Slow) -> BroadcastReport:
    if not isinstance(connections, Iterable):
        return broadcast(connections, message, slow)  # which says so
    everybody = list(connections)
    blocking = {bridge_of(ws).ws: ws for ws in everybody if isinstance(ws, BlockingWebSocket)}
    if not blocking:
        return broadcast(everybody, message, slow)  # type: ignore[arg-type]  # what else is in it, it refuses
    for ws in blocking.values():
        if bridge_of(ws).portal.loop is not asyncio.get_running_loop():
            raise ConcurrencyError(
                "broadcast() has a blocking WebSocket of another event loop than the server's"
            )
        # What threads have sent before leaves before.
        bridge_of(ws).queue_staged()
    engines = [bridge_of(ws).ws if isinstance(ws, BlockingWebSocket) else ws for ws in everybody]
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

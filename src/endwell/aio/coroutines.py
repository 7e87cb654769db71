"""The coroutines that methods of the asyncio WebSocket return when they have to wait.

Each has the name of its method, because Python's warning about a coroutine that was never awaited
and anyio's task names show it. The module is not compiled: Cython's coroutines are not
``types.CoroutineType``, and anyio 4.13 accepts nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from ..ending import Close, Ending
from ..errors import ConnectionClosed
from ..wire.codec import Buffer, check_message
from .syscalls import monotonic

if TYPE_CHECKING:
    from .websocket import WebSocket

__all__ = ["close", "ping", "refuse", "send", "wait_closed", "yield_once"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _method(name: str) -> Callable[[_Function], _Function]:
    def rename(function: _Function) -> _Function:
        function.__name__, function.__qualname__ = name, f"WebSocket.{name}"
        return function

    return rename


@_method("send")
async def send(ws: WebSocket, message: str | Buffer) -> None:
    """Send when the queue has room and the earlier waiting senders have sent."""
    ws._queued += 1
    if ws._send_lock is None:
        ws._send_lock = asyncio.Lock()
    try:
        async with ws._send_lock:
            await _room(ws)
    finally:
        ws._queued -= 1
    if not ws._core.send(message, monotonic()):
        check_message(message)
        raise ConnectionClosed.of(await ws.closed)
    ws._stream.settle()


async def _room(ws: WebSocket) -> None:
    core = ws._core
    while core.is_open and core.outbox.size > ws._write_limit:
        ws._sender = ws._stream.loop.create_future()
        if core.want_message():
            # Both peers may wait for room in their queues. Then each has to read.
            ws._stream.settle()
        try:
            await ws._sender
        finally:
            ws._sender = None


@_method("send")
async def yield_once() -> None:
    """Yield to other tasks; the message is in the queue."""
    await asyncio.sleep(0)


@_method("send")
async def refuse(ws: WebSocket) -> None:
    """Raise ConnectionClosed with the ending."""
    raise ConnectionClosed.of(await ws.closed)


@_method("ping")
async def ping(ws: WebSocket, payload: bytes | None) -> float:
    """See :meth:`WebSocket.ping`."""
    sent = ws._core.ping(payload, monotonic())
    if sent is None:
        raise ConnectionClosed.of(await ws.closed)
    waiter: asyncio.Future[float] = ws._stream.loop.create_future()
    if ws._pings is None:
        ws._pings = {}
    ws._pings[sent] = waiter
    ws._stream.settle()
    try:
        return await waiter
    finally:
        ws._pings.pop(sent, None)


@_method("close")
async def close(ws: WebSocket, code: int | None, reason: str) -> Ending:
    """See :meth:`WebSocket.close`."""
    ws._core.close(Close(code, reason), monotonic())
    ws._stream.settle()
    return await ws.closed


@_method("wait_closed")
async def wait_closed(ws: WebSocket) -> Ending:
    """See :meth:`WebSocket.wait_closed`."""
    return await ws.closed

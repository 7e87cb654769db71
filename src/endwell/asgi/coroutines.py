"""The coroutines of the ASGI callables. Not compiled, because some libraries accept only Python's coroutines."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

from ..aio.exchange import Exchange
from ..errors import ClientDisconnected, ConnectionClosed, RequestRefused
from .application import Application

if TYPE_CHECKING:
    from .http import HttpCall
    from .websocket import WebSocketCall

__all__ = [
    "connect",
    "give_way",
    "receive",
    "refuse",
    "returning",
    "room",
    "run",
    "send_elsewhere",
    "send_file",
    "sent",
]

#: Bytes of a file that are read at once.
FILE_CHUNK = 256 * 1024


async def sent(sending: Awaitable[None]) -> None:
    """Await ``sending`` as ASGI's ``send()``."""
    try:
        await sending
    except ConnectionClosed as exc:
        raise ClientDisconnected(exc.ending) from None


class Sender(Protocol):
    """What has ASGI's ``send``."""

    def enter(self) -> None:
        """The event loop runs in this thread."""

    def send(self, event: Any) -> Awaitable[None]:
        """Send an event."""
        ...


async def send_elsewhere(call: Sender, event: Any) -> None:
    """Send an event in the event loop, although ``send()`` was called in another thread.

    The specification has coroutine functions, whose call does nothing yet: asgiref's ``async_to_sync(send)`` calls
    ``send()`` in the thread of a synchronous consumer, and awaits the result in the event loop.
    """
    # A loop may run in several threads, one after the other.
    call.enter()
    await call.send(event)


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


# -- HTTP -----------------------------------------------------------------------


async def run(call: HttpCall, application: Application) -> None:
    """Call the application; then complete or cut the response."""
    try:
        returned = await application(call.scope, call.receive, call.send)
    except asyncio.CancelledError as exc:
        call.cancelled(exc)
        raise
    except (GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException as exc:
        call.raised(exc)
    else:
        call.returned(returned)


async def returning(event: dict[str, Any]) -> dict[str, Any]:
    """Return ``event``."""
    return event


async def receive(call: HttpCall) -> dict[str, Any]:
    """Receive an event of an HTTP request."""
    if (body := call.body()) is not None:
        try:
            return call.part(body.take_kept() or await body.chunk())
        except RequestRefused as exc:
            call.refuse(exc)
    while (waiter := call.end()) is not None:
        try:
            await waiter
        finally:
            call.forget(waiter)
    return {"type": "http.disconnect"}


async def room(exchange: Exchange) -> None:
    """Wait until the client has accepted enough of the response."""
    await exchange.room()


async def give_way() -> None:
    """Let the other tasks run."""
    await asyncio.sleep(0)


async def send_file(call: HttpCall, exchange: Exchange, path: str) -> None:
    """Send a file as the body of the response."""
    if exchange.answered:
        raise RuntimeError("'http.response.pathsend' must be the first message after the start")
    file = await asyncio.to_thread(open, path, "rb")
    try:
        left = call.begin_file(os.fstat(file.fileno()).st_size)
        while left and not exchange.gone:
            content = await asyncio.to_thread(file.read, min(left, FILE_CHUNK))
            if not content:
                raise RuntimeError("the file has become shorter")
            left -= len(content)
            if exchange.gone:
                return
            exchange.write(content)
            if exchange.is_full():
                await exchange.room()
    finally:
        await asyncio.to_thread(file.close)
    call.end_file()

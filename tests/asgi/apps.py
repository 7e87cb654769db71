"""One script, run as an application of each framework, and what it was told about the end of its connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from endwell import Ending
from tests.raw import BOUND

__all__ = ["DOING", "FRAMEWORKS", "Told", "application"]

FRAMEWORKS = ("raw", "starlette", "fastapi", "channels")


class Told:
    """What one application was told."""

    def __init__(self) -> None:
        #: The code and the reason of ``websocket.disconnect``; None if that did not come.
        self.disconnect: tuple[int, str] | None = None
        #: What ``send()`` raised.
        self.raised: BaseException | None = None
        #: What the callbacks of the extension were told.
        self.endings: list[Ending] = []
        self.extension: dict[str, Any] = {}
        self.scope: dict[str, Any] = {}
        #: The end is told; the application has returned.
        self.known, self.left = asyncio.Event(), asyncio.Event()
        #: Has the busy application go on.
        self.release = asyncio.Event()

    def begin(self, scope: dict[str, Any]) -> None:
        self.scope = scope
        self.extension = scope["extensions"]["endwell"]
        self.extension["on_close"](self._closed)

    def _closed(self, ending: Ending) -> None:
        assert self.extension["ending"]() is ending
        self.endings.append(ending)
        self.known.set()


class Raw:
    """A connection as the specification has it."""

    def __init__(self, told: Told, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        self.told, self._receive, self._send = told, receive, send

    async def accept(self) -> None:
        assert await self._receive() == {"type": "websocket.connect"}
        await self._send({"type": "websocket.accept"})

    async def receive(self) -> bool:
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            self.told.disconnect = event["code"], event.get("reason", "")
            return False
        return True

    async def send(self, text: str) -> None:
        await self._send({"type": "websocket.send", "text": text})


class Starlette:
    """The same through Starlette's WebSocket."""

    def __init__(self, told: Told, ws: Any) -> None:
        self.told, self._ws = told, ws

    async def accept(self) -> None:
        await self._ws.accept()

    async def receive(self) -> bool:
        event = await self._ws.receive()
        if event["type"] == "websocket.disconnect":
            self.told.disconnect = event["code"], event.get("reason", "")
            return False
        return True

    async def send(self, text: str) -> None:
        await self._ws.send_text(text)


class FastAPI(Starlette):
    """The same by the methods that FastAPI's documentation shows."""

    async def receive(self) -> bool:
        from fastapi import WebSocketDisconnect

        try:
            await self._ws.receive_text()
        except WebSocketDisconnect as exc:
            self.told.disconnect = exc.code, exc.reason
            return False
        return True


async def _receiving(told: Told, connection: Any) -> None:
    while await connection.receive():
        pass


async def _sending(told: Told, connection: Any) -> None:
    while True:
        await connection.send("tick")
        await asyncio.sleep(0.01)


async def _busy(told: Told, connection: Any) -> None:
    async with asyncio.timeout(2 * BOUND):
        await told.release.wait()
    while await connection.receive():
        pass


#: What an application does while its connection ends.
DOING: dict[str, Callable[[Told, Any], Awaitable[None]]] = {
    "receiving": _receiving,
    "sending": _sending,
    "busy": _busy,
}


async def _run(script: Callable[[Told, Any], Awaitable[None]], told: Told, connection: Any) -> None:
    try:
        await connection.accept()
        await script(told, connection)
    except BaseException as exc:
        told.raised = exc
        raise
    finally:
        told.left.set()


def application(framework: str, script: Callable[[Told, Any], Awaitable[None]], told: Told) -> Any:
    """An ASGI application of ``framework`` that runs ``script``."""
    if framework == "raw":

        async def app(scope: Any, receive: Any, send: Any) -> None:
            told.begin(scope)
            await _run(script, told, Raw(told, receive, send))

        return app
    if framework == "starlette":
        from starlette.applications import Starlette as Application
        from starlette.routing import WebSocketRoute

        async def route(ws: Any) -> None:
            told.begin(ws.scope)
            await _run(script, told, Starlette(told, ws))

        return Application(routes=[WebSocketRoute("/", route)])
    if framework == "channels":
        return _consumer(script, told)
    import fastapi

    async def endpoint(ws: Any) -> None:
        told.begin(ws.scope)
        await _run(script, told, FastAPI(told, ws))

    # FastAPI looks at the type, which `from __future__ import annotations` would make a string.
    endpoint.__annotations__ = {"ws": fastapi.WebSocket}
    api = fastapi.FastAPI()
    api.websocket("/")(endpoint)
    return api


def _consumer(script: Callable[[Told, Any], Awaitable[None]], told: Told) -> Any:
    """A consumer of Django Channels. It has no ``receive()`` to await: its methods are called for each event."""
    from channels.exceptions import StopConsumer
    from channels.generic.websocket import AsyncWebsocketConsumer
    from django.conf import settings

    if not settings.configured:
        settings.configure()

    class Consumer(AsyncWebsocketConsumer):
        async def connect(self) -> None:
            told.begin(self.scope)
            await self.accept()
            if script is _busy:
                await told.release.wait()
            elif script is not _receiving:
                await script(told, self)
                raise StopConsumer

        async def websocket_disconnect(self, message: dict[str, Any]) -> None:
            told.disconnect = message["code"], message.get("reason", "")
            await super().websocket_disconnect(message)

    consumer = Consumer.as_asgi()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await consumer(scope, receive, send)
        except BaseException as exc:
            told.raised = exc
            raise
        finally:
            told.left.set()

    return app

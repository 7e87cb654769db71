"""Rooms in an ASGI application, on endwell and on uvicorn with endwell's class."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager

import pytest
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter
from django.conf import settings
from fastapi import FastAPI, WebSocket

import endwell
from endwell.rooms import Rooms
from tests.asgi.serving import mounted, protocol, serving
from tests.pair import until, within


def application(rooms, memberships):
    app = FastAPI()

    @app.websocket("/")
    async def chat(ws: WebSocket):
        with pytest.raises(ValueError, match="must be accepted before"):
            rooms["a"].join(ws)
        await ws.accept()
        with pytest.raises(TypeError, match="an ASGI WebSocket that endwell serves"):
            rooms["a"].join({"type": "websocket"})
        await ws.send_text("before")
        joining = rooms["a"].join(ws, key=ws.query_params["key"])
        async with joining as membership:
            memberships.append(membership)
            async for message in ws.iter_text():
                await rooms["a"].publish(message, exclude=ws if message == "to others" else None)
        with pytest.raises(endwell.ConnectionClosed):
            await rooms["a"].join(ws.scope)

    return app


@pytest.mark.parametrize("host", ["uvicorn", "endwell"])
async def test_the_websockets_of_an_asgi_application_join_rooms(host, transport):
    rooms, memberships = Rooms(), []
    app = application(rooms, memberships)
    served = mounted(app, transport) if host == "endwell" else serving(app, protocol(), transport)
    async with rooms, served as server:
        port = server.server.port if host == "endwell" else server.port
        scheme = "ws" if transport.client is None else "wss"
        uri = f"{scheme}://localhost:{port}/?key="

        @asynccontextmanager
        async def client(key):
            async with endwell.connect(uri + key, ssl=transport.client) as ws:
                assert await within(ws.recv()) == "before"
                yield ws

        async with client("ada") as ada, client("bob") as bob:
            await until(lambda: len(rooms["a"].members) == 2)
            assert [each.key for each in await rooms["a"].presence()] == ["ada", "bob"]
            await ada.send("to others")
            await bob.send("to all")
            assert await within(ada.recv()) == "to all"
            assert [await within(bob.recv()) for _ in range(2)] == ["to others", "to all"]
        await until(lambda: not rooms["a"].members)
        assert await rooms["a"].presence() == []
        assert [type(each.ws).__name__ for each in memberships] == ["WebSocket"] * 2


@pytest.mark.parametrize("host", ["uvicorn", "endwell"])
async def test_a_client_that_leaves_before_it_joins_is_no_fault_of_the_application(host, transport, caplog):
    rooms, app, raised = Rooms(), FastAPI(), []

    @app.websocket("/")
    async def chat(ws: WebSocket):
        await ws.accept()
        gone = asyncio.Event()
        ws.scope["extensions"]["endwell"]["on_close"](lambda _: gone.set())
        await within(gone.wait())
        try:
            await rooms["a"].join(ws)
        except BaseException as exc:
            raised.append(exc)
            raise

    served = mounted(app, transport) if host == "endwell" else serving(app, protocol(), transport)
    async with rooms, served as server:
        with await server.connect() as peer:
            await peer.close(1000)
        await until(lambda: raised)
    (exc,) = raised
    assert isinstance(exc, endwell.ConnectionClosed)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_the_websockets_of_a_mounted_application_join_the_sessions():
    server, app = endwell.Server(), FastAPI()
    server.mount("/", app, lifespan="off")

    @app.websocket("/")
    async def user(ws: WebSocket):
        with pytest.raises(ValueError, match="must be accepted before"):
            server.sessions.join("ada", ws)
        await ws.accept()
        with pytest.raises(TypeError, match="an ASGI WebSocket that endwell serves"):
            server.sessions.join("ada", {"type": "websocket"})
        server.sessions.join("ada", ws)
        await ws.send_text("in")
        async for _ in ws.iter_text():
            pass

    async with server.serving():
        uri = f"ws://127.0.0.1:{server.port}/"
        async with endwell.connect(uri) as old, endwell.connect(uri) as new:
            assert await within(new.recv()) == "in"
            assert (await within(old.closed)).received.code == endwell.CloseCode.REPLACED
            await server.rooms.user("ada").publish("to ada")
            assert await within(new.recv()) == "to ada"


async def test_an_application_of_channels_begins_its_rooms_in_a_lifespan():
    rooms = Rooms()
    if not settings.configured:
        settings.configure()

    class Chat(AsyncWebsocketConsumer):
        async def connect(self):
            await self.accept()
            await rooms["chat/lobby"].join(self.scope)

        async def receive(self, text_data=None, bytes_data=None):
            await rooms["chat/lobby"].publish(text_data)

    async def lifespan(scope, receive, send):
        await receive()
        async with rooms:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    server = endwell.Server()
    server.mount("/", ProtocolTypeRouter({"lifespan": lifespan, "websocket": Chat.as_asgi()}), lifespan="on")
    async with server.serving():
        uri = f"ws://127.0.0.1:{server.port}/"
        async with endwell.connect(uri) as ada, endwell.connect(uri) as eve:
            await until(lambda: len(rooms["chat/lobby"].members) == 2)
            await ada.send("hello")
            assert [await within(ws.recv()) for ws in (ada, eve)] == ["hello", "hello"]
        await until(lambda: not rooms["chat/lobby"].members)
    with pytest.raises(endwell.ConcurrencyError):
        await rooms["chat/lobby"].publish("the application has ended")

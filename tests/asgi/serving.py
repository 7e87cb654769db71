"""uvicorn with endwell's WebSocket class, and endwell's own server, in the test's own loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from endwell import Drain, Options, Server
from endwell.uvicorn import DEFAULTS, Protocol
from tests.raw import HOST, PLAIN, RawPeer, Transport

__all__ = ["MountedServer", "ScriptedServer", "mounted", "protocol", "serving"]


def protocol(drain: Drain | None = None, **options: Any) -> type[Protocol]:
    """The class with other options."""
    changed: Options = DEFAULTS.replace(**options)
    attributes = {"options": changed, "__slots__": ()}
    return type("Protocol", (Protocol,), attributes if drain is None else {**attributes, "drain": drain})


class ScriptedServer:
    """A server that runs."""

    def __init__(self, server: uvicorn.Server, transport: Transport) -> None:
        self.server = server
        self.transport = transport
        self.port: int = server.servers[0].sockets[0].getsockname()[1]

    @property
    def connections(self) -> set[Any]:
        return self.server.server_state.connections

    @property
    def websockets(self) -> list[Any]:
        """The WebSockets that are open or closing."""
        return [connection._connection._call.ws for connection in self.connections]

    @property
    def is_busy(self) -> bool:
        """Whether there is a connection or a task of an application."""
        return bool(self.connections or self.server.server_state.tasks)

    async def shutdown(self) -> None:
        """Stop."""
        await self.server.shutdown()

    async def reach(self) -> RawPeer:
        """A client with a TCP connection."""
        peer = await RawPeer.connect_tcp(self.port, self.transport.client)
        peer.answers_notify = True  # asyncio's transports wait for it
        return peer

    async def connect(self) -> RawPeer:
        """A client with a WebSocket."""
        peer = await self.reach()
        await peer.upgrade()
        return peer


class MountedServer:
    """The same for endwell's own server."""

    def __init__(self, server: Server, transport: Transport, drain: Drain | None) -> None:
        self.server = server
        self.transport = transport
        self._drain = drain

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def websockets(self) -> list[Any]:
        return list(self.server.connections)

    @property
    def is_busy(self) -> bool:
        return bool(self.server.connections or self.server._dispatcher.tasks)

    async def shutdown(self) -> None:
        # As in uvicorn, which does not listen while it stops.
        await self.server.drain(self._drain, listen=False)

    async def reach(self) -> RawPeer:
        return await RawPeer.connect_tcp(self.server.port, self.transport.client)

    async def connect(self) -> RawPeer:
        peer = await self.reach()
        await peer.upgrade()
        return peer


@asynccontextmanager
async def mounted(
    app: Any, transport: Transport = PLAIN, drain: Drain | None = None, **options: Any
) -> AsyncIterator[MountedServer]:
    """Serve ``app`` by endwell itself."""
    server = Server(**options)
    server.mount("/", app, lifespan="off")
    async with server.serving(ssl=transport.server):
        yield MountedServer(server, transport, drain)


@asynccontextmanager
async def serving(
    app: Any, cls: type[Protocol] = Protocol, transport: Transport = PLAIN, **settings: Any
) -> AsyncIterator[ScriptedServer]:
    """Serve ``app`` as ``uvicorn.Server.serve()`` does, without signals and without its ticks of 0.1 s."""
    config = uvicorn.Config(
        app, HOST, 0, ws=cls, **{"lifespan": "off", "log_config": None, "http": "httptools", **settings}
    )
    config.load()
    config.ssl = transport.server
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    await server.on_tick(0)  # makes the default headers
    try:
        yield ScriptedServer(server, transport)
    finally:
        await server.shutdown()

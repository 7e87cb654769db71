"""uvicorn with endwell's WebSocket class, in the test's own loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from endwell import Drain, Options
from endwell.uvicorn import DEFAULTS, Protocol
from tests.raw import HOST, PLAIN, RawPeer, Transport

__all__ = ["ScriptedServer", "protocol", "serving"]


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

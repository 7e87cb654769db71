"""endwell with a coroutine as the handler."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager

import endwell

from .program import Ports, Serving, run

server = endwell.Server()


@server.websocket("/echo")
async def echo(ws: endwell.WebSocket) -> None:
    async for message in ws:
        await ws.send(message)


@server.websocket("/broadcast")
async def broadcast(ws: endwell.WebSocket) -> None:
    async for message in ws:
        server.broadcast(server.connections, message)


def serving_by(server: endwell.Server) -> Serving:
    """What ``run`` expects of a server."""

    @asynccontextmanager
    async def serving(context: ssl.SSLContext | None) -> Ports:
        async with server.serving("127.0.0.1", 0, ssl=context):
            yield server.port

    return serving


serving = serving_by(server)

if __name__ == "__main__":
    run(serving)

"""endwell's blocking face: a plain function as the handler."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager

import endwell

from .program import Ports, run

server = endwell.Server()


@server.websocket("/echo")
def echo(ws: endwell.sync.WebSocket) -> None:
    for message in ws:
        ws.send(message)


@asynccontextmanager
async def serving(context: ssl.SSLContext | None) -> Ports:
    async with server.serving("127.0.0.1", 0, ssl=context):
        yield server.port


if __name__ == "__main__":
    run(serving)

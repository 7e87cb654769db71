"""websockets, and libraries with the same API."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import websockets.asyncio.server

from .program import Ports, run


def serving_with(library: ModuleType) -> Any:
    """A server of ``library``, which has the ``serve`` and ``broadcast`` of websockets."""
    everybody: set[Any] = set()

    async def handle(ws: Any) -> None:
        if ws.request.path == "/echo":
            async for message in ws:
                await ws.send(message)
            return
        everybody.add(ws)
        try:
            async for message in ws:
                library.broadcast(everybody, message)
        finally:
            everybody.discard(ws)

    @asynccontextmanager
    async def serving(context: ssl.SSLContext | None) -> Ports:
        async with library.serve(handle, "127.0.0.1", 0, ssl=context) as server:
            yield server.sockets[0].getsockname()[1]

    return serving


if __name__ == "__main__":
    run(serving_with(websockets.asyncio.server))

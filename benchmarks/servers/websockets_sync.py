"""The threading implementation of websockets, without an event loop."""

from __future__ import annotations

import asyncio
import ssl
import threading
from contextlib import asynccontextmanager

from websockets.sync.server import ServerConnection, serve

from .program import Ports, run


def echo(ws: ServerConnection) -> None:
    for message in ws:
        ws.send(message)


@asynccontextmanager
async def serving(context: ssl.SSLContext | None) -> Ports:
    with serve(echo, "127.0.0.1", 0, ssl=context) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.socket.getsockname()[1]
        await asyncio.to_thread(server.shutdown)


if __name__ == "__main__":
    run(serving)

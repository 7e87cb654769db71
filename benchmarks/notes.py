"""The handler of benchmarks/rolling.py as an ASGI application, for other servers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

FILE = Path(os.environ["NOTES"], str(os.getpid()))
WORK = float(os.environ["WORK"])


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        notes = []
        try:
            while (message := await receive())["type"] != "websocket.disconnect":
                notes.append(f"{message['text']}\n")
                await asyncio.sleep(WORK)
                await send({"type": "websocket.send", "text": message["text"]})
        finally:
            with FILE.open("a") as stream:  # noqa: ASYNC230  (a few lines)
                stream.writelines(notes)


async def lifespan(receive: Receive, send: Send) -> None:
    message: dict[str, Any] = {}
    while message.get("type") != "lifespan.shutdown":
        message = await receive()
        await send({"type": f"{message['type']}.complete"})

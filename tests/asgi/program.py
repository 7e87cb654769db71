"""An ASGI application that counts, for a uvicorn of its own: ``uvicorn tests.asgi.program:raw``, or ``:api``.

``/ask`` answers each message after some work. ``/push`` sends without end, and receives nothing. At the end the
program prints what it has handled and sent, and what it was told, as JSON.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import asynccontextmanager
from typing import Any

counts: Counter[str] = Counter(handled=0, pushed=0)
disconnects: Counter[str] = Counter()
endings: Counter[str] = Counter()


def report() -> None:
    print("REPORT", json.dumps({**counts, "disconnects": disconnects, "endings": endings}), flush=True)


def opened(scope: dict[str, Any]) -> None:
    scope["extensions"]["endwell"]["on_close"](
        lambda ending: endings.update([f"{ending.cause.name} {ending.clean}"])
    )


async def answer(text: str, send: Any) -> None:
    counts["handled"] += 1
    await asyncio.sleep(0.02)
    await send(text)


async def push(send: Any) -> None:
    while True:
        await send("tick")
        counts["pushed"] += 1
        await asyncio.sleep(0.01)


async def raw(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        report()
        await send({"type": "lifespan.shutdown.complete"})
        return

    async def send_text(text: str) -> None:
        await send({"type": "websocket.send", "text": text})

    await receive()
    await send({"type": "websocket.accept"})
    opened(scope)
    if scope["path"] == "/push":
        try:
            await push(send_text)
        except OSError as exc:
            disconnects[str(exc.ending.code)] += 1
        return
    while (event := await receive())["type"] == "websocket.receive":
        await answer(event["text"], send_text)
    disconnects[str(event["code"])] += 1


def api() -> Any:
    """The same in FastAPI."""
    import fastapi

    @asynccontextmanager
    async def lifespan(_app: Any) -> Any:
        yield
        report()

    app = fastapi.FastAPI(lifespan=lifespan)

    async def ask(ws: Any) -> None:
        await ws.accept()
        opened(ws.scope)
        try:
            while True:
                await answer(await ws.receive_text(), ws.send_text)
        except fastapi.WebSocketDisconnect as exc:
            disconnects[str(exc.code)] += 1

    async def pushing(ws: Any) -> None:
        await ws.accept()
        opened(ws.scope)
        try:
            await push(ws.send_text)
        except fastapi.WebSocketDisconnect as exc:
            disconnects[str(exc.__context__.ending.code)] += 1

    for path, endpoint in (("/ask", ask), ("/push", pushing)):
        endpoint.__annotations__ = {"ws": fastapi.WebSocket}
        app.websocket(path)(endpoint)
    return app

"""What ASGI itself costs: a class for uvicorn that knows the size of each frame, and echoes without parsing.

Its work for a message is a slice, two dicts, the application's two awaits, and a write for each read.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import deque
from typing import Any

from .asgi import serving_by
from .program import run

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Floor(asyncio.Protocol):
    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        self.app, self.state = config.loaded_app, server_state
        self.loop = asyncio.get_running_loop()
        self.events: deque[dict[str, Any]] = deque([{"type": "websocket.connect"}])
        self.waiter: asyncio.Future[None] | None = None
        self.head = b""
        self.payload = self.reply = b""

    def connection_made(self, transport: Any) -> None:
        self.state.connections.add(self)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.head:
            self.head = data
            task = self.loop.create_task(self.app({"type": "websocket"}, self.receive, self.send))
            self.state.tasks.add(task)
            task.add_done_callback(self.state.tasks.discard)
            return
        size = data[1] & 0x7F
        start = 6
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 8
        if len(self.payload) != size:
            self.payload = b"x" * size
            self.reply = (bytes((0x82, size)) if start == 6 else b"\x82\x7e" + data[2:4]) + self.payload
        for at in range(start, len(data), start + size):
            self.events.append({"type": "websocket.receive", "bytes": data[at : at + size]})
        if self.waiter is not None:
            self.waiter.set_result(None)
            self.waiter = None

    async def receive(self) -> dict[str, Any]:
        if not self.events:
            self.waiter = self.loop.create_future()
            await self.waiter
        return self.events.popleft()

    async def send(self, event: dict[str, Any]) -> None:
        if event["type"] == "websocket.send":
            self.transport.write(self.reply)
            return
        key = next(
            line[19:] for line in self.head.split(b"\r\n") if line[:18].lower() == b"sec-websocket-key:"
        )
        proof = base64.b64encode(hashlib.sha1(key + GUID).digest())
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n"
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self.state.connections.discard(self)
        self.events.append({"type": "websocket.disconnect", "code": 1006})
        if self.waiter is not None:
            self.waiter.set_result(None)
            self.waiter = None

    def shutdown(self) -> None:
        self.transport.close()


serving = serving_by(Floor)

if __name__ == "__main__":
    run(serving)

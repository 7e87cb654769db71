"""One side of a connection, as a process of its own in a network of its own; run by test_drops.py.

It writes JSON lines: the port, if it is a server; when the connection was open; and when it
was told the end, with its cause and for how long this side stalled itself.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import endwell
from tests.face import ASYNCIO, BLOCKING, Face

__all__ = ["APPLICATIONS"]


async def _reads(face: Face, ws: Any) -> None:
    async for _ in ws:
        pass


async def _sleeps(face: Face, ws: Any) -> None:
    await face.pause(60)


async def _writes(face: Face, ws: Any) -> None:
    while True:
        await ws.send(bytes(2**16))


#: What an application does. The second reads nothing, so that the buffers of the third fill up.
APPLICATIONS = {"reads": _reads, "sleeps": _sleeps, "writes": _writes}


def _print_json(what: object) -> None:
    print(json.dumps(what), flush=True)


async def _main(role: str, blocking: bool, doing: str, host: str, port: int, options: dict[str, Any]) -> None:
    face = BLOCKING if blocking else ASYNCIO

    async def application(ws: Any) -> None:
        ws.on_close(lambda ending: _print_json([time.monotonic(), ending.cause.name, ending.stalled]))
        _print_json(time.monotonic())
        await APPLICATIONS[doing](face, ws)

    if role == "client":
        await face.run(application, await face.connect(f"ws://{host}:{port}/", **options))
    else:
        server = endwell.Server(**options)
        server.websocket("/")(face.handler(application))
        async with server.serving(host):
            _print_json(server.port)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(**json.loads(sys.argv[1])))

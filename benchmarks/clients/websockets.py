"""websockets, and what has its names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import ModuleType

import websockets.asyncio.client

from .program import Exchange, run


def echo_with(library: ModuleType) -> Callable[[Exchange], Awaitable[None]]:
    """An echo of ``library``, which has the ``connect`` of websockets."""

    async def echo(exchange: Exchange) -> None:
        async with library.connect(exchange.url) as ws:
            for message in exchange.first():
                await ws.send(message)
            async for reply in ws:
                await ws.send(exchange.next(reply))
                if exchange.over:
                    break

    return echo


if __name__ == "__main__":
    run(echo_with(websockets.asyncio.client))

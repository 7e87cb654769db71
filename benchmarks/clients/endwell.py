"""endwell, as people write it."""

from __future__ import annotations

import endwell

from .program import Exchange, run


async def echo(exchange: Exchange) -> None:
    async with endwell.connect(exchange.url) as ws:
        for message in exchange.first():
            await ws.send(message)
        async for reply in ws:
            await ws.send(exchange.next(reply))
            if exchange.over:
                break


if __name__ == "__main__":
    run(echo)

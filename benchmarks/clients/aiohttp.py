"""aiohttp."""

from __future__ import annotations

import aiohttp

from .program import Exchange, run


async def echo(exchange: Exchange) -> None:
    async with aiohttp.ClientSession() as session, session.ws_connect(exchange.url) as ws:
        for message in exchange.first():
            await ws.send_bytes(message)
        async for reply in ws:
            await ws.send_bytes(exchange.next(reply.data))
            if exchange.over:
                break


if __name__ == "__main__":
    run(echo)

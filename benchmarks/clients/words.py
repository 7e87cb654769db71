"""An echo, as people write it with the names that websockets has; endwell and picows have them too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .program import Exchange

#: Connects to a URL; the block of what it returns is that of a connection.
Connect = Callable[[str], Any]


def echo_with(connect: Connect) -> Callable[[Exchange], Awaitable[None]]:
    """An echo of coroutines."""

    async def echo(exchange: Exchange) -> None:
        async with connect(exchange.url) as ws:
            for message in exchange.first():
                await ws.send(message)
            async for reply in ws:
                await ws.send(exchange.next(reply))
                if exchange.over:
                    break

    return echo


def blocking_echo_with(connect: Connect) -> Callable[[Exchange], None]:
    """The same of calls that block."""

    def echo(exchange: Exchange) -> None:
        with connect(exchange.url) as ws:
            for message in exchange.first():
                ws.send(message)
            for reply in ws:
                ws.send(exchange.next(reply))
                if exchange.over:
                    break

    return echo

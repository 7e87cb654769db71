"""An echo with the API of websockets, which endwell and picows share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from .program import Exchange

#: Connects to a URL; the result is a context manager of the connection.
Connect = Callable[[str], Any]


def echo_with(connect: Connect) -> Callable[[Exchange], Awaitable[None]]:
    """An echo with coroutines."""

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
    """The same with blocking calls."""

    def echo(exchange: Exchange) -> None:
        with connect(exchange.url) as ws:
            for message in exchange.first():
                ws.send(message)
            for reply in ws:
                ws.send(exchange.next(reply))
                if exchange.over:
                    break

    return echo

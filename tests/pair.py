"""One connection between endwell, in either role, and a raw peer; and what it left behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from endwell import Ending, Server, WebSocket, connect
from endwell.protocol.connection import Connection
from tests.raw import BOUND, PLAIN, RawPeer, RawServer, Transport

__all__ = ["Pair", "idle", "nothing_left_behind", "pair", "within"]

#: No frames but those that a test asks for.
QUIET: dict[str, Any] = {"compression": None, "ping_interval": None}


@dataclass
class Pair:
    """Our side, and the peer's."""

    ws: WebSocket
    peer: RawPeer
    server: bool
    #: What on_close was told, as soon as it was told it.
    endings: list[Ending] = field(default_factory=list)

    @property
    def core(self) -> Connection:
        return self.ws._core

    async def ending(self) -> Ending:
        """The end, which everybody is told once and alike."""
        ending = await within(self.ws.closed)
        assert self.endings == [ending]
        assert self.ws.ending is ending
        assert not self.ws.is_open
        return ending


async def within(awaitable: Awaitable[Any], seconds: float = BOUND) -> Any:
    """Its result, if it comes in time."""

    async def wait() -> Any:
        return await awaitable

    return await asyncio.wait_for(wait(), seconds)


async def idle(ws: WebSocket) -> None:
    """A handler that neither reads nor writes."""
    await ws.closed


@asynccontextmanager
async def pair(
    role: str,
    transport: Transport = PLAIN,
    *,
    handler: Callable[[WebSocket], Awaitable[None]] = idle,
    bytewise: bool = False,
    buffer: int | None = None,
    **options: Any,
) -> AsyncIterator[Pair]:
    """``role`` ("server" or "client") is ours; ``handler`` runs on our side.

    Leaving the block ends the peer's TCP; then ours has to end and to leave nothing behind.
    """
    options = {**QUIET, "close_timeout": BOUND, **options}
    run = _pair_of_server if role == "server" else _pair_of_client
    async with run(transport, handler, bytewise, buffer, options) as both:
        yield both
        both.peer.drop()
        await both.ending()


@asynccontextmanager
async def _pair_of_server(
    transport: Transport,
    handler: Callable[[WebSocket], Awaitable[None]],
    bytewise: bool,
    buffer: int | None,
    options: dict[str, Any],
) -> AsyncIterator[Pair]:
    server = Server(**options)
    opened: asyncio.Future[Pair] = asyncio.get_running_loop().create_future()

    @server.websocket("/")
    async def handle(ws: WebSocket) -> None:
        both = Pair(ws, peer, server=True)
        ws.on_close(both.endings.append)
        opened.set_result(both)
        await handler(ws)

    async with server.serving(ssl=transport.server, grace=0):
        async with nothing_left_behind():
            with await RawPeer.reach(server.port, transport.client, bytewise=bytewise, buffer=buffer) as peer:
                await peer.upgrade()
                yield await within(opened)
            await _until(lambda: not server._tasks)
        assert not server.connections


@asynccontextmanager
async def _pair_of_client(
    transport: Transport,
    handler: Callable[[WebSocket], Awaitable[None]],
    bytewise: bool,
    buffer: int | None,
    options: dict[str, Any],
) -> AsyncIterator[Pair]:
    with RawServer(transport.server, bytewise=bytewise, buffer=buffer) as listening:
        async with nothing_left_behind(), AsyncExitStack() as stack:
            connecting = asyncio.ensure_future(_connect(listening.uri, transport, options))
            stack.callback(connecting.cancel)
            peer = stack.enter_context(await listening.accept())
            both = Pair(await within(connecting), peer, server=False)
            stack.callback(both.ws.abort)
            both.ws.on_close(both.endings.append)
            task = asyncio.ensure_future(handler(both.ws))
            stack.callback(task.cancel)
            yield both
            await within(task)


async def _connect(uri: str, transport: Transport, options: dict[str, Any]) -> WebSocket:
    return await connect(uri, ssl=transport.client, **options)


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """When the block is left, there are no file descriptors, tasks and timers that were not there before."""
    descriptors, tasks, timers = _descriptors(), asyncio.all_tasks(), _timers()
    yield
    await _until(lambda: asyncio.all_tasks() <= tasks)
    assert _descriptors() - descriptors == set()
    assert _timers() - timers == set()


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that lists them
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return found


def _timers() -> set[asyncio.TimerHandle]:
    # uvloop does not show its own.
    timers = getattr(asyncio.get_running_loop(), "_scheduled", [])
    return {timer for timer in timers if not timer.cancelled()}


async def _until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND):
        while not reached():
            await asyncio.sleep(0.001)

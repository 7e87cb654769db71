"""One connection between endwell, in either role and with either face, and a raw peer; and what it left behind."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from endwell import Close, Ending, Server
from endwell.protocol.connection import Connection
from tests.face import ASYNCIO, Face, Script
from tests.old import heard, kept, speaking
from tests.raw import BOUND, PLAIN, RawPeer, RawServer, TcpState, Transport

__all__ = [
    "LASTING",
    "Pair",
    "idle",
    "nothing_left_behind",
    "pair",
    "turns",
    "until",
    "until_reset",
    "within",
]

#: No frames but those that a test asks for.
QUIET: dict[str, Any] = {"compression": None, "ping_interval": None}


#: No timeout brings about within BOUND what a test waits for.
LASTING: dict[str, Any] = dict.fromkeys(("close_timeout", "linger_timeout", "write_timeout"), 2 * BOUND)


@dataclass
class Pair:
    """Our side, and the peer's."""

    ws: Any
    peer: RawPeer
    face: Face
    #: The protocol.
    version: str = "13"
    #: What on_close was told, as soon as it was told it.
    endings: list[Ending] = field(default_factory=list)

    def heard(self, code: int, reason: str = "") -> Close:
        """What is left of a Close, from either side, when it has come to the other."""
        return heard(self.version, code, reason)

    def kept(self, code: int, reason: str = "") -> Close:
        """What ``Ending.sent`` says after such a Close of ours."""
        return kept(self.version, code, reason)

    @property
    def core(self) -> Connection:
        return self.face.engine(self.ws)._core

    async def ending(self) -> Ending:
        """The end, which everybody is told once and alike."""
        ending = await within(self.ws.closed)
        await until(lambda: self.endings)
        assert self.endings == [ending]
        assert self.ws.ending is ending
        assert not self.ws.is_open
        return ending


async def within(awaitable: Awaitable[Any], seconds: float = BOUND) -> Any:
    """Its result, if it comes in time."""

    async def wait() -> Any:
        return await awaitable

    return await asyncio.wait_for(wait(), seconds)


async def idle(ws: Any) -> None:
    """A handler that neither reads nor writes."""
    await ws.wait_closed()


@asynccontextmanager
async def pair(
    role: str,
    transport: Transport = PLAIN,
    face: Face = ASYNCIO,
    *,
    handler: Script = idle,
    bytewise: bool = False,
    buffer: int | None = None,
    version: str = "13",
    **options: Any,
) -> AsyncIterator[Pair]:
    """``role`` ("server" or "client") and ``face`` are ours; ``handler`` runs on our side.

    Leaving the block ends the peer's TCP; then ours has to end and to leave nothing behind.
    """
    options = {**QUIET, **LASTING, **options}
    peers = {"bytewise": bytewise, "buffer": buffer}
    run = _pair_of_server if role == "server" else _pair_of_client
    async with run(transport, face, handler, version, peers, options) as both:
        yield both
        both.peer.drop()
        await both.ending()


@asynccontextmanager
async def _pair_of_server(
    transport: Transport,
    face: Face,
    handler: Script,
    version: str,
    peers: dict[str, Any],
    options: dict[str, Any],
) -> AsyncIterator[Pair]:
    server = Server(legacy=() if version == "13" else (version,), **options)
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Pair] = loop.create_future()

    async def handle(ws: Any) -> None:
        both = Pair(face.again(ws), peer, face, version)
        ws.on_close(both.endings.append)
        loop.call_soon_threadsafe(opened.set_result, both)
        await handler(ws)

    server.websocket("/")(face.handler(handle))
    async with server.serving(ssl=transport.server, grace=0):
        async with nothing_left_behind():
            with await speaking(version).reach(server.port, transport.client, **peers) as peer:
                await peer.upgrade()
                yield await within(opened)
            await until(lambda: not server._dispatcher.tasks)
        assert not server.connections


@asynccontextmanager
async def _pair_of_client(
    transport: Transport,
    face: Face,
    handler: Script,
    version: str,
    peers: dict[str, Any],
    options: dict[str, Any],
) -> AsyncIterator[Pair]:
    with RawServer(transport.server, peers=speaking(version), **peers) as listening:
        async with nothing_left_behind(), AsyncExitStack() as stack:
            connecting = asyncio.ensure_future(
                face.connect(listening.uri, ssl=transport.client, version=version, **options)
            )
            stack.callback(connecting.cancel)
            peer = stack.enter_context(await listening.accept())
            both = Pair(await within(connecting), peer, face, version)
            stack.callback(both.ws.abort)
            both.ws.on_close(both.endings.append)
            task = asyncio.ensure_future(face.run(handler, both.ws))
            stack.callback(task.cancel)
            yield both
            await within(task)


@asynccontextmanager
async def nothing_left_behind() -> AsyncIterator[None]:
    """When the block is left, there are no file descriptors, tasks and timers that were not there before."""
    descriptors, tasks, timers = _descriptors(), asyncio.all_tasks(), _timers()
    yield
    await until(lambda: asyncio.all_tasks() <= tasks)
    with suppress(TimeoutError):  # another thread's loop closes a socket when it comes to it
        await until(lambda: _descriptors() <= descriptors)
    assert _descriptors() - descriptors == set()
    assert _timers() - timers == set()


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the one that lists them
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    # libuv opens it at the first transport that is closed on a loop, and keeps it.
    return {(name, target) for name, target in found if target != os.devnull}


def _timers() -> set[asyncio.TimerHandle]:
    # uvloop does not show its own.
    timers = getattr(asyncio.get_running_loop(), "_scheduled", [])
    return {timer for timer in timers if not timer.cancelled()}


async def turns(count: int = 5) -> None:
    """Turns of the loop: it reads what the kernel has, and every task goes on as far as it can."""
    for _ in range(count):
        await asyncio.sleep(0)


def until_reset(ws: Any) -> None:
    """Wait until our system has the peer's RST; the loop does not run meanwhile, so that it knows nothing of it."""
    for _ in range(int(BOUND * 1000)):
        if ws._stream.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TcpState.CLOSE.value:
            return
        time.sleep(0.001)
    raise AssertionError("no RST has come")


async def until(reached: Callable[[], object]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(BOUND):
        while not reached():
            await asyncio.sleep(0.001)

"""One connection between endwell and a raw peer, in either role, with either face; and a check for leaks."""

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
from tests.old import close_received, close_sent, peer_type
from tests.raw import BOUND, PLAIN, RawPeer, RawServer, TcpState, Transport

__all__ = [
    "LASTING",
    "Pair",
    "idle",
    "loop_turns",
    "nothing_left_behind",
    "pair",
    "until",
    "until_reset",
    "within",
    "write_later",
]

#: Only the frames that a test asks for are sent.
QUIET: dict[str, Any] = {"compression": None, "ping_interval": None}


#: None of these timeouts expires within BOUND.
LASTING: dict[str, Any] = dict.fromkeys(("close_timeout", "linger_timeout", "write_timeout"), 2 * BOUND)


@dataclass
class Pair:
    """Both sides of the connection: ``ws`` is endwell's."""

    ws: Any
    peer: RawPeer
    face: Face
    #: The protocol version.
    version: str = "13"
    #: The endings that ``on_close`` received, as soon as it received them.
    endings: list[Ending] = field(default_factory=list)

    def close_received(self, code: int, reason: str = "") -> Close:
        """A Close from either side, as the other side receives it."""
        return close_received(self.version, code, reason)

    def close_sent(self, code: int, reason: str = "") -> Close:
        """``Ending.sent`` after endwell sent this Close."""
        return close_sent(self.version, code, reason)

    @property
    def core(self) -> Connection:
        return self.face.engine(self.ws)._core

    async def ending(self) -> Ending:
        """The ending, after a check that every way to ask for it gives the same one, once."""
        ending = await within(self.ws.closed)
        await until(lambda: self.endings)
        assert self.endings == [ending]
        assert self.ws.ending is ending
        assert not self.ws.is_open
        return ending


async def within(awaitable: Awaitable[Any], seconds: float = BOUND) -> Any:
    """The result of ``awaitable``; TimeoutError after ``seconds``."""

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
    """A connection in which endwell has ``role`` ("server" or "client") and ``face``; ``handler`` runs on
    its side.

    Leaving the block closes the peer's socket. Then endwell's connection has to end and to leave nothing
    behind.
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
        both = Pair(face.for_test(ws), peer, face, version)
        ws.on_close(both.endings.append)
        loop.call_soon_threadsafe(opened.set_result, both)
        await handler(ws)

    server.websocket("/")(face.handler(handle))
    async with server.serving(ssl=transport.server, grace=0):
        async with nothing_left_behind():
            with await peer_type(version).connect_tcp(server.port, transport.client, **peers) as peer:
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
    with RawServer(transport.server, peers=peer_type(version), **peers) as listening:
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
    """Check at the end of the block that it left no new file descriptors, tasks or timers."""
    descriptors, tasks, timers = _descriptors(), asyncio.all_tasks(), _timers()
    yield
    await until(lambda: asyncio.all_tasks() <= tasks)
    with suppress(TimeoutError):  # the loop of another thread may close a socket later
        # One timer is that of until().
        await until(lambda: _descriptors() <= descriptors and len(_timers() - timers) <= 1)
    assert _descriptors() - descriptors == set()
    # A TLS transport tells its protocol of the end some turns after the descriptor is closed.
    await loop_turns()
    assert _timers() - timers == set()


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the descriptor of this listing
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    # libuv opens it at the first transport that is closed on a loop, and keeps it.
    return {(name, target) for name, target in found if target != os.devnull}


def _timers() -> set[tuple[object, ...]]:
    """What is called later. Not the timers themselves: that of a periodic call is another one each time."""
    loop = asyncio.get_running_loop()
    # uvloop does not show its timers. Those that are due now, as after a stall, wait among other calls.
    calls = [*getattr(loop, "_scheduled", ()), *getattr(loop, "_ready", ())]
    timers = [call for call in calls if isinstance(call, asyncio.TimerHandle)]
    return {(timer._callback, *map(id, timer._args)) for timer in timers if not timer.cancelled()}


async def loop_turns(count: int = 5) -> None:
    """Let the loop iterate ``count`` times: it reads what the kernel has, and every task runs until it has
    to wait.
    """
    for _ in range(count):
        await asyncio.sleep(0)


def write_later(seconds: float, transport: asyncio.WriteTransport, data: bytes) -> None:
    """Write after some time, unless the transport is closed then."""

    def write() -> None:
        if not transport.is_closing():
            transport.write(data)

    asyncio.get_running_loop().call_later(seconds, write)


def until_reset(ws: Any) -> None:
    """Block until the kernel has received the peer's RST. The loop does not run, so endwell does not learn
    of it.
    """
    for _ in range(int(BOUND * 1000)):
        if ws._stream.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TcpState.CLOSE.value:
            return
        time.sleep(0.001)
    raise AssertionError("no RST has come")


async def until(reached: Callable[[], object]) -> None:
    """Wait until ``reached()`` is true."""
    async with asyncio.timeout(BOUND):
        while not reached():
            await asyncio.sleep(0.001)

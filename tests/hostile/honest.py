"""A server under attack, and an honest client beside the attacker that must not be delayed."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from endwell import Ending, Server, WebSocket, connect
from tests.pair import within
from tests.raw import BOUND, HOST, PLAIN, Transport

__all__ = ["MOST", "Attacked", "attacked", "piece_of_work"]

#: The longest permitted delay of an honest connection, whatever another one sends. It is CPU time of the
#: loop's thread, as a number of pieces of work measured on the same machine, so that neither speed nor load
#: matters. A loop iteration during a flood takes less than a tenth of it; the faults that it excludes took
#: 2 to 200 times as much. The pure build parses ten times slower.
MOST = 100 if os.environ.get("ENDWELL_PURE") == "1" else 50


def piece_of_work() -> float:
    """The CPU seconds of a piece of interpreter work of some milliseconds: the least of three tries."""
    return min(_work() for _ in range(3))


def _work() -> float:
    began, size = time.thread_time(), 0
    for number in range(50_000):
        size = (size + len(str(number))) & 0xFFFF
    return time.thread_time() - began


class Attacked:
    """The server, the endings of its connections, and the delays of the honest client."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.port = server.port
        self.endings: list[Ending] = []
        #: The connections whose handler runs.
        self.handled: list[WebSocket] = []
        #: The longest round trip of the honest connection, in CPU seconds of this thread.
        self.longest = 0.0
        self.trips = 0

    async def ended(self, count: int = 1) -> Ending:
        """Wait until ``count`` connections have ended; the last ending."""
        async with asyncio.timeout(BOUND):
            while len(self.endings) < count:
                await asyncio.sleep(0.001)
        return self.endings[count - 1]

    async def honest_trips(self, count: int) -> None:
        """Wait until the honest connection has made ``count`` more round trips."""
        count += self.trips
        async with asyncio.timeout(BOUND):
            while self.trips < count:
                await asyncio.sleep(0.001)

    async def forget(self) -> None:
        """Reset the longest round trip: to exclude the work of the test itself in the same thread."""
        await self.honest_trips(2)
        self.longest = 0.0

    async def least_of(self, windows: int, trips: int) -> None:
        """Keep the shortest of the longest round trips of several windows: one of them must be undisturbed."""
        longest = []
        for _ in range(windows):
            await self.forget()
            await self.honest_trips(trips)
            longest.append(self.longest)
        self.longest = min(longest)

    async def _run_honest_client(self, ws: WebSocket) -> None:
        while True:
            began = time.thread_time()
            await ws.send("still there?")
            assert await within(ws.recv()) == "still there?"
            self.longest = max(self.longest, time.thread_time() - began)
            self.trips += 1
            await asyncio.sleep(0.005)


def _held() -> tuple[int, int]:
    return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())


async def echo(ws: WebSocket) -> None:
    """The handler of every connection."""
    async for message in ws:
        await ws.send(message)


@contextmanager
def _earlier_objects_are_not_collected() -> Iterator[None]:
    """Collect the garbage of this test only.

    A full collection visits all objects of the process, also those of the tests before. On a slow machine this
    takes as much CPU time as the faults that these tests exclude.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@asynccontextmanager
async def attacked(
    handler: Any = echo, transport: Transport = PLAIN, **options: Any
) -> AsyncIterator[Attacked]:
    """A server, and an honest client that never waits for more than ``MOST`` pieces of work.

    At the end of the block no other connection is left.
    """
    with _earlier_objects_are_not_collected():
        async with _attacked(handler, transport, **options) as both:
            yield both
    # Measured only if it may matter.
    most = MOST * (piece_of_work() if both.longest > 0.05 else 1.0)
    assert both.longest < most, f"an honest connection waited {both.longest:.3f} s, above {most:.3f} s"


@asynccontextmanager
async def _attacked(handler: Any, transport: Transport, **options: Any) -> AsyncIterator[Attacked]:
    server = Server(**{"ping_interval": None, "close_timeout": 2.0, **options})

    @server.websocket("/honest")
    async def honest(ws: WebSocket) -> None:
        await echo(ws)

    @server.websocket("/")
    async def handle(ws: WebSocket) -> None:
        both.handled.append(ws)
        await handler(ws)

    @server.get("/page")
    def page(request: object) -> str:
        return "a page"

    server.on_close(lambda ws, ending: ws.request.path == "/honest" or both.endings.append(ending))
    scheme = "ws" if transport.client is None else "wss"
    async with server.serving(ssl=transport.server, grace=0.5):
        both = Attacked(server)
        uri = f"{scheme}://{HOST}:{server.port}/honest"
        async with connect(uri, ssl=transport.client, ping_interval=None) as ws:
            task = asyncio.create_task(both._run_honest_client(ws))
            await asyncio.sleep(0.005)
            before = _held()
            yield both
            # Not nothing_left_behind(): the honest client has timers, which change.
            async with asyncio.timeout(BOUND):
                while len(server.connections) > 1 or any(map(int.__gt__, _held(), before)):
                    await asyncio.sleep(0.001)
            if not task.done():
                await both.honest_trips(2)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled(), task.exception()
            assert ws.is_open

"""What a server receives when its clients reconnect: with the defaults, in real time, over real sockets.

    python -m benchmarks.returning                       asyncio and blocking clients
    python -m benchmarks.returning chromium firefox      real pages with endwell.js
    python -m benchmarks.returning asyncio --what cut    one of them

- full: the server accepts each connection and closes it with 1013; how many does a client make in 30 s?
- cut: all connections are aborted at once; how many clients reconnect in the worst second?
- closed: the same, closed with 1012. Firefox delays aborted clients by itself, up to a minute
  for many to one address, one after the other, and then reports a failed handshake to its page.
- advice: all are closed with 1012 and the advice to reconnect in 2 to 42 s.

It fails if a bound of docs/howto/reconnect.md is exceeded. Clients of a browser are WebSockets of one page;
its window is that of tests/browser.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass

import endwell
import endwell.sync
from tests.browser.driver import running
from tests.browser.hall import PAGE

HOST = "127.0.0.1"
#: Seconds in which a full server counts connections, and seconds for all clients to connect at first.
WATCHED = 30.0
PATIENCE = 60.0
ADVICE = endwell.RetryAdvice(2, 42)


@dataclass(frozen=True)
class Run:
    """The number of clients, and the limits: connections of each client, or of all in any second."""

    clients: int
    most: int


PYTHON = {"full": Run(50, 6), "cut": Run(1000, 300), "advice": Run(1000, 60)}
# Firefox opens at most 200 WebSockets.
CHROMIUM = {"full": Run(20, 6), "cut": Run(100, 45), "closed": Run(100, 45), "advice": Run(100, 14)}
FIREFOX = {what: run for what, run in CHROMIUM.items() if what != "cut"}


class Place:
    """A server, and the times at which each client connected; clients are identified in the query."""

    def __init__(self) -> None:
        self.server = endwell.Server(compression=None)
        self.came: list[tuple[str, float]] = []
        self.full = False
        self.server.browser_module()
        self.server.get("/")(lambda request: endwell.Response.html(PAGE % "{}"))
        self.server.websocket("/ws")(self._hold)

    async def _hold(self, ws: endwell.WebSocket) -> None:
        # The page has one of its own, which is not counted.
        client = ws.request.query.get("client")
        if client is not None:
            self.came.append((client, time.monotonic()))
            if self.full:
                await ws.close(1013, "full")
        await ws.closed

    @property
    def clients(self) -> list[endwell.WebSocket]:
        """The connections that are open."""
        return [ws for ws in self.server.connections if "client" in ws.request.query]


Clients = Callable[[int, int], AbstractAsyncContextManager[None]]


def url(port: int, number: int) -> str:
    return f"ws://{HOST}:{port}/ws?client={number}"


@asynccontextmanager
async def of_asyncio(port: int, count: int) -> AsyncIterator[None]:
    async def client(number: int) -> None:
        async for ws in endwell.reconnecting(url(port, number), compression=None):
            await ws.closed

    tasks = [asyncio.create_task(client(number)) for number in range(count)]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def of_threads(port: int, count: int) -> AsyncIterator[None]:
    clients = [endwell.sync.reconnecting(url(port, number), compression=None) for number in range(count)]

    def run(client: endwell.sync.reconnecting) -> None:
        for ws in client:
            ws.wait_closed()

    threads = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    yield
    for client in clients:
        client.stop()
    for thread in threads:
        await asyncio.to_thread(thread.join)


def of_browser(name: str) -> Clients:
    @asynccontextmanager
    async def clients(port: int, count: int) -> AsyncIterator[None]:
        with running(name) as browser:
            async with browser.tab(f"http://{HOST}:{port}/") as tab:
                async with asyncio.timeout(PATIENCE):
                    while not await tab.evaluate("globalThis.ws?.readyState === 1"):
                        await asyncio.sleep(0.1)
                await tab.evaluate(
                    f"void Array.from({{length: {count}}}, (_, n) => open_(`/ws?client=${{n}}`))"
                )
                yield

    return clients


KINDS: dict[str, tuple[Clients, dict[str, Run]]] = {
    "asyncio": (of_asyncio, PYTHON),
    "sync": (of_threads, PYTHON),
    "chromium": (of_browser("chromium"), CHROMIUM),
    "firefox": (of_browser("firefox"), FIREFOX),
}
PYTHON_KINDS = ("asyncio", "sync")


def worst_second(moments: list[float]) -> int:
    """The most connections in any one second."""
    moments = sorted(moments)
    return max(bisect_left(moments, moment + 1.0) - index for index, moment in enumerate(moments))


async def full(place: Place, clients: Clients, count: int) -> tuple[int, str]:
    """The most connections of one client, and remarks."""
    place.full = True
    async with clients(place.server.port, count):
        await asyncio.sleep(WATCHED + 5)
    first: dict[str, float] = {}
    for client, moment in place.came:
        first.setdefault(client, moment)
    each = Counter(client for client, moment in place.came if moment < first[client] + WATCHED)
    most = max(each.values())
    return most, f"each {each.total() / len(each):.1f} in {WATCHED:.0f} s, one of them {most}"


async def cut(place: Place, clients: Clients, count: int, reason: str | None) -> tuple[int, str]:
    """The most reconnections in one second, and remarks; without a ``reason`` there is no Close 1012."""
    async with clients(place.server.port, count):
        async with asyncio.timeout(PATIENCE):
            while len(place.clients) < count:
                await asyncio.sleep(0.05)
        began = time.monotonic()
        for ws in place.clients:
            if reason is None:
                ws.abort()
            else:
                endwell.aio.websocket.begin_close(ws, endwell.Cause.APP_CLOSED, 1012, reason)
        async with asyncio.timeout(PATIENCE):
            while len(place.came) < 2 * count:
                await asyncio.sleep(0.05)
        moments = [moment - began for _, moment in place.came[count:]]
        most = worst_second(moments)
        return most, f"all back after {min(moments):.1f} to {max(moments):.1f} s, in the worst second {most}"


REASONS = {"cut": None, "closed": "", "advice": ADVICE.reason("server restarting")}


async def measure(kind: str, what: str) -> bool:
    """Whether the bound holds."""
    clients, runs = KINDS[kind]
    run, place = runs[what], Place()
    async with place.server.serving(HOST):
        if what == "full":
            most, told = await full(place, clients, run.clients)
        else:
            most, told = await cut(place, clients, run.clients, REASONS[what])
    kept = most <= run.most
    print(f"| {kind} | {what} | {run.clients} | {told} | {run.most}{'' if kept else ' BROKEN'} |", flush=True)
    return kept


async def main() -> bool:
    """Whether all bounds hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", choices=[[], *KINDS], default=[])
    parser.add_argument("--what", nargs="*", choices=list(CHROMIUM), default=list(CHROMIUM))
    arguments = parser.parse_args()
    # Both ends of each connection are in this process.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536), hard))
    print("| clients | what | how many | what came of it | at most |\n| --- | --- | --- | --- | --- |")
    runs = [
        (kind, what)
        for kind in arguments.kinds or PYTHON_KINDS
        for what in arguments.what
        if what in KINDS[kind][1]
    ]
    return all([await measure(kind, what) for kind, what in runs])


if __name__ == "__main__":
    sys.exit(0 if asyncio.run(main()) else 1)

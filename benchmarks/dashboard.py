"""What the dashboard costs a server with many connections, in CPU time of its process.

    python benchmarks/dashboard.py                       10,000 connections
    python benchmarks/dashboard.py --connections 1000    fewer

Idle clients in processes of their own open the connections. Then the CPU time of the server is read before and after
some seconds: without a feed, with a feed that asks for a summary once a second, with one that also asks for 100 rows of
the list once a second (the page asks for 200 rows each 2 s), and again without. The longest turn of the event loop, in
CPU time, is that while the lists are made.

Exit status: 1 if the summaries, or the summaries and the rows, take more than 1 % of a core, else 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import AsyncExitStack

import endwell

HOST = "127.0.0.1"
#: Connections of one process of clients.
SHARE = 2500
#: Openings at the same time.
OPENINGS = 50
#: Seconds of each measurement.
DURATION = 10.0
#: Maximum share of a core for the summaries, and for the summaries and the rows.
BOUND = 0.01
SUBPROTOCOL = "endwell.feed.1"


async def serve() -> None:
    """Serve until standard input ends. Print the port, then for each line the CPU time and the longest turn."""
    server = endwell.Server(compression=None, ping_interval=None, max_connections=None)
    server.dashboard()

    @server.websocket("/room/{number}")
    async def handler(ws: endwell.WebSocket, number: str) -> None:
        server.sessions.join(f"user {ws.request.query['user']}", ws)
        await server.rooms[number].join(ws)
        await ws.send("in")
        async for _ in ws:
            pass

    loop = asyncio.get_running_loop()
    longest, last, watches = 0.0, 0.0, False

    def turn() -> None:
        nonlocal longest, last
        now = time.thread_time()
        longest, last = max(longest, now - last), now
        if watches:
            loop.call_soon(turn)

    async with server.serving(HOST, 0, grace=0):
        print(server.port, flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            watches = line.strip() == "turns"
            if watches:
                longest, last = 0.0, time.thread_time()
                loop.call_soon(turn)
            print(json.dumps([time.process_time(), longest]), flush=True)


async def be_clients(port: int, count: int, first: int) -> None:
    """Open ``count`` connections, and hold them until standard input ends."""
    limit = asyncio.Semaphore(OPENINGS)
    opened: list[endwell.WebSocket] = []

    async def enter(number: int) -> None:
        uri = f"ws://{HOST}:{port}/room/{number % 100}?user={number}"
        async with limit:
            ws = await endwell.connect(uri, compression=None, ping_interval=None, proxy=None)
        await ws.recv()
        opened.append(ws)

    await asyncio.gather(*(enter(number) for number in range(first, first + count)))
    print("open", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    for ws in opened:
        ws.abort()


class Program:
    """This program in a process of its own."""

    def __init__(self, *argv: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, *argv], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, word: str) -> str:
        """Send a line, and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


async def share(server: Program, word: str = "time") -> float:
    """The share of a core that the server takes, in the next seconds."""
    before, began = json.loads(server.ask(word))[0], time.monotonic()
    await asyncio.sleep(DURATION)
    after, seconds = json.loads(server.ask(word))[0], time.monotonic() - began
    return float(after - before) / seconds


async def follow(port: int, *, lists: bool) -> None:
    """Ask for a summary, and with ``lists`` for the first rows, once a second."""
    uri = f"ws://{HOST}:{port}/_endwell/feed"
    async with endwell.connect(uri, subprotocols=[SUBPROTOCOL], compression=None, proxy=None) as ws:
        await ws.send('{"ask": "summary", "id": 1, "every": 1}')
        if not lists:
            async for _ in ws:
                pass
        # With many connections, the summaries come less often than the rows are asked for.
        while True:
            await ws.send('{"ask": "list", "id": 2, "sort": "idle", "descending": true}')
            asked = time.monotonic()
            while '"rows"' not in await ws.recv():
                pass
            await asyncio.sleep(asked + 1 - time.monotonic())


async def measure(server: Program, port: int) -> float:
    """Print the figures; return the largest share."""
    # The opening of the connections leaves work for a while.
    while (idle := await share(server)) > BOUND / 4:
        pass
    print(f"without a feed            {idle:.3%} of a core")
    shares = []
    for lists, what in ((False, "a summary each second"), (True, "and 100 rows each second")):
        task = asyncio.create_task(follow(port, lists=lists))
        await asyncio.sleep(2)
        shares.append(await share(server) - idle)
        print(f"{what:<26}{shares[-1]:.3%} of a core more")
        if lists:
            server.ask("turns")
            await asyncio.sleep(5)
            longest = json.loads(server.ask("time"))[1]
            print(f"longest turn              {longest * 1000:.1f} ms of CPU time")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await asyncio.sleep(2)
    print(f"without a feed again      {await share(server):.3%} of a core")
    return max(shares)


async def play(connections: int) -> int:
    """Start all, measure; return the exit status."""
    server = Program("--role", "server")
    async with AsyncExitStack() as stack:
        stack.callback(server.end)
        port = int(server.read())
        for first in range(0, connections, SHARE):
            count = min(SHARE, connections - first)
            clients = Program("--role", "clients", str(port), str(count), str(first))
            stack.callback(clients.end)
            if clients.read() != "open":
                print("the clients could not connect", file=sys.stderr)
                return 1
        build = "compiled" if endwell.compiled() else "pure Python"
        print(
            f"{connections} connections, {build}, Python {sys.version.split()[0]}, load {os.getloadavg()[0]:.1f}"
        )
        return int(await measure(server, port) > BOUND)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--role", choices=["server", "clients"], help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs="*", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    factory = endwell.aio.loop.loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        if args.role == "server":
            runner.run(serve())
        elif args.role == "clients":
            runner.run(be_clients(*args.arguments))
        else:
            return runner.run(play(args.connections))
    return 0


if __name__ == "__main__":
    sys.exit(main())

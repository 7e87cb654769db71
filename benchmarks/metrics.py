"""Whether the counts of several workers are true while workers are killed and replaced.

    python benchmarks/metrics.py                       4 workers, 10,000 connections
    python benchmarks/metrics.py --connections 1000    fewer

Clients in processes of their own count what they do. One worker is killed with SIGKILL, and all are replaced by
SIGHUP. The page of metrics is read twice a second: no counter may go back. At the end, the sums must equal what the
clients counted. The program also prints the size of the page, and how long it took.

Exit status: 1 if a count is wrong, else 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter

import endwell

HOST = "127.0.0.1"
#: Maximum seconds of each step.
PATIENCE = 240.0
#: Connections of one process of clients.
SHARE = 2500
#: Openings at the same time.
OPENINGS = 50
#: Messages of each connection.
MESSAGES = 3
#: What open connections send is added up at least this often: see REFRESH_INTERVAL in server/metering.py.
SETTLED = 2.5


def serve(workers: int) -> None:
    """Serve until the signal."""
    server = endwell.Server()
    server.metrics_page()

    @server.websocket("/echo/{number}")
    async def echo(ws: endwell.WebSocket, number: str) -> None:
        await ws.send(str(os.getpid()))
        async for message in ws:
            await ws.send(message)

    server.run(HOST, 0, workers=workers, drain=endwell.Drain(window=5, deadline=30))


async def be_clients(port: int, count: int) -> None:
    """Open ``count`` connections, and do what the lines on standard input say. Print what happened."""
    counts: Counter[str] = Counter()
    limit = asyncio.Semaphore(OPENINGS)
    opened: list[endwell.WebSocket] = []

    async def enter(number: int) -> None:
        async with limit:
            ws = await endwell.connect(f"ws://{HOST}:{port}/echo/{number}", proxy=None)
        counts["accepted"] += 1
        counts["received"] += 1
        counts[f"worker {await ws.recv()}"] += 1
        for _ in range(MESSAGES):
            await ws.send("x" * 100)
            counts["sent"] += 1
            await ws.recv()
            counts["received"] += 1
        opened.append(ws)

    await asyncio.gather(*(enter(number) for number in range(count)))
    print(json.dumps(counts), flush=True)
    # A second of the closings: half of them by the clients, with codes that they invent.
    await asyncio.to_thread(sys.stdin.readline)
    for number, ws in enumerate(opened[: count // 10]):
        await ws.close(3000 + number % 1000, "bye")
    print(json.dumps({"closed": count // 10}), flush=True)
    await asyncio.gather(*(ws.wait_closed() for ws in opened))
    codes = Counter(str(ws.ending.code) for ws in opened[count // 10 :] if ws.ending is not None)
    print(json.dumps(codes), flush=True)


class Page:
    """Reads the page, and remembers the counters."""

    def __init__(self, port: int) -> None:
        self._url = f"http://{HOST}:{port}/metrics"
        self.values: dict[str, float] = {}
        self.reads = self.size = 0
        self.longest = 0.0
        self.faults: list[str] = []

    def read(self) -> None:
        """Read it once. A worker that is killed while it answers does not count."""
        began = time.monotonic()
        try:
            with urllib.request.urlopen(self._url, timeout=PATIENCE) as answer:
                text = answer.read().decode()
        except OSError:
            return
        self.longest = max(self.longest, time.monotonic() - began)
        self.reads, self.size = self.reads + 1, len(text)
        values = {
            name: float(value)
            for name, _, value in (
                line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")
            )
        }
        for name, before in self.values.items():
            counter = re.match(r"\w+(_total|_bucket|_count|_sum)\b", name)
            if counter and values.get(name, -1.0) < before:
                self.faults.append(f"{name} went back from {before} to {values.get(name)}")
        self.values = values

    def sum(self, name: str, *labels: str) -> float:
        """The sum of the samples with all of these labels, such as ``state="open"``."""
        return sum(
            value
            for each, value in self.values.items()
            if each.partition("{")[0] == name and all(label in each for label in labels)
        )


async def check(workers: int, connections: int) -> list[str]:
    """Run it; returns the faults."""
    command = [sys.executable, __file__]
    server = subprocess.Popen(  # noqa: ASYNC220
        [*command, "--serve", str(workers)], stderr=subprocess.PIPE, text=True
    )
    assert server.stderr is not None
    try:
        port = int(re.search(r":(\d+)", server.stderr.readline())[1])  # type: ignore[index]
        page = Page(port)
        reading = asyncio.create_task(_read_often(page))
        try:
            await asyncio.wait_for(_scenario(page, command, port, server.pid, connections), PATIENCE)
        finally:
            reading.cancel()
    finally:
        server.terminate()
        await asyncio.to_thread(server.wait, PATIENCE)
    print(
        f"{page.reads} pages of up to {page.size / 1024:.1f} KiB, the slowest one in {page.longest * 1000:.0f} ms"
    )
    return page.faults


async def _read_often(page: Page) -> None:
    while True:
        await asyncio.to_thread(page.read)
        await asyncio.sleep(0.5)


async def _scenario(page: Page, command: list[str], port: int, supervisor: int, connections: int) -> None:
    shares = [min(SHARE, connections - begin) for begin in range(0, connections, SHARE)]
    clients = [
        await asyncio.create_subprocess_exec(
            *command,
            "--clients",
            f"{port}:{share}",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for share in shares
    ]
    counted = await _lines(clients)
    workers = {name.split()[1]: number for name, number in counted.items() if name.startswith("worker ")}
    print(f"{counted['accepted']} connections, by worker: {workers}")
    await _settle(
        page,
        {
            "accepted": ("endwell_handshakes_total", 'status="101"'),
            "open": ("endwell_connections", 'state="open"'),
            "received": ("endwell_messages_total", 'direction="out"'),
            "sent": ("endwell_messages_total", 'direction="in"'),
        },
        {**counted, "open": counted["accepted"]},
    )
    killed = next(iter(workers))
    os.kill(int(killed), signal.SIGKILL)
    await _settle(
        page,
        {
            "exited": ("endwell_endings_total", 'cause="process_exited"'),
            "sent": ("endwell_messages_total", 'direction="in"'),
        },
        {**counted, "exited": workers[killed]},
    )
    for client in clients:
        assert client.stdin is not None
        client.stdin.write(b"\n")
        await client.stdin.drain()
    closed = (await _lines(clients))["closed"]
    os.kill(supervisor, signal.SIGHUP)
    codes = await _lines(clients)
    print(f"codes that the clients saw: {dict(codes)}; {closed} connections were closed by the clients")
    drained = codes["1012"] + codes["1001"]
    names = {
        "all": ("endwell_endings_total",),
        "durations": ("endwell_connection_duration_seconds_count",),
        "drained": ("endwell_endings_total", 'cause="server_drained"'),
        "accepted": ("endwell_handshakes_total", 'status="101"'),
        "open": ("endwell_connections", 'state="open"'),
    }
    # A worker that was killed has told no durations.
    durations = connections - workers[killed]
    expected = {"all": connections, "drained": drained, "accepted": connections, "durations": durations}
    await _settle(page, names, expected)


async def _settle(page: Page, names: dict[str, tuple[str, ...]], expected: dict[str, int]) -> None:
    """Wait until the page says what is expected, and compare."""
    deadline = time.monotonic() + 60
    while True:
        await asyncio.sleep(SETTLED)
        found = {name: page.sum(*labels) for name, labels in names.items()}
        wrong = [name for name in names if found[name] != expected.get(name, 0)]
        if not wrong or time.monotonic() > deadline:
            break
    print("the page says:", {name: int(value) for name, value in found.items()})
    page.faults += [f"{name}: {found[name]:g} instead of {expected.get(name, 0)}" for name in wrong]


async def _lines(clients: list[asyncio.subprocess.Process]) -> Counter[str]:
    """The sum of the next lines of the clients."""
    total: Counter[str] = Counter()
    for client in clients:
        assert client.stdout is not None
        total.update(json.loads(await client.stdout.readline()))
    return total


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--clients", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
        return 0
    if args.clients:
        port, count = map(int, args.clients.split(":"))
        asyncio.run(be_clients(port, count))
        return 0
    faults = asyncio.run(check(args.workers, args.connections))
    print("\n".join(["faults:", *faults]) if faults else "all counts are true, and none went back")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

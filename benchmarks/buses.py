"""What a publication costs between workers: the bus of the supervisor beside Redis.

    python -m benchmarks.buses                      4 workers, 32 B and 1 KiB, needs redis-server
    python -m benchmarks.buses --rounds 3

One worker publishes to a room that has members in each of the workers, 32 publications in flight, then one. The
cost is the CPU time of all processes of the server, Redis included, divided by the publications; the clients
are not in it. The two servers run at the same time and are measured in turn. p50 is the time from publish() to
its receipt with one publication in flight. The goals: half of the CPU time of Redis, and not above its p50.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import endwell

WORKERS = 4
MEMBERS = 16

APP = """
import asyncio, os, sys, time
import endwell

server = endwell.Server(compression=None, ping_interval=None)
room = server.rooms["room"]

@server.websocket("/join")
async def join(ws):
    async with room.join(ws):
        await ws.send(str(os.getpid()))
        await ws.wait_closed()

@server.websocket("/publish")
async def publish(ws):
    async for order in ws:
        count, size, flight = map(int, order.split())
        message, times, left = b"x" * size, [], count

        async def some():
            nonlocal left
            while left > 0:
                left -= 1
                began = time.perf_counter()
                receipt = await room.publish(message)
                times.append(time.perf_counter() - began)
                assert receipt.workers == WORKERS, receipt

        await asyncio.gather(*(some() for _ in range(flight)))
        await ws.send(str(sorted(times)[len(times) // 2]))

server.run("127.0.0.1", 0, workers=WORKERS)
"""


def cpu_of(process: int) -> float:
    """The CPU seconds of a process and of its children."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    own = int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) / 1e9
    return own + sum(cpu_of(int(child)) for child in children)


class Contender:
    """A server with workers, and what else it needs."""

    def __init__(self, name: str, processes: list[int], port: int) -> None:
        self.name = name
        self._processes = processes
        self._base = f"ws://127.0.0.1:{port}"
        self._members: list[asyncio.Task[None]] = []
        self.costs: dict[tuple[int, int], list[float]] = {}
        self.halves: dict[tuple[int, int], list[float]] = {}

    async def open(self) -> None:
        members: dict[str, list[endwell.WebSocket]] = {}
        others: list[endwell.WebSocket] = []
        while sum(map(len, members.values())) < MEMBERS:
            ws = await endwell.connect(f"{self._base}/join", compression=None)
            own = members.setdefault(str(await ws.recv()), [])
            # The others stay open until each worker has its members, so that new ones go to other workers.
            (own if len(own) < MEMBERS // WORKERS else others).append(ws)
        for ws in others:
            await ws.close()
        for own in members.values():
            self._members += [asyncio.create_task(self._read(ws)) for ws in own]
        self._publisher = await endwell.connect(f"{self._base}/publish", compression=None)

    async def _read(self, ws: endwell.WebSocket) -> None:
        async for _ in ws:
            pass

    async def measure(self, count: int, size: int, flight: int) -> None:
        before = sum(map(cpu_of, self._processes))
        await self._publisher.send(f"{count} {size} {flight}")
        half = float(await self._publisher.recv())
        cost = (sum(map(cpu_of, self._processes)) - before) / count
        self.costs.setdefault((size, flight), []).append(cost)
        self.halves.setdefault((size, flight), []).append(half)


@contextmanager
def process(*command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output) as running:
        try:
            yield running
        finally:
            running.send_signal(signal.SIGTERM)


def logged(log: Path, words: str) -> str:
    """The log, once it has ``words``."""
    until = time.monotonic() + 60
    while words not in (text := log.read_text()):
        assert time.monotonic() < until, text
        time.sleep(0.05)
    return text


async def measure(rounds: int) -> bool:
    """Print the figures; returns whether the goals are met."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        app = folder / "app.py"
        app.write_text(APP.replace("WORKERS", str(WORKERS)))
        socket = folder / "redis.sock"
        redis = shutil.which("redis-server")
        if redis is None:
            raise SystemExit("this needs redis-server")
        arguments = "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)
        store = stack.enter_context(process(redis, *arguments, log=folder / "redis.log"))
        buses = []
        for name, url, others in (("supervisor", "", []), ("Redis", f"unix://{socket}", [store.pid])):
            log = folder / f"{name}.log"
            environment = ["env", f"ENDWELL_BUS={url}"] if url else ["env", "-u", "ENDWELL_BUS"]
            started = stack.enter_context(process(*environment, sys.executable, str(app), log=log))
            text = logged(log, "workers; Ctrl-C")
            port = int(text.partition("listening on 127.0.0.1:")[2].partition(",")[0])
            buses.append(Contender(name, [started.pid, *others], port))
        for bus in buses:
            await bus.open()
        for number in range(rounds + 1):
            for size in (32, 1024):
                for flight, count in ((32, 2000), (1, 300)):
                    for bus in buses if number % 2 else reversed(buses):
                        await bus.measure(count, size, flight)
        return report(*buses)


def report(ours: Contender, other: Contender) -> bool:
    met = True
    for case, values in ours.costs.items():
        size, flight = case
        # The first round warms up.
        ratios = [one / two for one, two in zip(values[1:], other.costs[case][1:], strict=True)]
        mine, theirs = median(ours.halves[case][1:]), median(other.halves[case][1:])
        print(
            f"{size:4} B, {flight:2} in flight: {median(values[1:]) * 1e6:6.1f} µs beside "
            f"{median(other.costs[case][1:]) * 1e6:6.1f} µs, ratio {median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}); p50 {mine * 1e6:.0f} µs beside {theirs * 1e6:.0f} µs"
        )
        met &= median(ratios) <= 0.5 and (flight > 1 or mine <= theirs)
    return met


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    if not asyncio.run(measure(parser.parse_args().rounds)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

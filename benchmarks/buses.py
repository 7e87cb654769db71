"""What a publication costs between workers: the buses, and other ways to use Redis.

    python -m benchmarks.buses                      4 workers, 32 B and 1 KiB, needs redis-server
    python -m benchmarks.buses --rounds 3

One worker publishes to a room that has members in each of the workers, 32 publications in flight, then one. The
cost is the CPU time of all processes of the server, Redis included, until all members have got everything. The
clients are not in it. All servers run at the same time and are measured in turn; bus_server.py describes them.
They differ in the bus only, except that python-socketio has its own way from the bus to the socket.

- publication: with one member in each worker, and with 16.
- delivery: what each further member adds, on the way from one member in each worker to 64. With one publication
  in flight, the next one is published when all members have the last one. Otherwise the workers that do not
  publish fall behind, and send several together.
- p50: the time from publish() to its receipt with one publication in flight.

The goals: the supervisor takes half of the CPU time of Redis, and not more time. The Redis bus takes half of the
CPU time of python-socketio, and 0.8 times that of the loop.

The clients read the engine.io protocol by hand: a client connects, enters the namespace, and reads messages.
"""

from __future__ import annotations

import argparse
import asyncio
import json
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

from .bus_server import ROOMS, WORKERS

ONE, SOME, MANY = ROOMS
#: The message sizes and the publications in flight, with the number of publications of a measurement.
CASES = [(size, *each) for size in (32, 1024) for each in ((32, 1000), (1, 500))]
#: The same, one after the other has arrived everywhere.
ALONE = 0
MEASURED = [
    *((room, case) for case in CASES for room in ROOMS if case[1] > 1 or room != MANY),
    *((room, (size, ALONE, 150)) for size in (32, 1024) for room in (ONE, MANY)),
]

SUPERVISOR, REDIS, LOOP, SOCKETIO = "supervisor", "Redis", "redis-py loop", "python-socketio"
KINDS = {SUPERVISOR: "endwell", REDIS: "endwell", LOOP: "loop", SOCKETIO: "socketio"}
#: Which is compared with which, and the goal of the ratio.
GOALS = ((SUPERVISOR, REDIS, 0.5), (REDIS, SOCKETIO, 0.5), (REDIS, LOOP, 0.8))


def cpu_of(process: int) -> float:
    """The CPU seconds of a process and of its children."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    threads = Path(f"/proc/{process}/task").glob("*/schedstat")
    own = sum(int(each.read_text().split()[0]) for each in threads) / 1e9
    return own + sum(cpu_of(int(child)) for child in children)


class Member:
    """A client in the room."""

    def __init__(self, ws: endwell.WebSocket, worker: str) -> None:
        self.ws = ws
        self.worker = worker
        self.missing = 0
        self.complete = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, base: str, kind: str, room: str) -> Member:
        if kind != "socketio":
            ws = await endwell.connect(f"{base}/join/{room}", compression=None)
            return cls(ws, str(await ws.recv()))
        ws = await endwell.connect(f"{base}/socket.io/?EIO=4&transport=websocket", compression=None)
        await ws.recv()  # 0 and the session
        await ws.send("40")
        await ws.recv()  # 40 and the session in the namespace
        await ws.send(f'42["join","{room}"]')
        return cls(ws, json.loads(str(await ws.recv())[2:])[1])

    def expect(self, count: int) -> None:
        self.missing = count
        self.complete.clear()

    def read(self) -> None:
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self.ws:
            if message == "2":
                await self.ws.send("3")  # the keepalive of engine.io
            else:
                self.missing -= 1
                if self.missing == 0:
                    self.complete.set()


class Contender:
    """A server with workers, and what else it needs."""

    def __init__(self, name: str, processes: list[int], port: int) -> None:
        self.name = name
        self._processes = processes
        self._base = f"ws://127.0.0.1:{port}"
        self._members: dict[str, list[Member]] = {}
        #: CPU seconds of a publication, by room, size and publications in flight.
        self.costs: dict[tuple[str, int, int], list[float]] = {}
        self.halves: dict[tuple[str, int, int], list[float]] = {}

    async def open(self) -> None:
        self._publisher = await endwell.connect(f"{self._base}/publish", compression=None)

    async def fill(self, room: str) -> None:
        """Connect the members of a room: as many in each worker."""
        each, members, others = ROOMS[room], [], []
        while len(members) < each * WORKERS:
            member = await Member.connect(self._base, KINDS[self.name], room)
            member.read()
            if sum(other.worker == member.worker for other in members) < each:
                members.append(member)
            else:
                # It stays open until each worker has its members, so that new ones go to other workers.
                others.append(member)
        assert len({member.worker for member in members}) == WORKERS
        for member in others:
            await member.ws.close()
        self._members[room] = members

    async def measure(self, room: str, case: tuple[int, int, int]) -> None:
        size, flight, count = case
        before = sum(map(cpu_of, self._processes))
        if flight == ALONE:
            for _ in range(count):
                half = await self._publish(room, 1, size, 1)
        else:
            half = await self._publish(room, count, size, flight)
        cost = (sum(map(cpu_of, self._processes)) - before) / count
        self.costs.setdefault((room, size, flight), []).append(cost)
        self.halves.setdefault((room, size, flight), []).append(half)

    async def _publish(self, room: str, count: int, size: int, flight: int) -> float:
        """Returns the median of the seconds of a call of publish(), when all members have all."""
        members = self._members[room]
        for member in members:
            member.expect(count)
        await self._publisher.send(f"{room} {count} {size} {flight}")
        half = float(await self._publisher.recv())
        async with asyncio.timeout(60):
            for member in members:
                await member.complete.wait()
        assert not any(member.missing for member in members)
        return half


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


async def measure(names: list[str], rounds: int) -> bool:
    """Print the figures; returns whether the goals are met."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = shutil.which("redis-server")
        if redis is None:
            raise SystemExit("this needs redis-server")
        contenders = []
        for number, name in enumerate(names):
            url, others = "", []
            if name != SUPERVISOR:
                # One for each, so that its CPU time is that of the contender.
                socket = folder / f"{number}.sock"
                arguments = "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)
                store = stack.enter_context(process(redis, *arguments, log=folder / f"redis{number}.log"))
                logged(folder / f"redis{number}.log", "accept connections")
                url, others = f"unix://{socket}", [store.pid]
            log = folder / f"{number}.log"
            program = "env", "-u", "ENDWELL_BUS", sys.executable, "-m", "benchmarks.bus_server"
            started = stack.enter_context(process(*program, KINDS[name], *([url] if url else []), log=log))
            text = logged(log, "workers; Ctrl-C")
            port = int(text.partition("listening on 127.0.0.1:")[2].partition(",")[0])
            contenders.append(Contender(name, [started.pid, *others], port))
        for contender in contenders:
            await contender.open()
            for room in ROOMS:
                await contender.fill(room)
        for number in range(rounds + 1):
            for room, case in MEASURED:
                for contender in contenders if number % 2 else reversed(contenders):
                    await contender.measure(room, case)
        return report({contender.name: contender for contender in contenders})


def report(contenders: dict[str, Contender]) -> bool:
    met = True
    for name, contender in contenders.items():
        print(name)
        for size, flight, _ in CASES:
            # The first round warms up.
            few = contender.costs[ONE, size, flight][1:]
            more = per_delivery(contender, size, flight)
            print(
                f"  {size:4} B, {flight:2} in flight: {median(few) * 1e6:6.1f} µs for a publication, "
                f"{median(more) * 1e6:5.2f} µs for a delivery, "
                f"p50 {median(contender.halves[ONE, size, flight][1:]) * 1e6:.0f} µs"
            )
    for one, two, goal in GOALS:
        if one not in contenders or two not in contenders:
            continue
        ours, other = contenders[one], contenders[two]
        print(f"{one} / {two}, the goal is {goal}")
        for size, flight, _ in CASES:
            few = ratios(ours.costs[ONE, size, flight][1:], other.costs[ONE, size, flight][1:])
            some = ratios(ours.costs[SOME, size, flight][1:], other.costs[SOME, size, flight][1:])
            more = ratios(per_delivery(ours, size, flight), per_delivery(other, size, flight))
            print(
                f"  {size:4} B, {flight:2} in flight: publication {shown(few)}, with {ROOMS[SOME]} members in each "
                f"worker {shown(some)}, delivery {shown(more)}"
            )
            met &= median(few) <= goal and median(some) <= goal
            if one == SUPERVISOR and flight == 1:
                met &= median(ours.halves[ONE, size, 1][1:]) <= median(other.halves[ONE, size, 1][1:])
    return met


def per_delivery(contender: Contender, size: int, flight: int) -> list[float]:
    how = flight if flight > 1 else ALONE
    pairs = zip(contender.costs[ONE, size, how][1:], contender.costs[MANY, size, how][1:], strict=True)
    return [(many - one) / ((ROOMS[MANY] - ROOMS[ONE]) * WORKERS) for one, many in pairs]


def ratios(ones: list[float], others: list[float]) -> list[float]:
    return [one / two for one, two in zip(ones, others, strict=True)]


def shown(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="the contenders")
    args = parser.parse_args()
    if not asyncio.run(measure(args.only, args.rounds)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

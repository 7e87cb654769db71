"""A server under attack for a long time, and honest clients beside the attackers.

    python benchmarks/soak.py --minutes 30 --loop uvloop

Four processes: the server; an identical one without attackers; a crowd of raw peers that
end their connections in every possible way (attackers.py); and this one, whose honest connections send
requests to both servers in turn. Once a minute the crowd pauses until its last connection is gone; then the
server's memory, file descriptors, tasks and threads are measured.

The exit status is 1 if a bound is exceeded:

- memory grows by less than 1 MiB/h: the slope of the least squares through the pauses after the
  warm-up, of the resident set after the allocator has returned free memory (malloc_trim). The slope
  without malloc_trim is reported too. The servers use one arena of glibc's malloc
  (MALLOC_ARENA_MAX, unless it is set). By default threads share 8 arenas for each processor, each of which
  takes its time to grow to its final size: some MiB in an hour, and no leak. Runs below
  20 minutes are not judged;
- file descriptors and tasks are the same at the end as at the start;
- no answer to an honest client takes more than 250 ms. Other processes may use the machine. So
  scheduling delay is subtracted from the time of a round trip: the longest time for which one thread of
  the server, and the client, was runnable without a processor (/proc/PID/task/TID/schedstat). The plain
  time is reported too, and so is that of the server without attackers.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attackers import ATTACKS, Crowd, head
from loops import LOOPS, loop_factory

import endwell
from endwell.wire.frames import PING, PONG, TEXT, build

MIB = 2**20
#: The bounds: MiB per hour, and seconds.
GROWTH, DELAY = 1.0, 0.25
#: The minimum minutes of a run whose slope is judged, and the minutes of its warm-up.
JUDGED, WARM = 20.0, 5
#: The number of honest connections to each server, and seconds between two requests.
HONEST, PAUSE = 5, 0.02
#: Seconds before the end of a minute at which the crowd is paused.
LEAVING = 15.0
QUESTION = build(TEXT, b"still there?" * 20, masked=True)

LIMITS: dict[str, Any] = {
    "open_timeout": 3.0,
    "close_timeout": 2.0,
    "ping_interval": 2.0,
    "ping_timeout": 2.0,
    "write_timeout": 4.0,
    "max_size": MIB,
}


# -- the server ------------------------------------------------------------------------


def serve(loop: str) -> None:
    """Serve until the end of standard input; answer each line of it with a line of figures."""
    logging.disable()  # handlers that raise are a part of the test
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        runner.run(_serve())


async def _serve() -> None:
    server = endwell.Server(**LIMITS)
    endings: Counter[str] = Counter()
    server.on_close(lambda ws, ending: endings.update([ending.cause.name]))

    @server.websocket("/")
    async def talk(ws: endwell.WebSocket) -> None:
        async for message in ws:
            if message == "close":
                await ws.close(4000, "as you wish")
            elif message == "return":
                return
            elif message == "raise":
                raise RuntimeError("as you wish")
            elif message == "stream":
                while True:
                    await ws.send(bytes(16384))
            else:
                await ws.send(message)

    @server.websocket("/thread")
    def block(ws: endwell.sync.WebSocket) -> None:
        for message in ws:
            if message == "close":
                ws.close(4000, "as you wish")
            if message == "raise":
                raise RuntimeError("as you wish")
            if message == "return":
                return
            while message == "stream":
                ws.send(bytes(16384))
            ws.send(message)

    @server.get("/page")
    async def page(request: endwell.Request) -> str:
        return "a page" * 1000

    @server.get("/thread-page")
    def thread_page(request: endwell.Request) -> str:
        return "a page"

    async with server.serving(grace=1):
        print(server.port, flush=True)
        lines = asyncio.Queue[str]()
        asyncio.get_running_loop().add_reader(
            sys.stdin.fileno(), lambda: lines.put_nowait(sys.stdin.readline())
        )
        while await lines.get():
            await _drain_another()
            print(json.dumps(_figures(server, endings)), flush=True)
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())


def _figures(server: endwell.Server, endings: Counter[str]) -> dict[str, Any]:
    gc.collect()
    untrimmed = _resident()
    with suppress(AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    return {
        "rss": _resident(),
        "untrimmed": untrimmed,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "connections": len(server.connections),
        "endings": endings,
    }


def _resident() -> float:
    """MiB of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB


async def _drain_another() -> None:
    """A server that starts and stops, with clients of ours."""
    server = endwell.Server(**LIMITS)

    @server.websocket("/")
    async def talk(ws: endwell.WebSocket) -> None:
        async for message in ws:
            await ws.send(message)

    async with server.serving(grace=1):
        clients = [await endwell.connect(f"ws://127.0.0.1:{server.port}/") for _ in range(5)]
        for ws in clients:
            await ws.send("hello" * 100)
        await server.drain(deadline=1.0)
        for ws in clients:
            await ws.wait_closed()


# -- the crowd -------------------------------------------------------------------------


def attack(port: int, rate: float) -> None:
    """Attack, with pauses: each line of standard input starts or ends one."""
    os.nice(5)
    asyncio.run(_attack(port, rate))


async def _attack(port: int, rate: float) -> None:
    crowd = Crowd(port, rate)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        crowd.resume()
        await loop.run_in_executor(None, sys.stdin.readline)
        await crowd.pause()
        print(json.dumps(crowd.played), flush=True)


# -- the other processes -----------------------------------------------------------------------


class Process:
    """One of the other processes."""

    def __init__(self, *arguments: str) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [sys.executable, __file__, *arguments], stdin=pipe, stdout=pipe, text=True
        )
        self.pid = self._process.pid

    def read(self) -> Any:
        """Read a line from it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a process has ended too early")
        return json.loads(line)

    def tell(self) -> None:
        """Write a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def ask(self) -> Any:
        """The answer to a line."""
        self.tell()
        return self.read()

    def cpu(self) -> float:
        """The CPU time of all its threads, in seconds."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """End it."""
        self._process.stdin.close()  # type: ignore[union-attr]
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()


@contextmanager
def process(*arguments: str) -> Iterator[Process]:
    """Run one of the other processes during the block."""
    started = Process(*arguments)
    try:
        yield started
    finally:
        started.end()


def waits(pid: int | str) -> dict[str, int]:
    """For each thread of a process, the nanoseconds in which it was runnable without a processor."""
    found = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            found[thread] = int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[1])
    return found


def waited(before: dict[str, int], after: dict[str, int]) -> float:
    """The longest such time of one thread, in seconds: any of them may have delayed the others."""
    return max(count - before.get(thread, 0) for thread, count in after.items()) / 1e9


@dataclass
class Delays:
    """The results of the honest clients of one server, in seconds."""

    trips: int = 0
    worst: float = 0.0
    #: Without the scheduling delay.
    worst_of_it: float = 0.0
    late: int = 0

    def count(self, took: float, of_it: float) -> None:
        """One round trip."""
        self.trips += 1
        self.worst = max(self.worst, took)
        self.worst_of_it = max(self.worst_of_it, of_it)
        self.late += of_it > DELAY


class Honest:
    """A connection that stays open."""

    def __init__(self, port: int, server: Process) -> None:
        self._server = server
        self._sock = socket.create_connection(("127.0.0.1", port), 10)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(head("/"))
        self._received = b""
        while b"\r\n\r\n" not in self._received:
            self._received += self._sock.recv(65536)
        self._received = self._received.partition(b"\r\n\r\n")[2]

    def ask(self, delays: Delays) -> None:
        """One round trip."""
        before, own = waits(self._server.pid), waits("self")
        began = time.monotonic()
        self._sock.sendall(QUESTION)
        while self._frame() != TEXT:
            pass
        took = time.monotonic() - began
        delays.count(took, took - waited(before, waits(self._server.pid)) - waited(own, waits("self")))

    def _frame(self) -> int:
        """The opcode of the next frame; pings are answered."""
        while len(self._received) < 2 or len(self._received) < 2 + self._extended():
            more = self._sock.recv(65536)
            if not more:
                raise SystemExit("an honest connection has been ended")
            self._received += more
        size = 2 + self._extended()
        frame, self._received = self._received[:size], self._received[size:]
        opcode = frame[0] & 0x0F
        if opcode == PING:
            self._sock.sendall(build(PONG, frame[2:], masked=True))
        return opcode

    def _extended(self) -> int:
        """The length of the payload, and of its longer form."""
        size = self._received[1]
        if size < 126:
            return size
        return 2 + int.from_bytes(self._received[2:4], "big")


def slope(samples: list[tuple[float, float]]) -> float:
    """Least squares: MiB in an hour, of (seconds, MiB)."""
    if len(samples) < 2:
        return 0.0
    mean = [sum(column) / len(samples) for column in zip(*samples, strict=True)]
    over = sum((at - mean[0]) * (rss - mean[1]) for at, rss in samples)
    return 3600 * over / sum((at - mean[0]) ** 2 for at, _ in samples)


@dataclass
class Soak:
    """A run, and its results."""

    minutes: int
    start: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    attacked: Delays = field(default_factory=Delays)
    spared: Delays = field(default_factory=Delays)
    #: Seconds, MiB, MiB without malloc_trim.
    samples: list[tuple[float, float, float]] = field(default_factory=list)
    played: dict[str, int] = field(default_factory=dict)

    def run(self, loop: str, rate: float) -> None:
        """Run it."""
        with process("--serve", loop) as server, process("--serve", loop) as other, ExitStack() as stack:
            ports = server.read(), other.read()
            crowd = stack.enter_context(process("--attack", str(ports[0]), str(rate)))
            honest = [Honest(ports[0], server) for _ in range(HONEST)]
            control = [Honest(ports[1], other) for _ in range(HONEST)]
            # The first measurement creates objects that exist once.
            server.ask()
            self.start = server.ask()
            print(self._line(0, self.start), flush=True)
            began = time.monotonic()
            for minute in range(1, self.minutes + 1):
                crowd.tell()
                self._ask(honest, control, began + 60 * minute - LEAVING)
                crowd.tell()
                answer = threading.Thread(target=lambda: self.played.update(crowd.read()))
                answer.start()
                while answer.is_alive():
                    self._ask(honest, control, time.monotonic() + 0.1)
                self._ask(honest, control, began + 60 * minute)
                self.last = server.ask()
                self.samples.append((time.monotonic() - began, self.last["rss"], self.last["untrimmed"]))
                print(self._line(minute, self.last), flush=True)
            spent = {
                "server": server.cpu(),
                "other": other.cpu(),
                "crowd": crowd.cpu(),
                "this": time.process_time(),
            }
            lasted = time.monotonic() - began
        print(
            "\nprocessor:", ", ".join(f"{name} {100 * used / lasted:.0f} %" for name, used in spent.items())
        )

    def _ask(self, honest: list[Honest], control: list[Honest], until: float) -> None:
        while time.monotonic() < until:
            for one, other in zip(honest, control, strict=True):
                one.ask(self.attacked)
                other.ask(self.spared)
                time.sleep(PAUSE)

    def _line(self, minute: int, figures: dict[str, Any]) -> str:
        return (
            f"{minute:>4} min  memory {figures['rss']:6.2f} MiB ({figures['untrimmed']:6.2f} untrimmed)  descriptors {figures['descriptors']:>3}  "
            f"tasks {figures['tasks']:>3}  threads {figures['threads']:>3}  endings {sum(figures['endings'].values()):>7}  "
            f"worst round trip {1000 * self.attacked.worst_of_it:5.1f} ms"
        )

    def judge(self) -> bool:
        """Print the summary; whether every bound holds."""
        warm = min(WARM, len(self.samples) // 3)
        growth = slope([(at, held) for at, held, _ in self.samples[warm:]])
        untrimmed = slope([(at, all_of_it) for at, _, all_of_it in self.samples[warm:]])
        judged = self.minutes >= JUDGED
        same = {name: self.last[name] == self.start[name] for name in ("descriptors", "tasks", "connections")}
        rows = [
            (
                f"memory, after {warm} minutes",
                f"{growth:+.2f} MiB/h",
                f"< {GROWTH:.0f} MiB/h" if judged else f"not judged below {JUDGED:.0f} minutes",
                growth < GROWTH or not judged,
            ),
            ("the same, untrimmed", f"{untrimmed:+.2f} MiB/h", "not judged", True),
            *(
                (name, f"{self.start[name]} -> {self.last[name]}", "the same", good)
                for name, good in same.items()
            ),
            (
                "the worst honest round trip under attack, without waiting for a processor",
                f"{1000 * self.attacked.worst_of_it:.1f} ms of {self.attacked.trips}",
                f"< {1000 * DELAY:.0f} ms",
                not self.attacked.late,
            ),
            ("the same with it", f"{1000 * self.attacked.worst:.1f} ms", "not judged", True),
            (
                "both at the server without attackers",
                f"{1000 * self.spared.worst_of_it:.1f} ms, {1000 * self.spared.worst:.1f} ms",
                "not judged",
                True,
            ),
        ]
        print("attackers:", ", ".join(f"{count} {name}" for name, count in sorted(self.played.items())))
        print(
            "endings:", ", ".join(f"{count} {name}" for name, count in sorted(self.last["endings"].items()))
        )
        print("\n| what | measured | bound | holds |\n|---|---|---|---|")
        for what, measured, bound, good in rows:
            print(f"| {what} | {measured} | {bound} | {'yes' if good else 'NO'} |")
        missing = {kind.__name__ for kind in ATTACKS} - set(self.played)
        if missing:
            print("never played:", *sorted(missing))
        return all(good for *_, good in rows) and not missing


def main() -> int:
    """Run it; 1 if a bound is exceeded."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--loop", choices=LOOPS, default="uvloop")
    parser.add_argument("--rate", type=float, default=25.0, help="attackers in a second")
    parser.add_argument("--serve", metavar="LOOP", help=argparse.SUPPRESS)
    parser.add_argument("--attack", nargs=2, metavar=("PORT", "RATE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return 0
    if given.attack:
        attack(int(given.attack[0]), float(given.attack[1]))
        return 0
    os.environ.setdefault("MALLOC_ARENA_MAX", "1")
    print(
        f"{given.loop}, compiled: {len(endwell.compiled())} modules, {given.rate:.0f} attackers in a second",
        flush=True,
    )
    soak = Soak(given.minutes)
    soak.run(given.loop, given.rate)
    return 0 if soak.judge() else 1


if __name__ == "__main__":
    sys.exit(main())

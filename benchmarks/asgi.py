"""CPU time of ASGI servers for an HTTP request, and for an echoed WebSocket message.

    python benchmarks/asgi.py
    python benchmarks/asgi.py --kinds ws --rounds 5 --servers endwell plug-in floor

The application has no framework. The load and the servers run in processes of their own. In each round each server
has its turn, and its median round counts. The time is that of the server's processes, user and system (Linux).

``floor`` is uvicorn with a WebSocket class that parses nothing: it costs what ASGI's dicts and coroutines and the
event loop cost (``servers/asgi_floor.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, cast

from loops import loop_factory

HERE = Path(__file__).resolve().parent
CONNECTIONS = 64
#: The module of each server in ``servers``; None for granian, which has a program of its own.
HTTP_SERVERS = {"endwell": "asgi_mounted", "uvicorn": "asgi_websockets", "granian": None}
WS_SERVERS = {
    "endwell": "asgi_mounted",
    "plug-in": "asgi_endwell",
    "websockets-sansio": "asgi_websockets",
    "websockets": "asgi_websockets_legacy",
    "wsproto": "asgi_wsproto",
    "floor": "asgi_floor",
}
#: The servers that the others are compared with.
COMPARED = ("uvicorn", "websockets-sansio")
PACKAGES = ("granian", "httptools", "uvicorn", "uvloop", "websockets", "wsproto")

REQUEST = b"GET %s HTTP/1.1\r\nHost: localhost\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
#: Binary messages, masked with zeros, which is the same work for a server as another key.
SHORT = b"\x82\xa0" + bytes(4) + b"x" * 32
LONG = b"\x82\xfe\x04\x00" + bytes(4) + b"x" * 1024


class Scenario(NamedTuple):
    """What each connection sends, and how many requests or messages of it are in flight."""

    kind: str
    request: bytes
    depth: int
    #: Bytes of a reply; 0 if the first one shows it.
    size: int = 0


SCENARIOS = {
    "HTTP, 13 B": Scenario("http", REQUEST % b"/", 1),
    "HTTP, JSON of 1 KiB": Scenario("http", REQUEST % b"/json", 1),
    "HTTP, 13 B, 16 pipelined": Scenario("http", REQUEST % b"/", 16),
    "WebSocket, 32 B": Scenario("ws", SHORT, 1, 2 + 32),
    "WebSocket, 32 B, 16 in flight": Scenario("ws", SHORT, 16, 2 + 32),
    "WebSocket, 1 KiB": Scenario("ws", LONG, 1, 4 + 1024),
    "WebSocket, 1 KiB, 16 in flight": Scenario("ws", LONG, 16, 4 + 1024),
}


class Client(asyncio.Protocol):
    """A connection that keeps requests in flight, until ``total`` replies have come to all of them."""

    done: int
    total: int
    finished: asyncio.Event

    def __init__(self, scenario: Scenario) -> None:
        self._request = scenario.request
        self._depth = scenario.depth
        self._size = scenario.size
        self._received = b""
        self._is_open = scenario.kind == "http"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast("asyncio.WriteTransport", transport).write  # uvloop's is not a subclass
        self._write(self._request * self._depth if self._is_open else UPGRADE)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._is_open:
            head, mark, self._received = self._received.partition(b"\r\n\r\n")
            if not mark:
                self._received = head
                return
            self._is_open = True
            self._write(self._request * self._depth)
        if not self._size:
            head, mark, _ = self._received.partition(b"\r\n\r\n")
            if not mark:
                return
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            self._size = len(head) + len(mark) + int(length.partition(b":")[2])
        count = len(self._received) // self._size
        self._received = self._received[count * self._size :]
        Client.done += count
        if Client.done >= Client.total:
            Client.finished.set()
        elif count:
            self._write(self._request * count)


async def load(port: int, scenario: Scenario, total: int) -> None:
    """Ask ``total`` times."""
    Client.done, Client.total, Client.finished = 0, total, asyncio.Event()
    loop = asyncio.get_running_loop()
    clients = [
        await loop.create_connection(lambda: Client(scenario), "127.0.0.1", port) for _ in range(CONNECTIONS)
    ]
    async with asyncio.timeout(300):
        await Client.finished.wait()
    for transport, _ in clients:
        transport.close()


def cpu_time(pid: int) -> float:
    """Seconds of CPU time of a process and its children so far."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    # The clock that clock_getcpuclockid() of Linux returns.
    own = time.clock_gettime((~pid << 3) | 2)
    return own + sum(cpu_time(int(child)) for child in children)


@contextmanager
def running(module: str | None) -> Iterator[tuple[int, int]]:
    """A server; the number of its process and its port."""
    if module is None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        command = ["-m", "granian", "servers.asgi:app", "--interface=asgi", "--loop=uvloop", f"--port={port}"]
        command += ["--no-log", "--http=1"]
    else:
        command = ["-m", f"servers.{module}"]
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, *command], cwd=HERE, stdin=pipe, stdout=pipe) as process:
        try:
            if module is not None:
                assert process.stdout is not None
                port = int(process.stdout.readline())
            wait_for(port)
            yield process.pid, port
        finally:
            process.terminate()


def wait_for(port: int) -> None:
    """Wait until a server accepts connections. Raises SystemExit if it does not within 30 seconds."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"nothing listens on port {port}")


def measured(
    scenario: Scenario, servers: dict[str, tuple[int, int]], rounds: int, requests: int
) -> dict[str, float]:
    """The microseconds of each server for a request: the median of its rounds."""
    took: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        for name, (pid, port) in servers.items():
            before = cpu_time(pid)
            with asyncio.Runner(loop_factory=loop_factory("uvloop")) as runner:
                runner.run(load(port, scenario, requests))
            took[name].append((cpu_time(pid) - before) / requests * 1e6)
    return {name: statistics.median(times) for name, times in took.items()}


def main() -> None:
    """Measure all scenarios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=20_000, metavar="N", help="of each turn")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--kinds", nargs="+", choices=("http", "ws"), default=["http", "ws"])
    parser.add_argument("--servers", nargs="+", choices=sorted(HTTP_SERVERS | WS_SERVERS))
    args = parser.parse_args()
    print(", ".join(f"{name} {version(name)}" for name in PACKAGES), flush=True)
    for kind in args.kinds:
        modules = HTTP_SERVERS if kind == "http" else WS_SERVERS
        chosen = [name for name in modules if args.servers is None or name in args.servers]
        with ExitStack() as stack:
            servers = {name: stack.enter_context(running(modules[name])) for name in chosen}
            for title, scenario in SCENARIOS.items():
                if scenario.kind != kind:
                    continue
                costs = measured(scenario, servers, args.rounds, args.requests)
                base = next((costs[name] for name in COMPARED if name in costs), None)
                figures = [
                    f"{name} {cost:.1f} µs" + (f" ({cost / base:.2f})" if base else "")
                    for name, cost in costs.items()
                ]
                print(f"{title}: {', '.join(figures)}", flush=True)


if __name__ == "__main__":
    main()

"""CPU time of an ASGI server for an HTTP request: endwell and uvicorn (httptools, uvloop), one after the other.

    python benchmarks/http_requests.py
    python benchmarks/http_requests.py --requests 50000 --rounds 5

The load and the servers run in processes of their own. Each server has its turn in each round, and its best round
counts. The time is that of the server's process, user and system, by /proc (Linux). A tick is 10 ms, so a round
should have at least 10,000 requests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from loops import loop_factory

#: What is asked: path, connections, and requests in flight on each connection.
SCENARIOS = {
    "13 bytes, 64 connections": ("/", 64, 1),
    "JSON of 1 KiB, 64 connections": ("/json", 64, 1),
    "13 bytes, 64 connections, 16 pipelined": ("/", 64, 16),
}
DOCUMENT = json.dumps({"text": "x" * 1012}).encode()
#: The program of each server; the port is its argument.
SERVERS = {
    "endwell": "import endwell; s = endwell.Server(); s.mount('/', app); s.run(port=port)",
    "uvicorn": (
        "import uvicorn; "
        "uvicorn.run(app, port=port, http='httptools', loop='uvloop', access_log=False, log_level='warning')"
    ),
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """The application."""
    if scope["type"] != "http":
        raise NotImplementedError
    body = DOCUMENT if scope["path"] == "/json" else b"Hello, world!"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class Client(asyncio.Protocol):
    """A connection that keeps ``depth`` requests in flight, until ``total`` responses have come to all of them."""

    done: int
    total: int
    finished: asyncio.Event

    def __init__(self, request: bytes, depth: int) -> None:
        self._request = request
        self._depth = depth
        self._received = b""
        self._size = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._write = cast("asyncio.WriteTransport", transport).write  # uvloop's is not a subclass
        self._write(self._request * self._depth)

    def data_received(self, data: bytes) -> None:
        self._received += data
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


async def load(port: int, scenario: str, total: int) -> None:
    """Ask ``total`` times."""
    path, connections, depth = SCENARIOS[scenario]
    request = (
        f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nUser-Agent: load\r\nAccept: */*\r\n\r\n".encode()
    )
    Client.done, Client.total, Client.finished = 0, total, asyncio.Event()
    loop = asyncio.get_running_loop()
    clients = [
        await loop.create_connection(lambda: Client(request, depth), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await Client.finished.wait()
    for transport, _ in clients:
        transport.close()


def cpu_time(pid: int) -> float:
    """Seconds of CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(name: str) -> Iterator[tuple[int, int]]:
    """A server; the number of its process and its port."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    code = f"from http_requests import app; port = {port}; {SERVERS[name]}"
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parent) as process:
        try:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield process.pid, port
        finally:
            process.terminate()


def main() -> None:
    """Measure all scenarios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=20_000, metavar="N", help="of each round")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    args = parser.parse_args()
    with running("endwell") as ours, running("uvicorn") as theirs:
        for scenario in SCENARIOS:
            took: dict[str, list[float]] = defaultdict(list)
            for _ in range(args.rounds):
                for name, (pid, port) in (("endwell", ours), ("uvicorn", theirs)):
                    before = cpu_time(pid)
                    with asyncio.Runner(loop_factory=loop_factory("uvloop")) as runner:
                        runner.run(load(port, scenario, args.requests))
                    took[name].append((cpu_time(pid) - before) / args.requests * 1e6)
            best = {name: min(times) for name, times in took.items()}
            print(
                f"{scenario}: endwell {best['endwell']:.1f} µs, uvicorn {best['uvicorn']:.1f} µs, "
                f"ratio {best['endwell'] / best['uvicorn']:.2f}"
            )


if __name__ == "__main__":
    main()

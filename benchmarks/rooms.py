"""What a room costs beside server.broadcast(), and what a member takes.

    python -m benchmarks.rooms                     fan-out to 10,000 members, and the memory of a member
    python -m benchmarks.rooms --members 1000      fewer members

- fan-out: 1 KiB to all members of one process. The CPU time of the process for each delivery, by publish()
  and by broadcast() of the same connections in turn, and their ratio. The goal is 1.05.
- delay: how late a task of the same event loop runs that sleeps for 1 ms, at most, meanwhile.
- memory: the growth of the process's resident memory when all connections join a room. The goal is 300 B.

The connections are in another process, which reads and discards.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import resource
import selectors
import socket
import sys
import time
from statistics import median

import endwell

HOST = "127.0.0.1"
MESSAGE = b"x" * 1024
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def read_and_discard(port: int, count: int) -> None:
    """Open ``count`` WebSockets, say so, and read until the server ends."""
    request = (
        f"GET / HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
    ).encode()
    selector = selectors.DefaultSelector()
    for _ in range(count):
        sock = socket.create_connection((HOST, port))
        sock.sendall(request)
        selector.register(sock, selectors.EVENT_READ, sock)
        while not sock.recv(4096).endswith(b"\r\n\r\n"):
            pass
    print("open", flush=True)
    while selector.get_map():
        for key, _ in selector.select():
            if not key.data.recv(1 << 16):
                selector.unregister(key.data)


class Delay:
    """How late a task runs that sleeps for 1 ms, at most."""

    def __init__(self) -> None:
        self.most = 0.0
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.001)
            self.most = max(self.most, time.monotonic() - began - 0.001)

    def end(self) -> float:
        self._task.cancel()
        return self.most


def resident() -> int:
    """The resident memory of this process in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


async def measure(members: int, rounds: int) -> bool:
    """Print the figures; returns whether the goals are met."""
    server = endwell.Server(compression=None, ping_interval=None)

    @server.websocket("/")
    async def hold(ws: endwell.WebSocket) -> None:
        await ws.wait_closed()

    async with server.serving(HOST, 0, grace=0):
        program = sys.executable, "-m", "benchmarks.rooms", "--port", str(server.port)
        clients = await asyncio.create_subprocess_exec(
            *program, "--members", str(members), stdout=asyncio.subprocess.PIPE
        )
        assert clients.stdout is not None
        await clients.stdout.readline()
        while len(server.connections) < members:
            await asyncio.sleep(0.1)
        try:
            return await compare(server, members, rounds)
        finally:
            clients.kill()
            await clients.wait()


async def compare(server: endwell.Server, members: int, rounds: int) -> bool:
    connections = list(server.connections)
    room = server.rooms["room"]
    gc.collect()
    before = resident()
    memberships = [await room.join(ws) for ws in connections]
    memory = (resident() - before) / members
    del memberships

    async def publish() -> float:
        return (await room.publish(MESSAGE)).sent

    async def broadcast() -> float:
        return server.broadcast(connections, MESSAGE).sent

    ratios: list[float] = []
    delays: dict[str, list[float]] = {"publish": [], "broadcast": []}
    costs: dict[str, list[float]] = {"publish": [], "broadcast": []}
    gc.freeze()
    for number in range(rounds):
        ways = [("publish", publish), ("broadcast", broadcast)]
        for name, call in ways if number % 2 else reversed(ways):
            delay, began = Delay(), time.process_time()
            sent = 0.0
            for _ in range(5):
                sent += await call()
                # Until all frames are written.
                await asyncio.sleep(0.02)
            assert sent == 5 * members, sent
            costs[name].append((time.process_time() - began) / sent)
            delays[name].append(delay.end())
        ratios.append(costs["publish"][-1] / costs["broadcast"][-1])
    for name, values in costs.items():
        print(
            f"{name:10} {median(values) * 1e6:6.2f} µs for each delivery, delay {median(delays[name]) * 1e3:.1f} ms"
        )
    print(f"ratio      {median(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"memory     {memory:6.0f} B for each member")
    return median(ratios) <= 1.05 and memory <= 300


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.port is not None:
        read_and_discard(args.port, args.members)
    elif not asyncio.run(measure(args.members, args.rounds)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()

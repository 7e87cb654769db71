"""What a stop does to its clients: SIGTERM under load, with clients and handlers that misbehave.

    python benchmarks/drain.py            all scenarios, as a table
    python benchmarks/drain.py idle       one of them

The server is a process of its own. The clients are raw sockets, to tell a RST from a FIN.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import re
import resource
import signal
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import endwell
import endwell.sync
from endwell.client.retry import History

HOST = "127.0.0.1"
#: Seconds of work for each message.
WORK = 0.05
#: Seconds that a scenario may take beyond its deadline.
PATIENCE = 30.0
CLOSE = 8


@dataclass(frozen=True)
class Scenario:
    """The connections at the time of the signal: the number of clients of each kind, at each handler."""

    name: str
    #: kind of client and path of the handler: number of clients
    clients: dict[tuple[str, str], int]
    tls: bool = False
    drain: endwell.Drain = field(default_factory=lambda: endwell.Drain(window=2, deadline=10))


def of_every_kind(base: str, tls: bool) -> Iterator[Scenario]:
    """The scenarios for the handlers below a path, over plain TCP or TLS."""
    name, layer = base.removeprefix("/"), "-tls" if tls else ""
    misbehaving = {
        ("asks", f"{base}/work"): 150,
        ("waits", f"{base}/stuck"): 10,
        ("deaf", f"{base}/stream"): 20,
        ("holds", f"{base}/work"): 20,
    }
    yield Scenario(f"{name}-busy{layer}", {("asks", f"{base}/work"): 200}, tls)
    yield Scenario(f"{name}-pipelined{layer}", {("floods", f"{base}/work"): 200}, tls)
    yield Scenario(f"{name}-misbehaving{layer}", misbehaving, tls)


SCENARIOS = [
    *(
        scenario
        for base in ("/async", "/threads")
        for tls in (False, True)
        for scenario in of_every_kind(base, tls)
    ),
    Scenario("idle", {("waits", "/async/work"): 10_000}, drain=endwell.Drain()),
]


# -- the server ----------------------------------------------------------------


def serve(drain: endwell.Drain, certificate: str) -> None:
    """Serve until the signal; then print the events of the handlers."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    server = endwell.Server(ping_interval=None)
    counts: Counter[str] = Counter()

    lock = threading.Lock()

    def count(what: str) -> None:
        with lock:
            counts[what] += 1

    add_blocking(server, count)

    @server.websocket("/async/work")
    async def work(ws: endwell.WebSocket) -> None:
        try:
            async for message in ws:
                count("received")
                await asyncio.sleep(WORK)
                await ws.send(message)
                count("answered")
        finally:
            count("finally")

    @server.websocket("/async/stream")
    async def stream(ws: endwell.WebSocket) -> None:
        try:
            await ws.recv()
            while ws.is_open:
                await ws.send(bytes(65536))
        finally:
            count("finally")

    @server.websocket("/async/stuck")
    async def stuck(ws: endwell.WebSocket) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(3600)
        finally:
            count("finally")

    @server.on_close
    def ended(ws: endwell.WebSocket, ending: endwell.Ending) -> None:
        count("on_close")

    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    server.run(HOST, 0, ssl=context, drain=drain)
    print(json.dumps(counts), flush=True)


def add_blocking(server: endwell.Server, count: Callable[[str], None]) -> None:
    """The same handlers, as plain functions in threads."""

    @server.websocket("/threads/work")
    def work(ws: endwell.sync.WebSocket) -> None:
        try:
            for message in ws:
                count("received")
                time.sleep(WORK)
                ws.send(message)
                count("answered")
        finally:
            count("finally")

    @server.websocket("/threads/stream")
    def stream(ws: endwell.sync.WebSocket) -> None:
        try:
            ws.recv()
            while ws.is_open:
                ws.send(bytes(65536))
        finally:
            count("finally")

    @server.websocket("/threads/stuck")
    def stuck(ws: endwell.sync.WebSocket) -> None:
        try:
            time.sleep(3600)
        finally:
            count("finally")


# -- the clients ---------------------------------------------------------------


@dataclass
class Client:
    """One client, and what it received."""

    kind: str
    code: int | None = None
    reason: str = ""
    closed_at: float = 0.0
    tcp: str = "open"
    asked: int = 0
    answered: int = 0

    async def talk(self, port: int, path: str, context: ssl.SSLContext | None, ready: asyncio.Event) -> None:
        """Connect, act by its kind, and answer the Close."""
        # A small window, so that the buffers of a client that does not read fill up soon.
        limit = 2048 if self.kind == "deaf" else 65536
        reader, writer = await asyncio.open_connection(HOST, port, ssl=context, limit=limit)
        try:
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101 "), head
            ready.set()
            await self._converse(reader, writer)
        except (ConnectionResetError, BrokenPipeError):
            self.tcp = "rst"
        except asyncio.IncompleteReadError:
            self.tcp = "fin"
        finally:
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.kind == "deaf":
            self._ask(writer)
            await asyncio.sleep(3600)
        for _ in range({"asks": 1, "holds": 1, "floods": 4}.get(self.kind, 0)):
            self._ask(writer)
        while True:
            first, size = await reader.readexactly(2)
            if size == 126:
                size = int.from_bytes(await reader.readexactly(2), "big")
            payload = await reader.readexactly(size)
            if first & 15 == CLOSE:
                break
            self.answered += 1
            # Data that arrived with the response is processed first, as in any client.
            if self.kind != "listens" and not _close_is_there(reader):
                self._ask(writer)
        self.closed_at = time.monotonic()
        self.code, self.reason = int.from_bytes(payload[:2], "big"), payload[2:].decode()
        writer.write(_masked(CLOSE, payload))
        await asyncio.sleep(0)
        if self.kind == "holds":
            await asyncio.sleep(3600)
        # Other data is ignored: the end is measured.
        self.tcp = "fin" if await reader.read() == b"" else "data after the Close"

    def _ask(self, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        writer.write(_masked(1, b"question"))


def _close_is_there(reader: asyncio.StreamReader) -> bool:
    buffered = reader._buffer  # type: ignore[attr-defined]  # asyncio has no name for looking ahead
    return bool(buffered) and buffered[0] & 15 == CLOSE


def _masked(opcode: int, payload: bytes) -> bytes:
    return bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload


# -- one scenario ----------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """The result of a scenario."""

    scenario: Scenario
    clients: list[Client]
    #: The counts of the server, and its report.
    counts: dict[str, int]
    report: str
    status: int
    #: Seconds from the signal to the end of the process.
    seconds: float

    def kinds(self, *kinds: str) -> list[Client]:
        """The clients of the given kinds."""
        return [client for client in self.clients if client.kind in kinds]

    def line(self) -> dict[str, object]:
        """One line of the table."""
        polite = self.kinds("asks", "waits", "floods", "holds")
        return {
            "scenario": self.scenario.name,
            "clients": len(self.clients),
            "told": f"{sum(client.code is not None for client in polite)}/{len(polite)}",
            "RST": sum(client.tcp == "rst" for client in polite),
            "lost": self.counts["received"] - self.counts["answered"],
            "finally": f"{self.counts['finally']}/{len(self.clients)}",
            "on_close": f"{self.counts['on_close']}/{len(self.clients)}",
            "seconds": f"{self.seconds:.1f} of {self.scenario.drain.deadline:g}",
        }

    def returns(self) -> list[int]:
        """The number of well-behaved clients that would reconnect in each second."""
        policy, times = endwell.RetryPolicy(), []
        for client in self.clients:
            if client.code is None:
                continue
            ending = endwell.Ending(
                cause=endwell.Cause.PEER_CLOSED,
                initiator=endwell.Initiator.PEER,
                clean=True,
                received=endwell.Close(client.code, client.reason),
                duration=60.0,
            )
            wait = policy.decide(policy.after(History(), ending, 0.0), ending, 0.0, random.random())
            assert not isinstance(wait, endwell.StopReason), wait
            times.append(client.closed_at + wait)
        counts = Counter(int(moment - min(times)) for moment in times)
        return [counts[second] for second in range(max(counts) + 1)]


@asynccontextmanager
async def killed_at_the_end(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """Kill ``process`` at the end of the block, if it still runs."""
    try:
        yield
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def play(scenario: Scenario, load: float = 1.0) -> Outcome:
    """Start the server, connect all clients, let them work for ``load`` seconds, and send SIGTERM."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, context = tls_files(Path(folder)) if scenario.tls else ("", None)
        drain = scenario.drain
        arguments = ("serve", f"{drain.deadline}", f"{drain.window}", f"{drain.rate}", certificate)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            __file__,
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with killed_at_the_end(process):
            return await _play(process, scenario, context, load)


async def _play(
    process: asyncio.subprocess.Process, scenario: Scenario, context: ssl.SSLContext | None, load: float
) -> Outcome:
    assert process.stderr is not None
    assert process.stdout is not None
    found = None
    while found is None:
        line = (await process.stderr.readline()).decode()
        assert line, "the server has ended"
        found = re.search(r"listening on \S+:(\d+)", line)
    clients: list[Client] = []
    tasks: list[asyncio.Task[None]] = []
    for (kind, path), count in scenario.clients.items():
        for _ in range(count):
            client, ready = Client(kind), asyncio.Event()
            tasks.append(asyncio.create_task(client.talk(int(found[1]), path, context, ready)))
            clients.append(client)
            await asyncio.wait(
                {tasks[-1], ready_task := asyncio.create_task(ready.wait())}, return_when="FIRST_COMPLETED"
            )
            ready_task.cancel()
    await asyncio.sleep(load)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    async with asyncio.timeout(scenario.drain.deadline + PATIENCE):
        out, err = await asyncio.gather(process.stdout.read(), process.stderr.read())
        status = await process.wait()
    seconds = time.monotonic() - began
    await asyncio.sleep(0.1)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    report = next((line for line in err.decode().splitlines() if line.startswith("drained ")), err.decode())
    counts = Counter(json.loads(out)) if out else Counter()
    return Outcome(scenario, clients, counts, report, status, seconds)


def tls_files(folder: Path) -> tuple[str, ssl.SSLContext]:
    """A file with a key and a certificate for a server, and the context of its clients."""
    import trustme

    authority = trustme.CA()
    file = folder / "server.pem"
    authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(file)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return str(file), context


def main() -> None:
    """Run the requested scenarios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO")
    wanted = parser.parse_args().scenarios
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    for scenario in SCENARIOS:
        if wanted and scenario.name not in wanted:
            continue
        outcome = asyncio.run(play(scenario))
        print(*(f"{name}: {value}" for name, value in outcome.line().items()), sep="; ")
        print(f"    {outcome.report}")
        returns = outcome.returns()
        print(f"    would come back: {max(returns)} in the worst second, over {len(returns)} s", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        deadline, window, rate = map(float, sys.argv[2:5])
        serve(endwell.Drain(deadline=deadline, window=window, rate=rate), sys.argv[5])
    else:
        main()

"""What a stop does to the WebSockets of a FastAPI application: SIGTERM while each of them is busy.

    python benchmarks/asgi_drain.py                  endwell, and uvicorn with its class; over TCP and TLS
    python benchmarks/asgi_drain.py uvicorn          uvicorn with a class of its own; needs websockets
    python benchmarks/asgi_drain.py --connections 20 fewer connections

Half of the clients ask a question and wait for the answer, again and again. The others only listen to messages
that the application sends without a pause. The server is a process of its own. The clients are raw sockets, to
tell a RST from a FIN.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from drain import HOST, PATIENCE, Client, killed_at_the_end, tls_files
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

#: Seconds of work for each question, and between two messages to a client that listens.
WORK = 0.05
PAUSE = 0.05
#: Seconds until the stop is over at the latest.
DEADLINE = 10
_UVICORN = "-m uvicorn asgi_drain:app --host {host} --port 0 --timeout-graceful-shutdown {deadline}"
#: The arguments of Python for each server. uvicorn stops with the status of the signal, endwell with 0.
SERVERS = {
    "own": "-m endwell serve asgi_drain:app --host {host} --port 0 --drain-deadline {deadline}",
    "plug-in": f"{_UVICORN} --ws endwell.uvicorn:Protocol",
    "uvicorn": f"{_UVICORN} --ws websockets-sansio",
}


# -- the application -------------------------------------------------------------

counts: Counter[str] = Counter(handled=0, pushed=0, told=0)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield
    print("COUNTS", json.dumps(counts), flush=True)


app = FastAPI(lifespan=lifespan)


@app.websocket("/ask")
async def ask(ws: WebSocket) -> None:
    await ws.accept()
    try:
        while True:
            question = await ws.receive_text()
            counts["handled"] += 1
            await asyncio.sleep(WORK)
            await ws.send_text(question)
    except WebSocketDisconnect:
        counts["told"] += 1


@app.websocket("/push")
async def push(ws: WebSocket) -> None:
    await ws.accept()
    try:
        while True:
            await ws.send_text("news")
            counts["pushed"] += 1
            await asyncio.sleep(PAUSE)
    except WebSocketDisconnect:
        counts["told"] += 1


# -- one stop ----------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What the clients, the application and the process show of a stop."""

    clients: list[Client]
    counts: dict[str, int]
    seconds: float
    status: int

    def __str__(self) -> str:
        clients, counts = self.clients, self.counts
        answers = sum(client.answered for client in clients if client.kind == "asks")
        pushed = sum(client.answered for client in clients if client.kind == "listens")
        codes = Counter(client.code for client in clients)
        return "; ".join(
            (
                f"answers lost: {counts['handled'] - answers} of {counts['handled']}",
                f"messages lost: {counts['pushed'] - pushed} of {counts['pushed']}",
                f"RST: {sum(client.tcp == 'rst' for client in clients)}",
                f"closed with: {', '.join(f'{code}: {count}' for code, count in codes.items())}",
                f"applications told: {counts['told']}/{len(clients)}",
                f"exit with {self.status} after {self.seconds:.1f} s of {DEADLINE}",
            )
        )


async def stop(
    server: str, connections: int, load: float, certificate: str = "", tls: object = None
) -> Outcome:
    """Start a server, keep its connections busy for ``load`` seconds, and send SIGTERM."""
    arguments = SERVERS[server].format(host=HOST, deadline=DEADLINE).split()
    if certificate:
        arguments += ["--ssl-certfile", certificate, "--ssl-keyfile", certificate]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with killed_at_the_end(process):
        return await _stop(process, connections, load, tls)


async def _stop(process: asyncio.subprocess.Process, connections: int, load: float, tls: object) -> Outcome:
    assert process.stdout is not None
    log: list[str] = []
    found = None
    while found is None:
        log.append((await process.stdout.readline()).decode())
        assert log[-1], "".join(log)
        found = re.search(r"(?:listening|running) on \S+:(\d+)", log[-1])
    reading = asyncio.create_task(process.stdout.read())
    clients = [Client("listens" if number % 2 else "asks") for number in range(connections)]
    tasks = []
    for client in clients:
        path, ready = "/push" if client.kind == "listens" else "/ask", asyncio.Event()
        tasks.append(asyncio.create_task(client.talk(int(found[1]), path, tls, ready)))
        async with asyncio.timeout(PATIENCE):
            await ready.wait()
    await asyncio.sleep(load)
    async with asyncio.timeout(PATIENCE):
        while not all(client.answered for client in clients):
            await asyncio.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    async with asyncio.timeout(DEADLINE + PATIENCE):
        status = await process.wait()
        seconds = time.monotonic() - began
        await asyncio.gather(*tasks)
        log += (await reading).decode().splitlines()
    found = re.search(r"^COUNTS (.*)", "\n".join(log), re.MULTILINE)
    assert found, "\n".join(log)
    return Outcome(clients, json.loads(found[1]), seconds, status)


def main() -> None:
    """Stop the requested servers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("servers", nargs="*", metavar="SERVER", help=", ".join(SERVERS))
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--load", type=float, default=2.0, help="seconds before the signal")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with tempfile.TemporaryDirectory() as folder:
        certificate, context = tls_files(Path(folder))
        for server in arguments.servers or ("own", "plug-in"):
            for name, layer in (("TCP", ()), ("TLS", (certificate, context))):
                outcome = asyncio.run(stop(server, arguments.connections, arguments.load, *layer))
                print(f"{server} over {name}: {outcome}", flush=True)


if __name__ == "__main__":
    main()

"""What a rolling restart does to its clients: SIGHUP again and again, while clients connect, leave and stay.

    python benchmarks/rolling.py                     20 restarts of 4 workers, as a line
    python benchmarks/rolling.py --restarts 3        fewer
    python benchmarks/rolling.py --threads           with a plain function as handler
    python benchmarks/rolling.py --peer uvicorn      another installed server, restarted by its own HUP

Every client numbers its messages and waits for each answer. The handler keeps them in memory,
and writes them to a file when its connection has ended. So a message is lost if it was acknowledged
and is in no file, because a worker ended before the cleanup of its handlers.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import shlex
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import endwell
import endwell.sync

HOST = "127.0.0.1"
#: Seconds of work for each message, and between two messages of a client.
WORK = 0.005
PAUSE = 0.01
#: The number of messages of a short-lived client.
VISIT = 3
#: The timeout of each step in seconds.
PATIENCE = 60.0
#: Other servers, and the seconds between two SIGHUPs: they do not report the end of a restart.
PEERS = {
    "uvicorn": "uvicorn notes:app --workers {workers} --port {port} --timeout-graceful-shutdown {deadline}",
    "gunicorn": "gunicorn notes:app -w {workers} -k uvicorn_worker.UvicornWorker -b 127.0.0.1:{port} "
    "--graceful-timeout {deadline}",
    "granian": "granian notes:app --interface asgi --workers {workers} --port {port}",
    "hypercorn": "hypercorn notes:app --workers {workers} -b 127.0.0.1:{port}",
}
PACE = 5.0


@dataclass(frozen=True)
class Scenario:
    """The parameters of a run."""

    workers: int = 4
    restarts: int = 20
    #: The number of clients that stay until they are closed, and of clients that leave after some messages.
    #: All of them reconnect at once.
    stay: int = 100
    go: int = 20
    drain: endwell.Drain = field(default_factory=lambda: endwell.Drain(window=1, deadline=10))
    peer: str | None = None
    #: Whether the handler is a plain function.
    threads: bool = False


# -- the server ----------------------------------------------------------------


def serve(workers: int, window: float, deadline: float, folder: str, face: str) -> None:
    """Serve until the signal."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    server = endwell.Server()
    file = Path(folder, str(os.getpid()))

    def keep(notes: list[str]) -> None:
        with file.open("a") as stream:
            stream.writelines(notes)

    async def note(ws: endwell.WebSocket) -> None:
        notes = []
        try:
            async for message in ws:
                notes.append(f"{message}\n")
                await asyncio.sleep(WORK)
                await ws.send(message)
        finally:
            keep(notes)

    def note_blocking(ws: endwell.sync.WebSocket) -> None:
        notes = []
        try:
            for message in ws:
                notes.append(f"{message!s}\n")
                time.sleep(WORK)
                ws.send(message)
        finally:
            keep(notes)

    server.websocket("/")(note if face == "async" else note_blocking)
    server.run(HOST, 0, workers=workers, drain=endwell.Drain(window=window, deadline=deadline))


# -- the clients ---------------------------------------------------------------


@dataclass
class Tally:
    """What all clients observed together."""

    connections: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    #: The number of acknowledged messages of each client.
    acknowledged: Counter[int] = field(default_factory=Counter)
    #: Messages without an answer when the connection ended: they are sent again.
    unanswered: int = 0


async def client(number: int, url: str, stays: bool, tally: Tally, over: asyncio.Event) -> None:
    """Connect and send, and reconnect at once after any ending, until the run is over."""
    while not over.is_set():
        try:
            ws = await endwell.connect(url)
        except (OSError, endwell.HandshakeError) as error:
            tally.refused[re.sub(r"; not clean.*", "", str(error))] += 1
            await asyncio.sleep(PAUSE)
            continue
        tally.connections += 1
        sent = tally.acknowledged[number]
        with suppress(endwell.ConnectionClosed):
            for _ in count() if stays else range(VISIT):
                if over.is_set():
                    break
                await ws.send(f"{number} {tally.acknowledged[number]}")
                sent = tally.acknowledged[number] + 1
                await ws.recv()
                tally.acknowledged[number] = sent
                await asyncio.sleep(PAUSE)
        tally.unanswered += sent - tally.acknowledged[number]
        ending = await ws.close()
        tally.endings[f"{ending.code}{'' if ending.clean else ' not clean'}"] += 1


# -- one run -----------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """The result of a run."""

    scenario: Scenario
    tally: Tally
    #: The messages in the files, of each client.
    notes: dict[int, set[int]]
    #: Seconds from each SIGHUP to the end of the last old worker.
    seconds: list[float]
    status: int
    log: str

    @property
    def lost(self) -> int:
        """The number of acknowledged messages that are in no file."""
        return sum(
            len(set(range(number)) - self.notes.get(who, set()))
            for who, number in self.tally.acknowledged.items()
        )

    def line(self) -> dict[str, object]:
        """One line."""
        return {
            "server": self.scenario.peer or "endwell",
            "restarts": len(self.seconds),
            "workers": self.scenario.workers,
            "clients": self.scenario.stay + self.scenario.go,
            "connections": self.tally.connections,
            "refused": dict(self.tally.refused) or 0,
            "acknowledged": self.tally.acknowledged.total(),
            "lost": self.lost,
            "unanswered": self.tally.unanswered,
            "endings": dict(self.tally.endings),
            "seconds each": f"{min(self.seconds):.1f} to {max(self.seconds):.1f}",
            "status": self.status,
        }


class Server:
    """The workers of endwell, and their log."""

    def __init__(self, process: asyncio.subprocess.Process, scenario: Scenario) -> None:
        self.process = process
        self._scenario = scenario
        self._log: list[str] = []

    @classmethod
    async def start(cls, scenario: Scenario, folder: str) -> Server:
        drain = scenario.drain
        face = "threads" if scenario.threads else "async"
        arguments = ("serve", f"{scenario.workers}", f"{drain.window}", f"{drain.deadline}", folder, face)
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, *arguments, stderr=asyncio.subprocess.PIPE
        )
        return cls(process, scenario)

    async def port(self) -> int:
        return int((await self._logged(r"listening on \S+:(\d+)"))[1])

    async def restart(self) -> None:
        self.process.send_signal(signal.SIGHUP)
        await self._logged(f"^workers exited: {self._scenario.workers};")

    async def stop(self) -> tuple[int, str]:
        """Its status and its log."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            if self.process.stderr is not None:
                self._log.append((await self.process.stderr.read()).decode())
            return await self.process.wait(), "".join(self._log)

    async def _logged(self, pattern: str) -> re.Match[str]:
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while True:
                line = (await self.process.stderr.readline()).decode()
                assert line, "".join(self._log)
                self._log.append(line)
                if found := re.search(pattern, line):
                    return found


class Peer(Server):
    """Another server, of which only the port and the restart interval are known."""

    _port: int

    @classmethod
    async def start(cls, scenario: Scenario, folder: str) -> Peer:
        assert scenario.peer is not None
        with socket.create_server((HOST, 0)) as sock:
            port: int = sock.getsockname()[1]
        line = PEERS[scenario.peer].format(
            workers=scenario.workers, port=port, deadline=int(scenario.drain.deadline)
        )
        process = await asyncio.create_subprocess_exec(
            *shlex.split(line),
            cwd=Path(__file__).parent,
            env={**os.environ, "NOTES": folder, "WORK": f"{WORK}"},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        peer = cls(process, scenario)
        peer._port = port
        return peer

    async def port(self) -> int:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    (await asyncio.open_connection(HOST, self._port))[1].close()
                except OSError:
                    await asyncio.sleep(0.1)
                else:
                    await asyncio.sleep(PACE)  # until all workers have started
                    return self._port

    async def restart(self) -> None:
        self.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(PACE)


async def play(scenario: Scenario) -> Outcome:
    """Start the workers, connect the clients, do the restarts, and stop."""
    with tempfile.TemporaryDirectory() as folder:
        server = await (Server if scenario.peer is None else Peer).start(scenario, folder)
        try:
            return await _play(server, scenario, Path(folder))
        finally:
            if server.process.returncode is None:
                server.process.kill()  # endwell's workers detect the end
                await server.process.wait()


async def _play(server: Server, scenario: Scenario, folder: Path) -> Outcome:
    url = f"ws://{HOST}:{await server.port()}/"
    tally, over, seconds = Tally(), asyncio.Event(), []
    async with asyncio.TaskGroup() as group:
        for number in range(scenario.stay + scenario.go):
            group.create_task(client(number, url, number < scenario.stay, tally, over))
        await asyncio.sleep(0.5)
        for _ in range(scenario.restarts):
            began = time.monotonic()
            await server.restart()
            seconds.append(time.monotonic() - began)
        over.set()
    status, log = await server.stop()
    notes: dict[int, set[int]] = {}
    for who, number in _notes(folder):
        notes.setdefault(who, set()).add(number)
    return Outcome(scenario, tally, notes, seconds, status, log)


def _notes(folder: Path) -> Iterator[tuple[int, int]]:
    for file in folder.iterdir():
        for line in file.read_text().splitlines():
            who, number = line.split()
            yield int(who), int(number)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--restarts", type=int, default=Scenario.restarts)
    parser.add_argument("--peer", choices=PEERS)
    parser.add_argument("--threads", action="store_true", help="a plain function as handler")
    wanted = parser.parse_args()
    scenario = Scenario(restarts=wanted.restarts, peer=wanted.peer, threads=wanted.threads)
    outcome = asyncio.run(play(scenario))
    print(*(f"{name}: {value}" for name, value in outcome.line().items()), sep="; ")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), sys.argv[5], sys.argv[6])
    else:
        main()

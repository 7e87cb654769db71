"""The processes of a run: servers that a bus connects, and the checker's connections to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import Any

import endwell

from .witness import POLICY

__all__ = ["PROCESSES", "Publisher", "RedisSite", "Site", "SupervisorSite", "Watcher", "eventually"]

PROCESSES = 8
#: Maximum seconds for anything that must happen. It only detects a hang.
PATIENCE = 90.0


async def eventually(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} has not happened within {seconds:g} s")
        await asyncio.sleep(0.01)


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


class Process:
    """A process with the program of the servers."""

    def __init__(self, folder: Path, name: str, **settings: Any) -> None:
        self.port: int = settings["port"]
        self._log = folder / f"{name}.log"
        self._settings = settings
        self._told = 0
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self._told = len(self.log())
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.faults.app"),
                env={**os.environ, "ENDWELL_FAULTS": json.dumps(self._settings)},
                stdout=log,
                stderr=log,
            )
        await self.logged("listening on")

    def log(self) -> str:
        """What it has logged."""
        return self._log.read_text() if self._log.exists() else ""

    async def logged(self, words: str) -> None:
        """Wait until it has logged some words, after those of the last call."""
        await eventually(lambda: words in self.log()[self._told :], f"{words!r} in {self._log}")
        self._told = self.log().index(words, self._told) + len(words)

    async def kill(self) -> None:
        """Kill it, and its workers with it."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> None:
        """End it."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), 15)
            await self.kill()


class Site:
    """Eight processes whose rooms are connected."""

    #: Whether each process reports when its bus is not connected.
    reports = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def start(self) -> None:
        """Start all processes."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End them."""
        raise NotImplementedError

    def url(self, number: int) -> str:
        """Where a process is found; with workers, all of them."""
        raise NotImplementedError

    def pids(self) -> list[int]:
        """The processes that serve."""
        raise NotImplementedError

    def times_noticed(self, number: int) -> int:
        """How often a process has noticed that its bus is away."""
        raise NotImplementedError

    def connect(self, number: int, path: str) -> Awaitable[endwell.WebSocket]:
        """A connection to a process."""
        return endwell.connect(f"{self.url(number)}/{path}", compression=None)


class SupervisorSite(Site):
    """One supervisor with its workers."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder)
        self.supervisor = Process(folder, "supervisor", port=free_port(), workers=PROCESSES, **settings)

    async def start(self) -> None:
        """See :class:`Site`."""
        await self.supervisor.start()

    async def stop(self) -> None:
        """See :class:`Site`."""
        await self.supervisor.stop()

    def url(self, number: int) -> str:
        """See :class:`Site`."""
        return f"ws://127.0.0.1:{self.supervisor.port}"

    def pids(self) -> list[int]:
        """See :class:`Site`."""
        pid = self.supervisor.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class RedisSite(Site):
    """Eight servers, each with its port, and one Redis."""

    reports = True

    def __init__(self, folder: Path, bus: str) -> None:
        super().__init__(folder)
        self.servers = [
            Process(folder, f"server{number}", port=free_port(), bus=bus) for number in range(PROCESSES)
        ]

    async def start(self) -> None:
        """See :class:`Site`."""
        for server in self.servers:
            await server.start()

    async def stop(self) -> None:
        """See :class:`Site`."""
        await asyncio.gather(*(server.stop() for server in self.servers))

    def url(self, number: int) -> str:
        """See :class:`Site`."""
        return f"ws://127.0.0.1:{self.servers[number % PROCESSES].port}"

    def pids(self) -> list[int]:
        """See :class:`Site`."""
        return [server.pid for server in self.servers]

    def times_noticed(self, number: int) -> int:
        """See :class:`Site`."""
        return self.servers[number].log().count("no connection to Redis")


def signal_to(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Watcher:
    """When a process says that its bus is connected, and that it is not."""

    def __init__(self, site: Site, number: int) -> None:
        self.connected: bool | None = None
        #: Of the last changes, in seconds of the monotonic clock.
        self.gone = self.back = 0.0
        self._site, self.number = site, number

    async def run(self) -> None:
        """Watch, again and again."""
        async for ws in endwell.reconnecting(
            self._site.url(self.number) + "/watch", policy=POLICY, compression=None
        ):
            async for message in ws:
                at, self.connected = json.loads(message)
                if self.connected:
                    self.back = at
                else:
                    self.gone = at
            self.connected = None


class Publisher:
    """Orders publications from a process, and waits for their receipts."""

    def __init__(self, site: Site, number: int) -> None:
        self._site, self._number = site, number
        self._calls = count()
        self._answers: dict[int, asyncio.Future[list[Any]]] = {}
        self._ws: endwell.WebSocket | None = None

    async def run(self) -> None:
        """Be connected, again and again."""
        async for ws in endwell.reconnecting(
            self._site.url(self._number) + "/publish", policy=POLICY, compression=None
        ):
            self._ws = ws
            async for message in ws:
                number, *answer = json.loads(message)
                if (future := self._answers.pop(number, None)) is not None and not future.done():
                    future.set_result(answer)
            self._ws = None
            for future in self._answers.values():
                if not future.done():
                    future.set_result([None, "the connection has ended"])
            self._answers.clear()

    async def publish(self, room: str, message: str, size: int = 0) -> list[Any]:
        """The epoch and the number of the publication; or None and why there is no receipt."""
        ws = self._ws
        if ws is None:
            return [None, "not ordered"]
        number = next(self._calls)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        try:
            await ws.send(json.dumps([number, room, message, size]))
            return await answer
        except endwell.ConnectionClosed:
            return [None, "the connection has ended"]
        finally:
            self._answers.pop(number, None)


@contextlib.asynccontextmanager
async def running(*works: Awaitable[None]) -> AsyncIterator[None]:
    """Run some tasks meanwhile."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result

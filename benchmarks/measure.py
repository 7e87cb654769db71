"""One measurement: a server or client on one core, its counterpart on another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contenders import Contender
from instruments import Instruments, fast_server
from scenarios import IDLE_CONNECTIONS, Kind, Scenario

import endwell

HERE = Path(__file__).parent
#: The cores of the measured process, and of everything else; the same if there is only one.
MEASURED, LOADING, *_ = sorted(os.sched_getaffinity(0)) * 2
#: The folder of endwell, unless a contender has another one.
INSTALLED = Path(endwell.__file__).resolve().parent.parent
#: Seconds beyond its window after which a measurement is aborted.
PATIENCE = 90


class Fault(Exception):
    """A measurement found a wrong reply, or did not end."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    pid: int
    port: int


@dataclass(frozen=True)
class Result:
    """One measurement. ``cost`` is in the unit of the scenario; latencies in µs, 0 if there are none."""

    cost: float
    rate: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    #: The part of its core that the load generator used: near 1, it limits the rate.
    load_share: float = 0.0


@dataclass(frozen=True)
class Bench:
    """What all measurements share."""

    instruments: Instruments
    certificate: Path
    #: The file for the standard error of servers and clients.
    log: Path
    warmup: float
    seconds: float

    def window(self) -> list[str]:
        """The arguments for the length of the measurement."""
        return [f"--warmup={self.warmup}", f"--seconds={self.seconds}"]

    @contextmanager
    def serving(self, contender: Contender, loop: str, *, tls: bool = False) -> Iterator[Server]:
        """Run the server of the contender during the block."""
        command = _program(f"servers.{contender.module}", loop)
        if tls:
            command.append(f"--certificate={self.certificate}")
        with self.log.open("a") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=HERE,
                env=_environment(contender),
            )
        assert process.stdout is not None
        with process:
            try:
                port = process.stdout.readline().strip()
                if not port:
                    raise Fault(f"the server of {contender.name} does not start: see {self.log}")
                yield Server(process.pid, int(port))
            finally:
                process.kill()

    def measure(self, scenario: Scenario, contender: Contender, loop: str, server: Server | None) -> Result:
        """Measure it once; ``server`` is the contender's, if the scenario needs a long-running one.

        Raises Fault.
        """
        if scenario.kind is Kind.CLIENT:
            return self._client(scenario, contender, loop)
        if scenario.kind is Kind.IDLE:
            with self.serving(contender, loop) as fresh:
                return self._idle(scenario, fresh)
        assert server is not None
        command = self._load(scenario, server)
        found = self._run([*command, *self.window(), f"--pid={server.pid}"])
        return Result(
            1e6 * found["server_cpu"] / found["count"],
            found["count"] / found["seconds"],
            found["p50_us"],
            found["p99_us"],
            found["load_cpu"] / found["seconds"],
        )

    def _load(self, scenario: Scenario, server: Server) -> list[str]:
        return [str(self.instruments.load), *scenario.arguments, f"--port={server.port}"]

    def _client(self, scenario: Scenario, contender: Contender, loop: str) -> Result:
        with fast_server(self.instruments.fast_server) as port:
            command = [*_program(f"clients.{contender.module}", loop), f"--port={port}", *scenario.arguments]
            found = self._run([*command, *self.window()], cwd=HERE, env=_environment(contender))
        return Result(1e6 * found["cpu"] / found["count"], found["count"] / found["seconds"])

    def _idle(self, scenario: Scenario, server: Server) -> Result:
        # A few whole connections first, to exclude what is loaded with the first one.
        churn = [str(self.instruments.load), "churn", f"--port={server.port}", "--size=32"]
        self._run([*churn, "--connections=2", "--warmup=0", "--seconds=0.05"])
        before = _resident(server.pid)
        pipe = subprocess.PIPE
        with subprocess.Popen(self._load(scenario, server), stdin=pipe, stdout=pipe, text=True) as process:
            assert process.stdout is not None
            try:
                if '"faults": 0' not in process.stdout.readline():
                    raise Fault(f"{IDLE_CONNECTIONS} connections could not be opened")
                return Result((_resident(server.pid) - before) / IDLE_CONNECTIONS)
            finally:
                process.kill()

    def _run(self, command: Sequence[str], **keywords: Any) -> dict[str, float]:
        """The result of the program, which it prints as JSON."""
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=self.warmup + self.seconds + PATIENCE,
                check=False,
                **keywords,
            )
        except subprocess.TimeoutExpired as exc:
            raise Fault("no end") from exc
        if done.returncode:
            raise Fault(done.stderr.strip()[-300:] or f"exit status {done.returncode}")
        found: dict[str, float] = json.loads(done.stdout)
        return found


def _program(module: str, loop: str) -> list[str]:
    """The command of a measured Python program."""
    return ["taskset", "--cpu-list", str(MEASURED), sys.executable, "-m", module, f"--loop={loop}"]


def _environment(contender: Contender) -> Mapping[str, str]:
    return {**os.environ, "PYTHONPATH": str(contender.source or INSTALLED)}


def _resident(pid: int) -> int:
    """The resident memory of a process in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise Fault("the server is gone")

"""uvicorn as a process, in its oldest and its newest version: a stop with busy connections loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trustme

from endwell import ConnectionClosed, TcpEnd, connect
from tests.cli.process import PATIENCE
from tests.conftest import LOOP
from tests.raw import HOST, PROMPT

ROOT = Path(__file__).parents[2]
#: The oldest version that takes any class (pyproject.toml says so, too).
OLDEST = "0.36.0"
#: Seconds until the stop is over at the latest.
DEADLINE = 60.0


@pytest.fixture(scope="session")
def oldest():
    """The folder of the oldest version. It is installed once and kept."""
    folder = ROOT / "build" / "uvicorn" / OLDEST
    if not (folder / "uvicorn").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
        subprocess.run([*command, f"uvicorn=={OLDEST}"], check=True)
    return str(folder)


class Program:
    """A uvicorn that runs."""

    def __init__(self, process):
        self.process = process
        self.log = []
        self.port = 0

    async def listens(self):
        async for line in self.process.stdout:
            self.log.append(line.decode())
            if found := re.search(r"running on https?://127\.0\.0\.1:(\d+)", self.log[-1]):
                self.port = int(found[1])
                return
        raise AssertionError("".join(self.log))

    async def stopped(self):
        """What the application reported, and the exit status."""
        async with asyncio.timeout(PATIENCE):
            rest = await self.process.stdout.read()
        self.log += rest.decode().splitlines(keepends=True)
        status = await self.process.wait()
        (report,) = [line for line in self.log if line.startswith("REPORT ")]
        return json.loads(report.removeprefix("REPORT ")), status


@asynccontextmanager
async def uvicorn(*arguments, path=""):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [path, str(ROOT)])),
        "PYTHONUNBUFFERED": "1",
        "ENDWELL_DRAIN": json.dumps({"deadline": DEADLINE}),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "uvicorn", "--ws", "endwell.uvicorn:Protocol", "--host", HOST, "--port", "0"),
        *("--loop", LOOP, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
        cwd=ROOT,
    )
    program = Program(process)
    try:
        async with asyncio.timeout(PATIENCE):
            await program.listens()
        yield program
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ask(url, tls, begun):
    """Ask until the server closes. Returns the number of answers, and the ending."""
    answers = 0
    async with connect(f"{url}/ask", ssl=tls) as ws:
        try:
            while True:
                await ws.send(f"{answers}")
                assert await ws.recv() == f"{answers}"
                answers += 1
                begun()
        except ConnectionClosed as exc:
            return answers, exc.ending


async def listen(url, tls, begun):
    """Receive until the server closes. Returns the number of messages, and the ending."""
    count = 0
    async with connect(f"{url}/push", ssl=tls) as ws:
        async for _ in ws:
            count += 1
            begun()
    return count, ws.ending


async def stopping(program, connections, tls=None):
    """Stop a server with busy connections, and check that nothing was lost. Returns the seconds that it took."""
    url = f"{'wss' if tls else 'ws'}://{HOST}:{program.port}"
    everybody = set(range(connections))
    all_busy = asyncio.Event()

    def begun(number):
        everybody.discard(number)
        if not everybody:
            all_busy.set()

    clients = [
        asyncio.create_task((listen if number % 2 else ask)(url, tls, partial(begun, number)))
        for number in range(connections)
    ]
    async with asyncio.timeout(PATIENCE):
        await all_busy.wait()
    began = time.monotonic()
    program.process.send_signal(signal.SIGTERM)
    results = await asyncio.gather(*clients)
    report, status = await program.stopped()
    # uvicorn raises the signal again when it has stopped.
    assert status == -signal.SIGTERM, "".join(program.log)
    duration = time.monotonic() - began
    assert duration < DEADLINE + PROMPT
    assert report["handled"] == sum(count for count, _ in results[::2])
    assert report["pushed"] == sum(count for count, _ in results[1::2])
    assert {ending.tcp for _, ending in results} == {TcpEnd.FIN}
    assert {ending.received.code for _, ending in results} == {1001}
    assert report["disconnects"] == {"1001": connections}
    assert report["endings"] == {"SERVER_DRAINED True": connections}
    assert not [line for line in program.log if "Traceback" in line or "ERROR" in line]
    return duration


@pytest.mark.parametrize("application", ["raw", "api"])
@pytest.mark.parametrize("http", ["httptools", pytest.param("h11", marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("version", ["newest", "oldest"])
async def test_a_stop_with_busy_connections_loses_nothing_and_resets_none(
    version, http, application, request
):
    path = request.getfixturevalue("oldest") if version == "oldest" else ""
    factory = ["--factory"] if application == "api" else []
    async with uvicorn(f"tests.asgi.program:{application}", *factory, "--http", http, path=path) as program:
        await stopping(program, 20)


async def test_over_tls_a_stop_with_busy_connections_loses_nothing_and_resets_none(tmp_path):
    authority = trustme.CA()
    pair = authority.issue_cert(HOST)
    pair.private_key_pem.write_to_path(tmp_path / "key.pem")
    pair.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    files = ["--ssl-keyfile", tmp_path / "key.pem", "--ssl-certfile", tmp_path / "certificate.pem"]
    async with uvicorn("tests.asgi.program:raw", *files) as program:
        await stopping(program, 20, tls)


async def test_a_mistake_in_the_environment_stops_the_start(monkeypatch):
    environment = os.environ | {"ENDWELL_OPTIONS": '{"idle_tiemout": 5}'}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "import endwell.uvicorn"), env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, error = await process.communicate()
    assert process.returncode != 0
    assert "idle_timeout" in error.decode()  # the suggestion

"""The units of docs/howto/deploy.md: checked by systemd-analyze, and run by systemd-socket-activate."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import socket
import subprocess
import sys

import pytest

import endwell
from tests.cli.process import PATIENCE, SOURCES
from tests.deploy.page import block, changed, seconds
from tests.pair import within
from tests.ports import free_port
from tests.server.program import Program

SOCKET, SERVICE = block("ini", "chat.socket"), block("ini", "chat.service")


def test_systemd_analyze_accepts_the_units(tmp_path):
    (tmp_path / "chat.socket").write_text(SOCKET)
    service = changed(SERVICE, {"/srv/chat/.venv/bin/endwell": sys.executable})
    (tmp_path / "chat.service").write_text(service)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", tmp_path / "chat.service", tmp_path / "chat.socket"],
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    # It also checks the units of this machine that these refer to.
    ours = [line for line in done.stderr.splitlines() if "chat." in line]
    assert ours == [], done.stderr


def test_the_stop_timeout_of_systemd_is_longer_than_a_drain():
    assert seconds(SERVICE, "TimeoutStopSec") > endwell.Drain().deadline + 3


@pytest.fixture
def command(tmp_path):
    """ExecStart of the unit, with the application of the page."""
    (tmp_path / "app.py").write_text(block("python", "app.py"))
    (start,) = re.findall(r"^ExecStart=(.*)$", SERVICE, re.MULTILINE)
    changes = {"/srv/chat/.venv/bin/endwell": f"{sys.executable} -m endwell", "/srv/chat": str(tmp_path)}
    return shlex.split(changed(start, changes))


async def test_the_unit_serves_reloads_and_stops_under_systemd(command, tmp_path):
    port = free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(PATIENCE)

        def told():
            return notified.recv(4096).decode().split("\n")[0]

        activate = ["systemd-socket-activate", f"--listen=127.0.0.1:{port}"]
        activate += [f"--setenv={name}" for name in ("NOTIFY_SOCKET", "PYTHONPATH", "ENDWELL_PURE")]
        environment = {
            "ENDWELL_PURE": "",
            **os.environ,
            "NOTIFY_SOCKET": notified.getsockname(),
            "PYTHONPATH": str(SOURCES),
        }
        with subprocess.Popen(
            [*activate, *command], env=environment, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                program = Program(process)
                program.logged("Listening on ")  # a line of systemd; the first client starts the server
                url = f"ws://127.0.0.1:{port}/chat"
                ws = await endwell.connect(url, open_timeout=PATIENCE)
                await ws.send("hello")
                assert await within(ws.recv(), PATIENCE) == "hello"
                assert told() == "READY=1"
                program.send(signal.SIGHUP)  # ExecReload
                assert (await within(ws.closed, PATIENCE)).received.code == 1012
                assert [told(), told()] == ["RELOADING=1", "READY=1"]
                async with endwell.connect(url, open_timeout=PATIENCE) as ws:
                    await asyncio.to_thread(program.logged, "workers exited: 4; drained")
                    program.send(signal.SIGTERM)
                    assert (await within(ws.closed, PATIENCE)).received.code == 1001
                assert told() == "STOPPING=1"
                status, _ = await asyncio.to_thread(program.finish, None)
                assert status == 0
            finally:
                process.kill()

"""The peers: how each is found and started. Each is a program of its own in peers/.

A peer's program is called as ``version``, ``client URL SCENARIO`` or ``server``. A client prints at the end
what its library reported; a server prints its port, and then the report for each connection.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SCENARIOS = ("client-closes", "server-closes", "server-stops", "reset")
#: Scenarios of browsers only.
RELOAD, STREAM, QUIT, KILLED = "reload", "reload while we stream", "quit (SIGTERM)", "killed (SIGKILL)"
MESSAGES = ("hello", "é" * 2**19, os.urandom(2**20))
#: The timeout in seconds for one line of a peer.
PATIENCE = 15

_PEERS = Path(__file__).parent / "peers"
#: The Python with the peers' packages, if it is not the one that runs endwell.
_PYTHON = os.environ.get("INTEROP_PYTHON", sys.executable)


@dataclass(frozen=True)
class Peer:
    """A program, and the scenarios that it can play in each role."""

    name: str
    command: tuple[str, ...]
    as_client: tuple[str, ...] = SCENARIOS
    as_server: tuple[str, ...] = SCENARIOS
    #: The messages that it echoes as a server.
    messages: tuple[str | bytes, ...] = MESSAGES
    #: The argument that makes it print its version.
    ask: str = "version"

    async def version(self) -> str | None:
        """Its version; None if it is not installed."""
        try:
            told, failure = await self.run(self.ask)
        except FileNotFoundError:
            return None
        return None if failure else next(word for word in told.split() if word[0].isdigit())

    async def run(self, *args: str) -> tuple[str, str]:
        """The last line of its output, and the reason if it failed."""
        async with self.running(*args) as process:
            out, err = await process.communicate()
        lines = out.decode().splitlines() or [""]
        failure = (
            f"exit status {process.returncode}: {err.decode().strip()[-300:]}" if process.returncode else ""
        )
        return lines[-1], failure

    @asynccontextmanager
    async def running(self, *args: str, home: str = "") -> AsyncIterator[Process]:
        """A process of it, in a session of its own, so that its children end with it.

        ``home`` is a folder of its own, if it needs one.
        """
        env = os.environ | ({"HOME": home} if home else {})
        process = await asyncio.create_subprocess_exec(
            *self.command, *args, env=env, stdout=PIPE, stderr=PIPE, start_new_session=True
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def line(self, process: Process) -> str:
        """The next line of its output."""
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            return (await process.stdout.readline()).decode().strip()


def _python(name: str, script: str, **limits: tuple) -> Peer:
    return Peer(name, (_PYTHON, str(_PEERS / script)), **limits)


def _node(name: str, script: str, **limits: tuple) -> Peer:
    return Peer(name, ("node", str(_PEERS / script)), **limits)


def _browser(name: str, *command: str) -> Peer:
    return Peer(
        name, (*command, "--headless"), (*SCENARIOS, RELOAD, STREAM, QUIT, KILLED), (), ask="--version"
    )


PEERS = (
    _node("ws (node)", "ws.cjs"),
    _node("undici (node)", "undici.cjs", as_server=()),
    _node("websocket (node)", "websocket.cjs"),
    _python("websockets, asyncio", "websockets_asyncio.py"),
    _python("websockets, threads", "websockets_sync.py"),
    _python("aiohttp", "aiohttp_peer.py"),
    _python("libcurl (pycurl)", "pycurl_peer.py", as_server=()),
    # As a server it can only echo, and supports one type of message.
    _python(
        "websocat",
        "websocat_peer.py",
        as_server=("client-closes", "reset"),
        messages=tuple(message for message in MESSAGES if isinstance(message, bytes)),
    ),
)

BROWSERS = (
    _browser("Chromium", "chromium", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    _browser("Firefox", "firefox-esr", "--no-remote"),
)

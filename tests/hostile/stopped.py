"""A process that is stopped and continued: which peers time out, and when.

    python -m tests.hostile.stopped 60 20 20

stops endwell, once as a server and once as a client, for 60 seconds, with a
``ping_interval`` of 20 s and a ``ping_timeout`` of 20 s. One of its two peers is alive all the time; the
other
one died before the stop.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any, NamedTuple

import endwell
from tests.cli.process import python
from tests.raw import RawPeer, RawServer
from tests.wire.peer import PING, PONG

__all__ = ["Report", "stopped"]


class Report(NamedTuple):
    """The result for the two peers; times are in seconds since the process continued."""

    #: The time at which the live peer received the first ping.
    pinged: float
    #: Whether the live peer was still connected after three more pings.
    kept: bool
    #: The ending of the dead peer: the time of the report, and the ``Ending``.
    ended: float
    ending: dict[str, Any]


async def stopped(role: str, seconds: float, interval: float, patience: float) -> Report:
    """Stop a process that plays ``role`` for ``seconds``, and report."""
    with RawServer() as listening:
        how = json.dumps({"role": role, "uri": listening.uri, "interval": interval, "patience": patience})
        with python("-m", "tests.hostile.stopped", "child", how) as child:
            lines = _Lines(child)
            port = await lines.next()
            peers = []
            for _ in range(2):
                if role == "client":
                    peers.append(await listening.accept())
                else:
                    peers.append(await RawPeer.connect(port))
            with peers[0] as alive, peers[1] as dead:
                await dead.vanish()
                # Both peers have an unanswered ping when the process stops.
                assert (await alive.read_frame(None)).opcode == PING
                child.send_signal(signal.SIGSTOP)
                os.waitpid(child.pid, os.WUNTRACED)  # noqa: ASYNC222 - at once
                await asyncio.sleep(seconds)
                began = time.monotonic()
                child.send_signal(signal.SIGCONT)
                answering = asyncio.ensure_future(_answer(alive, 4))
                told, ending = await lines.next()
                pinged = await answering
                kept = alive.seen.tcp is None and len(pinged) == 4
                return Report(pinged[0] - began, kept, told - began, ending)


async def _answer(peer: RawPeer, count: int) -> list[float]:
    """Answer ``count`` pings that are sent from now on; the times at which they arrived."""
    came: list[float] = []
    while len(came) < count and (received := await peer.read_frame(None)) is not None:
        if received.opcode == PING:
            came.append(time.monotonic())
            await peer.frame(PONG, received.payload)
    return came


class _Lines:
    """The output of a child, as JSON lines."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child

    async def next(self) -> Any:
        """The next line."""
        loop = asyncio.get_running_loop()
        return json.loads(await loop.run_in_executor(None, self._child.stdout.readline))


# -- the child -------------------------------------------------------------------


async def _run_child(role: str, uri: str, interval: float, patience: float) -> None:
    options = {"ping_interval": interval, "ping_timeout": patience}

    def tell(ending: endwell.Ending) -> None:
        print(json.dumps([time.monotonic(), ending.as_dict()]), flush=True)

    if role == "client":
        print("0", flush=True)
        # Referenced, because a connection without references is closed.
        held = [await endwell.connect(uri, **options) for _ in range(2)]
        for ws in held:
            ws.on_close(tell)
        await asyncio.Event().wait()
    server = endwell.Server(**options)

    @server.websocket("/")
    async def idle(ws: endwell.WebSocket) -> None:
        ws.on_close(tell)
        await ws.closed

    async with server.serving():
        print(server.port, flush=True)
        await asyncio.Event().wait()


# -- from the command line --------------------------------------------------------


async def _main(seconds: float, interval: float, patience: float) -> None:
    roles = ("server", "client")
    reports = await asyncio.gather(*(stopped(role, seconds, interval, patience) for role in roles))
    for role, report in zip(roles, reports, strict=True):
        print(f"{role}: the one that lives was pinged after {report.pinged:.2f} s, kept: {report.kept}")
        print(f"{role}: the dead one was given up after {report.ended:.2f} s: {report.ending['text']}")


if __name__ == "__main__":
    if sys.argv[1] == "child":
        with suppress(KeyboardInterrupt):
            asyncio.run(_run_child(**json.loads(sys.argv[2])))
    else:
        asyncio.run(_main(*map(float, sys.argv[1:])))

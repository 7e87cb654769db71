"""The process has no file descriptors left: open connections are not affected, and it recovers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket

import pytest

from endwell import Cause, HandshakeError, connect
from tests.cli.process import PATIENCE, python
from tests.conftest import LOOP
from tests.pair import within
from tests.raw import HOST, RawPeer
from tests.wire.peer import TEXT

#: An echo server with a few descriptors beside the listening socket: one for the epoll, one for each
#: connection.
SERVER = """
import asyncio, logging, os, resource, sys
from endwell import Server

room, loop = int(sys.argv[1]), sys.argv[2]
logging.basicConfig(format="%(message)s")
server = Server(ping_interval=None)

@server.websocket("/")
async def echo(ws):
    async for message in ws:
        await ws.send(message)

async def main():
    async with server.serving(grace=0):
        used = len(os.listdir("/proc/self/fd")) - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + room, used + room))
        print(server.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

if loop == "uvloop":
    import uvloop
    uvloop.run(main())
else:
    asyncio.run(main())
"""


def cpu_of(process):
    """The seconds of CPU time that the process has used."""
    with open(f"/proc/{process.pid}/stat") as file:
        user, system = file.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def test_a_server_without_file_descriptors_stays_idle_and_recovers():
    with python("-c", SERVER, "4", LOOP) as process, contextlib.ExitStack() as stack:
        port = int(process.stdout.readline())
        old = [stack.enter_context(await RawPeer.connect(port)) for _ in range(3)]
        waiting = [stack.enter_context(await RawPeer.connect_tcp(port)) for _ in range(4)]
        for peer in waiting:
            await peer.write(peer.request())
        await asyncio.sleep(0.1)
        before = cpu_of(process)
        for _ in range(10):  # one second
            for peer in old:
                await peer.frame(TEXT, b"still there?")
                assert (await peer.read_frame()).payload == b"still there?"
            await asyncio.sleep(0.1)
        # The echoes took some hundredths of a second. A loop that calls accept again and again takes all of
        # it.
        assert cpu_of(process) - before < 0.4
        old.pop().drop()
        assert (await waiting[0].read_head()).startswith("HTTP/1.1 101 ")
        for number, peer in enumerate(waiting[1:], 1):
            waiting[number - 1].drop()
            assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
        assert await asyncio.to_thread(process.communicate, timeout=PATIENCE) == (
            "",
            "cannot accept connections for now: [Errno 24] Too many open files\n",
        )
        assert process.returncode == 0


@pytest.mark.parametrize("left", [0, 1])
async def test_a_client_without_file_descriptors_fails_with_the_reason(left):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.create_server((HOST, 0)) as listening:
        await asyncio.get_running_loop().run_in_executor(None, int)  # its thread has started
        with socket.socket() as last:
            resource.setrlimit(resource.RLIMIT_NOFILE, (last.fileno() + left, hard))
        try:
            with pytest.raises(HandshakeError) as raised:
                await within(connect(f"ws://{HOST}:{listening.getsockname()[1]}/"))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert raised.value.ending.cause is Cause.NETWORK_ERROR
    assert isinstance(raised.value.ending.exception, OSError)
    assert "Too many open files" in str(raised.value.ending.exception)

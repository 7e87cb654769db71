"""A process that forks while it has connections: the child has their descriptors, and must not harm them."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import textwrap

import pytest

import endwell
from endwell.aio.websocket import begin_close
from tests.cli.process import PATIENCE
from tests.pair import within
from tests.ports import free_port
from tests.raw import BOUND, HOST, PLAIN, wss

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(params=["ws", "wss"])
def transport(request):
    return PLAIN if request.param == "ws" else wss()


def serve(**options):
    server = endwell.Server(**options)
    server.accepted = []

    @server.websocket("/")
    async def echo(ws):
        server.accepted.append(ws)
        async for message in ws:
            await ws.send(message)

    return server


async def in_child(function):
    """Call ``function`` in a forked child, and wait for the end of the child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            function()
            os.write(writing, b"done")
        except BaseException as exc:
            os.write(writing, repr(exc).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert await asyncio.to_thread(pipe.read) == b"done"
    os.waitpid(child, 0)  # noqa: ASYNC222  (it has ended)


async def test_a_child_that_cuts_what_it_inherits_cuts_nothing_of_the_parents(transport):
    server = serve()
    async with server.serving(ssl=transport.server):
        url = f"ws{'s' * (transport is not PLAIN)}://{HOST}:{server.port}/"
        async with endwell.connect(url, ssl=transport.client) as ws:
            await ws.send("before")
            assert await within(ws.recv()) == "before"

            def cut():
                for each in (ws, *server.accepted):
                    each.abort()
                    assert each.ending is not None
                server._listener.close()

            await in_child(cut)
            await ws.send("after")
            assert await within(ws.recv()) == "after"
            async with endwell.connect(url, ssl=transport.client) as another:
                await another.send("another")
                assert await within(another.recv()) == "another"
        assert (await within(server.accepted[0].closed)).clean
        assert ws.ending.clean


async def test_a_child_that_closes_its_connections_sends_no_close(transport):
    server = serve()
    async with server.serving(ssl=transport.server):
        url = f"ws{'s' * (transport is not PLAIN)}://{HOST}:{server.port}/"
        async with endwell.connect(url, ssl=transport.client) as ws:
            await ws.send("before")
            assert await within(ws.recv()) == "before"

            def close():
                for each in (ws, *server.accepted):
                    begin_close(each, endwell.Cause.APP_CLOSED, endwell.CloseCode.NORMAL_CLOSURE)

            await in_child(close)
            await ws.send("after")
            assert await within(ws.recv()) == "after"


async def test_while_a_child_lives_the_port_of_a_stopped_server_is_closed():
    port = free_port()
    async with serve().serving(port=port):
        reading, writing = os.pipe()
        lives, tell = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(tell, b"x")
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
        await asyncio.to_thread(os.read, lives, 1)
    try:
        with pytest.raises(ConnectionRefusedError), socket.create_connection((HOST, port), BOUND):
            pass
        async with serve().serving(port=port):
            pass
    finally:
        os.close(writing)
        await asyncio.to_thread(os.waitpid, child, 0)
        for descriptor in (reading, lives, tell):
            os.close(descriptor)


async def test_a_child_leaves_the_file_of_a_unix_socket(tmp_path):
    path = tmp_path / "socket"
    server = serve()
    async with server.serving(unix_path=path):
        await in_child(server._listener.close)
        async with endwell.connect("ws://localhost/", unix_path=path) as ws:
            await ws.send("here")
            assert await within(ws.recv()) == "here"
    assert not path.exists()


PROGRAM = """
import asyncio, endwell, os, sys

async def main():
    async with endwell.connect(sys.argv[1]) as ws:
        await ws.send("before")
        await ws.recv()
        child = os.fork()
        if child == 0:
            sys.exit()  # through the block, and through the end of asyncio.run()
        # Not in a thread: asyncio's end in the child stops the parent's call_soon_threadsafe().
        while not os.waitpid(child, os.WNOHANG)[0]:
            await asyncio.sleep(0.01)
        await ws.send("after")
        print(await ws.recv(), flush=True)
    print(ws.ending.clean, flush=True)

asyncio.run(main())
"""


async def test_a_child_that_exits_through_a_block_does_not_close_the_parents_connection():
    server = serve()
    async with server.serving():
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-W",
            "ignore",
            "-c",
            textwrap.dedent(PROGRAM),
            f"ws://{HOST}:{server.port}/",
            stdout=subprocess.PIPE,
        )
        out, _ = await within(process.communicate(), PATIENCE)
    assert out == b"after\nTrue\n"

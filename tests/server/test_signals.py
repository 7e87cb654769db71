"""What signals do to a program that runs a server, also when the system has run out of something."""

from __future__ import annotations

import asyncio
import signal

import pytest

import endwell
from endwell import Cause
from tests.cli.process import PATIENCE, listening, python
from tests.pair import within
from tests.server.program import running

#: Its page makes the system refuse new threads, as a limit on processes or address space does.
PROGRAM = """
import asyncio, logging, os, sys, threading, time
import endwell
import endwell.server.run

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
if LOOP == "asyncio":
    sys.modules["endwell.server.run"].loop_factory = lambda: None
server = endwell.Server()

def refuse(*_):
    raise RuntimeError("can't start new thread")

@server.get("/exhaust")
async def exhaust(request):
    threading._start_new_thread = refuse

@server.websocket("/async")
async def echo(ws):
    async for message in ws:
        await ws.send(message)

@server.websocket("/plain")
def plain(ws):
    for message in ws:
        ws.send(message)

@server.websocket("/blocks")
async def blocks(ws):
    print("from here on", flush=True)
    time.sleep(3600)

@server.websocket("/floods")
async def floods(ws):
    print("from here on", flush=True)
    while True:
        os.write(2, bytes(65536))

@server.on_close
def closed(ws, ending):
    print(ending.cause.name, threading.current_thread().name.split(" ")[0], flush=True)

server.run("127.0.0.1", 0, drain=endwell.Drain(deadline=DEADLINE))
print("returned", flush=True)
"""


def program(loop="uvloop", deadline=30.0):
    return PROGRAM.replace("LOOP", repr(loop)).replace("DEADLINE", repr(deadline))


async def get(server, path):
    """Ask for a page, which answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    answer = await within(reader.read())
    writer.close()
    return answer


loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@loops
async def test_sigterm_drains_though_the_system_gives_no_thread(loop):
    with running("-c", program(loop)) as server:
        async with (
            endwell.connect(server.url("/async")) as ws,
            endwell.connect(server.url("/plain")) as other,
        ):
            for each in (ws, other):
                await each.send("hello")
                assert await within(each.recv()) == "hello"
            await get(server, "/exhaust")
            server.send(signal.SIGTERM)
            assert (await within(ws.closed)).code == (await within(other.closed)).code == 1001
        status, log = await asyncio.to_thread(server.finish, None)
        out = server.process.stdout.read()
    assert status == 0
    # Callbacks of plain handlers may block, so even then they do not run in the loop.
    lines = ["SERVER_DRAINED MainThread", "SERVER_DRAINED endwell", "returned"]
    assert sorted(out.splitlines()) == lines
    assert "2 clean" in log
    assert "Traceback" not in log


@loops
async def test_a_blocked_loop_is_ended_after_the_deadline_though_the_system_gives_no_thread(loop):
    with running("-c", program(loop, 0.0)) as server:
        await get(server, "/exhaust")
        ws = await endwell.connect(server.url("/blocks"))
        assert await asyncio.to_thread(server.process.stdout.readline) == "from here on\n"
        status, log = await asyncio.to_thread(server.finish)
        assert (await within(ws.closed)).cause is not Cause.SERVER_DRAINED
    assert status == 1
    assert "in blocks" in log


async def test_a_process_that_cannot_write_its_log_ends_all_the_same():
    with python("-c", program(deadline=0.0)) as process:
        port = listening(process)  # from here on nobody reads the log
        ws = await endwell.connect(f"ws://127.0.0.1:{port}/floods")
        assert await asyncio.to_thread(process.stdout.readline) == "from here on\n"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, PATIENCE) == 1
        await within(ws.closed)

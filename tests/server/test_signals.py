"""Signals to a program that runs a server, also when system resources are exhausted."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import re
import signal
import socket
import threading

import pytest

import endwell
from endwell import Cause
from tests.cli.process import PATIENCE, finish, listening, python
from tests.pair import within
from tests.server.program import running, write

#: A request for its page makes the kernel refuse new threads, like a limit on processes or address space.
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
        if message == "slow":
            print("from here on", flush=True)
            await asyncio.sleep(0.5)
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

@server.websocket("/exits")
async def exits(ws):
    await ws.send("now")
    asyncio.get_running_loop().call_soon(sys.exit, 7)
    await ws.recv()

@server.on_close
def closed(ws, ending):
    print(ending.cause.name, threading.current_thread().name.split(" ")[0], flush=True)

server.run("127.0.0.1", 0, drain=endwell.Drain(deadline=DEADLINE))
print("returned", flush=True)
"""


def program(loop="uvloop", deadline=120.0):
    return PROGRAM.replace("LOOP", repr(loop)).replace("DEADLINE", repr(deadline))


async def get(server, path):
    """Request a page, which answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await within(reader.read(), PATIENCE)
    writer.close()
    return answer


loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@loops
async def test_sigterm_drains_when_no_thread_can_start(loop):
    with running("-c", program(loop)) as server:
        async with (
            endwell.connect(server.url("/async"), open_timeout=PATIENCE) as ws,
            endwell.connect(server.url("/plain"), open_timeout=PATIENCE) as other,
        ):
            for each in (ws, other):
                await each.send("hello")
                assert await within(each.recv(), PATIENCE) == "hello"
            await get(server, "/exhaust")
            server.send(signal.SIGTERM)
            assert (
                (await within(ws.closed, PATIENCE)).code
                == (await within(other.closed, PATIENCE)).code
                == 1001
            )
        status, log = await asyncio.to_thread(server.finish, None)
        out = server.process.stdout.read()
    assert status == 0
    # Callbacks of plain handlers may block, so they do not run in the loop even then.
    lines = ["SERVER_DRAINED MainThread", "SERVER_DRAINED endwell", "returned"]
    assert sorted(out.splitlines()) == lines
    assert "2 clean" in log
    assert "Traceback" not in log


@loops
async def test_a_blocked_loop_ends_after_the_deadline_when_no_thread_can_start(loop):
    with running("-c", program(loop, 0.0)) as server:
        await get(server, "/exhaust")
        ws = await endwell.connect(server.url("/blocks"), open_timeout=PATIENCE)
        assert await asyncio.to_thread(server.process.stdout.readline) == "from here on\n"
        status, log = await asyncio.to_thread(server.finish)
        assert (await within(ws.closed, PATIENCE)).cause is not Cause.SERVER_DRAINED
    assert status == 1
    assert "in blocks" in log


async def test_a_process_that_cannot_write_its_log_ends():
    with python("-c", program(deadline=0.0)) as process:
        port = listening(process)  # from here on the log is not read
        ws = await endwell.connect(f"ws://127.0.0.1:{port}/floods", open_timeout=PATIENCE)
        assert await asyncio.to_thread(process.stdout.readline) == "from here on\n"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, PATIENCE) == 1
        await within(ws.closed, PATIENCE)


@loops
async def test_a_second_sighup_does_not_shorten_the_drain(loop):
    with running("-c", program(loop)) as server:
        async with endwell.connect(server.url("/async"), open_timeout=PATIENCE) as ws:
            await ws.send("slow")
            assert await asyncio.to_thread(server.process.stdout.readline) == "from here on\n"
            server.send(signal.SIGHUP)
            await asyncio.to_thread(server.logged, "stopping: 1 connection")
            server.send(signal.SIGHUP)
            assert await within(ws.recv(), PATIENCE) == "slow"
            assert (await within(ws.closed, PATIENCE)).code == 1001
        status, log = await asyncio.to_thread(server.finish, None)
    assert status == 0
    assert "1 clean" in log


async def test_an_existing_sighup_handler_is_kept():
    text = program().replace("server.run(", "signal.signal(signal.SIGHUP, HANDLER); server.run(")
    text = text.replace("import asyncio", "import signal, asyncio", 1)
    for handler in ("signal.SIG_IGN", "lambda *_: print('mine', flush=True)"):
        with running("-c", text.replace("HANDLER", handler)) as server:
            async with endwell.connect(server.url("/async"), open_timeout=PATIENCE) as ws:
                server.send(signal.SIGHUP)
                if handler != "signal.SIG_IGN":
                    assert await asyncio.to_thread(server.process.stdout.readline) == "mine\n"
                await ws.send("hello")
                assert await within(ws.recv(), PATIENCE) == "hello"
            assert (await asyncio.to_thread(server.finish))[0] == 0


@loops
async def test_sys_exit_in_a_loop_callback_drains_and_ends_the_process(loop):
    with running("-c", program(loop)) as server:
        async with endwell.connect(server.url("/async"), open_timeout=PATIENCE) as other:
            await other.send("hello")
            assert await within(other.recv(), PATIENCE) == "hello"
            async with endwell.connect(server.url("/exits"), open_timeout=PATIENCE) as ws:
                assert await within(ws.recv(), PATIENCE) == "now"
                assert (
                    (await within(ws.closed, PATIENCE)).code
                    == (await within(other.closed, PATIENCE)).code
                    == 1001
                )
        status, log = await asyncio.to_thread(server.finish, None)
    assert status == 7
    assert "2 clean" in log


def test_a_port_in_use_exits_with_one_line_without_a_traceback():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for workers in ("None", "1"):
            file = "import endwell; endwell.Server().run(port=int(__import__('sys').argv[1]), workers={})"
            with python("-c", file.format(workers), str(port)) as process:
                status, out, err = finish(process)
            assert (status, out) == (1, "")
            assert err == f"endwell: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_a_port_in_use_is_an_oserror_outside_of_the_main_thread():
    raised = []

    def run(port):
        try:
            endwell.Server().run(port=port)
        except OSError as exc:
            raised.append(exc)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        thread = threading.Thread(target=run, args=(port,))
        thread.start()
        thread.join(PATIENCE)
    (error,) = raised
    assert str(error) == f"[Errno {errno.EADDRINUSE}] Address already in use: '127.0.0.1:{port}'"


async def test_run_in_a_running_loop_raises_and_suggests_serving():
    with pytest.raises(RuntimeError, match=r"async with server\.serving"):
        endwell.Server().run(port=0)
    gc.collect()  # a coroutine that was never awaited would warn


@pytest.mark.parametrize("logs", [False, True])
def test_a_program_without_logging_setup_prints_its_address(logs):
    setup = "import logging; logging.basicConfig(level=logging.WARNING)\n" if logs else ""
    file = (
        "import endwell\nserver = endwell.Server()\nserver.on_start(lambda: print('started', flush=True))\n"
    )
    with python("-c", f"{setup}{file}server.run(port=0)") as process:
        assert process.stdout.readline() == "started\n"
        if not logs:
            assert re.fullmatch(r"listening on 127\.0\.0\.1:\d+; Ctrl-C stops\n", process.stderr.readline())
        process.send_signal(signal.SIGTERM)
        assert finish(process) == (0, "", "")


#: Each process stops at two moments after its drain, until the test has created a file.
LEAVING = """
import logging, os, sys, time
import endwell

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")

def pause(moment, os=os, sleep=time.sleep, file=__file__):
    os.write(2, f"{moment} {os.getpid()}\\n".encode())
    while not os.path.exists(f"{file}.{moment}.{os.getpid()}"):
        sleep(0.01)

class Global:
    # Python has set the default action of each signal that had a handler before it deletes the globals.
    def __del__(self):
        self.pause("deletes")

_globals = Global()
_globals.pause = pause
server = endwell.Server()
server.run("127.0.0.1", 0, workers=WORKERS)
pause("returned")
"""


@pytest.mark.parametrize("workers", [None, 1])
async def test_signals_after_the_drain_do_not_kill_a_process_that_exits(workers, tmp_path):
    file = tmp_path / "program.py"
    file.write_text(LEAVING.replace("WORKERS", repr(workers)))
    with running(str(file)) as server:
        assert server.port
        server.send(signal.SIGTERM)
        for times in range(1, 2 + (workers or 0)):
            for moment in ("returned", "deletes"):
                found = await asyncio.to_thread(server.logged, rf"{moment} (\d+)\n", times)
                for number in (signal.SIGUSR1, signal.SIGHUP):
                    os.kill(int(found[1]), number)
                file.with_name(f"{file.name}.{moment}.{found[1]}").touch()
        status, log = await asyncio.to_thread(server.finish, None)
    assert status == 0
    assert "killed" not in log


TWICE = """
import logging, os, signal, subprocess, sys
import endwell

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
for _ in range(2):
    server = endwell.Server()

    @server.websocket("/")
    async def wait(ws):
        await ws.recv()

    server.run("127.0.0.1", 0)
signals = "import signal; print([signal.getsignal(each).name for each in (signal.SIGHUP, signal.SIGUSR1)])"
os.execv(sys.executable, [sys.executable, "-c", signals])
"""


async def test_a_second_run_and_another_program_have_the_signals_again():
    with running("-c", TWICE) as server:
        for times in (1, 2):
            port = (await asyncio.to_thread(server.logged, r"listening on \S+:(\d+)", times))[1]
            async with endwell.connect(f"ws://127.0.0.1:{port}/", open_timeout=PATIENCE) as ws:
                server.send(signal.SIGUSR1)
                await asyncio.to_thread(server.logged, r"shed: \d of 1 connection will close", times)
                server.send(signal.SIGHUP)
                assert (await within(ws.closed, PATIENCE)).code in (1001, 1012)
        status, _ = await asyncio.to_thread(server.finish, None)
        assert (status, server.process.stdout.read()) == (0, "['SIG_DFL', 'SIG_DFL']\n")


@pytest.mark.parametrize("workers", [None, 1])
async def test_a_signal_that_faulthandler_handles_is_left_to_it(workers, tmp_path):
    file = write(tmp_path, workers=workers, **{"server = ": FAULTHANDLER})
    with running(str(file)) as server:
        ws, process, _ = await server.connect()
        os.kill(process, signal.SIGUSR1)
        await asyncio.to_thread(server.logged, "most recent call first")
        await ws.send("open")
        assert await within(ws.recv(), PATIENCE) == "open"
        await ws.close()
        status, _ = await asyncio.to_thread(server.finish)
    assert status == 0


FAULTHANDLER = "import faulthandler, signal; faulthandler.register(signal.SIGUSR1)\nserver = "

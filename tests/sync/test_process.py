"""The process around the library: Ctrl-C, fork, exit."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from endwell import ConcurrencyError, sync
from tests.cli.process import PATIENCE
from tests.raw import switching_protocols
from tests.sync.background import BOUND, served, until


@contextmanager
def running(program: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The program as a process."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(program: str, *arguments: str) -> str:
    """The output of the program, which ends by itself."""
    with running(program, *arguments) as process:
        return process.communicate(timeout=PATIENCE)[0]


#: Makes the calls that it reads from stdin. Only Ctrl-C ends one of them within a minute.
CALLER = """
    import sys
    from endwell.sync import connect

    patient = dict.fromkeys(["open_timeout", "close_timeout", "ping_interval", "write_timeout"], 120)
    for call in sys.stdin:
        ws = connect(sys.argv[2], **patient)
        try:
            print("ready", flush=True)
            exec(compile(call, "call", "exec"))  # of a string, it would make the exit status that of SIGINT
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        ws.abort()
"""


@pytest.fixture(scope="module")
def caller():
    """One process for all calls: starting one for each would take most of the time."""
    with _Mute() as (silent, held), running(CALLER, silent, held) as process:
        yield process
        assert process.communicate(timeout=PATIENCE)[0] == ""
        assert process.returncode == 0


def output(program: str, *arguments: str) -> str:
    """The program's output on stdout and stderr."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    ).stdout


@pytest.mark.parametrize(
    "call",
    [
        "ws.recv()",
        "ws.recv(60)",
        "ws.read()",
        "next(iter(ws))",
        "ws.wait_closed()",
        "while True: ws.send(bytes(100000))",
        "ws.close()",
        "ws.ping()",
        "connect(sys.argv[1], **patient)",
    ],
)
def test_ctrl_c_interrupts_every_call_in_the_main_thread(call, caller):
    caller.stdin.write(call + "\n")
    caller.stdin.flush()
    assert caller.stdout.readline() == "ready\n"
    time.sleep(0.1)  # by then it waits; an earlier interrupt is fine, too
    caller.send_signal(signal.SIGINT)
    assert caller.stdout.readline() == "interrupted\n"


class _Mute:
    """Addresses of peers that never send: some from the start, the others after the handshake."""

    def __enter__(self):
        self._socks = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]

        def open_() -> None:
            while True:
                try:
                    sock, _ = self._socks[1].accept()
                except OSError:
                    return
                self._socks.append(sock)
                with suppress(OSError):  # the client may have left
                    if request := sock.recv(65536):
                        sock.sendall(switching_protocols(request.decode()))

        self._thread = threading.Thread(target=open_, daemon=True)
        self._thread.start()
        return tuple(f"ws://127.0.0.1:{sock.getsockname()[1]}/" for sock in self._socks[:2])

    def __exit__(self, *_):
        while self._thread.is_alive():
            for sock in self._socks:
                with suppress(OSError):  # it is not connected
                    sock.shutdown(socket.SHUT_RDWR)  # close() would not wake the thread
            self._thread.join(0.01)
        for sock in self._socks:
            sock.close()


def test_open_connections_are_closed_with_1001_at_exit():
    program = """
        import sys
        import endwell.sync.background
        from endwell.sync import connect
        endwell.sync.background.EXIT_TIME = 120  # it does not wait for that
        kept = [connect(sys.argv[1]) for _ in range(3)]
        kept[0].on_close(lambda ending: print(ending.cause.name, flush=True))
        print("bye", flush=True)
    """
    with served() as (server, address):
        assert run(program, address + "/hold") == "bye\nAPP_CLOSED\n"
        until(lambda: all(ws.ending for ws in server.held))
        assert [ws.ending.received.code for ws in server.held] == [1001] * 3
        assert all(ws.ending.clean for ws in server.held)


DAEMON = """
    import sys, threading
    from endwell.sync import reconnecting

    def come_back():
        client = reconnecting(
            sys.argv[1], open_timeout=None, on_attempt=lambda _: reached.set(), on_ending=lambda *_: told.set()
        )
        for ws in client:
            told.set()
            for message in ws:
                pass

    reached, told = threading.Event(), threading.Event()
    threading.Thread(target=come_back, daemon=True).start()
    reached.wait()
    if sys.argv[2] != "connecting":
        told.wait()
    print("bye", flush=True)
"""


@pytest.mark.parametrize("when", ["waiting", "connecting", "open"])
def test_a_loop_in_a_daemon_thread_ends_silently_at_exit(when):
    with _Mute() as (silent, held), socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        nowhere = f"ws://127.0.0.1:{refusing.getsockname()[1]}/"
        address = {"waiting": nowhere, "connecting": silent, "open": held}[when]
        told = output("import logging; logging.disable()\n" + textwrap.dedent(DAEMON), address, when)
    assert told == "bye\n"


def test_a_call_interrupted_by_the_exit_says_so():
    program = """
        import asyncio, atexit, sys, threading, time
        # What is registered first is called last: when the shared loop has ended.
        told = threading.Event()
        atexit.register(told.wait)
        from endwell import ConcurrencyError
        from endwell.sync import connect
        from endwell.sync.background import background

        def call():
            try:
                connect(sys.argv[1], open_timeout=None)
            except ConcurrencyError as error:
                print(error, flush=True)
            told.set()

        threading.Thread(target=call, daemon=True).start()
        while len(asyncio.all_tasks(background().loop)) < 2:
            time.sleep(0.001)
    """
    with _Mute() as (silent, _):
        told = output(program, silent)
    assert told.startswith("this call was interrupted: its event loop has ended")
    assert len(told.splitlines()) == 1


PATCHED = """
    import _thread
    start = _thread.start_new_thread
    # What gevent and eventlet do: a function of theirs stands in.
    _thread.start_new_thread = lambda *how: start(*how)
    from endwell import sync
    for call in sync.connect, sync.reconnecting:
        try:
            call("ws://127.0.0.1:1/")
        except RuntimeError as error:
            print(error)
"""


def test_monkey_patched_threads_are_refused():
    assert (
        output(PATCHED).splitlines()
        == ["threads are monkey-patched here (gevent or eventlet), and endwell.sync needs real ones"] * 2
    )


PATCHED_LATE = """
    import asyncio, _thread, endwell, select
    start = _thread.start_new_thread
    _thread.start_new_thread = lambda *how: start(*how)
    vars(select).pop("epoll", None)
    server = endwell.Server()

    @server.websocket("/async")
    async def echo(ws):
        await ws.send("hello")

    @server.websocket("/plain")
    def plain(ws):
        ws.send("hello")

    async def main():
        async with server.serving():
            for path in "async", "plain":
                async with endwell.connect(f"ws://127.0.0.1:{server.port}/{path}") as ws:
                    print(await ws.read())
                    await ws.closed
                print(ws.ending.code)

    asyncio.run(main())
"""


def test_patched_after_the_import_coroutines_work_and_a_plain_handler_fails_with_the_reason():
    lines = output(PATCHED_LATE).splitlines()
    assert [line for line in lines if line in ("hello", "1000", "None", "1011")] == [
        "hello",
        "1000",
        "None",
        "1011",
    ]
    assert (
        "RuntimeError: threads were monkey-patched (gevent or eventlet) after the import of endwell; patch them before"
        in lines
    )


@pytest.mark.parametrize("stall", [0, 3])
def test_unresponsive_peers_are_aborted_at_exit_and_on_close_runs(stall):
    program = """
        import os, subprocess, sys
        from endwell.sync import connect
        kept = connect(sys.argv[1], close_timeout=120)
        kept.on_close(lambda ending: print(ending.cause.name, ending.clean, flush=True))
        print("bye", flush=True)
        if sys.argv[2] != "0":  # the process stands still while it exits
            pause = f"sleep 0.5; kill -STOP {os.getpid()}; sleep {sys.argv[2]}; kill -CONT {os.getpid()}"
            subprocess.Popen(["sh", "-c", pause], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    """
    with _Mute() as (_, held):
        began = time.monotonic()
        assert run(program, held, str(stall)) == "bye\nAPP_CLOSED False\n"
        assert time.monotonic() - began >= 1


def test_the_exit_does_not_wait_for_a_thread_in_recv():
    program = """
        import sys, threading
        from endwell.sync import connect
        ws = connect(sys.argv[1])
        threading.Thread(target=ws.read, daemon=True).start()
        print("bye", flush=True)
    """
    with served() as (_, address):
        assert run(program, address + "/hold") == "bye\n"


def test_a_non_daemon_thread_keeps_its_connection_until_it_ends():
    program = """
        import sys, threading
        from endwell.sync import connect
        ws = connect(sys.argv[1])
        def talk():
            threading.main_thread().join()  # the interpreter waits for this thread
            ws.send("still here")
            print(ws.recv(), ws.close().code, flush=True)
        threading.Thread(target=talk).start()
        print("main is done", flush=True)
    """
    with served() as (_, address):
        assert run(program, address + "/echo") == "main is done\nstill here 1000\n"


def in_child(function) -> str:
    """The result of ``function`` in a forked child."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = function()
        except BaseException as exc:
            text = repr(exc)
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_cannot_use_or_harm_an_inherited_connection():
    with served() as (_server, address):
        ws = sync.connect(address + "/echo")
        ws.send("unread")
        until(lambda: ws._bridge.inbox)

        def inherited() -> str:
            calls = [ws.recv, ws.read, ws.ping, ws.close, ws.wait_closed, ws.abort, lambda: ws.send("x")]
            found = []
            for call in calls:
                try:
                    found.append(repr(call()))
                except ConcurrencyError as exc:
                    found.append("fork" in str(exc))
            return f"{found} {ws.is_open}"

        assert in_child(inherited) == f"{[True] * 7} False"
        assert ws.recv(BOUND) == "unread"
        ws.send("the parent goes on")
        assert ws.recv(BOUND) == "the parent goes on"
        assert ws.close().clean


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_cannot_use_or_harm_a_reconnecting_client():
    with served() as (_server, address):
        client = sync.reconnecting(address + "/echo")
        turns = iter(client)
        ws = next(turns)

        def inherited() -> str:
            client.stop()
            turns.close()
            return repr(next(iter(client), None))

        assert "ConcurrencyError('this connection belongs to the process that opened it" in in_child(
            inherited
        )
        ws.send("the parent goes on")
        assert ws.recv(BOUND) == "the parent goes on"
        client.close()
        assert ws.ending.clean


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_can_open_connections():
    with served() as (_server, address), sync.connect(address + "/echo"):

        def own() -> str:
            with sync.connect(address + "/echo") as ws:
                ws.send("from the child")
                text = ws.recv(BOUND)
            return f"{text} {ws.ending.clean}"

        assert in_child(own) == "from the child True"


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_does_not_keep_the_parents_tcp_open():
    with served() as (server, address):
        ws = sync.connect(address + "/hold")
        until(lambda: server.held)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.read(reading, 1)
            os._exit(0)
        ws.abort()
        until(lambda: server.held[0].ending)
        os.write(writing, b"x")
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)

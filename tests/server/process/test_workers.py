"""Several worker processes on one port: crashes, restarts, signals, and how each ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections import Counter

import pytest

import endwell
from benchmarks.rolling import Scenario, play
from tests.cli.process import PATIENCE, finish, python
from tests.pair import within
from tests.server.program import eventually, release, running, write


def process_exists(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


async def ended(*connections):
    """The endings of the connections."""
    return [await within(ws.closed, PATIENCE) for ws in connections]


async def connect_to_both_workers(program, path="/"):
    """A connection to each of two workers, keyed by process id."""
    found = {}
    async with asyncio.timeout(PATIENCE):
        while len(found) < 2:
            ws, process, _ = await program.connect(path)
            if process in found:
                await ws.close()
            else:
                found[process] = ws
    return found


class StallMeter:
    """Measures the worst delay of the test's own loop during the block."""

    worst = 0.0

    async def __aenter__(self):
        self._task = asyncio.create_task(self._measure())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()

    async def _measure(self):
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            self.worst = max(self.worst, time.monotonic() - began - 0.01)


async def test_restarts_under_load_refuse_and_lose_nothing():
    drain = endwell.Drain(window=1, deadline=60)
    async with StallMeter() as stalls:
        outcome = await play(Scenario(workers=2, restarts=2, stay=20, go=4, drain=drain))
    assert outcome.tally.refused == {}
    assert outcome.lost == 0
    # A client that stalls for longer than 0.25 s, the quiet time a drain waits for, sends across the Close.
    assert outcome.tally.unanswered == 0 or stalls.worst > 0.2
    assert set(outcome.tally.endings) == {"1000", "1012"}
    # Twice the allowance, except for messages in transit at that moment.
    assert outcome.tally.endings["1012"] >= 20
    assert outcome.status == 0


async def test_a_stop_drains_all_workers_and_reports_their_sum(tmp_path):
    with running(write(tmp_path)) as program:
        connections = await connect_to_both_workers(program)
        program.send(signal.SIGTERM)
        endings = await ended(*connections.values())
        status, log = await asyncio.to_thread(program.finish, None)
    assert status == 0
    # 250 connections per second are the share of each of the two workers.
    assert [ending.received for ending in endings] == [endwell.Close(1001, "server stopping; retry 1-2s")] * 2
    assert re.search(r"INFO workers exited: 2; drained 2 connections in \S+ s: 2 clean", log)
    assert not any(map(process_exists, connections))


MOUNTED = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for word in ("startup", "shutdown"):
            await receive()
            logging.info("application: %s", word)
            await send({"type": f"lifespan.{word}.complete"})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"%d" % os.getpid()})
    else:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": f"{os.getpid()} {scope['path']}"})
        logging.info("application: %d", (await receive())["code"])

server.mount("/app", app)

if __name__"""


async def test_workers_run_a_mounted_application_and_its_lifespan_and_drain_it(tmp_path):
    def page():
        with urllib.request.urlopen(f"http://127.0.0.1:{program.port}/app/x", timeout=PATIENCE) as answer:
            return int(answer.read())

    with running(write(tmp_path, **{"if __name__": MOUNTED})) as program:
        first = await connect_to_both_workers(program, "/app/chat")
        assert await asyncio.to_thread(page) in first
        program.send(signal.SIGHUP)
        assert [ending.received.code for ending in await ended(*first.values())] == [1012, 1012]
        await asyncio.to_thread(program.logged, "application: shutdown", 2)
        second = await connect_to_both_workers(program, "/app/chat")
        assert await asyncio.to_thread(page) in second
        program.send(signal.SIGTERM)
        endings = await ended(*second.values())
        status, log = await asyncio.to_thread(program.finish, None)
    assert not first.keys() & second.keys()
    assert (status, [ending.received.code for ending in endings]) == (0, [1001, 1001])
    told = Counter(re.findall(r"application: (\w+)", log))
    del told["1000"]  # of further connections to the same worker
    assert told == {"startup": 4, "1012": 2, "1001": 2, "shutdown": 4}
    assert "Traceback" not in log


async def test_ctrl_c_to_the_process_group_stops_once(tmp_path):
    with running(write(tmp_path), process_group=0) as program:
        connections = await connect_to_both_workers(program)
        os.killpg(program.process.pid, signal.SIGINT)  # as a terminal does it
        endings = await ended(*connections.values())
        status, log = await asyncio.to_thread(program.finish, None)
    assert (status, [ending.received.code for ending in endings]) == (0, [1001, 1001])
    assert "Traceback" not in log


async def test_a_second_signal_ends_all_workers_at_once(tmp_path):
    with running(write(tmp_path, workers=1, deadline=3600.0)) as program:
        connections = [await endwell.connect(program.url("/stuck"), open_timeout=PATIENCE) for _ in range(4)]
        program.send(signal.SIGTERM)
        program.logged("stopping: 4 connections")
        status, log = await asyncio.to_thread(program.finish)  # long before the deadline
        await ended(*connections)
    assert status == 0
    assert "4 x stuck" in log.splitlines()[-1]


async def test_a_crashed_worker_is_replaced_and_others_keep_their_connections(tmp_path):
    with running(write(tmp_path)) as program:
        (killed, lost), (stays, kept) = (await connect_to_both_workers(program)).items()
        os.kill(killed, signal.SIGKILL)
        assert (await ended(lost))[0].code == 1006
        program.logged(
            rf"ERROR worker [12] \(process {killed}\) was killed by SIGKILL; a new worker starts now"
        )
        await kept.send("hello")
        assert await within(kept.recv(), PATIENCE) == "hello"
        assert stays in (new := await connect_to_both_workers(program))
        assert killed not in new
        status, log = await asyncio.to_thread(program.finish)
    assert (status, log.count("SIGKILL")) == (0, 1)


async def test_a_worker_that_receives_sigterm_drains_and_is_replaced(tmp_path):
    with running(write(tmp_path)) as program:
        (signalled, drained), (_, kept) = (await connect_to_both_workers(program)).items()
        os.kill(signalled, signal.SIGTERM)
        assert (await ended(drained))[0].code == 1001
        program.logged(rf"\(process {signalled}\) exited with status 0; a new worker starts now")
        assert signalled not in await connect_to_both_workers(program)
        assert kept.is_open
        assert (await asyncio.to_thread(program.finish))[0] == 0


async def test_repeated_crashes_increase_the_restart_delay(tmp_path):
    with running(write(tmp_path, workers=1)) as program:
        ws, process, _ = await program.connect()
        write(tmp_path, workers=1, **{"server = ": "sys.exit(7); server = "})
        began = time.monotonic()
        os.kill(process, signal.SIGKILL)
        await ended(ws)
        program.logged(r"was killed by SIGKILL; a new worker starts now\n")
        program.logged(r"exited with status 7, 2 crashes in a row; a new worker starts in 1 s\n")
        program.logged(r"exited with status 7, 3 crashes in a row; a new worker starts in 2 s\n")
        assert time.monotonic() - began >= 1
        status, log = await asyncio.to_thread(program.finish)
    assert status == 0
    assert log.count("exited with status 7") >= 2


def test_the_program_exits_with_1_if_a_worker_cannot_start(tmp_path):
    mark = "server = endwell.Server()"
    file = write(tmp_path, workers=1, **{mark: f"{mark}; 'ENDWELL_WORKER' in os.environ and sys.exit(7)"})
    with running(file) as program:
        status, log = program.finish(None)
    assert status == 1
    assert log.count("CRITICAL worker") == 1
    assert "exited with status 7 before all workers were ready: the program exits" in log
    assert "Traceback" not in log


async def test_a_restart_loads_new_code_and_a_failed_one_keeps_old_workers(tmp_path):
    with running(write(tmp_path)) as program:
        connections = await connect_to_both_workers(program)
        write(tmp_path, **{"ANSWER = ": "raise RuntimeError('broken') #"})
        program.send(signal.SIGHUP)
        program.logged(
            "ERROR worker .* before all new workers were ready: the restart failed, the old workers go on"
        )
        for ws in connections.values():
            await ws.send("hello")
            assert await within(ws.recv(), PATIENCE) == "hello"
        assert set(await connect_to_both_workers(program)) == set(connections)
        write(tmp_path, **{'"old"': '"new"'})
        program.send(signal.SIGHUP)
        endings = await ended(*connections.values())
        assert [each.received for each in endings] == [
            endwell.Close(1012, "server restarting; retry 0-1s")
        ] * 2
        assert (await program.connect())[2] == "new"
        program.logged("workers exited: 2; drained")
        status, log = await asyncio.to_thread(program.finish)
    assert (status, log.count("the restart failed")) == (0, 1)


async def test_workers_drain_and_release_the_port_when_the_supervisor_dies(tmp_path):
    with running(write(tmp_path)) as program:
        connections = await connect_to_both_workers(program)
        port = program.port
        program.process.kill()
        endings = await ended(*connections.values())
        assert [ending.received.code for ending in endings] == [1001, 1001]
        await eventually(lambda: not any(map(process_exists, connections)))
        socket.create_server(("127.0.0.1", port)).close()
        program.process.wait(PATIENCE)


async def test_a_worker_with_a_blocked_loop_logs_where_and_is_killed(tmp_path):
    # After SIGABRT it has as long as it needs on a busy machine, instead of a second.
    patient = "from endwell.server.process import child; child.ABORT_TIME = 60.0; server = "
    with running(write(tmp_path, workers=1, deadline=0.5, **{"server = ": patient})) as program:
        ws = await endwell.connect(program.url("/blocked"), open_timeout=PATIENCE)
        await asyncio.to_thread(program.logged, "blocks")
        status, log = await asyncio.to_thread(program.finish)
        assert (await ended(ws))[0].code == 1006
    assert status == 0
    assert re.search(r"ERROR worker 1 \(process \d+\) did not exit in time: it is killed", log)
    assert re.search(r'app.py", line \d+ in blocked', log)
    assert "was killed by SIGABRT while it was stopping" in log


async def test_the_unix_socket_file_exists_until_the_supervisor_ends(tmp_path):
    path = tmp_path / "socket"
    file = write(tmp_path, workers=1, **{'"127.0.0.1", 0': f"unix_path={str(path)!r}"})
    with running(file) as program:
        program.logged("listening on")
        program.send(signal.SIGHUP)
        program.logged("workers exited: 1;")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(str(path))
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert program.finish()[0] == 0
    assert not path.exists()


async def test_listen_false_releases_the_port_during_the_drain_of_workers(tmp_path):
    # No limit of the drain expires before the test has observed it.
    file = write(tmp_path, workers=1, deadline=3600.0, **{"window=": "listen=False, window="})
    with running(file) as program:
        port, ws = program.port, await endwell.connect(program.url("/held"), open_timeout=PATIENCE)
        program.send(signal.SIGTERM)

        def refused():
            try:
                socket.create_connection(("127.0.0.1", port), PATIENCE).close()
            except ConnectionRefusedError:
                return True
            return False

        await eventually(refused)
        assert program.process.poll() is None
        assert ws.is_open
        release(file)
        await ended(ws)
        assert (await asyncio.to_thread(program.finish, None))[0] == 0


async def test_workers_that_start_after_their_supervisor_died_end(tmp_path):
    slow = """parent = os.getppid()
sys.stderr.write(f'at {os.getpid()}\\n')
while 'ENDWELL_WORKER' in os.environ and os.getppid() == parent:
    time.sleep(0.01)
server = """
    with running(write(tmp_path, workers=1, **{"server = ": slow})) as program:
        program.logged(r"at \d+\n", 2)
        program.process.kill()
        processes = [int(each) for each in re.findall(r"at (\d+)\n", program.log)]
        program.process.wait(PATIENCE)
        await eventually(lambda: not any(map(process_exists, processes)))
        assert "listening" not in program.log


async def test_a_restart_that_cannot_start_processes_keeps_the_old_workers(tmp_path):
    interpreter = tmp_path / "python"
    file = write(
        tmp_path, workers=1, **{"if __name__": f"sys.executable = {str(interpreter)!r}\nif __name__"}
    )

    def install():
        interpreter.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        interpreter.chmod(0o755)

    install()
    with running(file) as program:
        ws, process, _ = await program.connect()
        interpreter.unlink()
        program.send(signal.SIGHUP)
        program.logged("ERROR worker 1 cannot be started .*: the restart failed, the old workers go on")
        os.kill(process, signal.SIGKILL)
        await ended(ws)
        program.logged(r"ERROR worker 1 cannot be started .*, 2 crashes in a row; a new worker starts in 1 s")
        install()
        assert (await program.connect())[1] != process
        assert (await asyncio.to_thread(program.finish))[0] == 0


@pytest.mark.parametrize("workers", ["2", 1.5, True])
def test_a_workers_argument_that_is_no_number_is_refused(workers):
    with pytest.raises(TypeError, match="workers must be an integer"):
        endwell.Server().run(port=0, workers=workers)


def test_zero_workers_are_refused():
    with pytest.raises(ValueError, match="workers must be positive, not 0"):
        endwell.Server().run(port=0, workers=0)


def test_workers_outside_of_the_main_thread_are_refused():
    refused = []

    def run():
        try:
            endwell.Server().run(port=0, workers=1)
        except ValueError as error:
            refused.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(PATIENCE)
    assert refused == ["workers need the main thread, because only it receives signals"]


def test_a_program_that_cannot_be_started_again_is_refused():
    program = "import endwell; endwell.Server().run(port=0, workers=1)"
    with python() as process:
        status, _, err = finish(process, program)
    assert status == 1
    assert "ValueError: workers start this program again, so the program must be a file or a module" in err

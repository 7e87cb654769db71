"""Signals to a worker that does not serve yet, because it imports the application, or serves already."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

import endwell
from tests.cli.process import PATIENCE
from tests.pair import within
from tests.server.program import release, running, write

#: A worker waits here for a file, like an import that takes long. It starts another program, which prints how it
#: inherits signals.
PAUSE = """
import subprocess
def inherited():
    look = "import signal as s; print([s.getsignal(n).name for n in (s.SIGHUP, s.SIGUSR1)], s.pthread_sigmask(0, []))"
    return subprocess.run([sys.executable, "-c", look], stdout=subprocess.PIPE, text=True, check=True).stdout
def pause(moment):
    if "ENDWELL_WORKER" in os.environ:
        sys.stderr.write(f"{moment} {os.getpid()}\\n")
        while not os.path.exists(__file__ + ".imported"):
            time.sleep(0.01)
"""
FIRST = {"\nimport endwell\n": f"{PAUSE}\npause('imports')\nimport endwell\n"}
SECOND = {"\nimport endwell\n": f"{PAUSE}\nimport endwell\npause('imports')\n"}
moments = pytest.mark.parametrize("changes", [FIRST, SECOND], ids=["before endwell", "after endwell"])


def importing(program, times=1):
    """The process id of a worker that imports the application."""
    return int(program.logged(r"imports (\d+)\n", times)[1])


def go_on(file):
    file.with_name(file.name + ".imported").touch()


@moments
async def test_sighup_and_sigusr1_do_not_kill_a_worker_that_imports(tmp_path, changes):
    file = write(tmp_path, workers=1, **changes)
    with running(file) as program:
        worker = importing(program)
        for number in (signal.SIGHUP, signal.SIGUSR1):
            os.kill(worker, number)
        go_on(file)
        ws, process, _ = await program.connect()
        assert process == worker
        for number in (signal.SIGHUP, signal.SIGUSR1):
            os.kill(worker, number)
        await ws.send("hello")
        assert await within(ws.recv(), PATIENCE) == "hello"
        await ws.close()
        status, log = await asyncio.to_thread(program.finish)
    assert status == 0
    assert "killed" not in log


SHOWN = {
    "\nimport endwell\n": f"{PAUSE}\nimport endwell\nimported = inherited()\n",
    'f"{os.getpid()} {ANSWER}"': "imported + inherited()",
}


async def test_programs_that_a_worker_starts_inherit_no_signal_that_it_ignores(tmp_path):
    with running(write(tmp_path, workers=1, **SHOWN)) as program:
        ws = await endwell.connect(program.url(), open_timeout=PATIENCE)
        assert (await within(ws.recv(), PATIENCE)).splitlines() == ["['SIG_DFL', 'SIG_DFL'] set()"] * 2
        await ws.close()
        assert (await asyncio.to_thread(program.finish))[0] == 0


OWN = """
import endwell, signal
for number in (signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, lambda number, _: os.write(2, f"own {number}\\n".encode()))
"""


async def test_a_worker_leaves_signals_to_the_handlers_of_the_application(tmp_path):
    with running(write(tmp_path, workers=1, **{"\nimport endwell\n": OWN})) as program:
        ws, process, _ = await program.connect()
        for number in (signal.SIGHUP, signal.SIGUSR1):
            os.kill(process, number)
            await asyncio.to_thread(program.logged, f"own {int(number)}\n")
        await ws.close()
        assert (await asyncio.to_thread(program.finish))[0] == 0


@moments
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_ends_workers_that_import_and_drains_the_others(tmp_path, changes, number):
    file = write(tmp_path, workers=1, **changes)
    with running(file) as program:
        old = importing(program)
        go_on(file)
        ws, process, _ = await program.connect()
        assert process == old
        file.with_name(file.name + ".imported").unlink()
        program.send(signal.SIGHUP)
        new = importing(program, 2)
        for each in (program.process.pid, old, new):  # as a service manager does it
            os.kill(each, number)
        assert (await within(ws.closed, PATIENCE)).code == 1001
        status, log = await asyncio.to_thread(program.finish, None)
    assert status == 0
    assert log.count("listening on") == 1
    assert "workers exited: 1; drained 1 connection" in log
    assert "ERROR" not in log


@moments
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_worker_that_imports_ends_at_a_stop_signal_of_its_own(tmp_path, changes, number):
    with running(write(tmp_path, workers=1, **changes)) as program:
        os.kill(importing(program), number)
        status, log = await asyncio.to_thread(program.finish, None)
    assert status == 1
    assert f"was killed by {number.name} before all workers were ready: the program exits" in log


async def test_a_worker_that_gets_the_signal_of_its_supervisor_too_still_drains(tmp_path):
    file = write(tmp_path, workers=1)
    with running(file) as program:
        old, worker, _ = await program.connect()
        await old.close()
        async with endwell.connect(program.url("/held"), open_timeout=PATIENCE) as ws:
            program.send(signal.SIGTERM)
            program.logged("stopping: 1 connection")
            os.kill(worker, signal.SIGTERM)
            # Its event loop has handled the signal when it answers.
            with pytest.raises(endwell.HandshakeRejected):
                await endwell.connect(program.url(), open_timeout=PATIENCE)
            release(file)
            assert (await within(ws.closed, PATIENCE)).code == 1001
        status, log = await asyncio.to_thread(program.finish, None)
    assert status == 0
    assert "drained 1 connection" in log
    assert "1 clean" in log

"""Child processes of a test that end with it in any case."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import endwell

ROOT = Path(__file__).parents[2]
SOURCES = Path(endwell.__file__).parents[1]

#: The timeout in seconds for anything that a process has to do. Only a hang reaches it, even on a busy
#: machine: a process that needs two seconds of CPU time took a minute and a half beside 25 others.
PATIENCE = 240


@contextmanager
def python(*argv: str, prefix: Iterable[str] = (), **keywords) -> Iterator[subprocess.Popen]:
    """Run ``python argv...`` with its output in pipes, after the command prefix ``prefix``."""
    keywords = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **keywords}
    path = os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [*prefix, sys.executable, *argv], env={**os.environ, "PYTHONPATH": path}, text=True, **keywords
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def command(*argv: str, **keywords):
    """Run ``endwell argv...``."""
    return python("-m", "endwell", *argv, **keywords)


def listening(process: subprocess.Popen) -> int:
    """The port in the log of a server; waits for it."""
    for line in process.stderr:
        if found := re.search(r"listening on 127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    raise AssertionError("the server ended before it listened")


def interrupt(process: subprocess.Popen, typed: str | None, lines: int) -> tuple[int, str, str]:
    """The result of :func:`finish` for a process that is interrupted after it has printed ``lines`` lines."""
    _type(process, typed)
    out = "".join(process.stdout.readline() for _ in range(lines))
    process.send_signal(signal.SIGINT)
    status, rest, err = finish(process)
    return status, out + rest, err


def finish(process: subprocess.Popen, typed: str | None = None) -> tuple[int, str, str]:
    """Exit status, output and error output of a process that ends by itself; ``typed`` is its last input.

    Not ``communicate()``, which ignores what ``readline()`` has buffered.
    """
    _type(process, typed)
    overdue = threading.Event()
    watchdog = threading.Timer(PATIENCE, lambda: (overdue.set(), process.kill()))
    watchdog.start()
    try:
        with ThreadPoolExecutor(1) as beside:
            err = beside.submit(_rest, process.stderr)
            out = _rest(process.stdout)
            status = process.wait()
    finally:
        watchdog.cancel()
    assert not overdue.is_set(), "the process did not end"
    return status, out, err.result()


def _type(process: subprocess.Popen, typed: str | None) -> None:
    if process.stdin is not None and not process.stdin.closed:
        with suppress(BrokenPipeError):
            process.stdin.write(typed or "")
            process.stdin.close()


def _rest(stream) -> str:
    return "" if stream is None else stream.read()

"""Processes that a test starts and that surely end with it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import endwell

ROOT = Path(__file__).parents[2]
SOURCES = Path(endwell.__file__).parents[1]

#: Seconds for anything that a process has to do; a test that needs them all has failed.
PATIENCE = 20


@contextmanager
def python(*argv: str, prefix: Iterable[str] = (), **keywords) -> Iterator[subprocess.Popen]:
    """``python argv...`` with its output in pipes; ``prefix`` stands before it."""
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
    """``endwell argv...``."""
    return python("-m", "endwell", *argv, **keywords)


def listening(process: subprocess.Popen) -> int:
    """The port that a server's log names; waits for it."""
    for line in process.stderr:
        if found := re.search(r"listening on 127\.0\.0\.1:(\d+)", line):
            return int(found[1])
    raise AssertionError("the server ended before it listened")


def interrupt(process: subprocess.Popen, typed: str | None, lines: int) -> tuple[int, str, str]:
    """What :func:`finish` says, of a process that is interrupted once it has put out ``lines`` lines."""
    if typed is not None:
        process.stdin.write(typed)
        process.stdin.close()
    out = "".join(process.stdout.readline() for _ in range(lines))
    process.send_signal(signal.SIGINT)
    rest, err = process.stdout.read(), process.stderr.read()
    return process.wait(PATIENCE), out + rest, err


def finish(process: subprocess.Popen, typed: str | None = None) -> tuple[int, str, str]:
    """Exit status, output and error output, once it has ended by itself; ``typed`` is its last input."""
    out, err = process.communicate(typed, timeout=PATIENCE)
    return process.returncode, out, err

"""The Autobahn testsuite: its environment, its list of cases, and its processes.

The suite is a program for Python 2.7, and its authors publish no other. The first interpreter found is
used: PYTHON2, ``python2.7`` on the PATH, one of pyenv's. Everything else comes from PyPI, pinned.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port

__all__ = ["CannotRun", "Suite"]

SUITE = "autobahntestsuite==25.10.1"
#: The versions that the suite's own requirements.txt pins, and wsaccel, which masks and validates UTF-8 in
#: C. Without it, 9.*, 12.* and 13.* take many times as long.
PINS = [
    "setuptools==44.0.0",
    "txaio==2.1.0",
    "incremental==16.10.1",
    "pyOpenSSL==19.1.0",
    "cryptography==3.3.2",
    "zope.interface==4.6.0",
    "jinja2==2.11.3",
    "markupsafe==1.1.1",
    "Werkzeug==1.0.1",
    "klein==17.10.0",
    "service_identity==18.1.0",
    "unittest2==1.1.0",
    "six==1.16.0",
]
#: Built with the setuptools above, in this order: a current setuptools does not run on Python 2.7.
NOT_ISOLATED = [["Twisted==19.10.0"], ["autobahn==0.10.9", "wsaccel==0.6.2"]]
#: The last virtualenv that creates an environment for Python 2.7. It runs on any Python 3, so Python 2.7
#: needs no pip.
VIRTUALENV = "virtualenv==20.21.1"

#: The suite's command, listening on loopback only, whatever the URL says.
LAUNCH = """
import sys
import autobahntestsuite.choosereactor
from twisted.internet import reactor
_listen = reactor.listenTCP
def _loopback(port, factory, backlog=200, interface=''):
    return _listen(port, factory, backlog, interface or '127.0.0.1')
reactor.listenTCP = _loopback
from autobahntestsuite.wstest import run
sys.argv[0] = 'wstest'
sys.exit(run())
"""

LIST_CASES = """
import json, sys
from autobahntestsuite.case import Cases, CaseCategories, CaseSubCategories, CaseSetname, CaseBasename
from autobahntestsuite.caseset import CaseSet
cases = CaseSet(CaseSetname, CaseBasename, Cases, CaseCategories, CaseSubCategories)
found = cases.parseSpecCases({"cases": json.loads(sys.argv[1]), "exclude-cases": []})
sys.stdout.write(json.dumps([c if isinstance(c, basestring) else cases.caseClasstoId(c) for c in found]))
"""

#: The timeouts in seconds for the start of a suite, and for all of its cases.
START_TIME = 30.0
RUN_TIME = 3600.0
#: Seconds that a process has to end after SIGTERM.
END_TIME = 5.0

NO_PYTHON2 = """\
It needs CPython 2.7, as PYTHON2=/path/to/python2.7, as python2.7 on the PATH (Ubuntu 22.04 and Debian 11 have the
package python2.7), or from pyenv (`pyenv install 2.7.18`). Its packages are installed from PyPI by the first run."""


class CannotRun(Exception):
    """The suite could not be run, so there is no result about conformance."""


class Suite:
    """The suite, in an environment of its own that is created if it is missing."""

    def __init__(self) -> None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = os.environ.get("AUTOBAHN_VENV") or cache / "endwell" / SUITE.replace("==", "-")
        self._python = _installed(Path(folder))

    def cases(self, patterns: Sequence[str]) -> list[str]:
        """The cases that match ``patterns`` such as ``7.1.1`` and ``6.*``, in the suite's order."""
        listed = subprocess.run(
            [self._python, "-c", LIST_CASES, json.dumps(list(patterns))],
            capture_output=True,
            text=True,
            check=False,
        )
        if listed.returncode:
            raise CannotRun(f"the suite does not list its cases:\n{listed.stderr}")
        found: list[str] = json.loads(listed.stdout.splitlines()[-1])
        return found

    def try_server(self, url: str, cases: Sequence[str], jobs: int, folder: Path) -> None:
        """Run ``cases``, up to ``jobs`` at once, against the server at ``url``, with reports in ``folder``."""
        parts = split(cases, jobs)
        suites = [
            self._start(
                "fuzzingclient", {"servers": [{"agent": "endwell", "url": url}]}, part, folder / str(index)
            )
            for index, part in enumerate(parts)
        ]
        over = time.monotonic() + RUN_TIME
        for suite in suites:
            _finish(suite, over - time.monotonic())

    def try_client(self, command: Sequence[str], cases: Sequence[str], jobs: int, folder: Path) -> None:
        """The same for the client that ``command`` starts, with a URL and an agent name as arguments."""
        threads = [
            threading.Thread(target=self._try_client, args=(command, part, folder / str(index)))
            for index, part in enumerate(split(cases, jobs))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _try_client(self, command: Sequence[str], cases: Sequence[str], folder: Path) -> None:
        port = free_port()
        url = f"ws://127.0.0.1:{port}"
        suite = self._start("fuzzingserver", {"url": url}, cases, folder)
        try:
            # A suite that does not run writes no report, which counts as a failure of each case.
            if _listens(port, suite):
                _finish(subprocess.Popen([*command, url, "endwell"], start_new_session=True), RUN_TIME)
        finally:
            _end(suite)

    def _start(
        self, mode: str, target: dict[str, object], cases: Sequence[str], folder: Path
    ) -> subprocess.Popen[bytes]:
        folder.mkdir(parents=True)
        specification = {
            "outdir": str(folder),
            "cases": list(cases),
            "exclude-cases": [],
            "exclude-agent-cases": {},
            # The peer's closing handshake is judged, so the suite also does one after a failure.
            "options": {"failByDrop": False},
            **target,
        }
        path = folder / "specification.json"
        path.write_text(json.dumps(specification), encoding="utf-8")
        arguments = [self._python, "-u", "-c", LAUNCH, "--mode", mode, "--spec", path, "--webport", "0"]
        with (folder / "log").open("wb") as log:
            return subprocess.Popen(
                arguments, stdout=log, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True
            )


def split(cases: Sequence[str], jobs: int) -> list[list[str]]:
    """``cases`` in up to ``jobs`` lists of about the same duration, each in the order of ``cases``."""
    weights = [0] * max(1, min(jobs, len(cases)))
    parts: list[list[str]] = [[] for _ in weights]
    for case in sorted(cases, key=_weight, reverse=True):
        lightest = weights.index(min(weights))
        weights[lightest] += _weight(case)
        parts[lightest].append(case)
    return [sorted(part, key=cases.index) for part in parts]


def _weight(case: str) -> int:
    # 9.* moves megabytes; a case of 12.* and 13.* is 1000 messages.
    return {"9": 4, "12": 20, "13": 20}.get(case.partition(".")[0], 1)


# --- the environment ---------------------------------------------------------


def _installed(folder: Path) -> Path:
    """The Python of the environment, which is created if it is missing.

    The module that is installed last shows that it is complete.
    """
    python = folder / "bin" / "python"
    if (folder / "bin" / "wstest").exists():
        return python
    python2 = _python2()
    print(f"installing {SUITE} into {folder}", flush=True)
    pip = [python, "-m", "pip", "install", "-q"]
    with _virtualenv() as virtualenv:
        _call([*virtualenv, "--quiet", "--clear", "--no-download", "--python", python2, folder])
    _call([*pip, *PINS])
    for packages in NOT_ISOLATED:
        _call([*pip, "--no-build-isolation", *packages])
    _call([*pip, "--no-deps", SUITE])
    return python


@contextmanager
def _virtualenv() -> Iterator[list[str | Path]]:
    """The command that creates environments, valid inside the block."""
    with tempfile.TemporaryDirectory(prefix="virtualenv-") as folder:
        _call([sys.executable, "-m", "venv", folder])
        python = Path(folder, "bin", "python")
        _call([python, "-m", "pip", "install", "-q", VIRTUALENV])
        yield [python, "-m", "virtualenv"]


def _call(command: Sequence[str | Path]) -> None:
    # pip warns at each call that Python 2.7 is old, and that there is a newer pip.
    quiet = {
        "PYTHONWARNINGS": "ignore",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_PYTHON_VERSION_WARNING": "1",
    }
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | quiet,
        check=False,
    )
    if done.returncode:
        raise CannotRun(f"{' '.join(map(str, command))} failed:\n{done.stdout}")


def _python2() -> str:
    named = [os.environ.get("PYTHON2"), shutil.which("python2.7")]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = [*filter(None, named), *map(str, sorted(pyenv.glob("versions/2.7*/bin/python2.7")))]
    for path in found:
        try:
            subprocess.run(
                [path, "-c", "import sys, ssl; assert sys.version_info[:2] == (2, 7)"],
                stderr=subprocess.DEVNULL,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            continue  # such as a shim of pyenv for a version that is not enabled
        return path
    raise CannotRun(NO_PYTHON2)


# --- processes and ports -----------------------------------------------------


def _listens(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Whether ``process`` starts to listen in time."""
    over = time.monotonic() + START_TIME
    while time.monotonic() < over and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    print("the suite's server did not start", file=sys.stderr)
    return False


def _finish(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until it has ended; end it after ``seconds``."""
    try:
        process.wait(max(1.0, seconds))
    except subprocess.TimeoutExpired:
        print(f"not done after {RUN_TIME:.0f} s", file=sys.stderr)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End it, and its child processes."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, number)
        try:
            process.wait(END_TIME)
        except subprocess.TimeoutExpired:
            continue

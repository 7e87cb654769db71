"""Autobahn's cases against our server and our client; no failure is allowed, not even NON-STRICT.

    python -m tests.conformance.autobahn [--quick] [--jobs N] [CASE ...]

The compiled modules are tested if there are any; with ENDWELL_PURE=1 the plain ones. The suite is a
Python 2.7 program: suite.py says where it looks for one. Exit status: 0 all passed, 1 something failed, 2
the
suite could not be run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import endwell

from .suite import CannotRun, Suite
from .verdict import faults, reports, summary

HERE = Path(__file__).resolve().parent

#: All of the protocol, and one case of the extension for each set of parameters. The rest moves megabytes:
#: 9.* (sizes), the other cases of 12.* and 13.* (sizes again, compressed).
QUICK = [
    *(f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 10)),
    *(f"12.{data}.1" for data in range(1, 6)),
    *(f"13.{offer}.{size}" for offer in range(1, 8) for size in (1, 4)),
]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the set that CI runs; a minute or two")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at once; default: CPUs")
    parser.add_argument("--role", choices=["server", "client"], help="default: both")
    parser.add_argument("cases", nargs="*", metavar="CASE", help='such as 7.1.1 or "6.*"; default: all')
    args = parser.parse_args()
    print(f"endwell {endwell.__version__}, {len(endwell.compiled())} modules compiled", flush=True)
    try:
        suite = Suite()
        cases = suite.cases(args.cases or (QUICK if args.quick else ["*"]))
    except CannotRun as why:
        print(f"Autobahn could not be run, so nothing is known about conformance.\n{why}", file=sys.stderr)
        return 2
    passed = failed = 0
    for role in [args.role] if args.role else ["server", "client"]:
        count = judged(role, cases, suite, args.jobs)
        passed += len(cases) - count
        failed += count
    print(f"in all: {passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def judged(role: str, cases: list[str], suite: Suite, jobs: int) -> int:
    """The number of ``cases`` that failed."""
    print(f"{role}: {len(cases)} cases", flush=True)
    began = time.monotonic()
    run: Callable[[Suite, list[str], int, Path], None] = try_server if role == "server" else try_client
    with tempfile.TemporaryDirectory(prefix="autobahn-") as folder:
        run(suite, cases, jobs, Path(folder))
        found = reports(Path(folder))
    failed = list(faults(cases, found))
    print(*summary(found), *failed, sep="\n")
    print(f"{role}: {len(cases) - len(failed)} passed, {len(failed)} failed", end="")
    print(f" in {time.monotonic() - began:.0f} s", flush=True)
    return len(failed)


def try_server(suite: Suite, cases: list[str], jobs: int, folder: Path) -> None:
    """Run ``cases`` against our server."""
    echo = [sys.executable, HERE / "echo_server.py"]
    with subprocess.Popen(echo, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            if port := server.stdout.readline().strip():
                suite.try_server(f"ws://127.0.0.1:{port}/", cases, jobs, folder)
        finally:
            server.kill()


def try_client(suite: Suite, cases: list[str], jobs: int, folder: Path) -> None:
    """Run ``cases`` against our client."""
    suite.try_client([sys.executable, str(HERE / "echo_client.py")], cases, jobs, folder)


if __name__ == "__main__":
    sys.exit(main())

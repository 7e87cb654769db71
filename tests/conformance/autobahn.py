"""Autobahn's cases against our server and our client; nothing is allowed to fail, not even NON-STRICT.

    python tests/conformance/autobahn.py [--quick] [--jobs N] [CASE ...]

The compiled modules are tried where there are any; with ENDWELL_PURE=1 the plain ones. The suite is a
Python 2.7 program; its runner is looked for in ../shared/tools beside the checkout, or where SHARED_TOOLS
says. Exit status: 0 all passed, 1 something failed, 2 the suite could not be run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import endwell

HERE = Path(__file__).resolve().parent
TOOLS = Path(os.environ.get("SHARED_TOOLS") or HERE.parents[2] / "shared" / "tools")
RUNNER = TOOLS / "run_autobahn.py"

#: All of the protocol, and of its extension one case for each set of parameters; what is left out moves
#: megabytes: 9.* (sizes), the rest of 12.* and 13.* (sizes again, compressed).
QUICK = [
    *(f"{group}.*" for group in (1, 2, 3, 4, 5, 6, 7, 10)),
    *(f"12.{data}.1" for data in range(1, 6)),
    *(f"13.{offer}.{size}" for offer in range(1, 8) for size in (1, 4)),
]

CANNOT_RUN = """\
Autobahn could not be run, so nothing is known about conformance.
It needs CPython 2.7: `pyenv install 2.7.18` (found by itself), or PYTHON2=/path/to/python2.7. The first run
also installs the suite from PyPI, into ~/.cache/autobahn27."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the set that CI runs; a minute or two")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at once; default: CPUs")
    parser.add_argument("--role", choices=["server", "client"], help="default: both")
    parser.add_argument("cases", nargs="*", metavar="CASE", help='such as 7.1.1 or "6.*"; default: all')
    args = parser.parse_args()
    if not RUNNER.exists():
        print(f"Autobahn's runner is not at {RUNNER}: say where with SHARED_TOOLS.", file=sys.stderr)
        return 2
    compiled = endwell.compiled()
    print(f"endwell {endwell.__version__}, {len(compiled)} modules compiled", flush=True)
    cases = args.cases or (QUICK if args.quick else ["*"])
    passed = failed = 0
    for role in [args.role] if args.role else ["server", "client"]:
        counts = (try_server if role == "server" else try_client)(args.jobs, cases)
        if counts is None:
            print(CANNOT_RUN, file=sys.stderr)
            return 2
        passed += counts[0]
        failed += counts[1]
    print(f"in all: {passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def try_server(jobs: int, cases: list[str]) -> tuple[int, int] | None:
    """How many cases our server passed and failed."""
    echo = [sys.executable, HERE / "echo_server.py"]
    with subprocess.Popen(echo, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            port = server.stdout.readline().strip()
            return run_suite("server", [f"ws://127.0.0.1:{port}/"], jobs, cases) if port else (0, 1)
        finally:
            server.kill()


def try_client(jobs: int, cases: list[str]) -> tuple[int, int] | None:
    """How many cases our client passed and failed."""
    echo = [sys.executable, str(HERE / "echo_client.py"), "{url}", "{agent}"]
    return run_suite("client", ["--", *echo], jobs, cases)


def run_suite(role: str, target: list[str], jobs: int, cases: list[str]) -> tuple[int, int] | None:
    """How many cases passed and failed; None if the suite could not be run."""
    with tempfile.TemporaryDirectory(prefix="autobahn-") as folder:
        options = ["--agent", f"endwell-{role}", "--outdir", folder, "--jobs", str(jobs)]
        options += ["--strict", "--require-deflate"]
        for case in cases:
            options += ["--cases", case]
        suite = subprocess.run([sys.executable, RUNNER, role, *options, *target], check=False)
        try:
            summary = json.loads(Path(folder, "summary.json").read_text())
        except FileNotFoundError:
            return None
    failed = len(summary["failing"])
    # A suite that fails with nothing to show for it has failed all the same.
    return len(summary["expected"]) - failed, failed or int(suite.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())

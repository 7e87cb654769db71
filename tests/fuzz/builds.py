"""The other build in a process of its own, which processes the same octets.

Run as a program, it reads lines with a target, whether to try every split, and the octets in hexadecimal.
It answers each with a line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType

from endwell import compiled
from tests.fuzz.targets import check
from tests.raw import BOUND

__all__ = ["COMPILED", "Other", "outcome"]

ROOT = Path(__file__).parents[2]

#: Whether this process runs the compiled build.
COMPILED = "endwell.wire.codec" in compiled()


def outcome(name: str, data: bytes, every: bool = False) -> str:
    """The result of this build for ``data``; a find begins with "FIND"."""
    try:
        return check(name, data, every)
    except Exception:
        return f"FIND in the {'compiled' if COMPILED else 'pure'} build\n{traceback.format_exc()}"


class Other:
    """The build that this process does not run; the same build, if none is compiled."""

    def __enter__(self) -> Other:
        pure = "0" if os.environ.get("ENDWELL_PURE") == "1" else "1"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.builds"],
            cwd=ROOT,
            env={**os.environ, "ENDWELL_PURE": pure},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.compiled = self._answer() == "True"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=BOUND)

    def outcome(self, name: str, data: bytes, every: bool = False) -> str:
        """The result of the other build for ``data``; a crash of its process is a find too."""
        stdin = self._process.stdin
        assert stdin is not None
        stdin.write(f"{name} {int(every)} {data.hex()}\n")
        stdin.flush()
        answer = self._answer()
        if answer:
            return answer
        status = self._process.wait(BOUND)
        self.__enter__()
        return f"FIND the process has died with status {status}"

    def _answer(self) -> str:
        stdout = self._process.stdout
        assert stdout is not None
        answer: str = json.loads(stdout.readline() or '""')
        return answer


def main() -> None:
    """Print which build this is, then answer requests until the end of the input."""
    print(json.dumps(str(COMPILED)), flush=True)
    for line in sys.stdin:
        name, every, octets = line.rstrip("\n").split(" ")
        print(json.dumps(outcome(name, bytes.fromhex(octets), every == "1")), flush=True)


if __name__ == "__main__":
    main()

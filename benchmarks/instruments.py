"""The load generator and the fast server: compiled, and verified before use."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent / "load"
WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wconversion")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")

#: The faults that the fast server can simulate; the load generator must detect each.
FAULTS = ("flip", "stamp", "lengthen", "shorten", "stale", "drop", "twice", "close", "reset")

NOT_COMPILED = """\
The load generator could not be compiled. It needs a C compiler and the headers of OpenSSL and zlib;
on Debian: apt-get install gcc libc6-dev libssl-dev zlib1g-dev"""


@dataclass(frozen=True)
class Instruments:
    """The two programs."""

    load: Path
    fast_server: Path


def compiled(folder: Path, *, sanitize: bool) -> Instruments:
    """Compile both programs into ``folder``."""
    instruments = Instruments(folder / "load", folder / "fast_server")
    flags = ["-O2", "-D_GNU_SOURCE", *WARNINGS, *(SANITIZERS if sanitize else ())]
    try:
        for program, sources, libraries in (
            (instruments.load, ("load.c", "connection.c", "payload.c"), ("-lssl", "-lcrypto", "-lz")),
            (instruments.fast_server, ("fast_server.c",), ("-lcrypto",)),
        ):
            paths = [SOURCES / source for source in sources]
            subprocess.run(["cc", *flags, "-o", program, *paths, *libraries], check=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        raise SystemExit(NOT_COMPILED) from exc
    return instruments


@contextmanager
def fast_server(program: Path, *arguments: str) -> Iterator[int]:
    """Run a fast server during the block; yields its port."""
    pipe = subprocess.PIPE
    with subprocess.Popen([program, *arguments], stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


def check(instruments: Instruments) -> None:
    """Raise SystemExit if the load generator misses a fault, or reports one where there is none."""
    for fault in ("", *FAULTS):
        with fast_server(instruments.fast_server, fault) as port:
            command = [str(instruments.load), "echo", f"--port={port}", "--connections=4", "--depth=4"]
            run = subprocess.run(
                [*command, "--warmup=0", "--seconds=0.05"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        if (run.returncode, '"faults": 1' in run.stdout) != ((1, True) if fault else (0, False)):
            raise SystemExit(f"the load generator does not notice {fault or 'a right echo'!r}: {run}")

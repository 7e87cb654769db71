"""The standard streams of a command, where they are closed or cannot be written."""

from __future__ import annotations

import os
import sys

__all__ = ["discard_output", "open_missing"]


def open_missing() -> None:
    """Open /dev/null in place of each standard stream that was closed (``<&-``, ``>&-``).

    Python has None for such a stream, and print() to standard error then goes to standard
    output. The number is free as well: the first file or socket would take it.
    """
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is not None:
            continue
        null = os.open(os.devnull, os.O_RDWR)
        if null != fd:
            os.dup2(null, fd)
            os.close(null)
        setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  (until the exit)


def discard_output() -> None:
    """Drop what cannot be written to standard output: Python would complain when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

"""Standard streams that are closed or cannot be written."""

from __future__ import annotations

import os
import sys

__all__ = ["discard_output", "open_missing"]


def open_missing() -> None:
    """Open /dev/null in place of each standard stream that was closed (``<&-``, ``>&-``).

    Python sets such a stream to None, and print() to standard error then writes to standard output. The file
    descriptor is also unused, so the first file or socket would get it.
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
    """Discard the buffered output, because Python would report an error when it flushes at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

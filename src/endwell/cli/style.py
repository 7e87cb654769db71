"""How the command writes on a terminal: colours, and peers' text made harmless."""

from __future__ import annotations

import os
import sys
from typing import TextIO

__all__ = ["BOLD", "DIM", "GREEN", "RED", "paint", "printable"]

BOLD, DIM, GREEN, RED = "1", "2", "32", "31"


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """``text`` in a style if ``stream`` (by default standard output) shows styles."""
    # https://no-color.org; and a pipe gets plain text.
    if not (stream or sys.stdout).isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\033[{style}m{text}\033[0m"


def printable(text: str) -> str:
    """``text`` with its control characters escaped, so that no peer steers the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

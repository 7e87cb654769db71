"""Terminal output: colours, and escaping of text from peers."""

from __future__ import annotations

import os
import sys
from typing import TextIO

__all__ = ["BOLD", "DIM", "GREEN", "RED", "paint", "printable"]

BOLD, DIM, GREEN, RED = "1", "2", "32", "31"


def paint(text: str, style: str, stream: TextIO | None = None) -> str:
    """Return ``text`` with a style if ``stream`` (default: standard output) is a terminal."""
    # NO_COLOR: see https://no-color.org.
    if not (stream or sys.stdout).isatty() or "NO_COLOR" in os.environ:
        return text
    return f"\033[{style}m{text}\033[0m"


def printable(text: str) -> str:
    """Return ``text`` with control characters escaped, so that a peer cannot control the terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

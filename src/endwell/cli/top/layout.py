"""Text in columns of a terminal: text of peers is made harmless, and cut to a width. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from ..line import width
from ..style import printable

__all__ = ["bars", "cut", "duration", "fields", "size", "width_of"]

#: From an empty one to a full one.
BARS = " ▁▂▃▄▅▆▇█"
ASCII_BARS = " .:-=+*#@"


def width_of(text: str) -> int:
    """The number of columns of a printable text."""
    return len(text) if text.isascii() else sum(map(width, text))


def cut(text: str, columns: int) -> str:
    """A text of a peer, with control characters escaped, in exactly this number of columns."""
    shown = printable(text)
    used = width_of(shown)
    if used > columns:
        kept, used = "", 0
        for char in shown:
            wide = width(char)
            if used + wide > columns - 1:
                break
            kept, used = kept + char, used + wide
        mark = "~" if columns else ""
        shown, used = kept + mark, used + len(mark)
    return shown + " " * (columns - used)


def fields(texts: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    """A row of a table."""
    parts = []
    for text, columns, is_right in zip(texts, widths, right, strict=True):
        shown = cut(text, columns)
        parts.append(shown.strip().rjust(columns) if is_right and len(text) <= columns else shown)
    return " ".join(parts)


def duration(seconds: float | None) -> str:
    """Seconds in at most 6 characters."""
    if seconds is None:
        return "-"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    for unit, length in (("min", 60), ("h", 3600)):
        if seconds < length * 100:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def size(count: float) -> str:
    """A number in at most 6 characters: 1,234 is 1.2 k."""
    if count < 1000:
        return f"{count:.0f}"
    unit, units = "", "kMGTPE"
    while count >= 999.5 and units:
        count, unit, units = count / 1000, units[0], units[1:]
    return f"{count:.1f} {unit}" if count < 99.95 else f"{count:.0f} {unit}"


def bars(counts: Sequence[int], *, ascii_only: bool = False) -> str:
    """A plot of one line: one bar for each count."""
    marks, most = ASCII_BARS if ascii_only else BARS, max([*counts, 1])
    return "".join(marks[-(-count * (len(marks) - 1) // most)] for count in counts)

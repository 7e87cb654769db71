"""``endwell why``: the meaning of a close code, and what to do about it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from textwrap import wrap

from ..codes import RANGES, CloseCode, CodeRange, Retry, describe
from .style import BOLD, DIM, GREEN, RED, paint

__all__ = ["add", "run"]

WIDTH = 80

_RECONNECTS = {
    Retry.NEVER: "no",
    Retry.NOW: "yes, immediately, with jitter",
    Retry.LATER: "yes, after a back-off",
}


# argparse has no public name for the type.
def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser("why", help="explain a close code", description=__doc__)
    parser.add_argument("code", nargs="?", help="such as 1006 or going-away; without it, list all codes")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Explain ``args.code``, or list all codes. Returns 2 if there is no such code."""
    if args.code is None:
        print("\n".join(_table()))
        return 0
    try:
        code = _parse(args.code)
        row = describe(code)
    except ValueError as error:
        print(f"endwell why: {error}; run it without an argument for a list", file=sys.stderr)
        return 2
    print("\n".join(_page(code, row)))
    return 0


def _parse(text: str) -> int:
    if text.removeprefix("-").isdecimal():
        return int(text)
    name = text.strip().replace("-", "_").replace(" ", "_").upper()
    if name not in CloseCode.__members__:
        raise ValueError(f"no close code is called {text!r}")
    return CloseCode[name]


def _page(code: int, row: CloseCode | CodeRange) -> Iterator[str]:
    yield paint(f"{code} {_name(row)}", BOLD)
    yield from wrap(row.meaning, WIDTH)
    yield ""
    ordinary = paint("yes", GREEN) if row.clean else paint("no, a fault", RED)
    lines = {
        "usual causes": row.usual,
        "what to do": row.advice,
        "close() may send it": "yes" if row.may_send else "no: ValueError",
        "a peer may send it": "yes" if row.may_receive else "no: answered with 1002",
        "an ordinary ending": ordinary,
        "a client reconnects": _RECONNECTS[row.retry],
    }
    for label, text in lines.items():
        yield from _columns([(label, 19, DIM)], text)


def _table() -> Iterator[str]:
    yield from _columns([("code", 10, BOLD), ("name", 19, BOLD), ("reconnect", 9, BOLD)], "meaning")
    for row in _rows():
        code = str(row.value) if isinstance(row, CloseCode) else f"{row.first}-{row.last}"
        name = row.name if isinstance(row, CloseCode) else "(all others)"
        yield from _columns(
            [(code, 10, GREEN if row.clean else RED), (name, 19, BOLD), (row.retry.value, 9, DIM)],
            row.meaning,
        )


def _rows() -> Iterator[CloseCode | CodeRange]:
    """Yield the named codes of each range, followed by the range."""
    for row in RANGES:
        yield from (code for code in CloseCode if row.first <= code <= row.last)
        yield row


def _name(row: CloseCode | CodeRange) -> str:
    return row.name if isinstance(row, CloseCode) else f"({row.first}-{row.last})"


def _columns(cells: list[tuple[str, int, str]], text: str) -> Iterator[str]:
    """Format ``cells`` (text, width, style), followed by ``text``, wrapped to the rest of the line."""
    indent = sum(width + 2 for _, width, _ in cells)
    head = "".join(paint(f"{cell:{width}}", style) + "  " for cell, width, style in cells)
    for line in wrap(text, WIDTH - indent):
        yield head + line
        head = " " * indent

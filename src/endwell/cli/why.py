"""``endwell why``: the likely causes of an ending, or the meaning of a close code, and what to do about it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from io import TextIOWrapper
from pathlib import Path
from textwrap import wrap
from typing import Any, TextIO

from ..codes import RANGES, CloseCode, CodeRange, Retry, describe
from ..diagnosis import Diagnosis, diagnose
from .recorded import MAX_LINE, Recorded, read, texts
from .style import BOLD, DIM, GREEN, RED, paint, printable

__all__ = ["add", "run"]

WIDTH = 80

_RECONNECTS = {
    Retry.NEVER: "no",
    Retry.NOW: "yes, immediately, with jitter",
    Retry.LATER: "yes, after a back-off",
}


#: No name of a code is longer, and every ending is.
MAX_CODE = 40
#: Characters that are shown of each text that says which connection it was.
MAX_CONTEXT = 200


# argparse has no public name for the type.
def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "why", help="explain an ending or a close code", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "what",
        nargs="?",
        metavar="CODE_OR_ENDING",
        help="a code such as 1006 or going-away; an ending as JSON or as its sentence, or a log line with one; "
        "@FILE: the lines of a file; -: of standard input. Without it, list all codes",
    )
    parser.add_argument("--json", action="store_true", help="print a JSON object for each answer")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Explain ``args.what``, or list all codes. Returns 2 if it is neither a code nor an ending."""
    if args.what is None:
        codes = (_json(_code_fields(row.value, row)) for row in CloseCode)
        print("\n".join(codes if args.json else _table()))
        return 0
    problems = 0
    try:
        for number, answer in enumerate(_answers(args.what)):
            if isinstance(answer, _Problem):
                problems += 1
                print(f"endwell why: {answer}", file=sys.stderr)
            elif args.json:
                print(_json(_fields(answer)), flush=True)
            else:
                blank = "\n" if number > problems else ""
                print(blank + "\n".join(_lines(answer)), flush=True)
    except BrokenPipeError:  # of standard output: the caller ends without a word
        raise
    except (ValueError, OSError) as error:
        print(f"endwell why: {error}", file=sys.stderr)
        return 2
    return 0


class _Problem(Exception):
    """What is wrong with one line of many."""


def _answers(what: str) -> Iterator[int | Recorded | _Problem]:
    """Yield the codes and endings that ``what`` names. Raises ValueError or OSError."""
    if what == "-":
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(errors="backslashreplace")
        yield from _of_lines(sys.stdin, "standard input")
    elif what[:1] == "@":
        # Only LF ends a line: JSON may contain other line ends of Unicode.
        with Path(what[1:]).open(encoding="utf-8", errors="backslashreplace", newline="\n") as stream:
            yield from _of_lines(stream, repr(what[1:]))
    else:
        yield _answer(what)


def _of_lines(stream: TextIO, name: str) -> Iterator[int | Recorded | _Problem]:
    """Yield an answer for each line with an ending, as soon as it is read. One line alone may be a code."""
    found, first, lines = False, "", 0
    for number, text in texts(stream):
        lines += 1
        first = first or text or ""
        try:
            answer = None if text is None else _ending(text)
        except ValueError as error:
            yield _Problem(f"line {number}: {error}")
            continue
        if text is None:
            yield _Problem(f"line {number} is longer than {MAX_LINE:,} characters, so it is not read")
        elif answer is not None:
            found = True
            yield answer
    if not found and lines == 1 and 0 < len(first.strip()) <= MAX_CODE:
        yield _answer(first.strip())
    elif not found:
        raise ValueError(f"there is no ending in {name}")


def _answer(text: str) -> int | Recorded:
    recorded = _ending(text)
    if recorded is not None:
        return recorded
    if len(text) > MAX_CODE or "{" in text:
        raise ValueError(f"this is neither a close code nor an ending: {text[:MAX_CODE]!r}...")
    try:
        code = _parse(text)
        describe(code)
    except ValueError as error:
        raise ValueError(f"{error}; run it without an argument for a list") from None
    return code


def _ending(text: str) -> Recorded | None:
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"this ending is not valid: {printable(str(error))}") from None


def _json(fields: dict[str, Any]) -> str:
    # ASCII: a text from a peer must not control the terminal, and may have surrogates.
    return json.dumps(fields)


def _fields(answer: int | Recorded) -> dict[str, Any]:
    if isinstance(answer, int):
        return _code_fields(answer, describe(answer))
    values = answer.ending.as_dict()
    known = {name: value for name, value in values.items() if name in answer.known}
    return {
        "record": dict(answer.context),
        "ending": {**known, "code": values["code"], "text": values["text"]},
        "causes": [asdict(each) for each in _diagnoses(answer)],
    }


def _code_fields(code: int, row: CloseCode | CodeRange) -> dict[str, Any]:
    return {
        "code": int(code),
        "name": row.name if isinstance(row, CloseCode) else None,
        "meaning": row.meaning,
        "usual": row.usual,
        "advice": row.advice,
        "may_send": row.may_send,
        "may_receive": row.may_receive,
        "clean": row.clean,
        "retry": row.retry.value,
    }


def _diagnoses(recorded: Recorded) -> list[Diagnosis]:
    return diagnose(*recorded[:-1])


def _lines(answer: int | Recorded) -> Iterator[str]:
    if isinstance(answer, int):
        yield from _page(answer, describe(answer))
        return
    yield from (paint(line, BOLD) for line in wrap(printable(str(answer.ending)), WIDTH))
    if answer.context:
        yield from (paint(line, DIM) for line in wrap(_where(answer.context), WIDTH))
    for number, each in enumerate(_diagnoses(answer), 1):
        yield ""
        yield from _columns([(f"{number}.", 2, BOLD)], each.cause)
        for index, sentence in enumerate(each.evidence):
            yield from _columns([("", 2, DIM), ("" if index else "because", 10, DIM)], printable(sentence))
        yield from _columns([("", 2, DIM), ("what to do", 10, DIM)], each.advice)


def _where(context: Mapping[str, str]) -> str:
    """Which connection it was, on a line of its own."""
    words = {name: printable(value[:MAX_CONTEXT]) for name, value in context.items()}
    address, path = words.pop("address", ""), words.pop("path", "")
    words.pop("route", None)
    place = f"{address} on {path}" if address and path else address or path
    named = [f"{name} {words[name]}" for name in ("subject", "key") if name in words]
    plain = [words[name] for name in ("time", "role") if name in words]
    return ", ".join([*plain, *filter(None, [place]), *named, *filter(None, [words.get("line")])])


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

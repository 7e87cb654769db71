"""Limit the lines of a file, the lines of a function, and the number of parameters.

A comment ``# size: REASON`` lifts the limits: at the start of a line for the file, or in the head of a function.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 50
PARAMETERS = 6  # self and cls are not counted; *args and **kwargs are one each

REASON = re.compile(r"#\s*size:\s*\w")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def oversized(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the fault of each thing in a source text that is too large and has no reason."""
    lines = text.splitlines()
    if len(lines) > FILE_LINES and not any(map(REASON.match, lines)):
        yield 1, f"{len(lines)} lines, {FILE_LINES} allowed"
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, Function):
            continue
        head = lines[function.lineno - 1 : function.body[0].lineno - 1]
        if any(map(REASON.search, head)):
            continue
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        if length > FUNCTION_LINES:
            yield function.lineno, f"{function.name}: {length} lines, {FUNCTION_LINES} allowed"
        count = parameters(function.args)
        if count > PARAMETERS:
            yield function.lineno, f"{function.name}: {count} parameters, {PARAMETERS} allowed"


def parameters(arguments: ast.arguments) -> int:
    """The number of parameters, without self and cls."""
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    own = bool(named) and named[0].arg in {"self", "cls"}
    return len(named) - own + (arguments.vararg is not None) + (arguments.kwarg is not None)


def main() -> int:
    """Check every source file; returns 1 if something is too large."""
    faults = [
        f"{path}:{line}: {fault}"
        for path in sorted(Path("src").rglob("*.py"))
        for line, fault in oversized(path.read_text(encoding="utf-8"))
    ]
    print(*faults, sep="\n", end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""Run every block of Python on the pages, page by page, in the order of each page.

The blocks of a page share one namespace. At its beginning it has ``asyncio``, ``endwell``, ``sync`` (endwell.sync), a
``server``, and ``serve(server)``, which serves until the page is over and returns ``ws://host:port``.
A comment in the Markdown changes that, in the words of Sybil:

    <!-- clear-namespace -->            begin anew
    <!-- invisible-code: python         what a reader is told in words
    user = "Ada"
    -->
    <!-- skip: next "the reason" -->    the next block is not run

A block may await. ``server.run()`` does not block: the server is served from a free port until the page is over, and the
port that the page names leads there. A block that is, word for word, a part of a program of examples/
is not run here, because tests run the program.
"""

from __future__ import annotations

import ast
import asyncio
import faulthandler
import logging
import re
import sys
import traceback
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from functools import partialmethod
from io import StringIO
from pathlib import Path
from textwrap import dedent, indent
from types import CodeType
from typing import Any
from unittest import SkipTest, mock

from sybil import Document, Example, Sybil
from sybil.parsers.markdown import ClearNamespaceParser, CodeBlockParser, SkipParser
from sybil.typing import Parser

import endwell
from endwell import sync

ROOT = Path(__file__).parent.parent.parent
#: Seconds for one page. It only detects a hang.
PATIENCE = 60


class Runner:
    """Runs the blocks of one page after the other, and counts them."""

    def __init__(self) -> None:
        self.programs = [file.read_text(encoding="utf-8") for file in (ROOT / "examples").rglob("*.py")]
        self.counts = {"run": 0, "quoted from a tested example": 0, "not run": 0}
        self.reasons: list[str] = []
        self.faults: list[str] = []
        # Of the page that is run.
        self.ports: dict[int, int] = {}
        self.loop = asyncio.Runner()
        self.stack = ExitStack()

    def page(self, path: Path) -> None:
        """Run the blocks of one page."""
        parsers: list[Parser] = [CodeBlockParser("python", self.block), SkipParser(), ClearNamespaceParser()]
        document = Sybil(parsers, path=str(ROOT)).parse(path)
        self.ports = {}
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        # A method of the class again, so that it is called with the server.
        run = mock.patch.object(endwell.Server, "run", partialmethod(Runner.run_of, self))
        with ExitStack() as self.stack, asyncio.Runner() as self.loop, run:
            self.begin(document)
            for example in document.examples():
                where = f"{path.relative_to(ROOT)}:{example.line}"
                try:
                    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                        example.evaluate()
                except SkipTest as reason:
                    self.counts["not run"] += 1
                    self.reasons.append(f"{where}: {reason}")
                except Exception:
                    self.faults.append(where)
                    print(f"{where}:\n{traceback.format_exc()}", flush=True)
        logging.root.handlers.clear()  # those of a page that shows basicConfig()
        faulthandler.cancel_dump_traceback_later()

    def block(self, example: Example) -> None:
        """Run one block."""
        source = str(example.parsed)
        indented = [indent(source, " " * depth) for depth in (0, 4, 8, 12)]
        if any(each in program for program in self.programs for each in indented):
            self.counts["quoted from a tested example"] += 1
            return
        self.begin(example.document)
        for named, port in self.ports.items():
            source = re.sub(rf"(?<=:){named}\b", str(port), source)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile("\n" * example.line + dedent(source), example.path, "exec", flags, dont_inherit=True)
        self.loop.run(execute(code, example.namespace))
        if example.region.lexemes.get("directive") is None:
            self.counts["run"] += 1

    @staticmethod
    def run_of(server: endwell.Server, runner: Runner, *args: Any, **keywords: Any) -> None:
        """What ``server.run()`` does on a page."""
        port = keywords.get("port", args[1] if len(args) > 1 else 8080)
        runner.ports[port] = int(runner.serve(server).rpartition(":")[2])

    def serve(self, server: endwell.Server) -> str:
        """Serve until the page is over; the address."""
        return f"ws://127.0.0.1:{self.stack.enter_context(sync.serving(server)).port}"

    def begin(self, document: Document) -> None:
        """Give a new namespace what every page has."""
        if "endwell" not in document.namespace:
            document.namespace.update(
                asyncio=asyncio,
                endwell=endwell,
                sync=sync,
                server=endwell.Server(),
                serve=self.serve,
                __name__="__main__",
            )


async def execute(code: CodeType, namespace: dict[str, Any]) -> None:
    """Execute a block. One that awaits nothing runs in a thread of its own, where it may call ``asyncio.run()``."""
    if code.co_flags & 0x80:  # inspect.CO_COROUTINE
        await eval(code, namespace)  # noqa: S307  the pages are ours
    else:
        await asyncio.to_thread(exec, code, namespace)


def main() -> int:
    """Run the pages that are given, or all; 1 if a block fails."""
    runner = Runner()
    given = [Path(name).resolve() for name in sys.argv[1:]]
    for path in given or sorted((ROOT / "docs").rglob("*.md")):
        runner.page(path)
    print(*runner.reasons, sep="\n")
    print(", ".join(f"{count} {name}" for name, count in runner.counts.items()), "blocks of Python")
    return 1 if runner.faults else 0


if __name__ == "__main__":
    sys.exit(main())

"""Run every block of Python on the pages and in the docstrings.

The blocks of a page run in their order and share one namespace. At its beginning it has ``asyncio``, ``endwell``,
``sync`` (endwell.sync), a ``server``, and ``serve(server)``, which serves until the end of the page and returns
``ws://host:port``. Comments in the Markdown change that, with the directives of Sybil:

    <!-- clear-namespace -->            a new namespace
    <!-- invisible-code: python         code that the page does not show
    user = "Ada"
    -->
    <!-- skip: next "the reason" -->    the next block does not run

A block of a docstring is a complete program: it runs alone, in an empty namespace.

A block may await. ``server.run()`` does not block: it serves on a free port until the end of the page or docstring, and
the port in the URLs of the page is replaced by this port. ``serving(port=8080)`` uses a free port, too. A block that
is, word for word, a part of a program of examples/ does not run here, because tests run the program.
"""

from __future__ import annotations

import ast
import asyncio
import faulthandler
import logging
import re
import sys
import traceback
from collections.abc import Iterable
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from functools import partialmethod
from io import StringIO
from pathlib import Path
from textwrap import dedent, indent
from types import CodeType
from typing import Any
from unittest import SkipTest, mock

from sybil import Document, Example, Sybil
from sybil.document import PythonDocStringDocument
from sybil.parsers.markdown import ClearNamespaceParser, CodeBlockParser, SkipParser
from sybil.typing import Parser

import endwell
from endwell import sync

ROOT = Path(__file__).parent.parent.parent
#: Maximum seconds for one block. Then the process ends, and prints the stack of each thread.
PATIENCE = 30


class Docstrings(PythonDocStringDocument):
    """The docstrings of a module. Their blocks do not see the names of the module."""

    def __init__(self, text: str, path: str) -> None:
        super().__init__(text, path)
        # Sybil would import the module into the namespace.
        self.pop_evaluator(self.import_document)


class Runner:
    """Runs the blocks of one file after the other, and counts them."""

    def __init__(self) -> None:
        self.programs = [file.read_text(encoding="utf-8") for file in (ROOT / "examples").rglob("*.py")]
        self.counts = {"run": 0, "quoted from a tested example": 0, "not run": 0}
        self.reasons: list[str] = []
        self.faults: list[str] = []
        self.output, self.errors = sys.stdout, sys.stderr
        # Of the file whose blocks run.
        self.ports: dict[int, int] = {}
        self.loop = asyncio.Runner()
        self.stack = ExitStack()

    def file(self, path: Path) -> None:
        """Run the blocks of a page, or those in the docstrings of a module."""
        parsers: list[Parser] = [CodeBlockParser("python", self.block), SkipParser(), ClearNamespaceParser()]
        documents: dict[str | None, type[Document]] = {".py": Docstrings}
        document = Sybil(parsers, path=str(ROOT), document_types=documents).parse(path)
        # A method of the class again, so that it is called with the server.
        run = mock.patch.object(endwell.Server, "run", partialmethod(Runner.run_of, self))
        with run:
            if path.suffix == ".py":
                for example in document.examples():
                    example.document.namespace.clear()
                    self.run([example], path)
            else:
                self.begin(document)
                self.run(document.examples(), path)

    def run(self, examples: Iterable[Example], path: Path) -> None:
        """Run blocks that share a namespace, an event loop and the servers."""
        self.ports = {}
        # Callbacks of the servers may print after the last block.
        quiet = redirect_stdout(StringIO()), redirect_stderr(StringIO())
        with quiet[0], quiet[1], ExitStack() as self.stack, asyncio.Runner() as self.loop:
            for example in examples:
                where = f"{path.relative_to(ROOT)}:{example.line}"
                faulthandler.dump_traceback_later(PATIENCE, exit=True, file=self.errors)
                try:
                    example.evaluate()
                except SkipTest as reason:
                    self.counts["not run"] += 1
                    self.reasons.append(f"{where}: {reason}")
                except Exception:
                    self.faults.append(where)
                    print(f"{where}:\n{traceback.format_exc()}", file=self.output, flush=True)
            # The end of the servers is limited, too.
            faulthandler.dump_traceback_later(PATIENCE, exit=True, file=self.errors)
        logging.root.handlers.clear()  # a block may call basicConfig()
        faulthandler.cancel_dump_traceback_later()

    def block(self, example: Example) -> None:
        """Run one block."""
        source = str(example.parsed)
        indented = [indent(source, " " * depth) for depth in (0, 4, 8, 12)]
        if any(each in program for program in self.programs for each in indented):
            self.counts["quoted from a tested example"] += 1
            return
        if example.path.endswith(".md"):
            self.begin(example.document)
        else:
            example.namespace["__name__"] = "__main__"
        for named, port in self.ports.items():
            source = re.sub(rf"(?<=:){named}\b", str(port), source)
        source = re.sub(r"(?<=serving\(port=)\d+", "0", source)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile("\n" * example.line + dedent(source), example.path, "exec", flags, dont_inherit=True)
        self.loop.run(execute(code, example.namespace))
        if example.region.lexemes.get("directive") is None:
            self.counts["run"] += 1

    @staticmethod
    def run_of(server: endwell.Server, runner: Runner, *args: Any, **keywords: Any) -> None:
        """Serve, instead of ``server.run()``."""
        port = keywords.get("port", args[1] if len(args) > 1 else 8080)
        runner.ports[port] = int(runner.serve(server).rpartition(":")[2])

    def serve(self, server: endwell.Server) -> str:
        """Serve until the end of the page or docstring, and return the address."""
        return f"ws://127.0.0.1:{self.stack.enter_context(sync.serving(server)).port}"

    def begin(self, document: Document) -> None:
        """Fill the namespace of a page."""
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
    """Run the blocks of the files that are given, or of all pages and modules; 1 if a block fails."""
    runner = Runner()
    given = [Path(name).resolve() for name in sys.argv[1:]]
    files = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "src" / "endwell").rglob("*.py")]
    for path in given or sorted(files):
        runner.file(path)
    print(*runner.reasons, sep="\n")
    print(", ".join(f"{count} {name}" for name, count in runner.counts.items()), "blocks of Python")
    return 1 if runner.faults else 0


if __name__ == "__main__":
    sys.exit(main())

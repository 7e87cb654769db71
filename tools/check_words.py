"""Refuse wordings that make readers translate: in the code and the pages.

Each pattern comes with the plain wording. Docstrings may not have a sentence of more than 40 words, and a line of
prose in Markdown may not be longer than 110 characters. Quotations, in double quotes, are not judged; neither are code,
tables and link definitions in Markdown.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

SENTENCE_WORDS = 40
LINE_LENGTH = 110

#: What is refused, and what to write instead.
WORDINGS = {
    r"\bwhoever\b": "name the thing: the caller, the peer, the client, the handler",
    r"\bnobody else\b": '"no other thread", "no other process": name the thing',
    r"\bwould else\b": '"otherwise ... would"',
    r"\bso (many|long|often)( [a-z]+)? ?(at|,|\.)": "name the parameter or the number",
    r"\bat the most\b": '"at most"',
    r"\bfor (it|that|they) (is|are|has)\b": '"because"',
}
PATTERNS = {re.compile(pattern, re.IGNORECASE): plain for pattern, plain in WORDINGS.items()}

QUOTATION = re.compile(r'"[^"\n]*(?:\n[^"\n]+)*"')
FENCE = re.compile(r"^ *(```|~~~).*?^ *\1", re.MULTILINE | re.DOTALL)
#: What is not prose in Markdown. A comment may hold code that the page does not show.
CODE = re.compile(FENCE.pattern + r"|<!--.*?-->|(?<!`)`[^`\n]+`", re.MULTILINE | re.DOTALL)
#: What cannot be wrapped: a row of a table, HTML, a picture, a link definition, a word alone.
UNWRAPPABLE = re.compile(r"\s*(\||<|!\[|\[[^\]]*\]:|\S+$)")
SENTENCE = re.compile(r"(?<=[.!?:;])\s+|\n\s*\n|\n\s*[-*|#>]|\n\s*(?:Args|Returns|Raises|Example):")

Fault = tuple[int, str]


def wordings(text: str, first: int = 1) -> Iterator[Fault]:
    """The refused wordings of a text whose first line has the number ``first``."""
    unquoted = QUOTATION.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)
    for pattern, plain in PATTERNS.items():
        for found in pattern.finditer(unquoted):
            line = first + unquoted.count("\n", 0, found.start())
            yield line, f"{found[0]!r}: write {plain}"


def sentences(docstring: str, first: int) -> Iterator[Fault]:
    """The sentences of a docstring that are too long."""
    prose = QUOTATION.sub("QUOTATION", FENCE.sub("", docstring))
    for sentence in SENTENCE.split(prose):
        if sentence is not None and len(words := sentence.split()) > SENTENCE_WORDS:
            yield (
                first,
                f"a sentence of {len(words)} words, {SENTENCE_WORDS} allowed: {' '.join(words[:8])} ...",
            )


def python_faults(source: str) -> Iterator[Fault]:
    """The faults of comments, strings and docstrings."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            yield from wordings(token.string, token.start[0])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring is not None:
                yield from sentences(docstring, node.body[0].lineno)


def markdown_faults(text: str) -> Iterator[Fault]:
    """The faults of a page; what is not prose may be as wide as it is."""
    yield from wordings(CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text))
    prose = FENCE.sub(lambda found: re.sub(r"[^\n]", "", found[0]), text)
    for number, line in enumerate(prose.split("\n"), 1):
        if len(line) > LINE_LENGTH and not UNWRAPPABLE.match(line):
            yield number, f"a line of {len(line)} characters, {LINE_LENGTH} allowed"


def main(roots: list[str]) -> int:
    """Print the faults below ``roots``; the exit status."""
    count = 0
    for root in map(Path, roots):
        for path in sorted([root] if root.is_file() else root.rglob("*")):
            if "node_modules" in path.parts:
                continue
            if path.suffix == ".py":
                faults = python_faults(path.read_text())
            elif path.suffix == ".md":
                faults = markdown_faults(path.read_text())
            else:
                continue
            for line, fault in sorted(faults):
                print(f"{path}:{line}: {fault}")
                count += 1
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Hooks of MkDocs: pages made from files outside docs/, and links to such files.

On GitHub a link such as ``../../examples/chat.py`` leads to the file. On the site the same link
leads to a page that is made here from the file. A link to a file that has no page here loses its
link and keeps its text, unless ``repo_url`` is set in mkdocs.yml; a link to a missing file stays as it is, so
that MkDocs reports it.
"""

from __future__ import annotations

import ast
import os.path
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent.parent
LINK = re.compile(r"(?<!!)\[([^\[\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
#: Files of the repository's root that are pages of the site.
PROJECT = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
}


def examples() -> list[Path]:
    """The programs that have a page."""
    return sorted((ROOT / "examples").rglob("*.py"))


def page_of(path: str) -> str | None:
    """The page, relative to docs/, of a file that is given relative to the root; None if it has no page."""
    if path in PROJECT:
        return PROJECT[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("examples/") and path.endswith(".py"):
        return f"project/{path.removesuffix('.py')}.md"
    return None


def example_page(file: Path) -> str:
    """An example as a page: its title, and the program."""
    path = file.relative_to(ROOT).as_posix()
    return f"---\ntitle: {path}\n---\n\n# {path}\n\n```python\n{file.read_text(encoding='utf-8')}```\n"


def examples_page() -> str:
    """The list of the examples, each with the first sentence of its docstring."""
    rows = ["# Examples", "", "Each is a program of at most 50 lines, and a test runs it.", ""]
    for file in examples():
        path = file.relative_to(ROOT).as_posix()
        says = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
        rows.append(f"- [{path}](../{page_of(path)}): {' '.join(says.split())}")
    return "\n".join(rows) + "\n"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that are made from files outside docs/."""
    made = {page: (ROOT / path).read_text(encoding="utf-8") for path, page in PROJECT.items()}
    made["project/examples.md"] = examples_page()
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    for file in examples():
        name = page_of(file.relative_to(ROOT).as_posix())
        assert name is not None
        level = InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, name, content=example_page(file), inclusion=level))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, **rest: Any) -> str:
    """Point the links that leave docs/ at the pages made here."""
    here = page.file.src_uri
    source = next((path for path, name in PROJECT.items() if name == here), f"docs/{here}")

    def lead(link: re.Match[str]) -> str:
        text, target, anchor = link[1], link[2], link[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return link[0]
        path = os.path.normpath(os.path.join(os.path.dirname(source), target))
        if path.startswith("docs/") and source.startswith("docs/"):
            return link[0]
        led = page_of(path)
        if led is not None:
            return f"[{text}]({os.path.relpath(led, os.path.dirname(here))}{anchor})"
        if not (ROOT / path).exists():
            return link[0]
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/HEAD/{path}{anchor})"
        return text

    return markdown if here == "project/examples.md" else LINK.sub(lead, markdown)

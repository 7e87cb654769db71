"""The pages are correct: programs, links, tests; the cookbook quotes the examples verbatim."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from textwrap import dedent
from typing import get_type_hints

import pytest

import endwell
from endwell import sync
from endwell.client.connect import ConnectKeywords
from endwell.options import OptionKeywords
from tests.cli.process import ROOT

DOCS = ROOT / "docs"
COOKBOOK = ("echo", "ping", "close", "binary", "tls", "timeouts")
QUOTING = [
    *(DOCS / "howto" / f"{name}.md" for name in COOKBOOK),
    *sorted((DOCS / "tutorial").glob("*.md")),
    DOCS / "explanation" / "browser-close.md",
]
PAGES = [*ROOT.glob("*.md"), *sorted(DOCS.rglob("*.md"))]

#: The names that programs may use, and the keywords of functions with options.
PUBLIC = {"endwell": endwell, "sync": sync, "server": endwell.Server()}
KEYWORDS = {
    "Server": {*get_type_hints(OptionKeywords), "max_threads"},
    "connect": {*get_type_hints(ConnectKeywords)},
    "reconnecting": {*get_type_hints(ConnectKeywords), "policy", "on_attempt", "on_ending", "on_state"},
}


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> Path:
    return request.param


def programs(page: Path, languages: str = "python") -> list[str]:
    return re.findall(rf"^ *```(?:{languages})\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", QUOTING, ids=lambda page: page.name)
def test_every_program_excerpt_on_a_page_is_from_an_example(page):
    examples = [
        dedent(file.read_text())
        for file in (ROOT / "examples").rglob("*.*")
        if file.suffix in {".py", ".js", ".html"}
    ]
    for piece in programs(page, "python|js"):
        assert any(piece in example for example in examples), piece


def test_the_programs_of_the_readme_work_as_described(capsys):
    server, client, blocking = programs(ROOT / "README.md")
    routes, run, where = server.partition("server.run(")
    assert run
    assert where.startswith('"127.0.0.1", 8080)')
    handler, block, visit = blocking.partition("with sync.connect(")
    said = {}
    exec(routes + handler, said)
    with sync.serving(said["server"]) as serving:
        for program in (client, handler.partition("\n\n")[0] + "\n" + block + visit):
            assert ":8080/" in program
            exec(program.replace(":8080/", f":{serving.port}/"), {})
    lines = capsys.readouterr().out.splitlines()
    assert "lobby: hello" in lines
    assert "hello" in lines
    assert any(line.startswith("the application closed; we closed with 1000 NORMAL") for line in lines)


def test_every_program_on_a_page_is_valid_and_calls_existing_names(page):
    for program in programs(page):
        tree = compile(dedent(program), page.name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) in PUBLIC:
                assert node.attr in dir(PUBLIC[ast.unparse(node.value)]), ast.unparse(node)
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in KEYWORDS:
                known = KEYWORDS[ast.unparse(node.func).rpartition(".")[2]]
                assert {keyword.arg for keyword in node.keywords} <= known, ast.unparse(node)


def test_every_link_of_a_page_has_a_target(page):
    for target in re.findall(r"\]\(([^)#]*)[^)]*\)", page.read_text()):
        assert not target or "://" in target or (page.parent / target).exists(), target


def test_every_test_named_on_a_page_exists(page):
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text()):
        assert f"def {name}(" in (ROOT / file).read_text(), name


def test_the_architecture_names_every_module():
    parts = (
        (DOCS / "explanation" / "architecture.md")
        .read_text()
        .partition("### The modules")[2]
        .partition("\n## ")[0]
    )
    named = set(re.findall(r"\w+", parts))
    source = ROOT / "src" / "endwell"
    for module in source.rglob("*.py"):
        assert module.stem.startswith("__") or module.stem in named, module


def test_each_promise_about_closing_has_a_test():
    text = (DOCS / "howto" / "close.md").read_text()
    promises = text.partition("| promise | test |")[2].strip().splitlines()[1:]
    assert len(promises) >= 12
    assert all(re.search(r"`tests/[\w/]+\.py::\w+`", promise) for promise in promises)

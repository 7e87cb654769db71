"""The pages of the cookbook say what the examples and the tests do, word for word."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest

from tests.cli.process import ROOT

DOCS = ROOT / "docs"
PAGES = [*sorted((DOCS / "cookbook").glob("*.md")), DOCS / "browser-close.md"]


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_every_piece_of_a_program_on_a_page_is_a_piece_of_an_example(page):
    examples = [dedent(file.read_text()) for file in (ROOT / "examples").glob("*.py")]
    pieces = re.findall(r"^```(?:python|js)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    for piece in pieces:
        assert any(piece in example for example in examples), piece


def test_every_link_of_a_page_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]*)[^)]*\)", page.read_text()):
        assert not target or "://" in target or (page.parent / target).exists(), target


def test_every_test_that_a_page_names_exists(page):
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text()):
        assert f"def {name}(" in (ROOT / file).read_text(), name


def test_each_promise_about_closing_has_a_test():
    text = (DOCS / "cookbook" / "W03-close.md").read_text()
    promises = text.partition("| promise | test |")[2].strip().splitlines()[1:]
    assert len(promises) >= 12
    assert all(re.search(r"`tests/[\w/]+\.py::\w+`", promise) for promise in promises)

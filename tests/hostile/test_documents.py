"""docs/explanation/security.md and docs/howto/limits.md agree with the code and the tests."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from endwell import Drain, Options, Server

ROOT = Path(__file__).parents[2]
SECURITY = (ROOT / "docs" / "explanation" / "security.md").read_text()
LIMITS = (ROOT / "docs" / "howto" / "limits.md").read_text()


def names():
    """The names of all tests."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        yield from re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)


def rows(text, head):
    """The cells of a Markdown table, found by its first heading."""
    lines = iter(text.splitlines())
    while not next(lines).startswith(f"| {head} |"):
        pass
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def test_every_named_test_exists():
    named = set(re.findall(r"`(test_\w+)`", SECURITY))
    assert len(named) > 50
    assert named <= set(names()), named - set(names())


@pytest.mark.parametrize("head", ["attack", "promise"])
def test_every_attack_and_every_promise_has_a_test(head):
    table = list(rows(SECURITY, head))
    assert len(table) > 15
    assert not [row for row in table if "`test_" not in row[-1]]


def test_every_limit_has_a_default_a_reason_and_an_effect():
    limits = {field.name: field.default for field in fields(Options) if field.metadata["unit"]}
    limits["max_threads"] = inspect.signature(Server).parameters["max_threads"].default
    limits["grace"] = inspect.signature(Server.serving).parameters["grace"].default
    limits["deadline"] = Drain().deadline
    told = {}
    for name, default, why, seen in rows(LIMITS, "limit"):
        told[name.split("`")[1]] = default
        assert why
        assert seen
    assert told == {name: str(default) for name, default in limits.items()}


def constant(path, name):
    """A number in the sources, compiled or not."""
    source = (ROOT / "src" / "endwell" / path).read_text()
    (value,) = re.findall(rf"^{name} = ([0-9 */]+)$", source, re.MULTILINE)
    return eval(value)


def test_limits_that_are_no_options_have_the_values_of_the_code():
    told = [[int(number) for number in re.findall(r"\d+", row[1])] for row in rows(LIMITS, "in the code")]
    assert told == [
        [constant("wire/codec.py", "_FREE_FRAGMENTS"), constant("wire/codec.py", "_BYTES_PER_FRAGMENT")],
        [constant("wire/codec.py", "_MAX_WORK")],
        [constant("wire/frames.py", "MAX_CONTROL"), constant("wire/frames.py", "MAX_CONTROL") - 2],
        [constant("aio/admission.py", "REFUSALS")],
        [constant("aio/body.py", "READ_AHEAD")],
        [constant("aio/body.py", "MAX_SKIPPED")],
        [constant("client/connect.py", "MAX_REDIRECTS")],
        [constant("server/files.py", "MAX_FILE")],
        [constant("server/threads.py", name) for name in ("PAGES", "HOOKS", "FILES")],
        [constant("aio/tcpinfo.py", "MAX_UNSENT")],
        [constant("aio/driver.py", "MAX_READS"), 10],
        [constant("protocol/connection.py", "AHEAD")],
        [constant("sync/inbox.py", "DEADLOCK_ALLOWANCE")],
    ]


def test_the_docs_say_how_to_report_a_vulnerability():
    text = (ROOT / "SECURITY.md").read_text()
    for heading in ("## Reporting", "## Supported versions", "## In scope"):
        assert heading in text
    for link in re.findall(r"\]\((\S+?)\)", text + SECURITY):
        folders = (ROOT, ROOT / "docs" / "explanation")
        assert any((folder / link).exists() for folder in folders), link

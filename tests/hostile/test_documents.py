"""docs/security.md and docs/limits.md say nothing that the code and the tests do not know."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from endwell import Drain, Options, Server
from endwell.aio import admission, stream
from endwell.client import connect
from endwell.server import respond, threads
from endwell.sync import bridge
from endwell.wire import codec, frames

ROOT = Path(__file__).parents[2]
SECURITY = (ROOT / "docs" / "security.md").read_text()
LIMITS = (ROOT / "docs" / "limits.md").read_text()


def names():
    """The name of every test there is."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        yield from re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)


def rows(text, head):
    """The cells of a Markdown table, by its first heading."""
    lines = iter(text.splitlines())
    while not next(lines).startswith(f"| {head} |"):
        pass
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def test_every_test_that_is_named_exists():
    named = set(re.findall(r"`(test_\w+)`", SECURITY))
    assert len(named) > 50
    assert named <= set(names()), named - set(names())


@pytest.mark.parametrize("head", ["attack", "promise"])
def test_every_attack_and_every_promise_has_a_test(head):
    table = list(rows(SECURITY, head))
    assert len(table) > 15
    assert not [row for row in table if "`test_" not in row[-1]]


def test_every_limit_has_its_default_a_reason_and_what_the_peer_sees():
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


def test_the_limits_that_are_no_options_have_the_values_of_the_code():
    values = {
        name: [int(number) for number in re.findall(r"\d+", value)]
        for name, value, *_ in rows(LIMITS, "in the code")
    }
    assert list(values.values()) == [
        [2**17, 16],
        [2**18],
        [frames.MAX_CONTROL, frames.MAX_CONTROL - 2],
        [admission.REFUSALS],
        [connect.MAX_REDIRECTS],
        [respond.MAX_FILE],
        [threads.PAGES],
        [stream.READS, 10],
        [bridge.SURPLUS],
    ]
    source = Path(codec.__file__).with_name("codec.py").read_text()
    assert "_FREE_FRAGMENTS = 2**17\n_BYTES_PER_FRAGMENT = 16\n" in source
    assert "_INFLATED_AT_ONCE = 2**18\n" in source


def test_the_way_to_report_a_weakness_is_told():
    text = (ROOT / "SECURITY.md").read_text()
    for heading in ("## Reporting", "## Supported versions", "## In scope"):
        assert heading in text
    for link in re.findall(r"\]\((\S+?)\)", text + SECURITY):
        folders = (ROOT, ROOT / "docs")
        assert any((folder / link).exists() for folder in folders), link

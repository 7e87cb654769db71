"""The pages name every argument of the command."""

from __future__ import annotations

import argparse
import re

import pytest

from endwell.cli import _parser
from tests.cli.process import ROOT

DOCS = ROOT / "docs"
COMMANDS = _parser()[1]


def section(command: str) -> str:
    """What the reference says about a command, and the tables to which it refers."""
    text = (DOCS / "reference" / "command-line.md").read_text()
    found = re.search(rf"^## endwell {command}\b.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    pages = {"serve": ["howto/migrate/uvicorn.md", "howto/drain.md"], "connect": ["reference/options.md"]}
    # What holds for each command.
    common = text.partition("\n## ")[0]
    return common + found[0] + "".join((DOCS / page).read_text() for page in pages.get(command, ()))


def arguments(parser: argparse.ArgumentParser) -> list[list[str]]:
    """The names of each argument that the help lists."""
    return [
        action.option_strings
        for action in parser._actions
        if action.option_strings and action.help != argparse.SUPPRESS and action.dest != "help"
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_reference_names_every_argument(command):
    text = section(command)
    missing = [
        names
        for names in arguments(COMMANDS[command])
        if not any(
            re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)
            # The options of a connection have a table with their own names.
            or f"| {name.removeprefix('--').replace('-', '_')} |" in text
            for name in names
        )
    ]
    assert missing == []


def test_the_defaults_in_the_reference_are_those_of_the_command():
    text, listed = section("serve"), " ".join(COMMANDS["serve"].format_help().split())
    assert "It listens on 127.0.0.1:8080;" in text
    assert "address to listen on (default: 127.0.0.1)" in listed
    assert "default: 8080;" in listed
    assert "http://127.0.0.1:9100/metrics" in text
    parsed = COMMANDS["serve"].parse_args(["--metrics-port", "9100", "app:app"])
    assert parsed.metrics_port == ("127.0.0.1", 9100)
    assert (parsed.bus, parsed.recorder) == (None, None)
    rows = COMMANDS["top"].parse_args(["x"]).rows
    assert f"(default: {rows})" in section("top")

"""The configuration blocks of docs/howto/deploy.md, unchanged."""

from __future__ import annotations

import re

from tests.cli.process import ROOT

PAGE = (ROOT / "docs" / "howto" / "deploy.md").read_text()


def block(language: str, title: str = "") -> str:
    """The block in ``language`` whose first line contains ``title``."""
    found = [
        text
        for text in re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        if title in text.split("\n", 1)[0]
    ]
    assert len(found) == 1, (language, title)
    return found[0]


def changed(text: str, changes: dict[str, str]) -> str:
    """``text`` with each key replaced by its value; each key has to occur."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def seconds(text: str, setting: str) -> float:
    """The value of a setting, such as ``75s``."""
    (value,) = re.findall(rf"\b{setting}[ =:]+([0-9]+)s?\b", text)
    return float(value)

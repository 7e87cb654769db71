"""The programs of docs/howto/when.md do what the page says."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.cli.process import ROOT

PAGE = (ROOT / "docs" / "howto" / "when.md").read_text()
PROGRAMS = {
    section.partition("\n")[0]: re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    for section in PAGE.split("\n## ")[1:]
}


def test_each_section_has_one_complete_program():
    assert {len(programs) for programs in PROGRAMS.values()} == {1}
    for section in PROGRAMS:
        link = re.sub(r"[^a-z0-9 -]", "", section.lower()).replace(" ", "-")
        assert f"](#{link})" in PAGE


@pytest.mark.parametrize("section", PROGRAMS)
def test_the_program_runs(section: str, capfd: pytest.CaptureFixture[str]):
    (program,) = PROGRAMS[section]
    try:
        exec(compile(program, section, "exec", dont_inherit=True), {"__name__": "__main__"})
    finally:
        asyncio.set_event_loop(None)
    # The only output is what the program prints: no task is left, and nothing failed in the background.
    assert re.findall(r"print\(", program) or capfd.readouterr() == ("", "")

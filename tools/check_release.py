"""Check that a tag, the version in the source and the changelog agree: python tools/check_release.py v0.1.0."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

VERSION = re.compile(r'^__version__ = "(.+)"$', re.MULTILINE)
HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
#: Such as "0.1.0 (2026-12-01)". A release has a date.
RELEASED = re.compile(r"(\S+) \(\d{4}-\d{2}-\d{2}\)")


def faults(tag: str, source: str, changelog: str) -> list[str]:
    """The reasons why ``tag`` cannot be a release of this source and this changelog."""
    found = VERSION.search(source)
    version = found[1] if found else None
    headings = HEADING.findall(changelog)
    told = []
    if tag != f"v{version}":
        told.append(f"the tag is {tag}, and the version in src/endwell/build.py is {version}")
    if headings[:1] != ["Unreleased"]:
        told.append("the changelog does not begin with a section Unreleased")
    newest = RELEASED.fullmatch(headings[1]) if len(headings) > 1 else None
    if newest is None or newest[1] != version:
        told.append(f"the first section after Unreleased is not '{version} (YEAR-MONTH-DAY)'")
    return told


def main(tag: str) -> int:
    """Print the faults; returns 1 if there are any."""
    source = (ROOT / "src" / "endwell" / "build.py").read_text(encoding="utf-8")
    told = faults(tag, source, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    print(*told, sep="\n", end="\n" if told else "")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Write the tables of docs/explanation/browser-close.md from those that the browser tests check.

`make docs` runs it; `make check` runs it with --check, which writes nothing and
fails if the page is out of date.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from tests.browser.truth import CODES, TRUTH, code_says

__all__ = ["PAGE", "filled"]

PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "browser-close.md"
BLOCK = re.compile(
    r"(<!-- Made by tools/browser_page\.py [^\n]*-->\n).*?(<!-- End of what is made\. -->\n)", re.DOTALL
)


def filled(text: str) -> str:
    """Return ``text`` with the tables filled in. Raises ValueError if it does not have one place for them."""
    tables = f"\n{_ways()}\n{_codes()}\n"
    text, count = BLOCK.subn(lambda found: f"{found[1]}{tables}{found[2]}", text)
    if count != 1:
        raise ValueError(f"the page has {count} places for the tables, expected 1")
    return text


def _ways() -> str:
    lines = ["| what happens | | the server's Ending | the page's ending |", "| --- | --- | --- | --- |"]
    for way, browsers in TRUTH.items():
        both = list(browsers.items())
        # One row for all browsers where they agree.
        if len(both) > 1 and len({told for _, told in both}) == 1:
            both = [("both", both[0][1])]
        for name, (server, page) in both:
            lines.append(f"| {way} | {name.capitalize()} | {server} | {page} |")
    return "".join(f"{line}\n" for line in lines)


def _codes() -> str:
    alike: dict[tuple[str, str], list[str]] = {}
    for code in CODES:
        alike.setdefault(code_says(code), []).append(str(code))
    lines = ["| the server closes with | the server's Ending | the page's ending |", "| --- | --- | --- |"]
    lines += [f"| {', '.join(codes)} | {server} | {page} |" for (server, page), codes in alike.items()]
    return "".join(f"{line}\n" for line in lines)


def main() -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is out of date")
    check = parser.parse_args().check
    old = PAGE.read_text(encoding="utf-8")
    new = filled(old)
    if new != old:
        print("out of date, run `make docs`:" if check else "written:", PAGE.name)
        if not check:
            PAGE.write_text(new, encoding="utf-8")
    return 1 if new != old and check else 0


if __name__ == "__main__":
    sys.exit(main())

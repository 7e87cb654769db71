"""Write the table of docs/browser.md from the one that the tests with real browsers hold both sides to.

`make docs` runs it; a test fails if the table is out of date.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.browser.truth import TRUTH

__all__ = ["PAGE", "filled"]

PAGE = Path(__file__).parent.parent / "docs" / "browser.md"
BLOCK = re.compile(
    r"(<!-- Made by tools/browser_page\.py [^\n]*-->\n).*?(<!-- End of what is made\. -->\n)", re.DOTALL
)


def filled(text: str) -> str:
    """``text`` with its table written. Raises ValueError if there is no place for it."""
    lines = ["| what happens | | the server's Ending | the page's ending |", "| --- | --- | --- | --- |"]
    for way, browsers in TRUTH.items():
        both = list(browsers.items())
        # One row for all browsers where they agree.
        if len({told for _, told in both}) == 1:
            both = [("both", both[0][1])]
        for name, (server, page) in both:
            lines.append(f"| {way} | {name.capitalize()} | {server} | {page} |")
    table = "".join(f"{line}\n" for line in lines)
    text, count = BLOCK.subn(lambda found: f"{found[1]}{table}{found[2]}", text)
    if count != 1:
        raise ValueError(f"the page has {count} places for the table, not one")
    return text


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

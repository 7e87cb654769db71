"""Which wordings the check refuses on a page, and which text it ignores."""

from __future__ import annotations

import pytest

from tools.check_words import LINE_LENGTH, markdown_faults

REFUSED = "who" + "ever asks"
LONG = "word " * (LINE_LENGTH // 5 + 1)


@pytest.mark.parametrize(
    "page", [REFUSED, f"- {REFUSED}", f"> {REFUSED}", f"| {REFUSED} |", f"```\n```\n{REFUSED}"]
)
def test_a_refused_wording_is_found_in_prose_lists_and_tables(page: str) -> None:
    assert [fault for _line, fault in markdown_faults(page) if "the caller" in fault]


@pytest.mark.parametrize("page", [LONG, f"- {LONG}", f"> {LONG}", f"[a]({LONG})", f"```\nx\n```\n{LONG}"])
def test_a_long_line_of_prose_is_found(page: str) -> None:
    [(line, fault)] = markdown_faults(page)
    assert line == page.count("\n") + 1
    assert fault.endswith(f"{LINE_LENGTH} allowed")


@pytest.mark.parametrize(
    "page",
    [
        f"```\n{REFUSED} {LONG}\n```",
        f"- an item:\n\n  ```python\n  {REFUSED} {LONG}\n  ```",
        f"<!-- invisible-code: python\n{REFUSED}\n-->",
        f'the RFC says "{REFUSED}"',
        f"the pattern `{REFUSED}`",
        f"| {LONG} |",
        f"[1]: https://example.org/ {LONG}",
        "https://example.org/" + "x" * LINE_LENGTH,
    ],
)
def test_code_quotations_tables_and_link_definitions_are_not_judged(page: str) -> None:
    assert not list(markdown_faults(page))

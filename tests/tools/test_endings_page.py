"""The page about endings matches the table that the tests use."""

from __future__ import annotations

import pytest

from tools.endings_page import PAGE, filled


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_page_is_up_to_date(page: str) -> None:
    assert filled(page) == page, "run `make docs`"


def test_an_outdated_cell_is_rewritten(page: str) -> None:
    assert filled(page.replace("| `PEER_VANISHED`, 1006 |", "| 1005 |")) == page


@pytest.mark.parametrize("row", ["| RST | ", "| no code | "])
def test_a_row_that_the_page_lacks_is_refused(page: str, row: str) -> None:
    lines = page.splitlines(keepends=True)
    with pytest.raises(ValueError, match="rows are missing"):
        filled("".join(line for line in lines if not line.startswith(row)))


def test_a_row_without_a_test_is_refused(page: str) -> None:
    with pytest.raises(KeyError, match="REST"):
        filled(page.replace("| RST | ", "| REST | "))

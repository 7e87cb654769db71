"""The page about endings says what the tests hold the library to."""

from __future__ import annotations

import pytest

from tools.endings_page import PAGE, filled


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_page_is_up_to_date(page: str) -> None:
    assert filled(page) == page, "run `make docs`"


def test_an_old_cell_is_written_anew(page: str) -> None:
    assert filled(page.replace("| `PEER_VANISHED`, 1006 |", "| 1005 |")) == page


@pytest.mark.parametrize("row", ["| RST | ", "| no code | "])
def test_a_row_of_the_truth_that_the_page_does_not_have_is_missed(page: str, row: str) -> None:
    lines = page.splitlines(keepends=True)
    with pytest.raises(ValueError, match="rows are missing"):
        filled("".join(line for line in lines if not line.startswith(row)))


def test_a_row_of_the_page_that_no_test_knows_is_refused(page: str) -> None:
    with pytest.raises(KeyError, match="REST"):
        filled(page.replace("| RST | ", "| REST | "))

"""The page about browsers matches the table that the tests use."""

from __future__ import annotations

import pytest

from tools.browser_page import PAGE, filled


def test_the_page_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page) == page, "run `make docs`"


def test_an_outdated_cell_is_rewritten() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page.replace("PEER_VANISHED 1006 ''", "PEER_CLOSED 1005 ''")) == page


def test_a_page_without_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="0 places"):
        filled("# A page\n")

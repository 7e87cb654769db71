"""Text of peers in the columns of a terminal."""

from __future__ import annotations

import pytest

from endwell.cli.top.layout import bars, cut, duration, fields, size, width_of


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [
        ("abc", 5, "abc  "),
        ("abc", 3, "abc"),
        ("abcd", 3, "ab~"),
        ("abc", 0, ""),
        ("", 2, "  "),
        ("日本語", 6, "日本語"),
        ("日本語", 5, "日本~"),
        ("日本語", 4, "日~ "),
        ("e\u0301e", 2, "e\u0301e"),
        ("\x1b[2J", 8, "\\x1b[2J "),
        ("\x1b]0;title\x07", 5, "\\x1b~"),
        ("a\nb\rc\td", 12, "a\\nb\\rc\\td  "),
        ("\x9b31m", 8, "\\x9b31m "),
        ("\u202eevil", 11, "\\u202eevil "),
        ("\ud800", 8, "\\ud800  "),
    ],
)
def test_a_text_has_exactly_its_columns_and_no_control_characters(text, columns, shown):
    assert cut(text, columns) == shown
    assert width_of(shown) == columns


def test_the_fields_of_a_row_stand_in_their_columns():
    assert fields(["ab", "7", "x"], [4, 4, 2], [False, True, False]) == "ab      7 x "


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "-"), (0, "0 ms"), (0.0123, "12 ms"), (0.9999, "1.0 s"), (59.94, "59.9 s"), (99.9, "99.9 s"),
        (100, "2 min"), (5999, "100 min"), (6000, "2 h"), (359_999, "100 h"), (360_000, "4 d"),
    ],
)  # fmt: skip
def test_durations(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0"), (999, "999"), (1000, "1.0 k"), (99_949, "99.9 k"), (99_951, "100 k"), (999_400, "999 k"),
        (999_600, "1.0 M"), (1.5e9, "1.5 G"), (1e19, "10.0 E"), (1e24, "1000000 E"),
    ],
)  # fmt: skip
def test_sizes(count, shown):
    assert size(count) == shown


def test_bars():
    assert bars([0, 1, 4, 8]) == " ▁▄█"
    assert bars([0, 1, 8], ascii_only=True) == " .@"
    assert bars([0, 0]) == "  "

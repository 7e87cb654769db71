"""The line editor: editing, history, and drawing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.cli.line import HISTORY, Line, width

LEFT, RIGHT, UP, DOWN = b"\x1b[D", b"\x1b[C", b"\x1b[A", b"\x1b[B"


def typed(*keys: bytes) -> Line:
    line = Line("> ")
    for key in keys:
        assert list(line.feed(key)) == []
    return line


def test_enter_completes_a_line():
    line = Line("> ")
    assert list(line.feed(b"one\ntwo\rthr")) == ["one", "two"]
    assert line.text == "thr"


@pytest.mark.parametrize(
    ("keys", "text", "cursor"),
    [
        ([b"abc", LEFT, b"X"], "abXc", 3),
        ([b"abc", LEFT, LEFT, RIGHT, b"X"], "abXc", 3),
        ([b"abc", LEFT * 9, b"X"], "Xabc", 1),
        ([b"abc", RIGHT * 9, b"X"], "abcX", 4),
        ([b"abc\x7f"], "ab", 2),
        ([b"\x7f\x08"], "", 0),
        ([b"abc", LEFT, b"\x1b[3~"], "ab", 2),
        ([b"abc\x1b[3~"], "abc", 3),
        ([b"abc\x01X"], "Xabc", 1),
        ([b"abc\x1b[HX\x1b[FY"], "XabcY", 5),
        ([b"abc\x1bOHX\x1bOFY"], "XabcY", 5),
        ([b"abc", LEFT, b"\x15"], "c", 0),
        ([b"abc", LEFT, b"\x0b"], "ab", 2),
        ([b"one two \x17"], "one ", 4),
        ([b"one\x17\x17"], "", 0),
        ([b"abc", LEFT, b"\x04"], "ab", 2),
        ([b"a\x00\x07\tb"], "ab", 2),
        ([b"a\x1bxb"], "ab", 2),
        ([b"a\x1b[1;5Cb"], "ab", 2),
        ([b"a\x1b[200~b"], "ab", 2),
        (["é😀\u0301".encode()], "é😀\u0301", 3),
        ([b"\xc3", b"\xa9"], "é", 1),
        ([b"\xffa"], "\ufffda", 2),
    ],
)
def test_keys_edit_the_line(keys, text, cursor):
    line = typed(*keys)
    assert (line.text, line.cursor) == (text, cursor)


def test_an_unterminated_escape_sequence_swallows_little():
    assert typed(b"\x1b[" + b"1" * 1000).text.count("1") > 900


def test_control_d_ends_the_input_only_on_an_empty_line():
    line = typed(b"a\x04")
    assert not line.ended
    line = typed(b"\x04ignored\n")
    assert line.ended
    assert line.text == ""


def test_up_and_down_keys_move_through_the_history():
    line = Line("> ")
    list(line.feed(b"one\ntwo\n\ntwo\nthr"))
    seen = []
    for key in (UP, UP, UP, DOWN, DOWN, DOWN):
        list(line.feed(key))
        seen.append(line.text)
    assert seen == ["two", "one", "one", "two", "thr", "thr"]
    assert list(line.feed(UP + b"!\n")) == ["two!"]


def test_the_history_is_bounded():
    line = Line("> ")
    list(line.feed(b"".join(b"%d\n" % number for number in range(3 * HISTORY))))
    list(line.feed(UP * (3 * HISTORY)))
    assert line.text == str(2 * HISTORY + 1)


def test_a_short_line_is_drawn_whole_with_its_cursor():
    assert typed(b"abc").draw(80) == "\r\x1b[K> abc"
    assert typed(b"abc", LEFT, LEFT).draw(80) == "\r\x1b[K> abc\x1b[2D"
    assert typed("日本".encode(), LEFT).draw(80) == "\r\x1b[K> 日本\x1b[2D"


def test_a_long_line_is_drawn_around_the_cursor():
    line = typed(b"0123456789")
    assert line.draw(8) == "\r\x1b[K> 56789"
    list(line.feed(b"\x01"))
    assert line.draw(8) == "\r\x1b[K> 01234\x1b[5D"


@given(st.text(), st.integers(0, 20), st.integers(4, 30))
def test_the_drawn_line_fits_on_one_row(text, steps, columns):
    line = Line("> ")
    list(line.feed(text.encode() + LEFT * steps))
    format_address = line.draw(columns).removeprefix("\r\x1b[K").partition("\x1b")[0]
    # Not even in the last column: on some terminals the cursor after it would be on the next row.
    assert sum(map(width, format_address)) < columns
    assert all(char.isprintable() for char in format_address)


@given(
    st.lists(st.sampled_from([b"a", "é".encode(), b"\n", b"\x7f", LEFT, UP, DOWN, b"\x01", b"\x17"])),
    st.data(),
)
def test_any_split_of_the_keys_gives_the_same_lines(keys, data):
    stream = b"".join(keys)
    whole, split = Line("> "), Line("> ")
    expected = list(whole.feed(stream))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [line for piece in pieces for line in split.feed(piece)] == expected
    assert (split.text, split.cursor) == (whole.text, whole.cursor)

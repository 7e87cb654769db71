from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.http import TOKEN
from endwell.wire.extensions import parse_extensions
from tests.linear import takes_linear_time

TOKENS = st.text(sorted(TOKEN), min_size=1, max_size=8)
BLANKS = st.text(" \t", max_size=2)


@pytest.mark.parametrize(
    ("values", "extensions"),
    [
        ([], []),
        (["foo"], [("foo", [])]),
        # RFC 6455 §9.1
        (["foo, bar; baz=2"], [("foo", []), ("bar", [("baz", "2")])]),
        (["foo", "bar; baz=2"], [("foo", []), ("bar", [("baz", "2")])]),
        (["bar; baz=2"], [("bar", [("baz", "2")])]),
        (['a; b="c"; d'], [("a", [("b", "c"), ("d", None)])]),
        ([r'a; b="c\d\e"'], [("a", [("b", "cde")])]),
        (["a;b;b=1;b=2"], [("a", [("b", None), ("b", "1"), ("b", "2")])]),
        (["\ta ;\t b = c ; d , e "], [("a", [("b", "c"), ("d", None)]), ("e", [])]),
        ([" , a,, b ,", "", "c,"], [("a", []), ("b", []), ("c", [])]),
        (["a!#$%&'*+-.^_`|~9;x"], [("a!#$%&'*+-.^_`|~9", [("x", None)])]),
    ],
)
def test_valid_extension_headers_are_parsed(values: list[str], extensions: list) -> None:
    assert parse_extensions(values) == extensions


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        ", ,",
        ";",
        "=",
        "a;",
        "a; ",
        "a;;b",
        "a;=b",
        "a; b=",
        "a; b=,c",
        "a; b=;c",
        "a b",
        "a; b c",
        "a=b",
        "a; b=c=d",
        "a; b=c d",
        'a; b="',
        'a; b="c',
        'a; b="c\\',
        'a; b=""',
        'a; b="c d"',
        'a; b="c,d"',
        'a; b="\\""',
        'a; b="c"d',
        'a; "b"=c',
        '"a"',
        "a/b",
        "ä",
        "a\0",
        "a\n",
    ],
)
def test_invalid_extension_headers_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match="Sec-WebSocket-Extensions is malformed: expected"):
        parse_extensions([value])


def test_a_quoted_string_does_not_span_header_lines() -> None:
    with pytest.raises(ValueError, match="malformed"):
        parse_extensions(['a; b="c', 'd"'])


def test_the_peers_text_is_escaped_and_truncated_in_the_error() -> None:
    with pytest.raises(ValueError, match="malformed") as caught:
        parse_extensions(["a; " + "\x1b" * 10_000])
    assert len(str(caught.value)) < 200
    assert "\x1b" not in str(caught.value)


@given(st.data())
def test_generated_extension_headers_round_trip(data: st.DataObject) -> None:
    expected = []
    lines = []
    for name in data.draw(st.lists(TOKENS, min_size=1, max_size=4)):
        line = data.draw(BLANKS) + name
        parameters = data.draw(st.lists(st.tuples(TOKENS, st.none() | TOKENS), max_size=4))
        for parameter, value in parameters:
            line += data.draw(BLANKS) + ";" + data.draw(BLANKS) + parameter
            if value is not None:
                written = value
                if data.draw(st.booleans()):
                    escaped = (data.draw(st.sampled_from(["", "\\"])) + char for char in value)
                    written = f'"{"".join(escaped)}"'
                line += data.draw(BLANKS) + "=" + data.draw(BLANKS) + written
        lines.append(line + data.draw(BLANKS))
        expected.append((name, parameters))
    assert parse_extensions(lines) == expected
    assert parse_extensions([",".join(lines)]) == expected


@given(st.lists(st.text(alphabet='a;,="\\ \t', max_size=30), max_size=3))
def test_any_text_is_parsed_or_refused(values: list[str]) -> None:
    with contextlib.suppress(ValueError):
        parse_extensions(values)


@pytest.mark.parametrize("part", ["a;", "a, ", "; ", ",", "a; b=", '"', '\\"', " ", "a" + " " * 50, "="])
def test_a_long_text_takes_linear_time(part: str) -> None:
    def read(text: str) -> None:
        with contextlib.suppress(ValueError):
            parse_extensions([text])

    for start in ("", 'a; b="'):
        assert takes_linear_time(read, lambda size: start + part * size, 20_000)  # noqa: B023  (called here)

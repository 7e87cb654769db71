from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.wire.authority import is_among, parse_authority, split_authority


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("example.com", ("example.com", None)),
        ("Example.COM:8080", ("example.com", 8080)),
        ("example.com:", ("example.com", None)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
        ("a_b-c.%41!$&'()*+,;=~:65535", ("a_b-c.%41!$&'()*+,;=~", 65535)),
        ("[::1]", ("::1", None)),
        ("[2001:DB8:0:0::1]:443", ("2001:db8::1", 443)),
    ],
)
def test_an_authority_is_split_into_host_and_port(text: str, expected: tuple[str, int | None]) -> None:
    assert parse_authority(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "user@host",
        "user:password@host",
        "a b",
        "a/b",
        "a\\b",
        "bücher.example",
        "host:80:80",
        "host:65536",
        "host:000080",
        "host:+80",
        "host:8²",
        "host:-1",
        "[::1",
        "[::1]80",
        "[::1]:x",
        "[]",
        "[127.0.0.1]",
        "[fe80::1%eth0]",
        "[v1.x]",
        "::1",
    ],
)
def test_an_invalid_authority_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"^the (host|IPv6 address of the host|port) is malformed$"):
        parse_authority(text)


@given(st.text())
def test_any_text_is_split_or_raises_value_error(text: str) -> None:
    try:
        host, port = parse_authority(text)
    except ValueError:
        return
    assert host == host.lower() != ""
    assert port is None or 0 <= port <= 65535


NAMES = ["Example.com", "*.sub.example", "[0::1]", "127.0.0.1", "10.0.0.0/8", "[fd00::]/16", "2001:DB8::/32"]


@pytest.mark.parametrize(
    "text",
    [
        "example.com",
        "EXAMPLE.com:8080",
        "example.com:",
        "a.sub.example",
        "a.b.SUB.example:1",
        "[::1]:80",
        "[0::1]",
        "127.0.0.1:1",
        "10.255.1.2:8080",
        "[fd00::1]:80",
        "[2001:db8:1::]",
    ],
)
def test_a_host_matches_names_with_any_port_and_case(text: str) -> None:
    assert is_among(text, NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "example.org",
        "xexample.com",
        "a.example.com",
        "example.com.",
        "sub.example",
        "xsub.example",
        "[::2]",
        "127.0.0.2",
        "11.0.0.1",
        "10.0.0.1.example",
        "10.example",
        "010.0.0.1",
        "[fd01::1]",
        "[::ffff:10.0.0.1]",
    ],
)
def test_another_host_does_not_match(text: str) -> None:
    assert not is_among(text, NAMES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host", ("host", "/")),
        ("host/", ("host", "/")),
        ("host:1/a/b?c=/d", ("host:1", "/a/b?c=/d")),
        ("host?a/b", ("host", "/?a/b")),
        ("", ("", "/")),
    ],
)
def test_an_empty_path_becomes_a_slash(text: str, expected: tuple[str, str]) -> None:
    assert split_authority(text) == expected

from __future__ import annotations

from base64 import b64decode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.http import Headers
from endwell.options import Options
from endwell.protocol.handshake import offer
from endwell.protocol.uri import WebSocketURI, parse_uri


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("ws://a.example", WebSocketURI(False, "a.example", 80, "/")),
        ("wss://a.example", WebSocketURI(True, "a.example", 443, "/")),
        ("WSS://A.Example:8443/", WebSocketURI(True, "a.example", 8443, "/")),
        ("ws://a.example:/x", WebSocketURI(False, "a.example", 80, "/x")),
        ("ws://a.example?q=1", WebSocketURI(False, "a.example", 80, "/?q=1")),
        ("ws://a.example/x/y?q=/?&r", WebSocketURI(False, "a.example", 80, "/x/y?q=/?&r")),
        ("ws://127.0.0.1:8080//x", WebSocketURI(False, "127.0.0.1", 8080, "//x")),
        ("ws://[::1]:8080/x", WebSocketURI(False, "::1", 8080, "/x")),
        ("ws://[FE80::1%25eth0.1]:8080/x", WebSocketURI(False, "fe80::1", 8080, "/x", zone="eth0.1")),
        ("wss://[2001:DB8::1]", WebSocketURI(True, "2001:db8::1", 443, "/")),
        ("ws://localhost/@:x", WebSocketURI(False, "localhost", 80, "/@:x")),
    ],
)
def test_a_uri_is_parsed_into_its_parts(uri: str, expected: WebSocketURI) -> None:
    assert parse_uri(uri) == expected


def test_a_host_outside_ascii_becomes_idna() -> None:
    assert parse_uri("ws://Bücher.example:81/").host == "xn--bcher-kva.example"
    assert parse_uri("ws://Bücher.example:81/").port == 81


@pytest.mark.parametrize(
    ("host", "label"),
    [
        ("fa\u00df.example", "xn--fa-hia.example"),
        ("WWW.FA\u1e9e.example", "www.xn--fa-hia.example"),
        ("\u03b2\u03cc\u03bb\u03bf\u03c2.com:81", "xn--nxasmm1c.com"),
        ("\u0646\u0627\u0645\u0647\u200c\u0627\u06cc.com", "xn--mgba3gch31f060k.com"),
        ("a\u200db\u3002example", "xn--ab-m1t.example"),
    ],
)
def test_a_host_that_differs_in_idna_2003_and_2008_is_refused(host: str, label: str) -> None:
    """Python's codec would connect to ``fass.example``, which may be another registrant's."""
    with pytest.raises(ValueError, match=f"write '{label}'"):
        parse_uri(f"wss://{host}/")
    assert parse_uri(f"wss://{label}/").host == label


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("ws://user:secret@A.example/x", "ws://a.example:80/x"),
        ("wss://a.example/x?token=secret", "wss://a.example:443/x?..."),
        ("wss://[::1]:8443", "wss://[::1]:8443/"),
    ],
)
def test_a_uri_is_shown_without_userinfo_and_query(uri: str, shown: str) -> None:
    assert str(parse_uri(uri)) == shown


@pytest.mark.parametrize("uri", [None, b"ws://a/", 1])
def test_a_uri_that_is_no_str_is_a_type_error(uri: object) -> None:
    with pytest.raises(TypeError, match="uri must be a str, not "):
        parse_uri(uri)  # type: ignore[arg-type]


def test_a_path_outside_ascii_is_percent_encoded_once() -> None:
    assert parse_uri("ws://a/caf%C3%A9/é?x=é%20<|>").target == "/caf%C3%A9/%C3%A9?x=%C3%A9%20%3C%7C%3E"


@pytest.mark.parametrize(
    ("uri", "username", "password", "credentials"),
    [
        ("ws://me:secret@a/", "me", "secret", "me:secret"),
        ("ws://me@a/", "me", "", "me:"),
        ("ws://:secret@a/", "", "secret", ":secret"),
        ("ws://m%40e:s%3Ae%2Fc:r%20t@a/", "m@e", "s:e/c:r t", "m@e:s:e/c:r t"),
        ("ws://ü:%C3%BC@a/", "ü", "ü", "ü:ü"),
    ],
)
def test_userinfo_becomes_basic_authorization(
    uri: str, username: str, password: str, credentials: str
) -> None:
    parsed = parse_uri(uri)
    assert (parsed.username, parsed.password, parsed.host) == (username, password, "a")
    assert parsed.authorization is not None
    scheme, value = parsed.authorization.split(" ")
    assert (scheme, b64decode(value).decode()) == ("Basic", credentials)


@pytest.mark.parametrize("uri", ["ws://a/", "ws://@a/"])
def test_without_userinfo_there_is_no_authorization(uri: str) -> None:
    assert parse_uri(uri).authorization is None


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "a.example",
        "ws:a.example",
        "ws:/a.example",
        "//a.example",
        "http://a.example",
        "https://a.example",
        "wsx://a",
        "ws://",
        "ws:///x",
        "ws://:80/",
        "ws://a/#",
        "ws://a/x#fragment",
        "ws://a#fragment",
        "ws://a b/",
        " ws://a/",
        "ws://a/\n",
        "ws://a/x y",
        "ws://a/x\r\nHost: b",
        "ws://a/\0",
        "ws://a\\@b/",
        "ws://a/\\b",
        "ws://a:0/",
        "ws://a:65536/",
        "ws://a:-1/",
        "ws://a:x/",
        "ws://a:٣/",
        "ws://a:80:80/",
        "ws://::1/",
        "ws://[::1/",
        "ws://[x]/",
        "ws://me@you@a/",
        "ws://m%3ae:secret@a/",
        "ws://m%0ae@a/",
        "ws://me:%7f@a/",
        "ws://b\uff0fa.example/",
        "ws://" + "ü" * 80 + ".example/",
        "ws://a/\ud800",
        "ws://\ud800/",
    ],
)
def test_an_invalid_uri_is_a_value_error_that_names_it(uri: str) -> None:
    with pytest.raises(ValueError, match="uri "):
        parse_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "ws://me:secret@a:x/",
        "ws://me:secret@@a/",
        "http://me:secret@a/",
        "ws://me:secret@a/#",
        "ws://me:secret@/",
    ],
)
def test_no_error_and_no_repr_shows_the_password(uri: str) -> None:
    with pytest.raises(ValueError, match="uri ") as caught:
        parse_uri(uri)
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(parse_uri("ws://me:secret@a/"))


@given(st.text() | st.text().map("ws://".__add__) | st.text().map("wss://a/".__add__))
def test_any_text_is_a_value_error_or_makes_a_request(uri: str) -> None:
    try:
        parsed = parse_uri(uri)
    except ValueError:
        return
    made = offer(parsed.host, parsed.port, parsed.secure, parsed.target, Headers(), Options())
    assert made.request.target == parsed.target


@pytest.mark.parametrize("zone", ["%eth0", "%25", "%2", "%25a b", "%25a%20b", "%25eth0%25"])
def test_a_malformed_zone_is_refused(zone):
    with pytest.raises(ValueError, match="uri"):
        parse_uri(f"ws://[fe80::1{zone}]/")


def test_the_text_of_a_uri_has_the_zone_and_the_host_has_not():
    uri = parse_uri("ws://[fe80::1%25eth0]:81/a?b")
    assert (str(uri), uri.host, uri.address) == ("ws://[fe80::1%25eth0]:81/a?...", "fe80::1", "fe80::1%eth0")

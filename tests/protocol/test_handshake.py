from __future__ import annotations

import re
import sys
from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

import endwell
from endwell.errors import (
    BadRequest,
    Forbidden,
    InvalidHandshake,
    MethodNotAllowed,
    RequestRefused,
    UpgradeRequired,
)
from endwell.http import Accept, Headers, Request, Response
from endwell.http.request import take_bearer
from endwell.options import Deflate, Options
from endwell.protocol.handshake import (
    Offer,
    accept,
    confirm,
    offer,
    wants_websocket,
)
from endwell.protocol.hixie import OldAccepted
from endwell.protocol.negotiation import select_subprotocol
from endwell.wire.deflate import PerMessageDeflate
from endwell.wire.head import RequestReader, ResponseReader

PLAIN = Options(compression=None)

#: RFC 6455 §1.3.
SAMPLE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="
SAMPLE_ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

HOSTILE_NAMES = ["constructor", "__class__", "__proto__", "accept", "deflate", "toString"]


def request(
    *more: tuple[str, str],
    without: str = "",
    method: str = "GET",
    version: str = "1.1",
    secure: bool = False,
) -> Request:
    """The example of RFC 6455 §1.2, with fields removed and added."""
    fields = [
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", SAMPLE_KEY),
        ("Sec-WebSocket-Version", "13"),
    ]
    kept = [field for field in fields if field[0] != without]
    return Request(method, "/chat", Headers([*kept, *more]), version, secure=secure)


def test_the_sample_key_of_the_rfc_gives_its_sample_answer() -> None:
    accepted = accept(request(), PLAIN)
    assert accepted.response.serialize() == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + SAMPLE_ACCEPT.encode() + b"\r\n"
        b"\r\n"
    )
    assert (accepted.subprotocol, accepted.deflate) == (None, None)


def test_a_request_without_upgrade_is_for_a_page() -> None:
    assert not wants_websocket(request(without="Upgrade"))
    assert not wants_websocket(request(("Upgrade", "h2c, websockets"), without="Upgrade"))


@pytest.mark.parametrize("value", ["websocket", "WebSocket", "WEBSOCKET", "h2c, WebSocket", "x,websocket ,y"])
def test_upgrade_is_compared_without_case(value: str) -> None:
    asked = request(("Upgrade", value), without="Upgrade")
    assert wants_websocket(asked)
    assert accept(asked, PLAIN).response.status == 101


def test_an_upgrade_in_http_1_0_is_ignored() -> None:
    assert not wants_websocket(request(version="1.0"))


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "CONNECT", "get"])
def test_only_get_opens_a_websocket(method: str) -> None:
    with pytest.raises(MethodNotAllowed):
        accept(request(method=method), PLAIN)


def test_http_1_0_cannot_upgrade() -> None:
    with pytest.raises(BadRequest):
        accept(request(version="1.0"), PLAIN)


def test_a_request_without_upgrade_is_answered_upgrade_required() -> None:
    with pytest.raises(UpgradeRequired) as caught:
        accept(request(without="Upgrade"), PLAIN)
    assert caught.value.response().headers["Upgrade"] == "websocket"


@pytest.mark.parametrize("value", ["Upgrade", "upgrade", "keep-alive, Upgrade", "UPGRADE,close"])
def test_connection_may_list_more_than_upgrade(value: str) -> None:
    assert accept(request(("Connection", value), without="Connection"), PLAIN).response.status == 101


def test_connection_may_span_two_lines() -> None:
    fields = [("Connection", "keep-alive"), ("Connection", "Upgrade")]
    assert accept(request(*fields, without="Connection"), PLAIN).response.status == 101


@pytest.mark.parametrize("value", [None, "", "close", "Upgraded", "keep-alive Upgrade", '"Upgrade"'])
def test_a_connection_without_upgrade_is_refused(value: str | None) -> None:
    fields = [("Connection", value)] if value is not None else []
    with pytest.raises(BadRequest):
        accept(request(*fields, without="Connection"), PLAIN)


@pytest.mark.parametrize("value", [None, "", "8", "12", "14", "013", "+13", "13.0", "13, 8", "\xb9\xb3"])
def test_a_refused_version_is_answered_with_the_supported_one(value: str | None) -> None:
    fields = [("Sec-WebSocket-Version", value)] if value is not None else []
    with pytest.raises(UpgradeRequired) as caught:
        accept(request(*fields, without="Sec-WebSocket-Version"), PLAIN)
    answer = caught.value.response()
    assert answer.status == 426
    assert answer.headers.get_all("Sec-WebSocket-Version") == ["13"]


def test_two_versions_are_refused_even_if_they_are_equal() -> None:
    with pytest.raises(UpgradeRequired):
        accept(request(("Sec-WebSocket-Version", "13")), PLAIN)


@pytest.mark.parametrize(
    "key",
    [
        None,
        "",
        b64encode(bytes(15)).decode(),
        b64encode(bytes(17)).decode(),
        SAMPLE_KEY.rstrip("="),
        SAMPLE_KEY + "=",
        SAMPLE_KEY + "\n",
        " " + SAMPLE_KEY,
        "dGhlIHNhbXBs_SBub25jZQ==",  # the alphabet for URLs
        "dGhl!IHNhbXBsZSBub25jZQ==",
        "\xe9" * 24,
        "x" * 8000,
    ],
)
def test_a_key_that_is_not_the_base64_of_16_bytes_is_refused(key: str | None) -> None:
    asked = request(without="Sec-WebSocket-Key")
    if key is not None:
        # Bypasses Headers.add, which refuses a line feed.
        asked.headers._fields.append(("Sec-WebSocket-Key", key))
    with pytest.raises(BadRequest):
        accept(asked, PLAIN)


@pytest.mark.parametrize(
    ("key", "proof"),
    [
        ("AQIDBAUGBwgJCgsMDQ4PEC==", "OfS0wDaT5NoxF2gqm7Zj2YtetzM="),  # the example of RFC 6455 §4.1
        ("dGhlIHNhbXBsZSBub25jZR==", "Zgw8jYXtqX5qJr7MJ1Q/MqzeSRI="),
    ],
)
def test_unused_bits_of_a_key_may_be_set(key: str, proof: str) -> None:
    accepted = accept(request(("Sec-WebSocket-Key", key), without="Sec-WebSocket-Key"), PLAIN)
    # Computed from the key as received, not from another spelling of its bytes.
    assert accepted.response.headers["Sec-WebSocket-Accept"] == proof


def test_two_keys_are_refused_even_if_they_are_equal() -> None:
    with pytest.raises(BadRequest):
        accept(request(("Sec-WebSocket-Key", SAMPLE_KEY)), PLAIN)


def origin_allowed(origin: str, options: Options, secure: bool = False, host: str = "a.example") -> bool:
    try:
        accept(request(("Origin", origin), ("Host", host), without="Host", secure=secure), options)
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    ("origin", "host", "secure"),
    [
        ("http://a.example", "a.example", False),
        ("HTTP://A.Example", "a.eXample", False),
        ("http://a.example:80", "a.example", False),
        ("http://a.example", "a.example:80", False),
        ("http://a.example:8080", "a.example:8080", False),
        ("https://a.example", "a.example", True),
        ("https://a.example", "a.example:443", True),
        ("http://[::1]:8080", "[::1]:8080", False),
        ("http://[::1]", "[::1]:80", False),
        ("ws://a.example", "a.example", False),
        ("WS://a.example:80", "a.example", False),
        ("ws://a.example:8080", "a.example:8080", False),
        ("wss://a.example", "a.example:443", True),
    ],
)
def test_the_same_origin_is_accepted(origin: str, host: str, secure: bool) -> None:
    assert origin_allowed(origin, PLAIN, secure, host)


@pytest.mark.parametrize(
    ("origin", "host", "secure"),
    [
        ("http://b.example", "a.example", False),
        ("http://a.example.evil", "a.example", False),
        ("http://evil-a.example", "a.example", False),
        ("http://a.example@evil", "a.example", False),
        ("http://sub.a.example", "a.example", False),
        ("https://a.example", "a.example", False),
        ("http://a.example", "a.example", True),
        ("http://a.example:443", "a.example", True),
        ("https://a.example:80", "a.example:80", False),
        ("http://a.example:8080", "a.example", False),
        ("http://a.example", "a.example:8080", False),
        ("http://a.example:", "a.example", False),
        ("http://a.example/", "a.example", False),
        ("ws://b.example", "a.example", False),
        ("wss://a.example", "a.example", False),
        ("ws://a.example", "a.example", True),
        ("wsx://a.example", "a.example", False),
        ("http://a.example http://b.example", "a.example", False),
        ("a.example", "a.example", False),
        ("//a.example", "a.example", False),
        ("null", "a.example", False),
        ("", "a.example", False),
        ("*", "a.example", False),
        ("http://\xe9", "a.example", False),
    ],
)
def test_another_origin_is_refused(origin: str, host: str, secure: bool) -> None:
    assert not origin_allowed(origin, PLAIN, secure, host)
    assert Forbidden("").response().status == 403


def test_a_request_without_origin_is_accepted() -> None:
    assert accept(request(), PLAIN.replace(origins=["https://b.example"])).response.status == 101


def test_listed_origins_replace_the_same_origin_rule() -> None:
    options = PLAIN.replace(
        origins=["https://B.example:443", "chrome-extension://abc", "http://c.example:8080"]
    )
    assert origin_allowed("https://b.Example", options)
    assert origin_allowed("chrome-extension://abc", options)
    assert origin_allowed("http://c.example:8080", options)
    assert not origin_allowed("http://c.example", options)
    assert not origin_allowed("http://b.example", options)
    assert not origin_allowed("null", options)
    assert not origin_allowed("http://a.example", options)


@pytest.mark.parametrize(
    "origin",
    [
        "https://a.example.com",
        "https://A.b.Example.com:443",
        "wss://a.example.com",
        "https://xn--bcher-kva.example.com",
    ],
)
def test_a_wildcard_accepts_every_subdomain(origin: str) -> None:
    assert origin_allowed(origin, PLAIN.replace(origins=["https://*.Example.com"]))


@pytest.mark.parametrize(
    "origin",
    [
        "https://example.com",
        "https://.example.com",
        "https://evilexample.com",
        "https://a.example.com.evil",
        "http://a.example.com",
        "https://a.example.com:8443",
        "https://evil/.example.com",
        "https://evil/a.example.com",
        "https://evil?a.example.com",
        "https://evil#.example.com",
        "https://evil@a.example.com",
        "https://evil:1.example.com",
        "https://evil\\.example.com",
        "https://evil a.example.com",
        "a.example.com",
        "null",
        "*",
        "https://*.example.com",
    ],
)
def test_a_wildcard_accepts_nothing_else(origin: str) -> None:
    assert not origin_allowed(origin, PLAIN.replace(origins=["https://*.example.com"]))


def test_a_wildcard_matches_its_own_port_only() -> None:
    options = PLAIN.replace(origins=["https://*.example.com:8443"])
    assert origin_allowed("https://a.example.com:8443", options)
    assert not origin_allowed("https://a.example.com", options)


def test_a_pattern_must_match_the_whole_origin() -> None:
    options = PLAIN.replace(origins=["http://b.example", re.compile(r"https://(\w+\.)?example\.com(:\d+)?")])
    for origin in ("https://example.com", "https://a.example.com:8443", "http://b.example"):
        assert origin_allowed(origin, options)
    for origin in ("https://a.example.com.evil", "http://evil?https://example.com", "https://b.example"):
        assert not origin_allowed(origin, options)


def test_a_function_receives_the_origin_unchanged() -> None:
    asked = []

    def allowed(origin: str) -> bool:
        asked.append(origin)
        return origin.startswith("https://Good")

    options = PLAIN.replace(origins=allowed)
    assert origin_allowed("https://Good.example", options)
    assert not origin_allowed("http://a.example", options)
    assert accept(request(), options).response.status == 101  # not from a page
    assert asked == ["https://Good.example", "http://a.example"]


@pytest.mark.parametrize("answer", [None, 1, "no"])
def test_a_function_that_returns_no_bool_refuses_every_origin(answer: object) -> None:
    with pytest.raises(TypeError, match="must return True or False"):
        origin_allowed("http://b.example", PLAIN.replace(origins=lambda origin: answer))


def test_a_refused_origin_is_answered_with_the_accepted_ones() -> None:
    for options, detail in (
        (PLAIN, "it is not 'http://server.example.com', the scheme and Host of the request"),
        (PLAIN.replace(origins=["http://b.example"]), "it is not in the option origins"),
    ):
        with pytest.raises(Forbidden) as raised:
            accept(request(("Origin", "http://server.example.com:8080")), options)
        assert raised.value.detail == detail
        assert b"example" not in raised.value.response().serialize()


def test_an_origin_null_must_be_listed() -> None:
    assert origin_allowed("null", PLAIN.replace(origins=["null"]))


def test_an_empty_list_of_origins_accepts_no_page() -> None:
    assert not origin_allowed("http://a.example", PLAIN.replace(origins=[]))


@pytest.mark.parametrize("origin", ["http://b.example", "null", ""])
def test_a_star_accepts_any_origin(origin: str) -> None:
    assert origin_allowed(origin, PLAIN.replace(origins=["*"]))


def test_two_origins_are_refused_even_if_any_is_accepted() -> None:
    fields = [("Origin", "http://a.example")] * 2
    with pytest.raises(BadRequest):
        accept(request(*fields), PLAIN.replace(origins=["*"]))


def test_the_subprotocol_is_chosen_in_the_servers_order() -> None:
    assert select_subprotocol(["a", "b", "c"], ["x", "c", "a"]) == "c"
    assert select_subprotocol(["a"], ["A"]) is None
    assert select_subprotocol([], ["a"]) is None
    assert select_subprotocol(["a"], []) is None


def test_the_subprotocol_is_in_the_answer_once() -> None:
    fields = [("Sec-WebSocket-Protocol", "superchat, chat"), ("Sec-WebSocket-Protocol", "x,,y ,")]
    accepted = accept(request(*fields), PLAIN.replace(subprotocols=["y", "chat"]))
    assert accepted.subprotocol == "y"
    assert accepted.response.headers.get_all("Sec-WebSocket-Protocol") == ["y"]


def test_no_subprotocol_in_common_leaves_the_field_out() -> None:
    accepted = accept(request(("Sec-WebSocket-Protocol", "a")), PLAIN.replace(subprotocols=["b"]))
    assert accepted.subprotocol is None
    assert "Sec-WebSocket-Protocol" not in accepted.response.headers


@pytest.mark.parametrize("value", ["", ",", "a b", "a;b", '"a"', "caf\xe9", "a/b", "a, b(c)", "a\tb"])
def test_malformed_subprotocols_are_a_bad_request(value: str) -> None:
    """websockets #1735: not ASCII, and the server answered 500."""
    with pytest.raises(BadRequest):
        accept(request(("Sec-WebSocket-Protocol", value)), PLAIN.replace(subprotocols=["a"]))


@pytest.mark.parametrize("lines", [["a, a"], ["a", "a"], ["b,a , a", "b"]])
def test_a_subprotocol_may_be_offered_twice(lines: list[str]) -> None:
    fields = [("Sec-WebSocket-Protocol", line) for line in lines]
    accepted = accept(request(*fields), PLAIN.replace(subprotocols=["a"]))
    assert accepted.response.headers.get_all("Sec-WebSocket-Protocol") == ["a"]


def test_compression_is_negotiated() -> None:
    accepted = accept(request(("Sec-WebSocket-Extensions", "x-unknown, permessage-deflate")), Options())
    assert isinstance(accepted.deflate, PerMessageDeflate)
    assert accepted.response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")


def test_without_compression_no_extension_is_negotiated() -> None:
    accepted = accept(request(("Sec-WebSocket-Extensions", "permessage-deflate")), PLAIN)
    assert accepted.deflate is None
    assert "Sec-WebSocket-Extensions" not in accepted.response.headers


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_an_unknown_extension_of_any_name_is_declined(name: str) -> None:
    """npm advisory 550: a server that looked up ``constructor`` crashed."""
    accepted = accept(request(("Sec-WebSocket-Extensions", f"{name}; {name}={name}")), Options())
    assert "Sec-WebSocket-Extensions" not in accepted.response.headers
    assert accepted.deflate is None


@pytest.mark.parametrize("value", ["", "a;", "a b", "a; b=", 'a; b="c', "\xe9", "a; b=\xe9", "(", "=a"])
@pytest.mark.parametrize("options", [PLAIN, Options()])
def test_malformed_extensions_are_a_bad_request(value: str, options: Options) -> None:
    with pytest.raises(BadRequest):
        accept(request(("Sec-WebSocket-Extensions", value)), options)


def test_a_refusal_never_contains_input_of_the_peer() -> None:
    fields = [
        ("Sec-WebSocket-Protocol", "secret"),
        ("Sec-WebSocket-Extensions", "secret; secret"),
        ("Origin", "http://server.example.com"),
        ("Cookie", "secret"),
    ]
    assert b"secret" not in accept(request(*fields), Options(subprotocols=["x"])).response.serialize()
    for field in (
        ("Origin", "secret"),
        ("Sec-WebSocket-Protocol", "secret secret"),
        ("Sec-WebSocket-Extensions", "secret secret"),
        ("Sec-WebSocket-Key", "secret"),
        ("Sec-WebSocket-Version", "secret"),
        ("Connection", "secret"),
        ("Upgrade", "secret"),
    ):
        with pytest.raises(RequestRefused) as caught:
            accept(request(field, without=field[0]), Options())
        assert b"secret" not in caught.value.response().serialize()


def offered(
    host: str = "server.example.com",
    port: int = 80,
    secure: bool = False,
    headers: tuple[tuple[str, str], ...] = (),
    options: Options = PLAIN,
) -> Offer:
    return offer(host, port, secure, "/chat?x=%20", Headers(headers), options)


def test_a_client_request_follows_the_rfc() -> None:
    made = offered(options=PLAIN.replace(subprotocols=["a", "b"]))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert (
        made.request.serialize()
        == (
            "GET /chat?x=%20 HTTP/1.1\r\n"
            "Host: server.example.com\r\n"
            "Upgrade: websocket\r\n"
            "Connection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {made.key}\r\n"
            "Sec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: a, b\r\n"
            f"User-Agent: Python/{python} endwell/{endwell.__version__}\r\n"
            "\r\n"
        ).encode()
    )


def test_each_offer_has_a_new_key_of_16_bytes() -> None:
    keys = {offered().key for _ in range(100)}
    assert len(keys) == 100
    assert {len(b64decode(key, validate=True)) for key in keys} == {16}


@pytest.mark.parametrize(
    ("host", "port", "secure", "expected"),
    [
        ("a", 80, False, "a"),
        ("a", 443, True, "a"),
        ("a", 443, False, "a:443"),
        ("a", 80, True, "a:80"),
        ("127.0.0.1", 8080, False, "127.0.0.1:8080"),
        ("::1", 80, False, "[::1]"),
        ("::1", 8080, True, "[::1]:8080"),
    ],
)
def test_host_has_the_port_unless_it_is_the_default(
    host: str, port: int, secure: bool, expected: str
) -> None:
    made = offered(host, port, secure)
    assert made.request.headers.get_all("Host") == [expected]
    assert made.request.secure is secure


def test_additional_headers_are_sent_and_may_replace_host_and_user_agent() -> None:
    more = (
        ("host", "virtual.example"),
        ("user-agent", "me/1"),
        ("Origin", "http://a"),
        ("Authorization", "Basic eDp5"),
        ("Cookie", "a=b"),
        ("Cookie", "c=d"),
    )
    headers = offered(headers=more).request.headers
    assert headers.get_all("Host") == ["virtual.example"]
    assert headers.get_all("User-Agent") == ["me/1"]
    assert headers.get_all("Cookie") == ["a=b", "c=d"]
    assert next(iter(headers)) == ("Host", "virtual.example")


@pytest.mark.parametrize(
    "name",
    [
        "upgrade",
        "Connection",
        "Sec-WebSocket-Key",
        "SEC-WEBSOCKET-VERSION",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "Content-Length",
        "Transfer-Encoding",
    ],
)
def test_a_handshake_header_cannot_be_given(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        offered(headers=((name, "x"),))


def test_two_hosts_cannot_be_given() -> None:
    with pytest.raises(ValueError, match="Host"):
        offered(headers=(("Host", "a"), ("host", "a")))


@pytest.mark.parametrize("target", ["", "chat", "*", "/a b", "/a\r\nX: y", "/a#b", "/é", "/\x7f", "/\0"])
def test_a_target_that_would_break_the_request_line_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="target"):
        offer("a", 80, False, target, Headers(), PLAIN)


def test_a_host_with_control_characters_is_refused() -> None:
    with pytest.raises(ValueError, match="Host"):
        offer("a\r\nX: y", 80, False, "/", Headers(), PLAIN)


@pytest.mark.parametrize("names", [["a", "a"], ["a b"], [""], ["é"], ["a,b"]])
def test_subprotocols_that_are_not_distinct_tokens_cannot_be_offered(names: list[str]) -> None:
    with pytest.raises(ValueError, match="subprotocols"):
        offered(options=PLAIN.replace(subprotocols=names))


def test_compression_is_offered_unless_disabled() -> None:
    made = offered(options=Options())
    assert made.request.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
    assert "Sec-WebSocket-Extensions" not in offered().request.headers


SAMPLE = Offer(request(), SAMPLE_KEY, PLAIN.replace(subprotocols=["chat", "superchat"]))


def answer(*more: tuple[str, str], without: str = "") -> Response:
    fields = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", SAMPLE_ACCEPT),
    ]
    return Response(101, Headers([*(field for field in fields if field[0] != without), *more]))


def test_the_sample_answer_of_the_rfc_is_accepted() -> None:
    response = answer(("Sec-WebSocket-Protocol", "chat"))
    accepted = confirm(SAMPLE, response)
    assert (accepted.response, accepted.subprotocol, accepted.deflate) == (response, "chat", None)


@pytest.mark.parametrize(
    "field",
    [("Upgrade", "WebSocket"), ("Connection", "upgrade"), ("Connection", "keep-alive, UPGRADE")],
)
def test_tokens_of_the_response_are_case_insensitive(field: tuple[str, str]) -> None:
    assert confirm(SAMPLE, answer(field, without=field[0])).subprotocol is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Upgrade", None),
        ("Upgrade", ""),
        ("Upgrade", "h2c"),
        ("Upgrade", "websocket, h2c"),
        ("Connection", None),
        ("Connection", "close"),
        ("Connection", "Upgraded"),
        ("Sec-WebSocket-Accept", None),
        ("Sec-WebSocket-Accept", ""),
        ("Sec-WebSocket-Accept", SAMPLE_ACCEPT.lower()),
        ("Sec-WebSocket-Accept", SAMPLE_KEY),
        ("Sec-WebSocket-Accept", SAMPLE_ACCEPT[:-1]),
        ("Sec-WebSocket-Accept", "\xe9" * 28),
    ],
)
def test_a_response_with_a_missing_or_wrong_field_fails(name: str, value: str | None) -> None:
    more = [(name, value)] if value is not None else []
    with pytest.raises(InvalidHandshake, match=name):
        confirm(SAMPLE, answer(*more, without=name))


@pytest.mark.parametrize("field", [("Upgrade", "websocket"), ("Sec-WebSocket-Accept", SAMPLE_ACCEPT)])
def test_a_response_with_a_repeated_field_fails(field: tuple[str, str]) -> None:
    with pytest.raises(InvalidHandshake, match=field[0]):
        confirm(SAMPLE, answer(field))


@pytest.mark.parametrize("value", ["other", "Chat", "chat, superchat", "", "caf\xe9", *HOSTILE_NAMES])
def test_a_subprotocol_that_was_not_offered_fails(value: str) -> None:
    with pytest.raises(InvalidHandshake, match="subprotocol"):
        confirm(SAMPLE, answer(("Sec-WebSocket-Protocol", value)))


def test_a_repeated_subprotocol_fails() -> None:
    fields = [("Sec-WebSocket-Protocol", "chat")] * 2
    with pytest.raises(InvalidHandshake, match="Sec-WebSocket-Protocol"):
        confirm(SAMPLE, answer(*fields))


def test_a_long_hostile_subprotocol_is_truncated_and_escaped() -> None:
    with pytest.raises(InvalidHandshake) as caught:
        confirm(SAMPLE, answer(("Sec-WebSocket-Protocol", "\x1b[2J" * 1000)))
    assert len(str(caught.value)) < 500
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("compression", [None, Deflate()])
@pytest.mark.parametrize("name", ["x-webkit-deflate-frame", *HOSTILE_NAMES])
def test_an_extension_that_was_not_offered_fails(compression: Deflate | None, name: str) -> None:
    made = Offer(request(), SAMPLE_KEY, Options(compression=compression))
    with pytest.raises(InvalidHandshake):
        confirm(made, answer(("Sec-WebSocket-Extensions", name)))


def test_compression_that_was_not_offered_fails() -> None:
    with pytest.raises(InvalidHandshake):
        confirm(SAMPLE, answer(("Sec-WebSocket-Extensions", "permessage-deflate")))


@pytest.mark.parametrize("value", ["", "permessage-deflate;", "\xe9", "permessage-deflate; x"])
def test_malformed_extensions_in_a_response_fail(value: str) -> None:
    made = Offer(request(), SAMPLE_KEY, Options())
    with pytest.raises(InvalidHandshake):
        confirm(made, answer(("Sec-WebSocket-Extensions", value)))


def test_offered_compression_may_be_accepted_or_declined() -> None:
    made = Offer(request(), SAMPLE_KEY, Options())
    agreed = confirm(made, answer(("Sec-WebSocket-Extensions", "permessage-deflate")))
    assert isinstance(agreed.deflate, PerMessageDeflate)
    assert confirm(made, answer()).deflate is None


@pytest.mark.parametrize("options", [PLAIN, Options(), Options(subprotocols=["b", "a"])])
@pytest.mark.parametrize("secure", [False, True])
def test_server_and_client_handshakes_are_compatible(options: Options, secure: bool) -> None:
    port = 8443
    origin = f"{'https' if secure else 'http'}://a.example:{port}"
    made = offer("a.example", port, secure, "/x?y", Headers({"Origin": origin}), options)
    asked = RequestReader(options).receive(made.request.serialize())
    assert asked is not None
    served = accept(Request(asked.method, asked.target, asked.headers, secure=secure), options)
    response = ResponseReader(options).receive(served.response.serialize())
    assert response is not None
    agreed = confirm(made, response)
    assert (
        agreed.subprotocol
        == served.subprotocol
        == (options.subprotocols[0] if options.subprotocols else None)
    )
    assert (agreed.deflate is None) == (served.deflate is None) == (options.compression is None)


LATIN_1 = st.characters(max_codepoint=255, exclude_characters="\r\n\0")
VALUES = st.text(LATIN_1, max_size=30) | st.sampled_from(
    ["websocket", "Upgrade", "13", SAMPLE_KEY, SAMPLE_ACCEPT, "chat", "permessage-deflate", "null", "*"]
)
NAMES = st.sampled_from(
    [
        "Host",
        "Upgrade",
        "Connection",
        "Origin",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
    ]
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=6)
OPTIONS = st.sampled_from([Options(), PLAIN, Options(subprotocols=["chat"], origins=["null"])])


@given(FIELDS, NAMES | st.just(""), OPTIONS)
def test_any_request_is_accepted_or_raises_request_refused(
    fields: list[tuple[str, str]], without: str, options: Options
) -> None:
    try:
        response = accept(request(*fields, without=without), options).response
    except RequestRefused as error:
        response = error.response()
    assert response.status == 101 or 400 <= response.status < 500


@given(FIELDS, NAMES | st.just(""), OPTIONS)
def test_any_response_is_accepted_or_raises_invalid_handshake(
    fields: list[tuple[str, str]], without: str, options: Options
) -> None:
    try:
        accepted = confirm(Offer(request(), SAMPLE_KEY, options), answer(*fields, without=without))
    except InvalidHandshake:
        return
    assert accepted.subprotocol in (None, "chat")


def test_the_proof_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(proof: bytes, expected: bytes) -> bool:
        compared.append((proof, expected))
        return proof == expected

    monkeypatch.setattr("endwell.protocol.handshake.hmac.compare_digest", compare)
    confirm(SAMPLE, answer())
    assert compared == [(SAMPLE_ACCEPT.encode(), SAMPLE_ACCEPT.encode())]


# --- what the application adds ------------------------------------------------


def test_an_application_adds_fields_and_chooses_an_offered_subprotocol() -> None:
    opening = request(("Sec-WebSocket-Protocol", "a, b"))
    accepted = accept(opening, Options(subprotocols=["a"]))
    assert not accepted.add(opening, Accept())
    assert accepted.add(opening, Accept(subprotocol="b", headers=[("X", "1"), ("X", "2")]))
    assert accepted.subprotocol == "b"
    assert accepted.response.headers.get_all("Sec-WebSocket-Protocol") == ["b"]
    assert accepted.response.headers.get_all("X") == ["1", "2"]
    with pytest.raises(ValueError, match="does not offer the subprotocol 'c'"):
        accepted.add(opening, Accept(subprotocol="c"))


# --- tokens -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "selected", "answered"),
    [("endwell.bearer", None, "endwell.bearer"), ("endwell.bearer, a", "a", "a"), ("b", None, None)],
)
def test_the_answer_selects_the_mark_of_tokens_if_nothing_else(
    names: str, selected: str | None, answered: str | None
) -> None:
    opening = request(("Sec-WebSocket-Protocol", names))
    take_bearer(opening)
    accepted = accept(opening, Options(subprotocols=["a"]))
    assert accepted.response.headers.get("Sec-WebSocket-Protocol") == answered
    assert (accepted.subprotocol, accepted.bearer) == (selected, "bearer" in names)


def test_the_mark_in_an_answer_is_no_subprotocol() -> None:
    response = answer(("Sec-WebSocket-Protocol", "endwell.bearer"))
    assert confirm(Offer(request(), SAMPLE_KEY, PLAIN, bearer=True), response).subprotocol is None
    with pytest.raises(InvalidHandshake, match="was not offered"):
        confirm(SAMPLE, response)


def test_a_client_that_can_send_new_tokens_offers_the_mark_last() -> None:
    options = PLAIN.replace(subprotocols=["chat"])
    made = offer("a", 80, False, "/", Headers(), options, bearer=True)
    assert made.request.headers.list_of("Sec-WebSocket-Protocol") == ["chat", "endwell.bearer"]


def test_an_application_chooses_an_offered_subprotocol_of_hixie_75() -> None:
    opening = Request("GET", "/", Headers([("Host", "a"), ("WebSocket-Protocol", "b")]))
    answered = Response(101, {"WebSocket-Protocol": "a"})
    accepted = OldAccepted(answered, "a", "hixie-75")
    assert accepted.add(opening, Accept(subprotocol="b"))
    assert list(accepted.response.headers) == [("WebSocket-Protocol", "b")]
    with pytest.raises(ValueError, match="does not offer the subprotocol 'c'"):
        accepted.add(opening, Accept(subprotocol="c"))

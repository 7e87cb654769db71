from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from httptools import HttpParserUpgrade, HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st

from endwell.errors import (
    BadRequest,
    BodyTooLarge,
    HeadTooLarge,
    InvalidHandshake,
    RequestRefused,
    UnknownMethod,
)
from endwell.http import Request, Response
from endwell.http.headers import is_plain, octets_of
from endwell.options import Options
from endwell.wire.head import RequestReader, ResponseReader

OPTIONS = Options()

UPGRADE = (
    b"GET /chat?room=1 HTTP/1.1\r\n"
    b"Host: server.example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)

SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"\r\n"
)


def request(*lines: bytes, first: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    fields = [host, *lines] if host else lines
    return b"".join(line + b"\r\n" for line in (first, *fields, b""))


def answer(*lines: bytes, first: bytes = b"HTTP/1.1 403 Forbidden", body: bytes = b"") -> bytes:
    return b"".join(line + b"\r\n" for line in (first, *lines, b"")) + body


def read_request(data: bytes, options: Options = OPTIONS) -> Request:
    read = RequestReader(options).receive(data)
    assert read is not None
    return read


def read_answer(data: bytes, options: Options = OPTIONS) -> Response | None:
    return ResponseReader(options).receive(data)


def octets(data: bytes) -> list[bytes]:
    return [bytes([octet]) for octet in data]


def pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


def outcome(reader: RequestReader | ResponseReader, parts: Iterable[bytes]) -> object:
    """The result of the reader for ``parts``, and the rest that it did not consume."""
    result: Request | Response | None = None
    rest = b""
    for part in parts:
        if result is not None:
            rest += part
            continue
        try:
            result = reader.receive(part)
        except (RequestRefused, InvalidHandshake) as error:
            return type(error)
        if result is not None:
            rest = reader.rest
    return result, rest


def test_a_request_is_read_with_its_fields_in_order() -> None:
    read = read_request(UPGRADE)
    assert (read.method, read.target, read.version) == ("GET", "/chat?room=1", "1.1")
    assert [name for name, _ in read.headers] == [
        "Host",
        "Upgrade",
        "Connection",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
    ]


def test_a_request_can_come_octet_by_octet() -> None:
    reader = RequestReader(OPTIONS)
    for octet in UPGRADE[:-1]:
        assert reader.receive(bytes([octet])) is None
    read = reader.receive(UPGRADE[-1:])
    assert read == read_request(UPGRADE)
    assert reader.rest == b""


def test_early_frames_are_returned_as_the_rest() -> None:
    reader = RequestReader(OPTIONS)
    assert reader.receive(UPGRADE[:20]) is None
    assert reader.rest == b""
    assert reader.receive(UPGRADE[20:] + b"\x81\x80\r\n\r\n") is not None
    assert reader.rest == b"\x81\x80\r\n\r\n"


def test_octets_outside_ascii_in_a_value_are_latin_1() -> None:
    high = bytes(range(0x80, 0x100))
    assert read_request(request(b"X: " + high)).headers["X"] == high.decode("latin-1")


def test_white_space_around_a_value_is_stripped() -> None:
    headers = read_request(request(b"A: \t b c \t ", b"B:", b"C:  ", b"D:e")).headers
    assert [value for _, value in headers] == ["a", "b c", "", "", "e"]


def test_repeated_fields_are_kept() -> None:
    assert read_request(request(b"X: 1", b"x: 2")).headers.get_all("X") == ["1", "2"]


def test_empty_lines_before_the_request_are_ignored() -> None:
    assert read_request(b"\r\n\r\n" + UPGRADE) == read_request(UPGRADE)


def test_a_request_of_http_1_0_needs_no_host() -> None:
    read = read_request(request(first=b"GET / HTTP/1.0", host=b""))
    assert read.version == "1.0"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\n\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\n\nHost: a\n\n",
    ],
)
def test_a_bare_lf_is_refused(head: bytes) -> None:
    with pytest.raises(BadRequest):
        RequestReader(OPTIONS).receive(head)


@pytest.mark.parametrize(
    "head",
    [
        request(b"X: a\rb"),
        request(b"X: a\r"),
        request(b"\rX: a"),
        request(first=b"GET /\r HTTP/1.1"),
        b"\r\r\n" + UPGRADE,
    ],
)
def test_a_bare_cr_is_refused(head: bytes) -> None:
    with pytest.raises(BadRequest):
        RequestReader(OPTIONS).receive(head)


@pytest.mark.parametrize("fold", [b" b", b"\tb", b" ", b" X: b"])
def test_a_folded_line_is_refused(fold: bytes) -> None:
    with pytest.raises(BadRequest):
        RequestReader(OPTIONS).receive(request(b"X: a", fold))
    with pytest.raises(BadRequest):
        RequestReader(OPTIONS).receive(request(fold, host=b""))


@pytest.mark.parametrize(
    "line", [b"X : a", b"X\t: a", b": a", b"X", b"X\xe9: a", b"X Y: a", b"(X): a", b'"X": a', b"X\0: a"]
)
def test_a_field_name_that_is_no_token_before_its_colon_is_refused(line: bytes) -> None:
    with pytest.raises(BadRequest):
        RequestReader(OPTIONS).receive(request(line))


@pytest.mark.parametrize("octet", [bytes([n]) for n in (*range(9), 11, 12, *range(14, 32), 127)])
def test_a_control_character_in_a_value_is_refused(octet: bytes) -> None:
    with pytest.raises(BadRequest):
        RequestReader(OPTIONS).receive(request(b"X: a" + octet + b"b"))


@pytest.mark.parametrize(
    "line",
    [
        b"GET /",
        b"GET  / HTTP/1.1",
        b"GET /  HTTP/1.1",
        b" GET / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET\t/ HTTP/1.1",
        b"GET /\tx HTTP/1.1",
        b"GET / HTTP/0.9",
        b"GET / HTTP/1.2",
        b"GET / HTTP/2.0",
        b"GET / http/1.1",
        b"GET / HTTP/1.1x",
        b"GET / RTSP/1.0",
        b"SOURCE / ICE/1.0",
        b"PRI * HTTP/2.0",
        b"PRI * HTTP/1.1",
        b"G{T / HTTP/1.1",
        b" / HTTP/1.1",
        b"GET /\xe9 HTTP/1.1",
        b"GET /\x01 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /\0 HTTP/1.1",
        b"\x16\x03\x01\x02\0\x01 \x01 \xfc",
    ],
)
def test_a_malformed_request_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadRequest):
        RequestReader(OPTIONS).receive(request(first=line))


@pytest.mark.parametrize("method", [b"FOO", b"get", b"GETS", b"__class__"])
def test_an_unknown_method_is_not_implemented(method: bytes) -> None:
    with pytest.raises(UnknownMethod):
        RequestReader(OPTIONS).receive(request(first=method + b" / HTTP/1.1"))


@pytest.mark.parametrize(
    "target", [b"*", b"a:80", b"a", b"?q", b"ftp://a/", b"://a/", b"/a#b", b"http://a/#b"]
)
def test_a_target_that_is_neither_path_nor_http_uri_is_refused(target: bytes) -> None:
    for method in (b"GET", b"OPTIONS", b"CONNECT"):
        with pytest.raises(BadRequest):
            RequestReader(OPTIONS).receive(request(first=method + b" " + target + b" HTTP/1.1"))


@pytest.mark.parametrize(
    ("target", "expected", "host"),
    [
        (b"http://b.example:81/c?d=/e", "/c?d=/e", "b.example:81"),
        (b"HTTPS://b.example", "/", "b.example"),
        (b"ws://b.example?c", "/?c", "b.example"),
        (b"wss://[::1]:1/", "/", "[::1]:1"),
    ],
)
def test_an_absolute_target_becomes_a_path_and_its_authority_the_host(
    target: bytes, expected: str, host: str
) -> None:
    read = read_request(request(b"X: 1", first=b"GET " + target + b" HTTP/1.1", host=b"HOST: a"))
    assert read.target == expected
    assert list(read.headers) == [("Host", host), ("X", "1")]


@pytest.mark.parametrize(
    "target", [b"http://user@b/", b"http:///", b"http://?x", b"http://b:x/", b"http://[::1/"]
)
def test_an_absolute_target_with_a_malformed_authority_is_refused(target: bytes) -> None:
    with pytest.raises(BadRequest):
        RequestReader(OPTIONS).receive(request(first=b"GET " + target + b" HTTP/1.1"))


def test_an_absolute_target_does_not_excuse_a_missing_host() -> None:
    with pytest.raises(BadRequest):
        RequestReader(OPTIONS).receive(request(first=b"GET http://b/ HTTP/1.1", host=b""))


def test_a_missing_host_is_refused() -> None:
    with pytest.raises(BadRequest):
        RequestReader(OPTIONS).receive(request(host=b""))


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_two_hosts_are_refused_even_if_they_are_equal(version: bytes) -> None:
    with pytest.raises(BadRequest):
        RequestReader(OPTIONS).receive(request(b"host: a", first=b"GET / HTTP/" + version))


@pytest.mark.parametrize(
    "host", [b"", b"a b", b"a, b", b"a/b", b"user@a", b"a:b", b"a:99999", b"\xe9", b"[::1"]
)
def test_a_malformed_host_is_refused(host: bytes) -> None:
    with pytest.raises(BadRequest):
        RequestReader(OPTIONS).receive(request(host=b"Host: " + host))


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    "line",
    [
        b"Content-Length: 1",
        b"Content-Length: 00",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: xchunked",
        b"transfer-encoding: identity",
    ],
)
def test_a_body_on_an_upgrade_is_too_large(method: bytes, line: bytes) -> None:
    more = (b"Connection: Upgrade", b"Upgrade: websocket")
    with pytest.raises(BodyTooLarge):
        RequestReader(OPTIONS).receive(request(line, *more, first=method + b" / HTTP/1.1"))


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_a_get_may_have_a_body_with_an_unambiguous_length(method: bytes) -> None:
    for line, has_body in (
        (b"X: y", False),
        (b"Content-Length: 0", False),
        (b"Content-Length: 5", True),
        (b"Transfer-Encoding: chunked", True),
    ):
        reader = RequestReader(OPTIONS)
        assert reader.receive(request(line, first=method + b" / HTTP/1.1") + b"hello") is not None
        assert (reader.has_body, reader.rest) == (has_body, b"hello")
    for line in (b"Transfer-Encoding: xchunked", b"transfer-encoding: identity", b"Content-Length: +5"):
        with pytest.raises(BadRequest):
            RequestReader(OPTIONS).receive(request(line, first=method + b" / HTTP/1.1"))


def test_a_content_length_of_0_is_no_body() -> None:
    assert read_request(request(b"Content-Length: 0")).headers["Content-Length"] == "0"


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 0", b"Content-Length: 0"],
        [b"Content-Length: 0, 0"],
        [b"Content-Length: +1"],
        [b"Content-Length: -1"],
        [b"Content-Length: 1 1"],
        [b"Content-Length: "],
        [b"Content-Length: 99999999999999999999999"],
        [b"Content-Length: 1", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: chunked", b"Content-Length: 1"],
    ],
)
def test_an_ambiguous_length_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(RequestRefused) as caught:
        RequestReader(OPTIONS).receive(request(*lines))
    assert caught.value.status in (400, 413)


@pytest.mark.parametrize("line", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_the_head_of_another_method_is_returned_without_its_body(line: bytes) -> None:
    reader = RequestReader(OPTIONS)
    read = reader.receive(request(line, first=b"POST / HTTP/1.1") + b"hello")
    assert read is not None
    assert read.method == "POST"
    assert reader.rest == b"hello"


def test_a_refusal_never_repeats_input_of_the_peer() -> None:
    for head in (
        request(b"SECRET : x"),
        request(host=b"Host: SECRET SECRET"),
        request(first=b"SECRET / HTTP/1.1"),
        request(first=b"GET SECRET HTTP/1.1"),
        request(first=b"GET / SECRET"),
    ):
        with pytest.raises(RequestRefused) as caught:
            RequestReader(OPTIONS).receive(head)
        assert b"SECRET" not in caught.value.response().serialize()


def feed_request(data: bytes, options: Options) -> object:
    return outcome(RequestReader(options), [data])


def feed_answer(data: bytes, options: Options) -> object:
    return outcome(ResponseReader(options), [data])


def drip_request(data: bytes, options: Options) -> object:
    return outcome(RequestReader(options), octets(data))


def drip_answer(data: bytes, options: Options) -> object:
    return outcome(ResponseReader(options), octets(data))


ROLES = pytest.mark.parametrize(
    ("feed", "head", "error"),
    [
        (feed_request, request, HeadTooLarge),
        (drip_request, request, HeadTooLarge),
        (feed_answer, answer, InvalidHandshake),
        (drip_answer, answer, InvalidHandshake),
    ],
)


@ROLES
def test_a_line_may_have_at_most_max_line_octets(
    feed: Callable[[bytes, Options], object], head: Callable[..., bytes], error: type[Exception]
) -> None:
    options = Options(max_line=100)
    last = b"Content-Length: 0"
    assert isinstance(feed(head(b"X: " + b"a" * 97, last), options), tuple)
    assert feed(head(b"X: " + b"a" * 98, last), options) is error


@ROLES
def test_a_head_may_have_at_most_max_headers_fields(
    feed: Callable[[bytes, Options], object], head: Callable[..., bytes], error: type[Exception]
) -> None:
    fields = [b"Content-Length: 0", *([b"X: 1"] * 6)]
    count = head(*fields).count(b"\r\n") - 2
    assert isinstance(feed(head(*fields), Options(max_headers=count)), tuple)
    assert feed(head(*fields), Options(max_headers=count - 1)) is error


@ROLES
def test_a_head_may_have_at_most_max_head_octets(
    feed: Callable[[bytes, Options], object], head: Callable[..., bytes], error: type[Exception]
) -> None:
    data = head(b"Content-Length: 0", b"X: " + b"a" * 50)
    assert isinstance(feed(data, Options(max_head=len(data))), tuple)
    assert isinstance(feed(data + b"frames", Options(max_head=len(data))), tuple)
    assert feed(data, Options(max_head=len(data) - 1)) is error


@pytest.mark.parametrize("reader", [RequestReader, ResponseReader])
def test_a_limit_applies_before_the_line_or_the_head_ends(
    reader: type[RequestReader | ResponseReader],
) -> None:
    for options in (Options(max_line=100), Options(max_head=102)):
        read = reader(options)
        assert read.receive(b"HTTP/" + b"G" * 97) is None
        with pytest.raises((HeadTooLarge, InvalidHandshake)):
            read.receive(b"G")


@pytest.mark.parametrize("most", [sys.maxsize, sys.maxsize - 1])
def test_the_largest_limits_accept_everything(most: int) -> None:
    options = Options(max_line=most, max_head=most, max_headers=most)
    for parts in ([UPGRADE], octets(UPGRADE)):
        assert isinstance(outcome(RequestReader(options), parts), tuple)


def test_any_split_of_the_octets_names_the_same_limit() -> None:
    # The line exceeds its limit before the head does.
    data = request(b"X: " + b"a" * 400)
    for parts in ([data], octets(data)):
        reader = RequestReader(Options(max_line=100, max_head=300))
        with pytest.raises(HeadTooLarge, match=r"^a line of the head is above 100 bytes$"):
            list(map(reader.receive, parts))


def test_empty_lines_before_the_request_count_against_max_head() -> None:
    with pytest.raises(HeadTooLarge):
        RequestReader(OPTIONS).receive(b"\r\n" * (OPTIONS.max_head // 2 + 1))


class Counted(bytearray):
    """Counts the octets that are searched."""

    searched = 0

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        self.searched += (len(self) if end is None else end) - start
        return super().find(sub, start, end)


@pytest.mark.parametrize("reader", [RequestReader, ResponseReader])
def test_a_head_octet_by_octet_takes_linear_time(
    reader: type[RequestReader | ResponseReader],
) -> None:
    """CVE-2023-43669: parsing from the start at each read is quadratic."""
    read = reader(Options(max_line=5000, max_head=10000))
    assert read.receive(b"") is None
    buffer = read._head._buffer = Counted()
    for octet in octets(b"HTTP/" + b"G" * 4995 + b"\r\n" + b"X: 1\r\n" * 100):
        assert read.receive(octet) is None
    # Each octet once for LF, and once more, with its line, for CR.
    assert 0 < buffer.searched <= 2 * len(buffer)


@pytest.mark.parametrize("parts", [lambda data: [data], octets], ids=["whole", "octet by octet"])
@pytest.mark.parametrize(
    ("lines", "value"),
    [
        ((b"X: a", b" b"), "a b"),
        ((b"X: a", b"\tb"), "a b"),
        ((b"X: a \t", b" \t b", b"  c"), "a b c"),
        ((b"X:", b" b"), "b"),
        ((b"X: a", b" "), "a"),
        ((b"X: a", b" Y: b"), "a Y: b"),
    ],
)
def test_a_folded_line_of_a_response_is_unfolded(
    lines: tuple[bytes, ...], value: str, parts: Callable[[bytes], list[bytes]]
) -> None:
    """RFC 9112 §5.2: a user agent replaces each obs-fold by spaces."""
    reader, read = ResponseReader(OPTIONS), None
    for part in parts(answer(b"Content-Length: 0", *lines, b"Z: 1")):
        read = reader.receive(part)
    assert read is not None
    assert (read.status, read.headers["X"], read.headers["Z"]) == (403, value, "1")


@pytest.mark.parametrize(
    ("start", "hint"),
    [
        (b"\x15\x03\x01\x00\x02\x02\x46", "this looks like TLS: use wss://"),
        (b"\x16\x03\x03", "this looks like TLS: use wss://"),
        (b"SSH-2.0-OpenSSH_9.2", "this looks like SSH"),
        (b"\r\n\r\n220 smtp", "220 smtp"),
        (b"HTTX", "HTTX"),
        (b"-", "b'-'"),
    ],
)
def test_a_response_of_another_protocol_is_refused_at_its_first_octets(start: bytes, hint: str) -> None:
    for parts in ([start], octets(start)):
        assert outcome(ResponseReader(OPTIONS), parts) is InvalidHandshake
    with pytest.raises(InvalidHandshake, match=re.escape(hint)):
        ResponseReader(OPTIONS).receive(start)


class Witness:
    """The result of llhttp for a head."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[str, str]] = []
        self.headed = False

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.decode("latin-1"), value.decode("latin-1").rstrip(" \t")))

    def on_headers_complete(self) -> None:
        self.headed = True


@given(
    st.sampled_from(
        [UPGRADE, request(b"X:y", b"Content-Length: 0"), request(b"Cookie: a=\xe9; b", b"x: \t")]
    ),
    st.lists(
        st.tuples(
            st.integers(0, 400),
            st.booleans(),
            st.one_of(
                st.binary(max_size=2), st.sampled_from([b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b"\r\n "])
            ),
        ),
        max_size=3,
    ),
)
def test_llhttp_accepts_and_reads_accepted_heads_alike(
    head: bytes, edits: list[tuple[int, bool, bytes]]
) -> None:
    data = bytearray(head)
    for place, inserted, octets in edits:
        at = place % (len(data) + 1)
        data[at : at + (not inserted)] = octets
    reader = RequestReader(OPTIONS)
    try:
        read = reader.receive(bytes(data))
    except RequestRefused:
        return
    if read is None:
        return
    witness = Witness()
    with suppress(HttpParserUpgrade):
        HttpRequestParser(witness).feed_data(data[: len(data) - len(reader.rest)])
    assert witness.headed
    if witness.target.startswith(b"/"):
        assert (read.target, list(read.headers)) == (witness.target.decode(), witness.fields)


def test_a_101_ends_with_its_head_and_frames_are_the_rest() -> None:
    reader = ResponseReader(OPTIONS)
    assert reader.receive(SWITCHED[:-1]) is None
    read = reader.receive(SWITCHED[-1:] + b"\x81\x02hi")
    assert read is not None
    assert (read.status, read.body, reader.rest) == (101, b"", b"\x81\x02hi")
    assert read.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    "fields", [[], [b"Upgrade: websocket"], [b"Content-Length: 5"], [b"Connection: close"]]
)
def test_a_101_without_upgrade_is_parsed(fields: list[bytes]) -> None:
    read = read_answer(answer(*fields, first=b"HTTP/1.1 101"))
    assert read is not None
    assert read.status == 101


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (answer(b"Content-Length: 5", body=b"hello"), b"hello"),
        (answer(b"Content-Length: 5", body=b"hello" + SWITCHED), b"hello"),
        (answer(b"Content-Length: 5", body=b"hello" + answer(b"Content-Length: 1", body=b"x")), b"hello"),
        (answer(b"Content-Length: 5", b"Connection: close", body=b"hello junk"), b"hello"),
        (answer(b"Content-Length: 0", body=b"junk"), b""),
        (answer(first=b"HTTP/1.1 204 No Content", body=b"junk"), b""),
        (
            answer(b"Transfer-Encoding: chunked", body=b"2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: r\r\n\r\n"),
            b"hello",
        ),
        (answer(b"Content-Length: 5", first=b"HTTP/1.0 403", body=b"hello"), b"hello"),
        (
            answer(b"Upgrade: websocket", b"Connection: Upgrade", b"Content-Length: 5", body=b"hello"),
            b"hello",
        ),
    ],
)
def test_a_refusal_is_complete_with_its_body(data: bytes, body: bytes) -> None:
    for parts in ([data], octets(data)):
        result, _ = outcome(ResponseReader(OPTIONS), parts)  # type: ignore[misc]
        assert result is not None
        assert result.body == body
        assert "T" not in result.headers


@pytest.mark.parametrize(
    "data",
    [
        answer(b"X: 1", body=b"hello"),
        answer(b"Transfer-Encoding: gzip", body=b"hello"),
        answer(b"Content-Length: 6", body=b"hello"),
        answer(b"Transfer-Encoding: gzip, Chunked", body=b"5\r\nhello\r\n"),
        answer(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n"),
    ],
)
def test_a_refusal_whose_end_is_missing_is_told_with_the_body_that_has_arrived(data: bytes) -> None:
    for parts in ([data], octets(data)):
        reader = ResponseReader(OPTIONS)
        assert not reader.refuses()
        assert outcome(reader, parts) == (None, b"")
        assert reader.refuses()
        read = reader.partial()
        assert read is not None
        assert (read.status, read.body) == (403, b"hello")


def test_a_refusal_whose_body_is_malformed_is_told_with_the_part_before() -> None:
    reader = ResponseReader(OPTIONS)
    with pytest.raises(InvalidHandshake, match="the response's body is malformed"):
        reader.receive(answer(b"Transfer-Encoding: chunked", body=b"2\r\nhi\r\nno size\r\n"))
    read = reader.partial()
    assert read is not None
    assert (read.status, read.body) == (403, b"hi")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 403 F\r\nX: 1\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 4",
    ],
)
def test_a_response_with_an_incomplete_head_is_no_refusal(data: bytes) -> None:
    reader = ResponseReader(OPTIONS)
    assert reader.receive(data) is None
    assert not reader.refuses()
    assert reader.partial() is None


def test_a_body_is_kept_up_to_max_refusal() -> None:
    options = Options(max_refusal=5)
    exact = read_answer(answer(b"Content-Length: 5", body=b"hello"), options)
    longer = read_answer(answer(b"Content-Length: 6", body=b"hello!"), options)
    endless = read_answer(answer(body=b"hello!"), options)
    for read in (exact, longer, endless):
        assert read is not None
        assert read.body == b"hello"
    assert read_answer(answer(b"Content-Length: 5", body=b"hell"), options) is None


def test_a_max_refusal_of_0_keeps_no_body() -> None:
    read = read_answer(answer(b"Content-Length: 5"), Options(max_refusal=0))
    assert read is not None
    assert (read.status, read.body) == (403, b"")


def test_chunk_extensions_and_trailers_are_limited() -> None:
    for endless in (b"1;" + b"x" * 100_000, b"0\r\nT: " + b"x" * 100_000):
        read = read_answer(answer(b"Transfer-Encoding: chunked", body=endless))
        assert read is not None
        assert read.body == b""


def test_interim_responses_are_skipped() -> None:
    early = answer(b"Link: </x>", first=b"HTTP/1.1 103 Early Hints")
    reader = ResponseReader(OPTIONS)
    read = reader.receive(answer(first=b"HTTP/1.1 100 Continue") + early + SWITCHED + b"frames")
    assert read is not None
    assert (read.status, reader.rest, "Link" in read.headers) == (101, b"frames", False)


def test_interim_responses_are_limited() -> None:
    with pytest.raises(InvalidHandshake):
        read_answer(answer(first=b"HTTP/1.1 100 Continue") * 2000)


@pytest.mark.parametrize(
    "data",
    [
        answer(first=b"HTTP/1.1  101 X"),
        answer(first=b"HTTP/1.1 99 X"),
        answer(first=b"HTTP/1.1 000 X"),
        answer(first=b"HTTP/1.1 1000 X"),
        answer(first=b"HTTP/1.1 101x"),
        answer(first=b"HTTP/1.1 -101 X"),
        answer(first=b"HTTP/1.2 101 X"),
        answer(first=b"HTTP/2.0 101 X"),
        answer(first=b"HTTP/1.0 101 X"),
        answer(first=b"HTTP/1.0 100 X"),
        answer(first=b"RTSP/1.0 200 OK"),
        answer(first=b"ICE/1.0 200 OK"),
        answer(first=b"ICY 200 OK"),
        answer(first=b"HTTP/1.1 403 a\0b"),
        answer(first=b"HTTP/1.1 403 a\rb"),
        b"HTTP/1.1 403 F\n\n",
        b"HTTP/1.1 403 F\r\nX: 1\n\r\n",
        answer(b"X : 1"),
        b"HTTP/1.1 403 Forbidden\r\n folded\r\nContent-Length: 0\r\n\r\n",
        answer(b"X: 1\0"),
        answer(b"X: 1\r2"),
        answer(b"Content-Length: 1", b"Content-Length: 1"),
        answer(b"Content-Length: 1", b"Transfer-Encoding: chunked"),
        answer(b"Transfer-Encoding: chunked", body=b"zz\r\n"),
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"+OK \xff\xfe\r\n\r\n",
    ],
)
def test_a_malformed_response_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidHandshake):
        read_answer(data)
    assert outcome(ResponseReader(OPTIONS), octets(data)) is InvalidHandshake


SNIPPETS = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b" ",
        b"\0",
        b"\xff",
        b": ",
        b"GET / HTTP/1.1\r\n",
        b"GET http://b/ HTTP/1.1\r\n",
        b"CONNECT b:1 HTTP/1.1\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"Host: a\r\n",
        b"Host: [::1]:\r\n",
        b"Upgrade: websocket\r\n",
        b"Connection: Upgrade\r\n",
        b"Connection: close\r\n",
        b"Content-Length: 3\r\n",
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"HTTP/1.1 101 X\r\n",
        b"HTTP/1.1 100 X\r\n",
        b"HTTP/1.1 403 X\r\n",
        b"HTTP/1.0 200\r\n",
        b"HTTP/1.1 204 X\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"X: y\r\n",
        b" folded\r\n",
    ]
)
OCTETS = st.lists(SNIPPETS | st.binary(max_size=6), max_size=14).map(b"".join)
HEADS = st.sampled_from([UPGRADE, SWITCHED, request(b"X: 1"), answer(b"Content-Length: 3"), b""])
STREAMS = st.builds(bytes.__add__, HEADS, OCTETS) | OCTETS
SMALL = Options(max_line=60, max_headers=7, max_head=300, max_refusal=5)


@given(STREAMS, st.lists(st.integers(0, 500)), st.sampled_from([OPTIONS, SMALL]))
def test_any_split_of_a_request_gives_the_same_result(data: bytes, cuts: list[int], options: Options) -> None:
    whole = outcome(RequestReader(options), [data])
    assert outcome(RequestReader(options), pieces(data, cuts)) == whole
    assert outcome(RequestReader(options), octets(data)) == whole


@given(STREAMS, st.lists(st.integers(0, 500)), st.sampled_from([OPTIONS, SMALL]))
def test_any_split_of_a_response_gives_the_same_result(
    data: bytes, cuts: list[int], options: Options
) -> None:
    def read(parts: list[bytes]) -> object:
        reader = ResponseReader(options)
        result = outcome(reader, parts)
        if not isinstance(result, tuple) or result[0] is None:
            return result, None if isinstance(result, type) else reader.partial()
        # Data after any response but a 101 is ignored.
        return result if result[0].status == 101 else result[0]

    whole = read([data])
    assert read(pieces(data, cuts)) == whole
    assert read(octets(data)) == whole


@given(STREAMS | st.binary())
def test_any_octets_are_parsed_or_raise_the_readers_errors(data: bytes) -> None:
    outcome(RequestReader(OPTIONS), [data])
    outcome(ResponseReader(OPTIONS), [data])


#: Requests whose fields are those of ``request()``, or differ from them in one way.
FOLLOWING = [
    request(),
    request(first=b"GET /other?a=b%20c HTTP/1.1"),
    request(first=b"GET http://b/other HTTP/1.1"),
    request(first=b"GET /# HTTP/1.1"),
    request(first=b"GET  / HTTP/1.1"),
    request(first=b"GET /\0 HTTP/1.1"),
    request(first=b"GET /\xe9 HTTP/1.1"),
    request(first=b"GET / HTTP/1.0"),
    request(first=b"GET / HTTP/2.0"),
    request(first=b"HEAD / HTTP/1.1"),
    request(first=b"POST / HTTP/1.1"),
    request(first=b"CONNECT a:1 HTTP/1.1"),
    request(first=b"FOO / HTTP/1.1"),
    request(first=b""),
    request(first=b"GET /" + b"x" * 40 + b" HTTP/1.1"),
    request(first=b"GET / HTTP/1.1\nX: y"),
    request(b"X: 1"),
    request(b"Content-Length: 0"),
    request(b"Content-Length: 5"),
    request(b"Connection: close"),
    request(b"Upgrade: h2c", b"Connection: Upgrade"),
    request(host=b"Host: b"),
    request(host=b""),
    request(host=b"host: a"),
    b"\r\n" + request(),
]


@pytest.mark.parametrize("limits", [{}, {"max_line": 50}, {"max_head": 50}], ids=["", "max_line", "max_head"])
@pytest.mark.parametrize("first", [request(), request(b"A: b"), request(first=b"GET / HTTP/1.0", host=b"")])
@pytest.mark.parametrize("second", FOLLOWING)
def test_a_later_request_is_read_as_the_first_of_a_connection(
    first: bytes, second: bytes, limits: dict[str, int]
) -> None:
    options = Options(**limits)
    reader = RequestReader(options)
    for _ in range(2):  # the second time, the fields are known
        assert reader.receive(first + b"rest") is not None
        assert reader.take_rest() == b"rest"
    fresh = RequestReader(options)
    expected = outcome(fresh, [second + b"GET"])
    assert (outcome(reader, [second + b"GET"]), reader.has_body) == (expected, fresh.has_body)


@given(st.integers(0, 60), st.integers(0, 4), st.binary(max_size=4))
def test_no_change_of_a_later_request_is_overlooked(place: int, removed: int, inserted: bytes) -> None:
    first = request(b"A: b")
    second = first[:place] + inserted + first[place + removed :]
    reader, fresh = RequestReader(OPTIONS), RequestReader(OPTIONS)
    assert reader.receive(first) is not None
    reader.take_rest()
    results = [(outcome(each, [second]), each.has_body) for each in (reader, fresh)]
    assert results[0] == results[1]


def test_a_repeated_request_has_no_body_although_the_one_before_it_has() -> None:
    reader = RequestReader(OPTIONS)
    for _ in range(2):
        for data, has_body in ((request(), False), (request(b"Content-Length: 1"), True)):
            assert reader.receive(data) is not None
            assert reader.take_rest() == b""
            assert reader.has_body is has_body


def test_a_change_of_the_fields_of_one_request_does_not_show_in_the_next() -> None:
    reader = RequestReader(OPTIONS)
    for _ in range(3):
        read = reader.receive(request(b"A: b"))
        assert read is not None
        assert list(read.headers) == [("Host", "a"), ("A", "b")]
        assert octets_of(read.headers) == [(b"host", b"a"), (b"a", b"b")]
        assert is_plain(read.headers)
        read.headers["A"] = "c"
        read.headers.add("Connection", "close")
        assert octets_of(read.headers) == [(b"host", b"a"), (b"a", b"c"), (b"connection", b"close")]
        assert not is_plain(read.headers)
        read.headers.remove("Connection")
        assert is_plain(read.headers)


@pytest.mark.parametrize(
    ("line", "plain"),
    [
        (b"Connection: keep-alive", True),
        (b"connection: Keep-Alive", True),
        (b"CONNECTION: close", False),
        (b"Connection: keep-alive, TE", False),
        (b"upgrade: websocket", False),
        (b"Te: trailers", False),
        (b"Referer: a", True),
        (b"User-Agent: a", True),
    ],
)
def test_plain_fields_ask_for_nothing_of_the_connection(line: bytes, plain: bool) -> None:
    assert is_plain(read_request(request(line)).headers) is plain


# --- tokens -----------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1000])
def test_a_token_in_the_subprotocols_is_read_and_removed(size: int) -> None:
    data = request(b"Upgrade: websocket", b"Sec-WebSocket-Protocol: chat, endwell.bearer, bearer.c2VjcmV0")
    reader, read = RequestReader(OPTIONS), None
    for at in range(0, len(data), size):
        read = reader.receive(data[at : at + size])
    assert read is not None
    assert (read.bearer, read.headers["Sec-WebSocket-Protocol"]) == ("secret", "chat")


def test_the_mark_in_another_field_is_no_offer() -> None:
    read = read_request(request(b"X: endwell.bearer, bearer.c2VjcmV0", b"Upgrade: websocket"))
    assert read.bearer is None
    assert read.headers["X"] == "endwell.bearer, bearer.c2VjcmV0"


def test_a_malformed_token_is_refused_without_showing_it() -> None:
    with pytest.raises(BadRequest, match="printable ASCII") as refused:
        read_request(
            request(b"Upgrade: websocket", b"Sec-WebSocket-Protocol: endwell.bearer, bearer.c2VjcmV0IA")
        )
    assert "secret" not in repr(refused.value)


def test_a_repeated_request_over_tls_is_secure_too() -> None:
    reader = RequestReader(OPTIONS, None, True)
    for _ in range(2):
        read = reader.receive(request(b"X: 1"))
        assert read is not None
        assert read.secure

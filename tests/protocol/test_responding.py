"""The fields that a response has in HTTP/1.1."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from endwell.errors import UpgradeRequired
from endwell.http import Headers, Request, Response, set_challenge
from endwell.protocol.responding import allows_keep_alive, complete, complete_head, has_body

NOW = 784111777.0  # the example of RFC 9110 §5.6.7


def request(method="GET", target="/", **headers):
    return Request(method, target, Headers({name.replace("_", "-"): text for name, text in headers.items()}))


def fields(response, method="GET"):
    return dict(complete(response, request(method), NOW).headers)


def test_a_response_has_length_and_date_and_closes_its_connection():
    response = complete(Response.text("grüß"), request(), NOW)
    assert response.serialize() == (
        b"HTTP/1.1 200 OK\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
        b"Connection: close\r\n"
        b"Content-Length: 6\r\n\r\n" + "grüß".encode()
    )


def test_a_response_to_an_unparsable_request_is_complete():
    response = complete(Response(400, body=b"no"), None, NOW)
    assert response.body == b"no"
    assert response.headers["Content-Length"] == "2"


def test_a_handler_cannot_set_the_framing_headers():
    wrong = {"content-length": "99", "Transfer-Encoding": "chunked", "CONNECTION": "keep-alive"}
    headers = fields(Response(200, Headers(wrong), b"x"))
    assert headers == {"Content-Length": "1", "Connection": "close", "Date": formatdate(NOW, usegmt=True)}


def test_a_date_set_by_the_handler_is_kept():
    headers = complete(Response(200, Headers({"date": "then"})), request(), NOW).headers
    assert headers.get_all("Date") == ["then"]


def test_repeated_fields_are_kept():
    cookies = Headers([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    assert complete(Response(200, cookies), request(), NOW).headers.get_all("Set-Cookie") == ["a=1", "b=2"]


def test_a_response_with_upgrade_names_it_in_connection():
    assert fields(UpgradeRequired("version 13 only").response())["Connection"] == "close, Upgrade"


@pytest.mark.parametrize(("status", "length"), [(204, None), (205, "0"), (304, None)])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_status_without_content_has_no_body(status, length, method):
    response = complete(Response(status, Headers({"Content-Length": "3"}), b"abc"), request(method), NOW)
    assert response.body == b""
    assert response.headers.get("Content-Length") == length


def test_head_is_like_get_without_the_body():
    get, head = (complete(Response.text("abc"), request(method), NOW) for method in ("GET", "HEAD"))
    assert head.headers == get.headers
    assert head.headers["Content-Length"] == "3"
    assert (get.body, head.body) == (b"abc", b"")


def test_the_given_response_is_not_changed():
    response = Response.text("abc")
    complete(response, request(), NOW)
    assert list(response.headers) == [("Content-Type", "text/plain; charset=utf-8")]


@pytest.mark.parametrize(
    ("version", "status", "chunked"), [("1.1", 200, True), ("1.0", 200, False), ("1.1", 204, False)]
)
def test_a_response_of_unknown_length_is_chunked_where_http_allows_it(version, status, chunked):
    streamed = Response(status, {"Content-Length": "5", "Connection": "keep-alive"})
    head = complete_head(streamed, Request("GET", "/", Headers(), version), NOW)
    assert head.headers.get_all("Transfer-Encoding") == (["chunked"] if chunked else [])
    assert "Content-Length" not in head.headers
    assert head.headers["Connection"] == "close"


def test_which_responses_have_a_body():
    assert has_body(Response(200), request())
    assert not has_body(Response(200), request("HEAD"))
    assert not has_body(Response(304), request())


# --- keep-alive -------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "method", "fields", "allowed"),
    [
        ("1.1", "GET", {}, True),
        ("1.0", "GET", {}, False),
        ("1.1", "GET", {"Connection": "close"}, False),
        ("1.1", "GET", {"Connection": "x, CLOSE"}, False),
        ("1.1", "GET", {"Connection": "keep-alive"}, True),
        ("1.0", "GET", {"Connection": "Keep-Alive"}, True),
        ("1.0", "GET", {"Connection": "keep-alive, close"}, False),
        ("1.0", "GET", {"Connection": "x"}, False),
        ("1.1", "GET", {"Upgrade": "websocket", "Connection": "Upgrade"}, False),
        ("1.1", "CONNECT", {}, False),
    ],
)
def test_a_connection_is_kept_as_its_request_says(version, method, fields, allowed):
    assert allows_keep_alive(Request(method, "/", Headers(fields), version)) is allowed


def test_a_request_of_hixie_76_is_the_last_one_of_its_connection():
    last = request()
    set_challenge(last, bytes(8))
    assert not allows_keep_alive(last)


@pytest.mark.parametrize(
    ("version", "keep", "upgrade", "connection"),
    [
        ("1.1", True, False, None),
        ("1.0", True, False, "keep-alive"),
        ("1.0", True, True, "keep-alive, Upgrade"),
        ("1.1", True, True, "Upgrade"),
        ("1.0", False, False, "close"),
    ],
)
def test_a_response_says_whether_its_connection_is_kept(version, keep, upgrade, connection):
    response = Response(426 if upgrade else 200, {"Upgrade": "websocket"} if upgrade else {})
    asked = Request("GET", "/", Headers(), version)
    for answered in (complete(response, asked, NOW, keep), complete_head(response, asked, NOW, keep)):
        assert answered.headers.get("Connection") == connection

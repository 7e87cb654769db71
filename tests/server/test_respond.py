"""The HTTP response of a route."""

import math
import re
from email.utils import formatdate
from functools import partial

import pytest

from endwell.errors import UpgradeRequired
from endwell.http import Headers, Request, Response
from endwell.server.respond import complete, response_from

# --- what a handler may return -----------------------------------------------


def index():
    """A handler with a name."""


@pytest.mark.parametrize(
    ("returned", "content_type", "body"),
    [
        ("<p>grüß", "text/plain; charset=utf-8", "<p>grüß".encode()),
        ("", "text/plain; charset=utf-8", b""),
        (b"\x00\xff", "application/octet-stream", b"\x00\xff"),
        ({"a": [1, None, "ß"]}, "application/json", '{"a": [1, null, "ß"]}'.encode()),
        ({}, "application/json", b"{}"),
        ([1, 2], "application/json", b"[1, 2]"),
    ],
)
def test_a_handler_may_return_text_bytes_or_json_values(returned, content_type, body):
    response = response_from(returned, index)
    assert response.status == 200
    assert response.headers.get_all("Content-Type") == [content_type]
    assert response.body == body


def test_a_returned_response_is_sent_unchanged():
    response = Response.html("<p>", 404)
    assert response_from(response, index) is response


def test_none_gives_204_no_content():
    assert response_from(None, index) == Response(204)


@pytest.mark.parametrize(
    ("returned", "kind"), [(5, "int"), (True, "bool"), (("a", 200), "tuple"), (object(), "object")]
)
def test_anything_else_is_a_type_error_that_names_the_handler(returned, kind):
    with pytest.raises(TypeError, match=f"^index returned {kind}, not Response"):
        response_from(returned, index)


@pytest.mark.parametrize("value", [{"a": object()}, [math.nan], [math.inf], {(1, 2): 3}])
def test_a_value_that_is_not_json_is_a_type_error(value):
    with pytest.raises(TypeError, match=r"^index returned a value that JSON cannot express"):
        response_from(value, index)


@pytest.mark.parametrize("status", [0, 100, 101, 199, 600])
def test_a_status_that_is_not_final_is_refused(status):
    with pytest.raises(ValueError, match=f"^index returned status {status};"):
        response_from(Response(status), index)


def test_a_handler_without_a_name_is_named_by_its_repr():
    with pytest.raises(TypeError, match=re.escape("functools.partial(")):
        response_from(5, partial(index))


# --- a complete response -----------------------------------------------------

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

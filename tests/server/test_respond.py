"""The HTTP response of a route."""

import math
import re
from functools import partial

import pytest

from endwell.http import Response
from endwell.server.respond import response_from

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

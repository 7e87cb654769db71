"""Cookies: those of a request, and those that a response sets."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from endwell import Headers, Request, Response


@pytest.mark.parametrize(
    ("field", "cookies"),
    [
        ("", {}),
        ("a=1; b=2", {"a": "1", "b": "2"}),
        ("a=1;b=2;", {"a": "1", "b": "2"}),
        ("a=1; a=2", {"a": "1"}),
        ('a="x"; b=y=z; c=', {"a": "x", "b": "y=z", "c": ""}),
        ("nothing; a=1", {"a": "1"}),
        ('a="', {"a": '"'}),
    ],
)
def test_the_cookies_of_a_request(field, cookies):
    assert Request("GET", "/", Headers({"Cookie": field})).cookies == cookies


def test_cookies_of_several_fields():
    assert Request("GET", "/", Headers([("Cookie", "a=1"), ("cookie", "b=2")])).cookies == {
        "a": "1",
        "b": "2",
    }


def test_a_cookie_that_is_set_has_all_its_attributes():
    response = Response(200)
    response.set_cookie(
        "id",
        "a1",
        max_age=60,
        expires=datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
        path="/x",
        domain="example.com",
        secure=True,
        httponly=True,
        samesite="none",
        partitioned=True,
    )
    response.set_cookie("b")
    response.delete_cookie("c")
    assert response.headers.get_all("Set-Cookie") == [
        (
            "id=a1; Expires=Wed, 02 Jan 2030 03:04:05 GMT; Max-Age=60; Domain=example.com; Path=/x; "
            "SameSite=None; Secure; HttpOnly; Partitioned"
        ),
        "b=; Path=/; SameSite=Lax",
        "c=; Max-Age=0; Path=/; SameSite=Lax",
    ]


@pytest.mark.parametrize(
    "how",
    [
        {"name": "a b"},
        {"name": ""},
        {"name": "a\r\nX"},
        {"value": "a;b"},
        {"value": "a b"},
        {"value": "a\r\nX: y"},
        {"value": "\xdf"},
        {"path": "/;a"},
        {"domain": "a\r\nb"},
        {"samesite": "Lax"},
        {"expires": datetime(2030, 1, 1)},  # noqa: DTZ001
    ],
)
def test_a_cookie_that_could_be_read_differently_is_refused(how):
    with pytest.raises(ValueError, match=r"cookie|domain|path|samesite|expires"):
        Response(200).set_cookie(**{"name": "a", **how})


def test_an_age_is_a_number():
    with pytest.raises(TypeError, match="max_age"):
        Response(200).set_cookie("a", max_age=True)


@pytest.mark.parametrize(
    "how",
    [
        {"name": None},
        {"name": list("abc")},
        {"value": b"v"},
        {"value": list("abc")},
        {"value": 1},
        {"expires": 5},
        {"path": b"/"},
        {"domain": 1},
        {"max_age": "5"},
    ],
)
def test_a_cookie_with_an_argument_of_a_wrong_type_is_refused_by_name(how):
    response = Response(200)
    with pytest.raises(TypeError, match=f"{next(iter(how))}.* must be"):
        response.set_cookie(**{"name": "n"} | how)
    assert "Set-Cookie" not in response.headers

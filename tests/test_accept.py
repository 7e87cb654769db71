"""An Accept, and what else a request has besides its head."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from endwell import Accept, Headers, Request, Response, TLSInfo
from endwell.http import forward, set_body, set_challenge, set_link


@pytest.mark.parametrize(
    "name",
    ["Upgrade", "connection", "Sec-WebSocket-Accept", "sec-websocket-protocol", "Sec-WebSocket-X", "Content-Length",
     "Transfer-Encoding"],
)  # fmt: skip
def test_fields_of_the_handshake_are_refused(name):
    with pytest.raises(ValueError, match=f"header {name} is set by the handshake"):
        Accept(headers={name: "x"})


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"headers": {"X": "a\r\nSet-Cookie: b"}}, ValueError),
        ({"headers": {"X Y": "a"}}, ValueError),
        ({"subprotocol": "a b"}, ValueError),
        ({"subprotocol": ""}, ValueError),
        ({"subprotocol": 1}, TypeError),
        ({"state": [1]}, TypeError),
    ],
)
def test_an_accept_is_checked_when_it_is_made(how, error):
    with pytest.raises(error):
        Accept(**how)


@pytest.mark.parametrize(
    ("how", "error", "problem"),
    [
        ({"subject": 1}, TypeError, "subject must be a str"),
        ({"subject": ""}, ValueError, "subject must not be empty"),
        ({"subject": "\ud800"}, ValueError, "subject contains a lone surrogate"),
        ({"until": 5.0}, TypeError, "until must be a datetime"),
        ({"until": datetime(2030, 1, 1)}, ValueError, "until must have a time zone"),  # noqa: DTZ001
    ],
)
def test_an_authorization_is_checked_when_it_is_made(how, error, problem):
    with pytest.raises(error, match=problem):
        Accept(**how)


def test_an_accept_has_an_authorization():
    until = datetime(2030, 1, 1, tzinfo=UTC)
    accept = Accept(subject="ü", until=until)
    assert (accept.subject, accept.until) == ("ü", until)
    assert (Accept().subject, Accept().until) == (None, None)


def test_an_accept_sets_cookies_and_is_shown_without_them():
    accept = Accept(headers={"X": "1"})
    accept.set_cookie("a", "secret")
    assert accept.headers.get_all("Set-Cookie") == ["a=secret; Path=/; SameSite=Lax"]
    assert "secret" not in repr(accept)
    assert accept != Accept(headers={"X": "1"})


def finished(coroutine):
    """The result of a coroutine that does not wait."""
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


# --- a request ----------------------------------------------------------------


def test_a_request_that_no_server_has_read_has_no_body():
    request = Request("POST", "/", Headers())
    assert finished(request.body()) == b""
    with pytest.raises(ValueError, match="the request has no body"):
        finished(request.json())
    with pytest.raises(ValueError, match="the request has no body"):
        finished(request.form())


def test_the_body_of_a_request_is_what_its_source_reads():
    class Source:
        async def read(self):
            return b"octets"

        def json(self, octets):
            return octets, "json"

        def form(self, octets):
            return octets, "form"

    request = Request("POST", "/", Headers())
    set_body(request, Source())
    assert finished(request.body()) == b"octets"
    assert finished(request.json()) == (b"octets", "json")
    assert finished(request.form()) == (b"octets", "form")


def test_state_is_a_dict_of_its_own_for_each_request():
    one, other = Request("GET", "/", Headers()), Request("GET", "/", Headers())
    one.state["a"] = 1
    assert (one.state, other.state) == ({"a": 1}, {})
    one.state = {"b": 2}
    assert one.state == {"b": 2}
    with pytest.raises(TypeError, match="state must be a dict"):
        one.state = [1]


class FakeTLS:
    """As much of an ssl.SSLObject as is asked for."""

    def getpeercert(self, binary_form=False):
        return b"der" if binary_form else {}

    def version(self):
        return "TLSv1.3"

    def cipher(self):
        return ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)

    def selected_alpn_protocol(self):
        return None


def test_the_tls_session_of_a_request():
    request = Request("GET", "/", Headers())
    assert (request.secure, request.tls) == (False, None)
    set_link(request, FakeTLS())
    assert request.secure
    assert request.tls == TLSInfo(None, b"der", "TLSv1.3", "TLS_AES_256_GCM_SHA384", None)
    assert request.tls is request.tls
    assert b"der" not in repr(request.tls).encode()
    assert Request("GET", "/", Headers(), secure=True).tls is None


def test_a_request_that_is_forwarded_keeps_the_session_to_the_proxy_and_the_challenge():
    request = Request("GET", "/?x", Headers(), "1.1", ("10.0.0.1", 1))
    set_challenge(request, bytes(8))
    set_link(request, FakeTLS())
    original = forward(request, ("192.0.2.1", 0), False, Headers({"Host": "a"}))
    assert (original.secure, original.tls) == (False, request.tls)
    assert (original.remote_address, original.headers["Host"]) == (("192.0.2.1", 0), "a")
    assert original.serialize()[-8:] == bytes(8)


@pytest.mark.parametrize("chunks", [b"abc", "abc", 5, None])
def test_what_cannot_be_streamed_is_a_type_error(chunks):
    with pytest.raises(TypeError, match="iterable"):
        Response.stream(chunks)


def test_a_streamed_response_has_a_type_and_cannot_be_pickled():
    response = Response.stream([b"a"], 201, {"X": "1"})
    assert (response.status, response.headers["X"], response.body) == (201, "1", b"")
    assert response.headers["Content-Type"] == "application/octet-stream"
    assert Response.stream([], headers={"Content-Type": "a/b"}).headers.get_all("Content-Type") == ["a/b"]
    with pytest.raises(TypeError, match="pickled"):
        response.__reduce__()

"""Bearer tokens of a request: in its subprotocols, or in Authorization."""

from __future__ import annotations

import copy
import pickle
from base64 import urlsafe_b64encode

import pytest

from endwell.http import Headers, Request, forward, offers_bearer, renewed
from endwell.http.bearer import MARK, MAX_TOKEN, PREFIX, authorization_bearer, is_token, split_offer
from endwell.http.request import take_bearer

TOKEN = "eyJhbGciOi.J9-_~"


def encoded(token):
    octets = token if isinstance(token, bytes) else token.encode()
    return PREFIX + urlsafe_b64encode(octets).decode().rstrip("=")


def request(*fields):
    return Request("GET", "/", Headers([("Host", "a"), *fields]))


@pytest.mark.parametrize("token", [TOKEN, "a", "ab", "abc", "abcd", "~" * MAX_TOKEN])
def test_the_pair_is_split_from_the_other_subprotocols(token):
    assert split_offer(["chat", MARK, encoded(token), "old"]) == (["chat", "old"], token)


def test_the_mark_alone_has_no_token():
    assert split_offer([MARK, "chat"]) == (["chat"], None)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([MARK, MARK], "must not be repeated"),
        ([MARK, encoded("a"), encoded("b")], "must not be repeated"),
        ([MARK, PREFIX], "is not base64url"),
        ([MARK, PREFIX + "YQ=="], "is not base64url"),
        ([MARK, PREFIX + "a+b/"], "is not base64url"),
        ([MARK, PREFIX + "abcde"], "is not base64url"),
        ([MARK, encoded("~" * (MAX_TOKEN + 2))], "has more than 8192 characters"),
        ([MARK, encoded("~" * (MAX_TOKEN + 1))], "printable ASCII"),
        ([MARK, encoded(b"\xff\xfe\xfd")], "is not UTF-8"),
        ([MARK, encoded("secret token")], "printable ASCII"),
        ([MARK, encoded("sécret")], "printable ASCII"),
    ],
)
def test_a_malformed_pair_is_refused_without_showing_the_token(names, problem):
    with pytest.raises(ValueError, match=problem) as refused:
        split_offer(names)
    assert "cret" not in str(refused.value)
    # A traceback would show the context, which has the bytes.
    assert refused.value.__context__ is None or refused.value.__suppress_context__


@pytest.mark.parametrize(
    ("value", "valid"), [("", False), ("a b", False), ("a\n", False), ("é", False), ("a+/=.~_-", True)]
)
def test_a_token_is_printable_ascii_without_spaces(value, valid):
    assert is_token(value) is valid


@pytest.mark.parametrize(
    ("fields", "token"),
    [
        ([], None),
        (["Bearer abc"], "abc"),
        (["bEARER   abc  "], "abc"),
        (["Bearer abc", "Bearer abc"], None),
        (["Basic abc"], None),
        (["Bearer"], None),
        (["Bearer a b"], None),
    ],
)
def test_authorization_has_one_token(fields, token):
    assert authorization_bearer(fields) == token
    assert request(*(("Authorization", field) for field in fields)).bearer == token


def test_a_request_loses_the_pair_and_has_its_token():
    read = request(
        ("Sec-WebSocket-Protocol", f"chat, {MARK}"), ("Sec-WebSocket-Protocol", encoded(TOKEN) + ", old")
    )
    assert read.bearer is None
    take_bearer(read)
    assert (read.bearer, offers_bearer(read)) == (TOKEN, True)
    assert read.headers.get_all("Sec-WebSocket-Protocol") == ["chat, old"]
    assert TOKEN not in repr(read)


def test_a_request_with_nothing_but_the_pair_has_no_field_left():
    read = request(("Sec-WebSocket-Protocol", f"{MARK},{encoded(TOKEN)}"))
    take_bearer(read)
    assert "Sec-WebSocket-Protocol" not in read.headers


def test_a_request_without_the_mark_is_not_changed():
    fields = ("Sec-WebSocket-Protocol", f"chat, {encoded(TOKEN)}")
    read = request(fields)
    take_bearer(read)
    assert (read.bearer, offers_bearer(read)) == (None, False)
    assert fields in list(read.headers)


def test_the_mark_beside_authorization_only_announces_new_tokens():
    read = request(("Authorization", f"Bearer {TOKEN}"), ("Sec-WebSocket-Protocol", MARK))
    take_bearer(read)
    assert (read.bearer, offers_bearer(read)) == (TOKEN, True)


def test_a_request_has_one_token():
    read = request(("Authorization", "Bearer one"), ("Sec-WebSocket-Protocol", f"{MARK}, {encoded('two')}"))
    with pytest.raises(ValueError, match="both in Authorization and in the subprotocol"):
        take_bearer(read)


def test_a_copy_of_a_request_keeps_its_token():
    read = request(("Sec-WebSocket-Protocol", f"{MARK}, {encoded(TOKEN)}"))
    take_bearer(read)
    assert [again.bearer for again in (copy.copy(read), pickle.loads(pickle.dumps(read)))] == [TOKEN, TOKEN]


def test_a_forwarded_request_keeps_its_token():
    read = request(("Sec-WebSocket-Protocol", f"{MARK}, {encoded(TOKEN)}"))
    take_bearer(read)
    original = forward(read, ("192.0.2.1", 1), True, Headers({"Host": "b"}))
    assert (original.bearer, offers_bearer(original)) == (TOKEN, True)


def test_a_renewed_request_has_the_new_token_and_its_own_state():
    first = request(("Authorization", "Bearer old"), ("X", "1"))
    first.params, first.route, first.state = {"id": "1"}, "/{id}", {"user": "a"}
    again = renewed(first, "new")
    again.state["user"] = "b"
    assert (again.bearer, again.headers["Authorization"]) == ("new", "Bearer new")
    assert (again.params, again.route, again.headers["X"]) == ({"id": "1"}, "/{id}", "1")
    assert (first.bearer, first.state) == ("old", {"user": "a"})


def test_a_renewed_request_gets_no_authorization_that_the_client_did_not_send():
    first = request(("Authorization", "Basic abc"))
    again = renewed(first, "new")
    assert (again.bearer, again.headers.get_all("Authorization")) == ("new", ["Basic abc"])

"""What a server believes of a proxy's X-Forwarded-* and Forwarded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.errors import BadRequest
from endwell.http import Headers, Request
from endwell.protocol.forwarding import original_request

TRUSTED = ("10.0.0.0/8", "::1", "fd00::/8")
PROXY = ("10.0.0.1", 1000)


def original(*fields, peer=PROXY, trusted=TRUSTED):
    """The address, the scheme's security and the Host that the server sees."""
    request = Request("GET", "/", Headers([("Host", "inner"), *fields]), "1.1", peer)
    seen = original_request(request, trusted)
    return seen.remote_address, seen.secure, seen.headers.get_all("Host")


def forwarded_for(*values):
    return [("X-Forwarded-For", value) for value in values]


@pytest.mark.parametrize(
    ("values", "address"),
    [
        (["192.0.2.1"], ("192.0.2.1", 0)),
        (["192.0.2.1:5678"], ("192.0.2.1", 5678)),
        (["2001:db8::1"], ("2001:db8::1", 0, 0, 0)),
        (["[2001:DB8::1]:443"], ("2001:db8::1", 443, 0, 0)),
        (["[2001:db8::1]"], ("2001:db8::1", 0, 0, 0)),
        (["192.0.2.1:99999"], ("192.0.2.1", 0)),
        # The client has forged the first value; the proxies have appended the others.
        (["203.0.113.9, 192.0.2.1"], ("192.0.2.1", 0)),
        (["203.0.113.9, 192.0.2.1, 10.2.3.4"], ("192.0.2.1", 0)),
        (["203.0.113.9", "192.0.2.1", "10.2.3.4,10.2.3.5"], ("192.0.2.1", 0)),
        # All are trusted: the first one is the client.
        (["10.9.9.9, 10.2.3.4"], ("10.9.9.9", 0)),
        # A proxy hides its peer: nothing before it is believed.
        (["203.0.113.9, unknown, 10.2.3.4"], ("10.2.3.4", 0)),
        (["203.0.113.9, _hidden"], PROXY),
        (["evil\x7f"], PROXY),
        (["fe80::1%eth0"], PROXY),
        ([""], PROXY),
        ([","], PROXY),
    ],
)
def test_the_client_is_the_last_address_that_is_not_trusted(values, address):
    assert original(*forwarded_for(*values))[0] == address


@pytest.mark.parametrize(
    "peer", [("192.0.2.7", 1), ("11.0.0.1", 1), ("2001:db8::7", 1, 0, 0), "", None, ("10.evil", 1)]
)
@pytest.mark.parametrize(
    "field",
    [
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "evil"),
        ("Forwarded", "for=203.0.113.9;proto=https;host=evil"),
        ("Forwarded", 'malformed"'),
    ],
)
def test_a_peer_that_is_not_trusted_is_not_believed(peer, field):
    assert original(field, peer=peer) == (peer, False, ["inner"])


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        (PROXY, ["10.0.0.1"]),
        (("::ffff:10.0.0.1", 1, 0, 0), ["10.0.0.0/8"]),
        (("fd00::1%eth0", 1, 0, 2), ["fd00::/8"]),
        ("", ["unix"]),
    ],
)
def test_a_proxy_is_trusted_by_its_address_or_as_a_unix_socket(peer, trusted):
    assert original(*forwarded_for("192.0.2.1"), peer=peer, trusted=trusted)[0] == ("192.0.2.1", 0)


def test_scheme_and_host_are_those_of_the_client():
    assert original(("X-Forwarded-Proto", "https"), ("X-Forwarded-Host", "Example.com:8443")) == (
        PROXY,
        True,
        ["Example.com:8443"],
    )
    # The second proxy has appended what the first one sent, and what it got itself.
    fields = forwarded_for("192.0.2.1, 10.1.1.1")
    assert original(*fields, ("X-Forwarded-Proto", "https, http"), ("X-Forwarded-Host", "a, b"))[1:] == (
        True,
        ["a"],
    )
    # The client has forged the first value.
    assert original(*forwarded_for("192.0.2.1"), ("X-Forwarded-Proto", "https, http"))[1] is False


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ("for=192.0.2.1;proto=https;host=a.example", (("192.0.2.1", 0), True, ["a.example"])),
        ('For="[2001:db8::1]:47";PROTO=https', (("2001:db8::1", 47, 0, 0), True, ["inner"])),
        ("for=203.0.113.9;proto=https, for=192.0.2.1;proto=http", (("192.0.2.1", 0), False, ["inner"])),
        ("for=192.0.2.1;host=a, for=10.1.1.1;host=b", (("192.0.2.1", 0), False, ["a"])),
        ("for=unknown;proto=https, for=10.1.1.1", (("10.1.1.1", 0), True, ["inner"])),
        ('for="_secret";by=_x', (PROXY, False, ["inner"])),
        ("proto=https", (PROXY, True, ["inner"])),
        ('for="192.0.2\\.1" ; proto=https ,', (("192.0.2.1", 0), True, ["inner"])),
        ("", (PROXY, False, ["inner"])),
    ],
)
def test_forwarded_is_read_like_x_forwarded(value, seen):
    assert original(("Forwarded", value)) == seen


@pytest.mark.parametrize(
    "fields",
    [
        [("Forwarded", 'for="192.0.2.1')],
        [("Forwarded", "for=a b")],
        [("Forwarded", "for")],
        [("Forwarded", "for=1;for=2")],
        [("Forwarded", "proto=gopher")],
        [("Forwarded", 'host="a b"')],
        [("X-Forwarded-Proto", "gopher")],
        [("X-Forwarded-Host", "a b")],
        [("X-Forwarded-Host", "evil@host")],
        # The proxy knows one kind of field; the other one comes from the client.
        [*forwarded_for("192.0.2.1"), ("Forwarded", "for=203.0.113.9")],
        [("X-Forwarded-Proto", "https"), ("Forwarded", "for=192.0.2.1;proto=http")],
        [("X-Forwarded-Host", "evil"), ("Forwarded", "for=192.0.2.1;host=good")],
    ],
)
def test_what_is_malformed_or_contradicts_itself_is_refused(fields):
    with pytest.raises(BadRequest):
        original(*fields)


def test_two_kinds_of_fields_that_agree_are_one():
    fields = [*forwarded_for("192.0.2.1:80"), ("Forwarded", "for=192.0.2.1"), ("X-Forwarded-Proto", "https")]
    assert original(*fields)[:2] == (("192.0.2.1", 80), True)
    # Forwarded names the client, so a scheme that only X-Forwarded-Proto says is not believed.
    fields = [("Forwarded", "for=192.0.2.1"), ("X-Forwarded-Proto", "https")]
    assert original(*fields)[:2] == (("192.0.2.1", 0), False)


@given(st.text(alphabet='for=proth;,"\\ 10.2:[]_', max_size=40))
def test_no_value_breaks_the_parser(value):
    try:
        address, _, _ = original(("Forwarded", value), ("X-Forwarded-For", value))
    except BadRequest:
        return
    assert isinstance(address, tuple)

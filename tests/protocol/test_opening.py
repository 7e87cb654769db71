"""Which protocol a handshake selects, and the opening handshakes of the old protocols."""

from __future__ import annotations

import pytest

from endwell.errors import (
    BadRequest,
    BodyTooLarge,
    Forbidden,
    InvalidHandshake,
    MethodNotAllowed,
    RequestRefused,
    UpgradeRequired,
)
from endwell.http import Headers, Request, Response, challenge_of, set_challenge
from endwell.options import LEGACY, Options
from endwell.protocol.handshake import Offer
from endwell.protocol.negotiation import Accepted
from endwell.protocol.opening import accept, confirm, offer
from endwell.wire.codec import Codec
from endwell.wire.head import RequestReader, ResponseReader
from endwell.wire.hixie import Hixie, key_number
from endwell.wire.hybi import Hybi03

OLD = Options(legacy=True)
#: hixie-76 §1.2.
KEY1, KEY2, CHALLENGE, PROOF = "4 @1  46546xW%0l 1 5", "12998 5 Y3 1  .P00", b"^n:ds[4U", b"8jKS'y:G*Co,Wxa-"
FIELDS = {
    "Host": "example.com",
    "Connection": "Upgrade",
    "Upgrade": "WebSocket",
    "Origin": "http://example.com",
}
KEYS = {"Sec-WebSocket-Key1": KEY1, "Sec-WebSocket-Key2": KEY2}
NONCE = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}

#: A request of each protocol, without the fields that all have in common.
OF = {
    "13": {**NONCE, "Sec-WebSocket-Version": "13"},
    "hybi-08": {**NONCE, "Sec-WebSocket-Version": "8"},
    "hybi-07": {**NONCE, "Sec-WebSocket-Version": "7"},
    "hybi-03": {**KEYS, "Sec-WebSocket-Draft": "3"},
    "hixie-76": KEYS,
    "hixie-75": {},
}
NUMBERED = {"hybi-08", "hybi-07"}


def request(
    version: str, without: str = "", *, secure: bool = False, method: str = "GET", **more: str
) -> Request:
    fields = {**FIELDS, **OF[version], **{name.replace("_", "-"): value for name, value in more.items()}}
    fields.pop(without, None)
    made = Request(method, "/demo?a=1", Headers(fields), secure=secure)
    set_challenge(made, CHALLENGE if "Sec-WebSocket-Key1" in fields else b"")
    return made


def lines(data: bytes) -> list[str]:
    return data.partition(b"\r\n\r\n")[0].decode().split("\r\n")


# -- selection of the protocol ----------------------------------------------------------


@pytest.mark.parametrize("version", LEGACY)
def test_an_old_protocol_is_refused_unless_enabled(version):
    with pytest.raises(RequestRefused):
        accept(request(version), Options())
    with pytest.raises(UpgradeRequired):
        accept(request(version), Options(legacy=[name for name in LEGACY if name != version]))
    assert accept(request(version), Options(legacy=[version])).response.status == 101


def test_a_refusal_names_the_enabled_versions():
    for options, numbers in [(Options(legacy=["hixie-76", "hybi-07"]), "13, 7"), (OLD, "13, 8, 7")]:
        with pytest.raises(UpgradeRequired) as caught:
            accept(request("13", Sec_WebSocket_Version="6"), options)
        assert caught.value.response().headers["Sec-WebSocket-Version"] == numbers


@pytest.mark.parametrize("options", [Options(), OLD], ids=["default", "legacy"])
@pytest.mark.parametrize("more", [{}, KEYS, {"Sec-WebSocket-Draft": "3"}, {"WebSocket-Protocol": "x"}])
def test_a_client_of_rfc_6455_never_receives_an_old_handshake(options, more):
    accepted = accept(Request("GET", "/", Headers({**FIELDS, **OF["13"], **more})), options)
    assert accepted.response.headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert type(accepted.codec(False, None)) is Codec
    assert not accepted.response.body


@pytest.mark.parametrize("without", ["Sec-WebSocket-Version", "Sec-WebSocket-Key"])
def test_an_incomplete_rfc_6455_request_is_no_old_request(without):
    with pytest.raises(RequestRefused):
        accept(request("13", without), OLD)


@pytest.mark.parametrize("draft", ["", "00", "1", "2", "4", "03", "x", "1" * 5000])
def test_an_unknown_draft_is_refused(draft):
    with pytest.raises(UpgradeRequired):
        accept(request("hixie-76", Sec_WebSocket_Draft=draft), OLD)


def test_draft_0_of_pywebsocket_is_hixie_76():
    accepted = accept(request("hixie-76", Sec_WebSocket_Draft="0"), Options(legacy=["hixie-76"]))
    assert type(accepted.codec(False, None)) is Hixie


@pytest.mark.parametrize(
    ("version", "kind", "closes"),
    [
        ("hybi-08", Codec, True),
        ("hybi-07", Codec, True),
        ("hybi-03", Hybi03, True),
        ("hixie-76", Hixie, True),
        ("hixie-75", Hixie, False),
    ],
)
def test_each_protocol_has_its_codec(version, kind, closes):
    codec = accept(request(version), OLD).codec(False, None)
    assert type(codec) is kind
    assert codec.has_close is closes


# -- the server -----------------------------------------------------------------------


def test_the_example_of_hixie_76_is_answered_as_specified():
    fields = [
        ("Host", "Example.com"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key2", KEY2),
        ("Sec-WebSocket-Protocol", "sample"),
        ("Upgrade", "WebSocket"),
        ("Sec-WebSocket-Key1", KEY1),
        ("Origin", "http://example.com"),
    ]
    asked = Request("GET", "/demo", Headers(fields))
    set_challenge(asked, CHALLENGE)
    accepted = accept(asked, OLD.replace(subprotocols=["sample"]))
    assert accepted.subprotocol == "sample"
    assert accepted.serialize().endswith(b"\r\n\r\n" + PROOF)
    assert lines(accepted.serialize()) == [
        "HTTP/1.1 101 WebSocket Protocol Handshake",
        "Upgrade: WebSocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Origin: http://example.com",
        "Sec-WebSocket-Location: ws://example.com/demo",
        "Sec-WebSocket-Protocol: sample",
    ]


def test_the_response_of_hixie_75_matches_the_draft_exactly():
    accepted = accept(request("hixie-75", secure=True, Origin="https://example.com"), OLD)
    assert accepted.serialize().endswith(b"\r\n\r\n")
    assert lines(accepted.serialize()) == [
        "HTTP/1.1 101 Web Socket Protocol Handshake",
        "Upgrade: WebSocket",
        "Connection: Upgrade",
        "WebSocket-Origin: https://example.com",
        "WebSocket-Location: wss://example.com/demo?a=1",
    ]


@pytest.mark.parametrize(("version", "name"), [("hixie-76", "Sec-WebSocket"), ("hixie-75", "WebSocket")])
def test_behind_a_tls_proxy_the_location_has_the_scheme_of_the_client(version, name):
    options = OLD.replace(origins=["https://example.com"])
    for forwarded, scheme in [("https", "wss"), ("http", "ws")]:
        asked = request(version, X_Forwarded_Proto=forwarded, Origin="https://example.com")
        location = accept(asked, options).response.headers[f"{name}-Location"]
        assert location == f"{scheme}://example.com/demo?a=1"


@pytest.mark.parametrize("version", ["hixie-76", "hybi-03"])
@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("key", ["", "12345", "1 1 1", "4294967296 ", "9" * 7000 + " "])
def test_keys_without_a_number_are_refused(version, name, key):
    with pytest.raises(BadRequest, match="Sec-WebSocket-Key1 and -Key2"):
        accept(request(version, **{name: key}), OLD)


def test_missing_or_repeated_keys_are_refused():
    with pytest.raises(BadRequest, match="Sec-WebSocket-Key1 and -Key2"):
        accept(request("hixie-76", "Sec-WebSocket-Key2"), OLD)
    for name, key in KEYS.items():
        asked = request("hixie-76")
        asked.headers.add(name, key)
        with pytest.raises(BadRequest, match="Sec-WebSocket-Key1 and -Key2"):
            accept(asked, OLD)


@pytest.mark.parametrize("version", LEGACY)
def test_requests_that_are_no_websocket_are_refused_in_old_protocols(version):
    with pytest.raises(MethodNotAllowed):
        accept(request(version, method="POST"), OLD)
    with pytest.raises(UpgradeRequired):
        accept(request(version, Upgrade="h2c"), OLD)
    with pytest.raises(BadRequest):
        accept(request(version, Connection="close"), OLD)


@pytest.mark.parametrize("version", LEGACY)
def test_another_origin_is_refused_in_old_protocols(version):
    def asked(origin: str) -> Request:
        if version in NUMBERED:
            return request(version, "Origin", Sec_WebSocket_Origin=origin)
        return request(version, Origin=origin)

    for origin in ("http://evil.example", "null", "evil.example"):
        with pytest.raises(Forbidden):
            accept(asked(origin), OLD)
    assert accept(request(version, "Origin"), OLD)
    assert accept(asked("http://example.com"), OLD)
    assert accept(asked("null"), OLD.replace(origins=["null"]))


@pytest.mark.parametrize("version", NUMBERED)
def test_both_origin_fields_of_a_draft_must_be_allowed(version):
    with pytest.raises(BadRequest, match="Origin must not be repeated"):
        accept(request(version, Sec_WebSocket_Origin="http://evil.example"), OLD)


def test_an_origin_may_be_a_bare_host_as_websocket_client_sends():
    accepted = accept(request("hixie-76", Origin="example.com"), OLD)
    assert accepted.response.headers["Sec-WebSocket-Origin"] == "example.com"


def test_the_drafts_negotiate_no_extensions():
    accepted = accept(request("hybi-08", Sec_WebSocket_Extensions="permessage-deflate"), OLD)
    assert accepted.deflate is None
    assert "Sec-WebSocket-Extensions" not in accepted.response.headers


# -- the client -----------------------------------------------------------------------


def offered(version: str, **options: object) -> Offer:
    return offer("example.com", 80, False, "/demo", Headers(), Options(version=version, **options))


def agreed(made: Offer, options: Options = OLD) -> tuple[Response, Accepted]:
    """The result of our server's response, as our client reads it."""
    asked = RequestReader(options).receive(made.request.serialize())
    accepted = accept(asked, options)
    response = ResponseReader(made.options).receive(accepted.serialize())
    assert response is not None
    return response, accepted


@pytest.mark.parametrize("version", LEGACY)
def test_client_and_server_handshakes_agree(version):
    for _ in range(50):
        made = offered(version, subprotocols=["chat"])
        response, theirs = agreed(made, OLD.replace(subprotocols=["chat"]))
        ours = confirm(made, response)
        assert ours.subprotocol == theirs.subprotocol == "chat"
        assert type(ours.codec(True, None)) is type(theirs.codec(False, None))


def test_our_keys_contain_a_number_and_no_outer_spaces():
    for _ in range(100):
        for name in KEYS:
            key = offered("hixie-76").request.headers[name]
            assert key == key.strip()
            assert key.isascii()
            assert key.isprintable()
            assert 1 <= key.count(" ") <= 12
            assert 0 <= key_number(key) < 2**32


def test_a_request_of_hixie_75_starts_as_in_the_draft():
    assert lines(offered("hixie-75").request.serialize())[:5] == [
        "GET /demo HTTP/1.1",
        "Upgrade: WebSocket",
        "Connection: Upgrade",
        "Host: example.com",
        "Origin: http://example.com",
    ]


@pytest.mark.parametrize("version", LEGACY)
def test_a_request_names_only_its_own_version(version):
    names = {name.lower() for name, _ in offered(version, subprotocols=["a"]).request.headers}
    protocol = "websocket-protocol" if version == "hixie-75" else "sec-websocket-protocol"
    assert {name for name in names if "websocket" in name} == {*map(str.lower, OF[version]), protocol}


def test_the_origin_field_depends_on_the_version():
    for version, name in [("hybi-08", "Sec-WebSocket-Origin"), ("hixie-76", "Origin"), ("13", "Origin")]:
        made = offer("a", 80, False, "/", Headers({"origin": "http://b"}), Options(version=version))
        assert made.request.headers.get_all(name) == ["http://b"]


def test_other_headers_and_credentials_are_sent():
    given = Headers({"Cookie": "a=1", "Host": "other"})
    made = offer("a", 80, False, "/", given, Options(version="hixie-76"))
    assert (made.request.headers["Cookie"], made.request.headers.get_all("Host")) == ("a=1", ["other"])


def test_only_one_subprotocol_can_be_offered_in_hixie():
    with pytest.raises(ValueError, match="subprotocols must have at most one name in hixie-76"):
        offered("hixie-76", subprotocols=["a", "b"])


@pytest.mark.parametrize("name", ["Sec-WebSocket-Key1", "sec-websocket-key2", "Sec-WebSocket-Draft"])
def test_handshake_headers_of_old_protocols_cannot_be_given(name):
    with pytest.raises(ValueError, match="is set by the handshake"):
        offer("a", 80, False, "/", Headers({name: "1 1"}), Options(version="hixie-76"))


def changed(response: Response, name: str, *values: str) -> Response:
    fields = [field for field in response.headers if field[0] != name]
    return Response(101, Headers([*fields, *((name, value) for value in values)]), response.body)


@pytest.mark.parametrize("version", ["hixie-76", "hixie-75", "hybi-03"])
@pytest.mark.parametrize("name", ["Origin", "Location", "Upgrade", "Connection"])
def test_a_response_to_another_request_is_refused(version, name):
    made = offered(version)
    response, _ = agreed(made)
    if name in ("Origin", "Location"):
        name = ("" if version == "hixie-75" else "Sec-") + f"WebSocket-{name}"
    right = response.headers[name]
    assert confirm(made, changed(response, name, right))
    for values in [(), ("x",), *([(right, right)] if name != "Connection" else [])]:
        with pytest.raises(InvalidHandshake):
            confirm(made, changed(response, name, *values))


def test_a_wrong_challenge_response_is_refused():
    made = offered("hixie-76")
    response, _ = agreed(made)
    with pytest.raises(InvalidHandshake, match="not computed from this request's keys"):
        confirm(made, Response(101, response.headers, bytes(16)))


def test_an_unrequested_subprotocol_is_ignored_and_a_different_one_refused():
    made = offered("hixie-76")
    # eventlet sends "default", txWS "None".
    assert confirm(made, changed(agreed(made)[0], "Sec-WebSocket-Protocol", "default")).subprotocol is None
    made = offered("hixie-76", subprotocols=["chat"])
    response, _ = agreed(made)
    assert confirm(made, response).subprotocol is None
    with pytest.raises(InvalidHandshake, match="a subprotocol that was not offered: 'default'"):
        confirm(made, changed(response, "Sec-WebSocket-Protocol", "default"))


@pytest.mark.parametrize("version", LEGACY)
def test_an_rfc_6455_response_to_an_old_request_is_refused(version):
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    made = offered(version)
    response = ResponseReader(made.options).receive(head)
    with pytest.raises(InvalidHandshake):
        confirm(made, response)


# -- the octets behind the heads ---------------------------------------------------------


def head(version: str, *more: bytes) -> bytes:
    begin = request(version).serialize().partition(b"\r\n\r\n")[0]
    return b"\r\n".join([begin, *more, b"", b""])


@pytest.mark.parametrize("more", [(), (b"Content-Length: 8",)])
@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_the_challenge_may_arrive_with_the_head_or_later(more, size):
    data = head("hixie-76", *more) + CHALLENGE + b"\0early\xff"
    reader, read, at = RequestReader(OLD), None, 0
    while read is None:
        read = reader.receive(data[at : at + size])
        at += size
    assert challenge_of(read) == CHALLENGE
    assert reader.rest + data[at:] == b"\0early\xff"


@pytest.mark.parametrize(
    "more", [b"Content-Length: 7", b"Content-Length: 9", b"Content-Length: 08", b"Transfer-Encoding: chunked"]
)
def test_a_body_of_another_length_is_refused(more):
    with pytest.raises(BodyTooLarge):
        RequestReader(OLD).receive(head("hixie-76", more) + CHALLENGE)


def test_a_body_of_eight_octets_is_refused_without_old_protocols():
    for version, options in [("hixie-76", Options()), ("13", OLD), ("hixie-75", OLD)]:
        with pytest.raises(BodyTooLarge):
            RequestReader(options).receive(head(version, b"Content-Length: 8") + CHALLENGE)


def test_octets_after_an_rfc_6455_head_are_frames_despite_old_keys():
    fields = Headers({**FIELDS, **OF["13"], **KEYS})
    reader = RequestReader(OLD)
    read = reader.receive(Request("GET", "/", fields).serialize() + b"12345678")
    assert (challenge_of(read), reader.rest) == (b"", b"12345678")


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_the_proof_may_arrive_with_the_head_or_later(size):
    made = offered("hixie-76")
    data = agreed(made)[1].serialize() + b"\0early\xff"
    reader, read, at = ResponseReader(made.options), None, 0
    while read is None:
        read = reader.receive(data[at : at + size])
        at += size
    assert confirm(made, read)
    assert reader.rest + data[at:] == b"\0early\xff"


def test_an_end_within_the_proof_fails_the_handshake():
    made = offered("hixie-76")
    reader = ResponseReader(made.options)
    assert reader.receive(agreed(made)[1].serialize()[:-1]) is None
    assert not reader.refuses()
    assert reader.partial() is None

"""The lines of the logger ``endwell.wire``: each frame in both directions, however it is split."""

from __future__ import annotations

import logging

import pytest

from endwell.ending import Close
from endwell.http import Headers, Request, Response
from endwell.options import Deflate
from endwell.protocol.hixie import OldAccepted
from endwell.protocol.negotiation import Accepted
from endwell.wire.codec import Codec
from endwell.wire.deflate import PerMessageDeflate
from endwell.wire.frames import CONTINUATION, TEXT, build
from endwell.wire.trace import TracedCodec, TracedHixie, TracedHybi03, trace_request, trace_response
from tests.wire.peer import receive


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.DEBUG, "endwell.wire")
    return lambda: [record.getMessage().partition(" ")[2] for record in caplog.records]


def logged_frames(codec):
    """Frames of each kind, and their log lines."""
    return [
        (codec.message("hello"), "TEXT 'hello' (5 bytes)"),
        (codec.message(b"\x00\xff"), "BINARY 00ff (2 bytes)"),
        (codec.message(""), "TEXT (0 bytes)"),
        (codec.message("\x1b[31m\n"), r"TEXT '\x1b[31m\n' (6 bytes)"),
        (codec.message("ü" * 100), f"TEXT '{'ü' * 32}'... (200 bytes)"),
        (codec.message("a" * 70_000), f"TEXT '{'a' * 64}'... (70000 bytes)"),
        (codec.ping(b"\x01"), "PING 01 (1 bytes)"),
        (codec.pong(b""), "PONG (0 bytes)"),
        (b"\x01\x01a" if not codec.key() else b"\x01\x81\0\0\0\0a", "TEXT 'a' (1 bytes, to be continued)"),
        (b"\x80\x01b" if not codec.key() else b"\x80\x81\0\0\0\0b", "CONTINUATION 62 (1 bytes)"),
        (codec.close(Close(1001, "bye")), "CLOSE 1001 'bye' (5 bytes)"),
    ]


@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, 10**6])
def test_each_received_frame_is_one_line_in_any_split(client, size, lines):
    frames = logged_frames(Codec(not client))
    codec, messages = TracedCodec(client), []
    plain, expected = Codec(client), []
    octets = b"".join(frame for frame, _ in frames)
    for at in range(0, len(octets), size):
        piece = octets[at : at + size]
        codec.feed(bytearray(piece), len(piece), messages)
        plain.feed(bytearray(piece), len(piece), expected)
    assert messages == expected
    assert codec.controls == plain.controls
    assert lines() == [f"< {line}" for _, line in frames]


@pytest.mark.parametrize("client", [True, False])
def test_each_sent_frame_is_one_line_and_unchanged(client, lines):
    codec, received = TracedCodec(client), []
    frames = logged_frames(codec)
    peer = Codec(not client)
    octets = b"".join(frame for frame, _ in frames)
    peer.receive(octets, received)
    assert received[:2] == ["hello", b"\0\xff"]
    assert lines() == [f"> {line}" for _, line in frames if "CONT" not in line and "continued" not in line]


def test_a_compressed_frame_is_logged_as_on_the_wire(lines):
    codec = TracedCodec(True, None, PerMessageDeflate(Deflate(), True))
    codec.message("a" * 1000)
    (line,) = lines()
    assert line.startswith("> TEXT ")
    assert line.endswith(" bytes, compressed)")


def test_a_disabled_logger_costs_nothing(caplog):
    accepted = Accepted(Response(101), None, None)
    for level, kind in ((logging.INFO, Codec), (logging.DEBUG, TracedCodec)):
        caplog.set_level(level, "endwell.wire")
        assert type(accepted.codec(True, None)) is kind


def test_invalid_frames_are_logged_and_refused_by_the_codec_only(lines):
    codec = TracedCodec(True)
    with pytest.raises(Exception, match="opcode"):
        codec.feed(bytearray(b"\x83\x00"), 2, [])
    assert lines() == ["< opcode 3 (0 bytes)"]


def test_the_heads_are_logged_without_credentials(caplog):
    caplog.set_level(logging.DEBUG, "endwell.wire.handshake")
    names = ("Authorization", "proxy-authorization", "Cookie", "Set-Cookie")
    secret = Headers([(name, "secret") for name in names] + [("X", "a\xa0b")])
    trace_request(Request("GET", "/x?token=secret&n=secret&secret", secret))
    secret.add("Location", "wss://example.org/?token=secret#secret")
    trace_response(Response(101, secret))
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "> GET /x?token=...&n=...&... HTTP/1.1"
    assert "< HTTP 101 Switching Protocols" in lines
    assert "< Set-Cookie: ..." in lines
    assert "< Location: wss://example.org/?token=..." in lines
    assert r"> X: a\xa0b" in lines
    assert "secret" not in str(lines)


def test_a_payload_that_is_read_into_its_room_is_logged(lines):
    message = b"abcd" * 10_000
    data = Codec(True).message(message)
    messages, error = receive(TracedCodec(False), data[:20], data[20:], into_room=True)
    assert (messages, error) == ([message], None)
    assert lines() == [f"< BINARY {'61626364' * 16}... (40000 bytes)"]


# --- tokens ----------------------------------------------------------------


def test_the_subprotocols_are_logged_without_a_token(caplog):
    caplog.set_level(logging.DEBUG, "endwell.wire.handshake")
    for value in ("chat, endwell.bearer, bearer.c2VjcmV0", "chat"):
        trace_request(Request("GET", "/", Headers({"Sec-WebSocket-Protocol": value})))
    fields = [record.getMessage() for record in caplog.records if "Protocol" in record.getMessage()]
    assert fields == ["> Sec-WebSocket-Protocol: ...", "> Sec-WebSocket-Protocol: chat"]


def test_a_new_token_is_logged_without_its_value(lines):
    client, server = TracedCodec(True), TracedCodec(False)
    data = client.control(TEXT, b"\x1abearer secret")
    server.feed(bytearray(data), len(data), [])
    assert lines() == [f"{arrow} TEXT '\\x1abearer '... (14 bytes)" for arrow in "><"]


def test_what_may_hide_a_token_is_logged_without_its_payload(lines):
    server = TracedCodec(False, None, PerMessageDeflate(Deflate(), False))
    server.discreet = True
    compressed = Codec(True, None, PerMessageDeflate(Deflate(), True)).message("a secret " * 20)
    parts = build(TEXT, b"\x1abea", True, fin=False) + build(CONTINUATION, b"rer secret", True)
    messages = []
    server.feed(bytearray(compressed + parts), len(compressed + parts), messages)
    assert messages == ["a secret " * 20, "\x1abearer secret"]
    (first, *others) = lines()
    assert first.startswith("< TEXT (")
    assert first.endswith(" bytes, compressed)")
    assert others == [r"< TEXT '\x1abea' (4 bytes, to be continued)", "< CONTINUATION (10 bytes)"]


def opened(version, client):
    """The codec of a connection in an old protocol."""
    return OldAccepted(Response(101), None, version).codec(client, None)


def old_logged_frames(codec, version):
    """Frames of an old protocol, and their log lines."""
    frames = [
        (codec.message("hello"), "TEXT 'hello' (5 bytes)"),
        (codec.message(""), "TEXT (0 bytes)"),
        (codec.message("ü" * 100), f"TEXT '{'ü' * 32}'... (200 bytes)"),
        (codec.message("a" * 70_000), f"TEXT '{'a' * 64}'... (70000 bytes)"),
    ]
    if version == "hybi-03":
        frames += [
            (codec.message(b"\x00\xff"), "BINARY 00ff (2 bytes)"),
            (codec.ping(b"\x01"), "PING 01 (1 bytes)"),
            (codec.pong(b""), "PONG (0 bytes)"),
        ]
    if version != "hixie-75":
        frames.append((codec.close(Close(1000)), "CLOSE (0 bytes)"))
    return frames


@pytest.mark.parametrize("version", ["hixie-75", "hixie-76", "hybi-03"])
@pytest.mark.parametrize("size", [1, 3, 1000, 10**6])
def test_received_frames_of_an_old_protocol_are_logged_in_any_split(version, size, lines, caplog):
    caplog.set_level(logging.INFO, "endwell.wire")
    plain, expected = opened(version, True), []
    frames = old_logged_frames(opened(version, False), version)
    caplog.set_level(logging.DEBUG, "endwell.wire")
    codec, messages = opened(version, True), []
    octets = b"".join(frame for frame, _ in frames)
    for at in range(0, len(octets), size):
        for receiver, events in ((codec, messages), (plain, expected)):
            receiver.feed(bytearray(octets[at : at + size]), len(octets[at : at + size]), events)
            while receiver.has_unparsed:
                receiver.feed(bytearray(), 0, events)
    assert messages == expected
    assert messages[:2] == ["hello", ""]
    assert codec.controls == plain.controls
    assert lines() == [f"< {line}" for _, line in frames]


@pytest.mark.parametrize("version", ["hixie-75", "hixie-76", "hybi-03"])
def test_sent_frames_of_an_old_protocol_are_logged_and_unchanged(version, lines, caplog):
    caplog.set_level(logging.INFO, "endwell.wire")
    plain = old_logged_frames(opened(version, True), version)
    caplog.set_level(logging.DEBUG, "endwell.wire")
    frames = old_logged_frames(opened(version, True), version)
    assert frames == plain
    assert lines() == [f"> {line}" for _, line in frames]


def test_frames_skipped_by_hixie_are_logged_with_their_type(lines):
    codec = TracedHixie(True, None, True)
    octets = b"\x01ab\xff\x80\x82\x00" + b"c" * 256 + b"\xff\x01d"
    for octet in octets:
        codec.feed(bytearray([octet]), 1, [])
    assert lines() == [
        "< type 0x01 6162 (2 bytes)",
        f"< type 0x80 {'63' * 64}... (256 bytes)",
        "< type 0xff 64 (1 bytes)",
    ]


def test_the_body_of_a_hybi_03_close_is_not_logged_as_a_code(lines):
    TracedHybi03(True, None).feed(bytearray(b"\x01\x02\x03\xe8"), 4, [])
    assert lines() == ["< CLOSE 03e8 (2 bytes)"]

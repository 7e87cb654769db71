from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.codes import CloseCode
from endwell.ending import Close
from endwell.errors import InvalidData, ProtocolError
from endwell.wire import frames
from endwell.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, build
from tests.wire.peer import KEY, frame


def _parse(head: bytes, masked: bool) -> tuple[int, int, int] | None:
    return frames.parse_header(bytearray(head), 0, len(head), masked)


def test_each_masked_frame_has_its_own_key_from_os_urandom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn: list[int] = []

    def urandom(size: int) -> bytes:
        drawn.append(size)
        return b"".join(struct.pack("!HH", len(drawn), i) for i in range(size // 4))

    monkeypatch.setattr(os, "urandom", urandom)
    frames._keys.clear()
    keys = [build(TEXT, b"", masked=True)[2:] for _ in range(1000)]
    frames._keys.clear()
    assert len(set(keys)) == 1000
    assert {key[0] for key in keys} == {0}, "all of them drawn"
    assert 1 < len(drawn) < 100, "in batches"


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_shares_no_masking_key_with_its_parent() -> None:
    build(TEXT, b"", masked=True)
    assert frames._keys
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writing, b"".join(build(TEXT, b"", masked=True)[2:] for _ in range(100)))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    ours = b"".join(build(TEXT, b"", masked=True)[2:] for _ in range(100))
    assert len(theirs) == len(ours) == 400
    # At random, one key of 100 is among 100 others once in 400,000 runs.
    shared = {theirs[i : i + 4] for i in range(0, 400, 4)} & {ours[i : i + 4] for i in range(0, 400, 4)}
    assert len(shared) < 2


# RFC 6455 §5.7, "Examples"; the frames that fit on a line.
EXAMPLES = [
    ("81 05 48 65 6c 6c 6f", TEXT, b"Hello", {}),
    ("01 03 48 65 6c", TEXT, b"Hel", {"fin": False}),
    ("80 02 6c 6f", CONTINUATION, b"lo", {}),
    ("89 05 48 65 6c 6c 6f", PING, b"Hello", {}),
    ("82 7E 01 00" + "2a" * 256, BINARY, b"*" * 256, {}),
    ("82 7F 00 00 00 00 00 01 00 00" + "2a" * 65536, BINARY, b"*" * 65536, {}),
    ("c1 07 f2 48 cd c9 c9 07 00", TEXT, bytes.fromhex("f248cdc9c90700"), {"rsv1": True}),
]


@pytest.mark.parametrize(("octets", "opcode", "payload", "flags"), EXAMPLES)
def test_the_examples_of_the_rfc_are_built(octets: str, opcode: int, payload: bytes, flags: dict) -> None:
    assert build(opcode, payload, masked=False, **flags) == bytes.fromhex(octets)


@pytest.mark.parametrize(
    ("octets", "opcode"), [("81 85 37fa213d 7f9f4d5158", TEXT), ("8a 85 37fa213d 7f9f4d5158", PONG)]
)
def test_the_masked_examples_of_the_rfc_are_built(
    octets: str, opcode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "_keys", [KEY])
    assert build(opcode, b"Hello", masked=True) == bytes.fromhex(octets)


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("masked", [False, True])
def test_lengths_are_built_in_their_shortest_form(size: int, kind: type, masked: bool) -> None:
    payload = bytes(size)
    built = build(BINARY, kind(payload), masked)
    key = built[len(built) - size - 4 : len(built) - size] if masked else None
    assert built == frame(BINARY, payload, key=key)


@given(
    opcode=st.sampled_from([TEXT, BINARY, CONTINUATION]),
    size=st.sampled_from([0, 1, 125, 126, 127, 65535, 65536]),
    masked=st.booleans(),
    fin=st.booleans(),
    rsv1=st.booleans(),
    before=st.binary(max_size=3),
)
def test_built_headers_parse_again(
    opcode: int, size: int, masked: bool, fin: bool, rsv1: bool, before: bytes
) -> None:
    data = bytearray(before) + build(opcode, bytes(size), masked, fin, rsv1)
    header = frames.parse_header(data, len(before), len(data), masked)
    assert header == (fin << 7 | rsv1 << 6 | opcode, size, len(data) - size)
    start = header[2]
    for end in range(len(before), start):
        assert frames.parse_header(data, len(before), end, masked) is None


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        ("a1 80", "RSV2 or RSV3"),
        ("91 80", "RSV2 or RSV3"),
        ("83 80", "opcode 3"),
        ("87 80", "opcode 7"),
        ("8b 80", "opcode 11"),
        ("8f 80", "opcode 15"),
        ("89 fe 00 7e", "longer than 125"),
        ("88 ff", "longer than 125"),
        ("09 80", "fragmented"),
        ("08 80", "fragmented"),
        ("c9 80", "RSV1"),
        ("81 00", "not masked"),
        ("81 fe 00 7d", "shortest form"),
        ("81 fe 00 00", "shortest form"),
        ("81 ff 00 00 00 00 00 00 ff ff", "shortest form"),
        ("81 ff 80 00 00 00 00 00 00 00", "most significant bit"),
    ],
)
def test_an_invalid_header_is_refused_before_its_key_arrives(octets: str, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        _parse(bytes.fromhex(octets), masked=True)


def test_a_client_refuses_a_masked_frame() -> None:
    with pytest.raises(ProtocolError, match="server's frame is masked"):
        _parse(frame(TEXT), masked=False)


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (struct.pack("!BBH", 0x82, 126, 126), 126),
        (struct.pack("!BBQ", 0x82, 127, 65536), 65536),
        (struct.pack("!BBQ", 0x82, 127, 2**63 - 1), 2**63 - 1),
    ],
)
def test_the_limits_of_the_longer_length_forms_are_accepted(head: bytes, length: int) -> None:
    assert _parse(head, masked=False) == (0x82, length, len(head))


def test_an_empty_close_has_no_code() -> None:
    assert frames.parse_close(b"") == Close(None, "")


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3003, 3999, 4000, 4123, 4999]
)
def test_a_valid_close_is_parsed(code: int) -> None:
    payload = struct.pack("!H", code) + "tschüß".encode()
    assert frames.parse_close(payload) == Close(code, "tschüß")
    assert frames.close_payload(Close(code, "tschüß")) == payload
    assert frames.parse_close(payload[:2]) == Close(code, "")


# Autobahn's 7.9.*, and the ranges of RFC 6455 §7.4.2.
@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535])
def test_an_invalid_code_is_not_received(code: int) -> None:
    with pytest.raises(ProtocolError, match=f"close code {code} "):
        frames.parse_close(struct.pack("!H", code))


def test_a_close_of_one_byte_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="one byte"):
        frames.parse_close(b"\x03")


@pytest.mark.parametrize("reason", [b"\xff", b"\xc3", b"ok \xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_a_reason_that_is_not_utf8_is_invalid_data(reason: bytes) -> None:
    with pytest.raises(InvalidData, match="reason"):
        frames.parse_close(b"\x03\xe8" + reason)


def test_a_close_without_a_code_is_built_empty() -> None:
    assert frames.close_payload(Close()) == b""


def test_a_member_of_the_enum_is_a_code() -> None:
    assert frames.close_payload(Close(CloseCode.GOING_AWAY)) == b"\x03\xe9"


def test_a_close_frame_is_built_from_valid_arguments() -> None:
    built = build(CLOSE, frames.close_payload(Close(1000, "bye")), masked=False)
    assert built == frame(CLOSE, b"\x03\xe8bye", key=None)

"""Frames of hybi-03."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.ending import Close
from endwell.errors import MessageTooBig, ProtocolError
from endwell.wire.codec import Ping, Pong
from endwell.wire.hybi import Hybi03

from .peer import receive

CONTINUATION, CLOSE, PING, PONG, TEXT, BINARY = range(6)
MORE = 0x80


def frame(opcode: int, payload: bytes = b"", *, more: bool = False) -> bytes:
    """A frame as hybi-03 §4.2 specifies."""
    size = len(payload)
    length = (
        bytes((size,))
        if size <= 125
        else b"\x7e" + size.to_bytes(2, "big")
        if size < 2**16
        else b"\x7f" + size.to_bytes(8, "big")
    )
    return bytes((opcode | (MORE if more else 0),)) + length + payload


BLOB = os.urandom(70_000)
WIRE = (
    frame(TEXT, b"h\xc3\xa9")
    + frame(TEXT, b"one, ", more=True)
    + frame(PING, b"p")
    + frame(CONTINUATION, b"two, ", more=True)
    + frame(CONTINUATION, b"three")
    + frame(BINARY, BLOB[:300])
    + frame(BINARY, BLOB)
    + frame(PONG)
    + frame(CLOSE)
)
EVENTS = ["hé", Ping(b"p"), "one, two, three", BLOB[:300], BLOB, Pong(b""), Close()]


@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize("into_room", [True, False])
@pytest.mark.parametrize("size", [1, 7, 4096, 10**6])
def test_every_frame_of_the_draft_is_received_in_any_split(client, size, into_room):
    reads = [WIRE[at : at + size] for at in range(0, len(WIRE), size)]
    assert receive(Hybi03(client), *reads, into_room=into_room) == (EVENTS, None)


@pytest.mark.parametrize("data", ["06 00", "0f 00", "44 00", "04 80", "82 00", "00 00"])
def test_frames_unknown_to_the_draft_are_refused(data):
    events, error = receive(Hybi03(client=False), bytes.fromhex(data))
    assert events == []
    assert isinstance(error, ProtocolError)


def test_max_size_applies_to_hybi_03():
    _, error = receive(Hybi03(client=False, max_size=10), frame(TEXT, b"x" * 11)[:3])
    assert isinstance(error, MessageTooBig)


@pytest.mark.parametrize("client", [True, False])
def test_sent_frames_use_the_drafts_opcodes_unmasked(client):
    codec = Hybi03(client)
    assert codec.message("hé") == frame(TEXT, "hé".encode())
    assert codec.message(BLOB) == frame(BINARY, BLOB)
    assert codec.ping(b"1") == frame(PING, b"1")
    assert codec.pong(b"1") == frame(PONG, b"1")
    assert codec.close(Close(4001, "why")) == codec.close(Close(None)) == frame(CLOSE)
    with pytest.raises(ValueError, match="code 1005 may not be sent"):
        codec.close(Close(1005))
    with pytest.raises(ValueError, match="at most 125 bytes"):
        codec.ping(bytes(126))


@pytest.mark.parametrize("body", [b"x", b"\x03\xe8bye", b"\0\0", b"\xff" * 125])
def test_any_body_of_a_close_is_ignored_and_echoed(body):
    codec = Hybi03(client=False)
    assert receive(codec, frame(CLOSE, body)) == ([Close()], None)
    assert codec.close(Close(None)) == frame(CLOSE, body)


@given(st.binary(max_size=60), st.integers(1, 7))
def test_any_split_of_the_octets_gives_the_same_result(data, size):
    def outcome(reads):
        events, error = receive(Hybi03(client=False, max_size=20), *reads)
        return events, type(error)

    assert outcome([data]) == outcome([data[at : at + size] for at in range(0, len(data), size)])

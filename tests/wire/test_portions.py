"""Codecs in plain Python process a read in portions."""

from __future__ import annotations

import pytest

from endwell.wire.codec import Pong
from endwell.wire.hixie import Hixie
from endwell.wire.hybi import Hybi03
from endwell.wire.portions import PORTION

READ = 2**18


@pytest.mark.parametrize(
    ("codec", "unit", "event"),
    [
        (Hixie, b"\0\xff", ""),
        (Hixie, b"\x80\x00\0x\xff", "x"),
        (Hybi03, b"\x04\x01x", "x"),
        (Hybi03, b"\x03\x00", Pong(b"")),
    ],
)
def test_a_read_of_tiny_frames_is_parsed_in_portions_without_loss(codec, unit, event):
    count = READ // len(unit)
    old = codec(client=False)
    messages = []
    old.feed(bytearray(unit * count + b"\0" * 10), len(unit) * count, messages)
    feeds = 1
    while old.has_unparsed:
        before = len(messages) + len(old.controls)
        old.feed(bytearray(), 0, messages)
        assert len(messages) + len(old.controls) - before <= PORTION / len(unit) + 1
        feeds += 1
    assert messages + old.controls == [event] * count
    assert feeds >= READ // PORTION


def test_later_data_is_processed_after_waiting_portions():
    old = Hixie(client=False)
    events = []
    first = b"\0" + b"a" * PORTION + b"\xff"
    old.feed(bytearray(first), len(first), events)
    assert (events, old.has_unparsed) == ([], True)
    old.feed(bytearray(b"\0b\xffjunk"), 3, events)
    assert (events, old.has_unparsed) == (["a" * PORTION, "b"], False)

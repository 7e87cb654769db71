from __future__ import annotations

import contextlib
import os
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.wire import payload
from tests.wire.peer import KEY

KEYS = st.binary(min_size=4, max_size=4)

#: The plain functions, and the compiled ones if they are built: compared here.
FORMS = [payload]
if find_spec("endwell.wire._payload"):
    FORMS.append(import_module("endwell.wire._payload"))
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)


@each_form
@pytest.mark.parametrize("size", [*range(20), 31, 32, 33, 125, 1023, 1024, 1025, 1026, 1027, 70_000])
def test_masking_is_xor_with_the_repeated_key(form, size):
    data = os.urandom(size)
    expected = bytes(octet ^ KEY[i % 4] for i, octet in enumerate(data))
    for kind in (bytes, bytearray, memoryview):
        masked = form.mask(kind(data), KEY)
        assert masked == expected
        assert type(masked) is bytes


@each_form
@given(data=st.binary(max_size=3000), key=KEYS)
def test_masking_twice_gives_the_data_back(form, data, key):
    assert form.mask(form.mask(data, key), key) == data


@each_form
def test_masking_does_not_change_its_argument(form):
    data = bytearray(2000)
    form.mask(data, KEY)
    assert data == bytes(2000)


@each_form
@given(before=st.binary(min_size=4, max_size=9), data=st.binary(max_size=200), after=st.binary(max_size=9))
def test_a_payload_is_unmasked_from_the_middle_of_a_read(form, before, data, after):
    start, end = len(before), len(before) + len(data)
    read = before + data + after
    assert form.binary(bytearray(read), start, end, False) == data
    masked = before + payload.mask(data, before[-4:]) + after
    assert form.binary(bytearray(masked), start, end, True) == data


@each_form
@given(before=st.binary(max_size=9), data=st.binary(max_size=200), key=st.one_of(st.just(b""), KEYS))
def test_a_piece_of_a_payload_is_unmasked_with_the_rotated_key(form, before, data, key):
    read = bytearray(before + data + b"after")
    expected = payload.mask(data, key) if key else data
    assert form.piece(read, len(before), len(before) + len(data), key) == expected
    assert read == before + data + b"after"


@each_form
@given(words=st.text(max_size=100), key=KEYS)
def test_only_the_given_range_is_decoded(form, words, key):
    data = words.encode()
    for octets, masked in ((data, False), (payload.mask(data, key), True)):
        read = bytearray(key + octets + b"after")
        assert form.text(read, 4, 4 + len(data), masked) == words
        assert read[:4] == key
        assert read[4 + len(data) :] == b"after"


@each_form
@given(data=st.binary(min_size=1, max_size=30), key=KEYS)
def test_invalid_utf8_fails_at_the_same_position_as_in_python(form, data, key):
    read = bytearray(key + payload.mask(data, key))
    with contextlib.suppress(UnicodeDecodeError):
        assert form.text(read, 4, 4 + len(data), True) == data.decode()
        return
    with pytest.raises(UnicodeDecodeError) as expected:
        data.decode()
    with pytest.raises(UnicodeDecodeError) as caught:
        form.text(bytearray(key + payload.mask(data, key)), 4, 4 + len(data), True)
    assert caught.value.start == expected.value.start


@each_form
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
@pytest.mark.parametrize("key", [b"", KEY])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_frames_are_written_into_a_growing_block(form, size, key, kind):
    data = os.urandom(size)
    made = payload.frame(0x82, data, key)
    assert form.frame(0x82, kind(data), key) == made
    for block in (bytearray(), bytearray(b"before"), bytearray(b"before" + bytes(100_000))):
        at = min(len(block), 6)
        end = form.write(block, at, 0x82, kind(data), key)
        assert end == at + len(made)
        assert block[at:end] == made
        assert block[:at] == b"before"[:at]


@each_form
@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536, 2**40])
def test_a_header_is_written_without_its_payload(form, size):
    assert form.header(0x82, size) == payload.header(0x82, size)
    assert form.header(0x82, size, 0x80) == payload.header(0x82, size, 0x80)
    if size <= 65536:
        assert form.header(0x82, size) + bytes(size) == payload.frame(0x82, bytes(size), b"")


@each_form
@given(pieces=st.lists(st.binary(max_size=50), min_size=1), key=st.one_of(st.just(b""), KEYS))
def test_a_payload_is_assembled_in_its_room(form, pieces, key):
    data = b"".join(pieces)
    masked = payload.mask(data, key) if key else data
    room, at = form.reserve(len(data)), 0
    for number, piece in enumerate(pieces):
        turned = key[at % 4 :] + key[: at % 4]
        end = at + len(piece)
        if number % 2 and key:
            form.put(room, at, bytearray(masked), at, end, b"")
            form.unmask(room, at, end, turned)
        else:
            form.put(room, at, bytearray(masked), at, end, turned)
        at = end
    assert form.whole(room) == data
    assert type(form.whole(room)) is bytes


@each_form
@given(messages=st.lists(st.one_of(st.text(max_size=5), st.binary(max_size=5))), first=st.integers(0, 5))
def test_the_total_of_messages_counts_bytes_and_characters(form, messages, first):
    assert form.total(messages, first) == sum(len(message) for message in messages[first:])
    with pytest.raises(TypeError):
        form.total([*messages, None], min(first, len(messages)))


def test_the_tables_for_masking_stay_small():
    assert sum(map(sys.getsizeof, payload._TABLES)) < 100_000

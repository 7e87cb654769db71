"""The plain and the compiled form of the packed frames are the same."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pytest

from endwell.rooms import packing

FORMS = [packing]
if find_spec("endwell.rooms._packing"):
    FORMS.append(import_module("endwell.rooms._packing"))
MOST = (1 << 64) - 1


@pytest.fixture(params=FORMS, ids=lambda form: form.__name__)
def form(request):
    return request.param


@pytest.mark.parametrize("call", [0, 1 << 40, MOST])
def test_a_call_of_publish(form, call):
    frame = form.publish(call, 9, b"r" * 515, b"message")
    octets = [0, 0, 2, 45, 1, *call.to_bytes(8, "big"), 9, 2, 3, *[0] * 24]
    assert frame == bytes(octets) + b"r" * 515 + b"message"


@pytest.mark.parametrize("sequence", [0, 1 << 40, MOST])
def test_a_publication(form, sequence):
    frame = form.publication(sequence, 9, b"epoch", 515, b"skipped" + b"name and message", 7)
    octets = [0, 0, 0, 33, 3, *sequence.to_bytes(8, "big"), 9, 5, 2, 3]
    assert frame == bytes(octets) + b"epoch" + b"name and message"
    assert form.publication(1, 0, b"", 0, b"", 0) == bytes([0, 0, 0, 12, 3, *[0] * 7, 1, 0, 0, 0, 0])


@pytest.mark.parametrize("size", [1 << 16, 1 << 24])
def test_a_large_publication(form, size):
    frame = form.publication(1, 0, b"e", 1, bytes(size), 0)
    assert (len(frame), int.from_bytes(frame[:4], "big")) == (size + 18, size + 13)


@pytest.mark.parametrize("number", [0, 1 << 33, MOST])
def test_an_answer(form, number):
    frame = form.published(number, MOST - number, 1 << 31, 2, b"epoch")
    numbers = [*number.to_bytes(8, "big"), *(MOST - number).to_bytes(8, "big"), 128, 0, 0, 0, 2]
    assert frame == bytes([0, 0, 0, 26, 2, *numbers]) + b"epoch"
    assert (form.number(frame, 5), form.number(frame, 13)) == (number, MOST - number)


def test_a_text_and_a_part(form):
    class Text(str):
        __slots__ = ()

    assert form.utf8("é") == form.utf8(Text("é")) == b"\xc3\xa9"
    assert [form.part(b"frame", *each) for each in ((0, 5), (1, 3), (5, 5))] == [b"frame", b"ra", b""]
    with pytest.raises(UnicodeEncodeError):
        form.utf8("\ud800")


def test_what_is_too_short_raises(form):
    for begin, end in ((-1, 2), (2, 1), (4, 6)):
        with pytest.raises(ValueError, match="too short"):
            form.part(b"frame", begin, end)
    for at in (1, 8, 9):
        with pytest.raises(ValueError, match="too short"):
            form.number(bytes(8), at)

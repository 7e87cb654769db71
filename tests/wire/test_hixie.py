"""Frames and key arithmetic of hixie-75 and hixie-76."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.ending import Close
from endwell.errors import InvalidData, MessageTooBig, ProtocolError, UnsupportedByProtocol
from endwell.wire.hixie import Hixie, key_number, proof
from tests.linear import takes_linear_time

from .peer import receive


def bytewise(data: bytes) -> list[bytes]:
    return [bytes((octet,)) for octet in data]


# -- the key numbers -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("key1", "key2", "challenge", "answer"),
    [
        # hixie-76 §1.3 and §1.2.
        (
            "18x 6]8vM;54 *(5:  {   U1]8  z [  8",
            "1_ tx7X d  <  nw  334J702) 7]o}` 0",
            b"Tm[K T2u",
            b"fQJ,fN/4F4!~K~MH",
        ),
        ("4 @1  46546xW%0l 1 5", "12998 5 Y3 1  .P00", b"^n:ds[4U", b"8jKS'y:G*Co,Wxa-"),
    ],
)
def test_the_key_examples_of_the_draft_are_computed(key1, key2, challenge, answer):
    assert proof(key1, key2, challenge) == answer


@pytest.mark.parametrize(
    ("key", "number"), [("3e6b263  4 17 80", 906585445), ("17  9 G`ZD9   2 2b 7X 3 /r90", 179922739)]
)
def test_a_key_number_is_its_digits_divided_by_its_spaces(key, number):
    assert key_number(key) == number


def test_a_key_number_may_be_any_32_bit_number():
    assert key_number("0 ") == 0
    assert key_number("4294967295 ") == 2**32 - 1


@pytest.mark.parametrize(
    "key",
    [
        "12345",  # no space to divide by
        "",
        " ",
        "abc def",
        "1 1 1",  # 111 / 2
        "4294967296 ",  # does not fit, although it would after the division
        "8589934592  ",
        "9" * 8000 + " ",  # int() takes quadratic time for it, or refuses it
        "0" * 8000 + " ",
        "\u0661\u0662 ",  # digits to str.isdigit(), not to the draft
    ],
)
def test_an_invalid_key_is_refused(key):
    with pytest.raises(ValueError, match=r"^the key's "):
        key_number(key)


def test_a_key_of_the_longest_line_takes_linear_time():
    def read(key):
        for _ in range(10):
            with pytest.raises(ValueError, match="32 bits"):
                key_number(key)

    assert takes_linear_time(read, lambda size: "1 " * size, 4096)


# -- receiving -----------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
def test_texts_and_a_closing_frame_are_received_in_any_split(whole):
    data = b"\0Hello\xff\0h\xc3\xa9\xff\0\xff\xff\0"
    reads = [data] if whole else bytewise(data)
    assert receive(Hixie(client=False), *reads) == (["Hello", "hé", "", Close()], None)


def test_data_after_the_closing_frame_is_ignored():
    assert receive(Hixie(client=True), b"\xff\0\0x\xff", b"\0y\xff") == ([Close()], None)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "skipped",
    [
        b"\x80\x05\0\xff\0\xff\xff",  # by its length, whatever is in it
        b"\xff\x03abc",  # FF closes only with a length of zero
        b"\x80\0",
        b"\xfe\x80\x80\x01x",  # a length with zeros before it
        b"\x01text of another type\xff",
        b"\x7f\xff",
        b"\x80\x81\x00" + bytes(128),
    ],
    ids=bytes.hex,
)
def test_frames_that_are_not_messages_are_skipped(skipped, whole):
    data = skipped + b"\0after\xff"
    reads = [data] if whole else bytewise(data)
    assert receive(Hixie(client=False), *reads) == (["after"], None)


def test_a_zero_length_of_several_octets_closes():
    assert receive(Hixie(client=False), b"\xff\x80\x80\x00") == ([Close()], None)


def test_messages_before_a_protocol_error_are_delivered():
    events, error = receive(Hixie(client=False), b"\0good\xff\0\xc3(\xff\0ignored\xff")
    assert events == ["good"]
    assert isinstance(error, InvalidData)


def test_the_first_invalid_byte_of_a_partial_text_fails():
    events, error = receive(Hixie(client=False), b"\0ab\xc3", b"\xa9\xfe")
    assert events == []
    assert isinstance(error, InvalidData)
    assert "at byte 4" in str(error)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "data",
    [
        b"\0" + b"x" * 11,  # without a terminator
        b"\0" + b"x" * 11 + b"\xff",
        b"\x01" + b"x" * 11,
        b"\x80\x0b",
        b"\xff\x0b",
        b"\x80" + b"\xff" * 8 + b"\x7f",
    ],
    ids=bytes.hex,
)
def test_frames_longer_than_max_size_are_refused(data, whole):
    events, error = receive(Hixie(client=False, max_size=10), *([data] if whole else bytewise(data)))
    assert events == []
    assert isinstance(error, MessageTooBig)
    assert str(error) == "frame is above 10 bytes"  # and not how much of it has arrived


@pytest.mark.parametrize("whole", [True, False])
def test_an_invalid_byte_within_max_size_takes_precedence_over_the_size(whole):
    data = b"\0" + b"x" * 9 + b"\xe8" + b"x" * 9
    for size, fault in ((9, MessageTooBig), (11, InvalidData)):
        events, error = receive(Hixie(client=False, max_size=size), *([data] if whole else bytewise(data)))
        assert events == []
        assert isinstance(error, fault)


def test_a_message_of_exactly_max_size_is_accepted():
    assert receive(Hixie(client=False, max_size=10), b"\0" + b"x" * 10 + b"\xff") == (["x" * 10], None)


def test_an_endless_length_is_refused():
    for reads in ([b"\x80" * 12], bytewise(b"\x80" * 12)):
        _, error = receive(Hixie(client=False, max_size=None), *reads)
        assert isinstance(error, ProtocolError)


def test_a_skipped_frame_is_not_stored():
    codec = Hixie(client=False, max_size=None)
    assert receive(codec, b"\x80\x87\xff\xff\x7f", *[bytes(2**20)] * 15) == ([], None)
    assert receive(codec, b"\x01", *[b"x" * 2**20] * 15) == ([], None)
    assert not codec._text


def test_a_long_text_in_many_reads_takes_linear_time():
    def read(reads):
        receive(Hixie(client=False, max_size=None), b"\0", *reads, b"\xff")

    assert takes_linear_time(read, lambda count: [b"x" * 1000] * count, 3200)


@given(st.binary(max_size=60), st.integers(1, 7))
def test_any_split_of_the_octets_gives_the_same_result(data, size):
    def outcome(reads):
        events, error = receive(Hixie(client=False, max_size=20), *reads)
        return events, type(error)

    assert outcome([data]) == outcome([data[at : at + size] for at in range(0, len(data), size)])


# -- sending -------------------------------------------------------------------------


@pytest.mark.parametrize("client", [True, False])
def test_a_text_is_sent_between_zero_and_ff(client):
    codec = Hixie(client)
    assert codec.payload("hé") == codec.message("hé") == b"\0h\xc3\xa9\xff"
    assert codec.first < 0


@pytest.mark.parametrize("message", [b"x", bytearray(b"x"), memoryview(b"x")])
def test_bytes_are_refused_with_the_reason(message):
    with pytest.raises(UnsupportedByProtocol, match=r"message must be a str: .*no binary messages"):
        Hixie(client=False).payload(message)


def test_invalid_messages_are_refused():
    with pytest.raises(TypeError, match="message must be a str, not int"):
        Hixie(client=False).payload(5)
    with pytest.raises(ValueError, match=r"^message contains a lone surrogate"):
        Hixie(client=False).payload("\ud800")


def test_hixie_has_no_pings():
    with pytest.raises(UnsupportedByProtocol, match="no pings"):
        Hixie(client=False).ping(b"")


def test_close_arguments_are_checked_although_not_sent():
    codec = Hixie(client=False)
    assert codec.close(Close(4001, "why")) == codec.close(Close(None)) == b"\xff\0"
    with pytest.raises(ValueError, match="code 1005 may not be sent"):
        codec.close(Close(1005))


def test_hixie_75_has_no_closing_frame_but_answers_one():
    codec = Hixie(client=False, has_close=False)
    assert codec.close(Close(1000)) == b""
    assert receive(codec, b"\xff\0") == ([Close()], None)
    assert codec.close(Close(None)) == b"\xff\0"


@pytest.mark.parametrize(
    ("octets", "begun"),
    [(b"", False), (b"\0", True), (b"\0hello", True), (b"\0hello\xff", False), (b"\x80", True)],
)
def test_has_partial_message_says_whether_a_frame_has_started(octets, begun):
    codec = Hixie(client=False)
    receive(codec, octets)
    assert codec.has_partial_message() is begun

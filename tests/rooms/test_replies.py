"""What Redis sends is understood, however its bytes are split."""

from __future__ import annotations

import random

import pytest
from redis.exceptions import InvalidResponse

from endwell.rooms.redis.replies import Decoder
from tests.linear import takes_linear_time

REPLIES = [
    b"OK",
    b"",
    None,
    -5,
    1 << 40,
    b"a\r\nb\x00\xff",
    b"x" * 3000,
    [],
    [b"message", b"channel", b"$5\r\nabc"],
    [[[b"1-0", [b"d", b"x", b"t", b"1"]], [b"2-0", [b"d", b""]]], [], None, [None, [3]]],
]


def octets(reply):
    match reply:
        case None:
            return b"$-1\r\n"
        case int():
            return b":%d\r\n" % reply
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case list():
            return b"*%d\r\n%b" % (len(reply), b"".join(map(octets, reply)))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, 1 << 20])
def test_replies_are_complete_however_they_are_split(size):
    decoder, found = Decoder(ValueError), []
    data = b"".join(map(octets, REPLIES))
    for at in range(0, len(data), size):
        found += decoder.feed(data[at : at + size])
    assert found == REPLIES


def test_replies_that_are_split_at_random_places_are_complete():
    dice = random.Random(5)
    data = b"".join(map(octets, REPLIES)) * 20
    decoder, found, at = Decoder(ValueError), [], 0
    while at < len(data):
        step = dice.choice((1, 2, 5, 40, 4000))
        found += decoder.feed(data[at : at + step])
        at += step
    assert found == REPLIES * 20


def test_a_status_an_error_and_a_null_array():
    status, error, nothing, inner = Decoder(ValueError).feed(
        b"+OK\r\n-ERR no\r\n*-1\r\n*2\r\n-A \xff\r\n:1\r\n"
    )
    assert (status, repr(error), nothing) == (b"OK", "ValueError('ERR no')", None)
    assert (str(inner[0]), inner[1]) == ("A \N{REPLACEMENT CHARACTER}", 1)


@pytest.mark.parametrize("data", [b"%2\r\n", b"\r\n", b"HTTP/1.1 400\r\n", b"$x\r\n", b"*1\r\n!\r\n"])
def test_what_is_no_reply_is_an_error(data):
    with pytest.raises((InvalidResponse, ValueError)):
        Decoder(ValueError).feed(data)


def feed(data):
    decoder, found = Decoder(ValueError), []
    for at in range(0, len(data), 500):
        found += decoder.feed(data[at : at + 500])
    assert len(found) == 1


@pytest.mark.parametrize(
    "make", [lambda size: b"x" * size, lambda size: [b"x"] * (size // 8)], ids=["bulk", "array"]
)
def test_the_cost_of_a_large_reply_is_linear(make):
    assert takes_linear_time(feed, lambda size: octets(make(size)), 400_000)

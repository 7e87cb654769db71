from __future__ import annotations

import socket

import pytest

from endwell.server.process.channel import Channel


@pytest.fixture
def ends():
    one, other = map(Channel, socket.socketpair())
    yield one, other
    one.close()
    other.close()


def test_words_arrive_in_order_with_their_values_and_nothing_is_heard_before_they_are_said(ends):
    one, other = ends
    assert other.receive() == []
    one.send("ready", {"deadline": 25.0})
    one.send("report", {"text": "two\nlines"})
    assert other.receive() == [("ready", {"deadline": 25.0}), ("report", {"text": "two\nlines"})]
    assert not other.ended


def test_a_word_of_which_only_a_part_has_come_is_waited_for():
    sock, theirs = socket.socketpair()
    with sock:
        channel = Channel(theirs)
        sock.send(b'["stop", nu')
        assert channel.receive() == []
        sock.send(b'll]\n["now"')
        assert channel.receive() == [("stop", None)]
        channel.close()


def test_the_last_words_of_a_process_that_has_ended_are_heard(ends):
    one, other = ends
    one.send("report", 1)
    one.close()
    assert other.receive() == [("report", 1)]
    assert other.ended
    other.send("stop")
    assert other.receive() == []


def test_an_end_that_dies_with_unread_words_is_gone_too(ends):
    one, other = ends
    other.send("stop")
    one.close()  # a reset, because the word is unread
    assert other.receive() == []
    assert other.ended

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


def test_commands_arrive_in_order_with_their_values(ends):
    one, other = ends
    assert other.receive() == []
    one.send("ready", {"deadline": 25.0})
    one.send("report", {"text": "two\nlines"})
    assert other.receive() == [("ready", {"deadline": 25.0}), ("report", {"text": "two\nlines"})]
    assert not other.ended


def test_a_partial_command_waits_for_the_rest():
    sock, theirs = socket.socketpair()
    with sock:
        channel = Channel(theirs)
        sock.send(b'["stop", nu')
        assert channel.receive() == []
        sock.send(b'll]\n["now"')
        assert channel.receive() == [("stop", None)]
        channel.close()


def test_commands_of_an_ended_process_are_received(ends):
    one, other = ends
    one.send("report", 1)
    one.close()
    assert other.receive() == [("report", 1)]
    assert other.ended
    other.send("stop")
    assert other.receive() == []


def test_a_process_that_ends_with_unread_commands_is_ended(ends):
    one, other = ends
    other.send("stop")
    one.close()  # a reset, because of the unread command
    assert other.receive() == []
    assert other.ended

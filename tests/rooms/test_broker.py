"""The supervisor's part of the bus, without a supervisor: workers that end."""

from __future__ import annotations

import json
import socket

import pytest

from endwell.rooms import broker as module
from endwell.rooms.broker import Broker, Link
from endwell.rooms.frames import Decoder, pack_word


@pytest.fixture
def broker():
    made = Broker(1 << 20)
    yield made
    for link in made.links:
        link.close()


def connect(broker):
    """A worker: the broker's link, and the worker's socket."""
    near, far = socket.socketpair()
    link = Link(near)
    broker.add(link)
    return link, far


def words(broker, far):
    """What a worker has been sent."""
    broker.flush()
    far.setblocking(False)
    return [json.loads(body) for _, body in Decoder().feed(far.recv(1 << 16))]


@pytest.mark.parametrize("size", [1 << 18, 40])
def test_what_a_worker_has_sent_before_its_end_is_handled(broker, monkeypatch, size):
    monkeypatch.setattr(module, "READ_SIZE", size)
    link, far = connect(broker)
    _, other = connect(broker)
    with far, other:
        far.sendall(pack_word("enter", "a", 1, "ada", {}, 60.0) + pack_word("leave", "a", 1, "ada", 0.0))
        far.close()
        broker.remove(link)
        assert words(broker, other) == [["went", "a", "ada", {}, 0, 1]]
    link.close()


def test_a_process_that_holds_the_socket_of_a_worker_that_has_ended_delays_nothing(broker):
    link, far = connect(broker)
    with far:
        broker.remove(link)
        assert broker.links == []
    link.close()


def test_a_key_that_leaves_while_there_is_no_worker_is_told_to_the_next_one(broker):
    link, far = connect(broker)
    with far:
        far.sendall(pack_word("enter", "a", 1, "x", {}, 0.0))
        broker.readable(link)
        broker.remove(link)
        link.close()
    for expected in ([["went", "a", "x", {}, 0, 1]], []):
        link, far = connect(broker)
        with far:
            if expected:
                assert words(broker, far) == expected
                far.sendall(pack_word("told", 1))
                broker.readable(link)
            else:
                with pytest.raises(BlockingIOError):
                    words(broker, far)


@pytest.mark.parametrize("told", [False, True])
def test_a_key_that_has_left_is_told_to_another_worker_if_the_first_one_ends_before_it_has_heard(
    broker, told
):
    link, far = connect(broker)
    with far:
        far.sendall(pack_word("enter", "a", 1, "x", {}, 0.0) + pack_word("leave", "a", 1, "x", 0.0))
        broker.readable(link)
        assert words(broker, far) == [["came", "a", "x", {}, 1], ["went", "a", "x", {}, 0, 1]]
        _, other = connect(broker)
        with other:
            if told:
                far.sendall(pack_word("told", 1))
            broker.remove(link)
            link.close()
            if told:
                with pytest.raises(BlockingIOError):
                    words(broker, other)
            else:
                assert words(broker, other) == [["went", "a", "x", {}, 0, 2]]

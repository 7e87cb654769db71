"""The supervisor's part of the bus, without a supervisor: workers that end."""

from __future__ import annotations

import json
import socket
from math import inf

import pytest

from endwell.rooms import broker as module
from endwell.rooms.broker import Broker, Link
from endwell.rooms.frames import (
    OWN,
    PUBLICATION,
    PUBLISHED,
    SENT,
    Decoder,
    pack_publish,
    pack_word,
    unpack_published,
)
from endwell.rooms.present import PART
from endwell.rooms.tellings import MAX_TELLING

READ, WRITE = 1, 4
#: What is ready and is no link.
ELSE = (1 << 20, READ)


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
        # It has ended before it has told that the key has come.
        assert turn(broker, broker.links[0], other) == [["came", "a", "ada", {}, 1, 1]]
        assert turn(broker, broker.links[0], other) == [["went", "a", "ada", {}, 0, 2]]
        assert turn(broker, broker.links[0], other) == []
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
        assert turn(broker, link, far) == [["came", "a", "x", {}, 1, 1]]
        broker.remove(link)
        link.close()
    broker.tick()
    for expected in ([["went", "a", "x", {}, 0, 2]], []):
        link, far = connect(broker)
        with far:
            if expected:
                assert words(broker, far) == expected
                far.sendall(pack_word("told", 2))
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
        assert turn(broker, link, far) == [["came", "a", "x", {}, 1, 1]]
        assert words(broker, far) == [["went", "a", "x", {}, 0, 2]]
        _, other = connect(broker)
        with other:
            if told:
                far.sendall(pack_word("told", 2))
            broker.remove(link)
            link.close()
            if told:
                with pytest.raises(BlockingIOError):
                    words(broker, other)
            else:
                assert words(broker, other) == [["went", "a", "x", {}, 0, 3]]


def turn(broker, link, far):
    """The words that a worker gets, which confirms each."""
    broker.tick()
    try:
        found = words(broker, far)
    except BlockingIOError:
        found = []
    far.sendall(b"".join(pack_word("told", each[5]) for each in found) or pack_word("nothing"))
    broker.readable(link)
    return found


def test_a_worker_is_told_step_by_step_that_all_keys_of_another_one_have_left(broker):
    count = 3 * MAX_TELLING
    link, far = connect(broker)
    other_link, other = connect(broker)
    with far, other:
        for number in range(count):
            far.sendall(pack_word("enter", "a", number, f"{number}", {}, 0.0))
            broker.readable(link)
            assert len(turn(broker, link, far)) == 1
        broker.remove(link)
        link.close()
        found = []
        for _ in range(20):
            some = turn(broker, other_link, other)
            assert len(some) <= MAX_TELLING
            found += some
        assert sorted(int(each[2]) for each in found) == list(range(count))
        assert {each[0] for each in found} == {"went"}
        assert turn(broker, other_link, other) == []


def test_a_key_that_comes_again_is_told_behind_its_leaving(broker):
    link, far = connect(broker)
    with far:
        for number in range(MAX_TELLING + 5):
            far.sendall(pack_word("enter", "a", number, f"{number}", {}, 0.0))
            broker.readable(link)
        for number in range(MAX_TELLING + 5):
            far.sendall(pack_word("leave", "a", number, f"{number}", 0.0))
            broker.readable(link)
        last = f"{MAX_TELLING + 4}"
        far.sendall(pack_word("enter", "a", 1000, last, {}, 0.0))
        broker.readable(link)
        found = []
        for _ in range(10):
            found += (some := turn(broker, link, far))
            assert len(some) <= MAX_TELLING
        assert [each[0] for each in found if each[2] == last] == ["came", "went", "came"]


def test_what_a_worker_that_stands_still_has_not_been_told_is_told_to_another_one(broker):
    link, far = connect(broker)
    other_link, other = connect(broker)
    with far, other:
        for number in range(2 * MAX_TELLING):
            far.sendall(pack_word("enter", "a", number, f"{number}", {}, 0.0))
            far.sendall(pack_word("leave", "a", number, f"{number}", 0.0))
            broker.readable(link)
        other.sendall(pack_word("enter", "a", 1, "other", {}, 0.0))
        broker.readable(other_link)
        assert [each[:3] for each in turn(broker, other_link, other)] == [["came", "a", "other"]]
        broker.remove(link)
        link.close()
        found = []
        for _ in range(10):
            found += turn(broker, other_link, other)
        for number in range(2 * MAX_TELLING):
            assert [each[0] for each in found if each[2] == f"{number}"] == ["came", "went"]
        assert len(found) == 4 * MAX_TELLING


def test_what_a_worker_has_not_told_is_told_by_the_next_one_with_a_connection_of_the_key(broker):
    link, far = connect(broker)
    other_link, other = connect(broker)
    newest_link, newest = connect(broker)
    with far, other, newest:
        for key in ("before", "after", "never"):
            far.sendall(pack_word("enter", "a", 1, key, {}, 60.0 if key == "after" else 0.0))
        broker.readable(link)
        other.sendall(pack_word("enter", "a", 2, "before", {}, 0.0))
        broker.readable(other_link)
        assert turn(broker, other_link, other) == []
        broker.remove(link)
        link.close()
        assert [each[:3] for each in turn(broker, other_link, other)] == [["came", "a", "before"]]
        other.sendall(pack_word("enter", "a", 3, "after", {}, 0.0))
        broker.readable(other_link)
        assert [each[:3] for each in turn(broker, other_link, other)] == [["came", "a", "after"]]
        # Nobody has a connection of this one.
        assert [each[:3] for each in turn(broker, newest_link, newest)] == [["came", "a", "never"]]
        assert [each[:3] for each in turn(broker, newest_link, newest)] == [["went", "a", "never"]]
        for connection, key in ((2, "before"), (3, "after")):
            other.sendall(pack_word("leave", "a", connection, key, 0.0))
        broker.readable(other_link)
        assert [each[:3] for each in turn(broker, other_link, other)] == [
            ["went", "a", "before"],
            ["went", "a", "after"],
        ]


def test_a_key_that_moves_to_another_worker_is_told_there_when_the_first_one_has_told_its_leaving(broker):
    link, far = connect(broker)
    other_link, other = connect(broker)
    with far, other:
        far.sendall(pack_word("enter", "a", 1, "ada", {}, 0.0))
        broker.readable(link)
        assert [each[0] for each in turn(broker, link, far)] == ["came"]
        far.sendall(pack_word("leave", "a", 1, "ada", 0.0))
        broker.readable(link)
        other.sendall(pack_word("enter", "a", 2, "ada", {}, 0.0))
        broker.readable(other_link)
        assert turn(broker, other_link, other) == []
        assert [each[0] for each in turn(broker, link, far)] == ["went"]
        assert [each[0] for each in turn(broker, other_link, other)] == ["came"]


@pytest.mark.parametrize("asks_on", [True, False])
def test_a_worker_reads_the_keys_of_a_room_in_parts(broker, asks_on):
    count = 2 * PART + 10
    link, far = connect(broker)
    with far:
        if asks_on:  # a worker of an older version does not
            far.sendall(pack_word("asks on"))
        for number in range(count):
            far.sendall(pack_word("enter", "a", number, f"{number}", {}, 0.0))
            broker.readable(link)
            turn(broker, link, far)
        found, after = [], []
        for _ in range(3 if asks_on else 1):
            far.sendall(pack_word("presence", 7, "a", *after))
            broker.readable(link)
            ((word, call, present),) = words(broker, far)
            assert (word, call) == ("answer", 7)
            after = [present.pop()] if isinstance(present[-1], int) else []
            found.append(len(present))
        assert (found, after) == ([PART, PART, 10] if asks_on else [count], [])


@pytest.mark.parametrize("says_so", [True, False])
def test_a_worker_that_keeps_what_it_publishes_is_not_sent_it_back(broker, says_so):
    link, far = connect(broker)
    other_link, other = connect(broker)
    with far, other:
        if says_so:  # a worker of an older version does not
            far.sendall(pack_word("keeps own"))
        far.sendall(pack_word("listen", 1, "a"))
        other.sendall(pack_word("listen", 1, "a"))
        broker.readable(link)
        broker.readable(other_link)
        words(broker, far), words(broker, other)
        far.sendall(pack_publish(2, "a", "x" * 1000, None, "skip"))
        broker.readable(link)
        broker.flush()
        (kind, answer), *more = Decoder().feed(far.recv(1 << 16))
        assert kind == PUBLISHED
        assert unpack_published(answer)[1:4] == (1, 2, OWN if says_so else SENT)
        assert [kind for kind, _ in more] == ([] if says_so else [PUBLICATION])
        assert [kind for kind, _ in Decoder().feed(other.recv(1 << 16))] == [PUBLICATION]


def test_it_serves_until_a_link_has_become_full_or_is_no_longer_full_or_something_else_is_ready(broker):
    link, far = connect(broker)
    other_link, other = connect(broker)
    turns = []

    def publish(timeout):
        turns.append(timeout)
        far.sendall(pack_publish(2, "a", "x" * 60_000, None, "skip"))
        return [(link.fileno(), READ)]

    def publish_and_wake(timeout):
        return [*publish(timeout), ELSE] if len(turns) == 1 else publish(timeout)

    def read(timeout):
        assert other.recv(1 << 20)
        return [(other_link.fileno(), WRITE)]

    with far, other:
        other.sendall(pack_word("listen", 1, "a"))
        broker.readable(other_link)
        assert broker.serve(publish, inf) == []
        assert other_link.wants_write
        assert len(turns) > 1
        assert set(turns) == {None}
        turns.clear()
        assert broker.serve(publish_and_wake, inf) == [ELSE]
        assert len(turns) == 2
        assert other_link.wants_write
        assert broker.serve(read, inf) == []
        assert not other_link.wants_write


def test_it_serves_until_a_deadline(broker):
    turns = []

    def wait(timeout):
        turns.append(timeout)
        return []

    assert broker.serve(wait, 0.0) == []
    assert turns == [0.0]
    link, far = connect(broker)
    with far:
        far.sendall(pack_word("enter", "a", 1, "ada", {}, 0.0) + pack_word("listen", 1, "b"))
        far.sendall(pack_word("ignore", "b"))
        broker.readable(link)
        later = broker.deadline
        assert broker.serve(lambda timeout: [ELSE] if 0 < timeout <= 300 else [], inf) == [ELSE]
        assert broker.deadline == later < inf

"""The state of all rooms: the numbers, the history and its bounds, who is present, and what is forgotten."""

from __future__ import annotations

import random
import tracemalloc
from math import inf

import pytest

from endwell.errors import RoomLimit
from endwell.rooms.history import History
from endwell.rooms.hub import FORGET_TIME, STEPS, Hub
from endwell.rooms.position import Position, Publication
from endwell.rooms.present import Connection, Present
from tests.linear import takes_linear_time

KEPT = History(messages=5, seconds=60, bytes=1000)


@pytest.fixture
def hub():
    return Hub(10_000)


def published(hub, *messages, history=KEPT, now=0.0, room="a"):
    for message in messages:
        position, _, _ = hub.publish(room, message, history, now)
    return position


def test_each_room_has_numbers_of_its_own_from_1_on(hub):
    first, publication, listeners = hub.publish("a", "x", None, 0.0)
    assert (first.sequence, publication, listeners) == (1, Publication(1, "x"), set())
    assert published(hub, "y").sequence == 2
    other = published(hub, "x", room="b")
    assert other.sequence == 1
    assert other.epoch != first.epoch
    assert hub.position("a", 0.0) == Position(first.epoch, 2)


def test_a_publication_goes_to_the_listeners_of_its_room(hub):
    one, two = object(), object()
    hub.listen("a", one, 0.0)
    assert hub.listen("a", two, 0.0) == hub.position("a", 0.0)
    hub.listen("b", one, 0.0)
    hub.ignore("a", one, 0.0)
    assert hub.publish("a", "x", None, 0.0)[2] == {two}
    hub.remove(two, 0.0)
    assert hub.publish("a", "x", None, 0.0)[2] == set()
    hub.ignore("no such room", one, 0.0)


def test_a_page_has_what_was_published_after_a_position_and_names_the_loss():
    hub, kept = Hub(10_000), []
    dice = random.Random(3)
    epoch = hub.position("a", 0.0).epoch
    for sequence in range(1, 301):
        message = "x" * dice.randrange(400)
        hub.publish("a", message, KEPT, 0.0)
        kept.append(Publication(sequence, message))
        while len(kept) > KEPT.messages or sum(len(each.message) for each in kept) > KEPT.bytes:
            kept.pop(0)
        after = dice.randrange(sequence + 1)
        page = hub.page("a", Position(epoch, after), None, 0.0)
        wanted = [each for each in kept if each.sequence > after]
        assert page.publications == wanted
        assert page.position == Position(epoch, sequence)
        assert page.lost == sequence - after - len(wanted)


@pytest.mark.parametrize("after", [None, Position("other", 2), Position("same", 8)])
def test_the_loss_is_unknown_for_a_position_that_the_room_never_had(hub, after):
    position = published(hub, *"1234567")
    if after is not None and after.epoch == "same":
        after = Position(position.epoch, after.sequence)
    page = hub.page("a", after, None, 0.0)
    assert page.lost is None
    assert [each.message for each in page.publications] == [*"34567"]


def test_a_page_has_a_limit(hub):
    position = published(hub, *"12345")
    page = hub.page("a", Position(position.epoch, 0), 2, 0.0)
    assert ([each.message for each in page.publications], page.lost) == (["1", "2"], 0)


def test_publications_expire(hub):
    position = published(hub, "1")
    published(hub, "2", now=30.0)
    page = hub.page("a", Position(position.epoch, 0), None, 60.0)
    assert ([each.message for each in page.publications], page.lost) == (["2"], 1)
    page = hub.page("a", Position(position.epoch, 1), None, 90.0)
    assert (page.publications, page.lost) == ([], 1)


def test_a_message_that_is_not_kept_ends_the_history_before_it(hub):
    epoch = published(hub, "1", "2").epoch
    published(hub, "3", history=None)
    page = hub.page("a", Position(epoch, 1), None, 0.0)
    assert (page.publications, page.lost) == ([], 2)
    published(hub, "4")
    page = hub.page("a", Position(epoch, 1), None, 0.0)
    assert ([each.message for each in page.publications], page.lost) == (["4"], 2)


def test_above_the_limit_of_all_rooms_those_that_were_left_first_lose_their_history():
    hub = Hub(100)
    one = object()
    for name in ("left first", "left later", "in use"):
        hub.listen(name, one, 0.0)
        published(hub, "x" * 40, room=name) if name != "in use" else None
    hub.ignore("left first", one, 0.0)
    hub.ignore("left later", one, 1.0)

    def kept(name):
        return len(hub.page(name, None, None, 0.0).publications)

    published(hub, "x" * 40, room="in use", now=1.0)
    assert [kept(name) for name in ("left first", "left later", "in use")] == [0, 1, 1]
    published(hub, "x" * 50, "y" * 50, room="in use", now=1.0)
    assert [kept(name) for name in ("left first", "left later", "in use")] == [0, 0, 2]
    published(hub, "z" * 30, room="in use", now=1.0)
    assert [each.message[0] for each in hub.page("in use", None, None, 0.0).publications] == ["y", "z"]


def test_a_publication_above_the_limit_takes_no_longer_with_many_rooms_that_nobody_uses():
    def full(rooms):
        hub = Hub(1000, max_rooms=rooms + 1)
        hub.listen("in use", object(), 0.0)
        for number in range(rooms):
            published(hub, "x" * 100, room=f"left {number}", history=KEPT if number % 2 else None)
        published(hub, *["x" * 100] * 10, room="in use", history=History(bytes=2000))
        return hub, rooms

    def publish(full):
        hub, count = full
        published(hub, *["x" * 100] * count, room="in use", history=History(bytes=2000))
        assert hub._bytes == 1000

    assert takes_linear_time(publish, full, 3200)


def test_the_next_deadline_is_found_at_once_after_many_rooms_were_left():
    def used_again(rooms):
        hub = Hub(1000, max_rooms=rooms)
        for number in range(rooms):
            hub.position(str(number), float(number))
        for number in range(rooms - 1):
            hub.listen(str(number), "a process", float(rooms))
        return hub, rooms

    def look(used_again):
        hub, count = used_again
        assert {hub.deadline for _ in range(count)} == {count - 1 + FORGET_TIME}

    assert takes_linear_time(look, used_again, 16_000)


def test_above_the_number_of_rooms_the_one_that_was_left_first_is_forgotten():
    hub, one = Hub(1000, max_rooms=3), object()
    epochs = {name: hub.listen(name, one, 0.0).epoch for name in ("left later", "left first", "in use")}
    published(hub, "x" * 40, room="left first")
    hub.ignore("left first", one, 0.0)
    hub.ignore("left later", one, 1.0)
    hub.publish("new", "x", None, 2.0)
    assert hub._bytes == 0
    kept = {name: hub.position(name, 2.0).epoch == epochs[name] for name in ("left later", "in use")}
    assert kept == {"left later": True, "in use": True}
    # It takes the place of the new room, which has no members.
    assert hub.position("left first", 2.0).epoch != epochs["left first"]


def test_a_room_with_a_member_or_a_key_is_not_forgotten_for_another():
    hub, one = Hub(1000, max_rooms=2), object()
    hub.listen("a", one, 0.0)
    hub.listen("b", one, 0.0)
    hub.enter("b", Connection(one, 1), "ada", {}, 5.0, 0.0)
    hub.leave("b", Connection(one, 1), "ada", 5.0, 0.0)
    hub.ignore("b", one, 0.0)
    for call in (
        lambda: hub.publish("c", "x", None, 1.0),
        lambda: hub.listen("c", one, 1.0),
        lambda: hub.position("c", 1.0),
        lambda: hub.page("c", None, None, 1.0),
    ):
        with pytest.raises(RoomLimit, match=r"2 rooms with members already \(max_known_rooms\)"):
            call()
    hub.tick(5.0)  # the grace ends
    assert hub.publish("c", "x", None, 5.0)[0].sequence == 1


def test_a_room_is_forgotten_when_nothing_in_it_is_left(hub):
    epoch = hub.position("a", 0.0).epoch
    assert hub.deadline == FORGET_TIME
    hub.tick(FORGET_TIME - 1)
    used = FORGET_TIME - 1
    assert hub.publish("a", "x", None, used)[0] == Position(epoch, 1)
    # Each use counts, not the end of the last listener only.
    assert hub.deadline == used + FORGET_TIME
    hub.tick(used + FORGET_TIME - 1)
    assert hub.deadline == used + FORGET_TIME
    hub.tick(used + FORGET_TIME)
    assert hub.deadline == inf
    assert hub.position("a", used + FORGET_TIME).epoch != epoch


def test_a_room_that_is_not_forgotten_yet_takes_little_memory(hub):
    def use(names):
        for name in names:
            hub.publish(name, "x", None, 0.0)
            hub.ignore(name, None, 0.0)

    use("abc")
    tracemalloc.start()
    try:
        use(map(str, range(1000)))
        assert tracemalloc.get_traced_memory()[0] < 1000 * 900
    finally:
        tracemalloc.stop()


def test_a_room_is_not_forgotten_while_it_has_history_or_a_listener_or_a_key(hub):
    one = object()
    history = History(seconds=1000)
    epochs = [
        published(hub, "x", history=history, room="kept").epoch,
        hub.listen("listened", one, 0.0).epoch,
        hub.position("present", 0.0).epoch,
    ]
    hub.enter("present", Connection(one, 1), "ada", {}, 0.0, 0.0)
    hub.tick(FORGET_TIME + 1)
    names = ["kept", "listened", "present"]
    assert [hub.position(name, FORGET_TIME + 1).epoch for name in names] == epochs
    hub.remove(one, FORGET_TIME + 2)
    hub.tick(1001.0 + FORGET_TIME)
    assert not set(epochs) & {hub.position(name, 2000.0).epoch for name in names}


def present(hub, room):
    keys, following = hub.presence(room)
    assert following == 0
    return keys


def test_a_key_is_present_from_its_first_connection_to_its_last(hub):
    one, two = object(), object()
    ada = hub.enter("a", Connection(one, 1), "ada", {"x": 1}, 0.0, 0.0)
    assert ada == Present("ada", {"x": 1}, 1)
    assert hub.enter("a", Connection(two, 1), "ada", {"x": 2}, 0.0, 0.0) is None
    assert hub.enter("a", Connection(two, 2), "bob", {}, 0.0, 0.0) == Present("bob", {}, 1)
    assert present(hub, "a") == [Present("ada", {"x": 2}, 2), Present("bob", {}, 1)]
    assert hub.leave("a", Connection(one, 1), "ada", 0.0, 0.0) == []
    assert hub.leave("a", Connection(one, 1), "ada", 0.0, 0.0) == []
    assert hub.leave("a", Connection(two, 1), "ada", 0.0, 0.0) == [("a", Present("ada", {"x": 2}, 0), two)]
    assert [each.key for each in present(hub, "a")] == ["bob"]
    assert present(hub, "b") == []
    assert hub.leave("b", Connection(one, 1), "ada", 0.0, 0.0) == []


def test_a_key_leaves_after_its_grace_unless_it_returns(hub):
    one = object()
    hub.enter("a", Connection(one, 1), "ada", {}, 10.0, 0.0)
    assert hub.leave("a", Connection(one, 1), "ada", 10.0, 0.0) == []
    assert present(hub, "a") == [Present("ada", {}, 0)]
    assert hub.deadline == 10.0
    assert hub.enter("a", Connection(one, 2), "ada", {}, 10.0, 9.0) is None
    assert hub.tick(10.0) == []
    assert hub.leave("a", Connection(one, 2), "ada", 10.0, 12.0) == []
    assert hub.tick(21.0) == []
    assert [left.present.key for left in hub.tick(22.0)] == ["ada"]
    assert present(hub, "a") == []


def test_a_key_that_comes_and_leaves_again_and_again_takes_no_more_memory(hub):
    one = object()
    for number in range(1000):
        hub.enter("a", Connection(one, number), "ada", {}, 3600.0, float(number))
        hub.leave("a", Connection(one, number), "ada", 3600.0, float(number))
    assert len(hub._leaving) == 1
    assert hub.tick(3600.0) == []
    assert hub.deadline == 999 + 3600.0
    # A shorter grace ends before the longer one that is queued.
    hub.enter("a", Connection(one, 1), "ada", {}, 1.0, 3601.0)
    hub.leave("a", Connection(one, 1), "ada", 1.0, 3601.0)
    assert [each.present.key for each in hub.tick(3602.0)] == ["ada"]
    assert hub.tick(1e6) == []


def test_the_end_of_a_process_ends_its_connections_each_with_its_own_grace(hub):
    one, two = object(), object()
    hub.enter("a", Connection(one, 1), "ada", {}, 10.0, 0.0)
    hub.enter("a", Connection(one, 2), "bob", {}, 0.0, 0.0)
    hub.enter("a", Connection(two, 1), "cy", {}, 0.0, 0.0)
    assert [left.present.key for left in hub.remove(one, 5.0)] == ["bob"]
    assert [left.present.key for left in hub.tick(15.0)] == ["ada"]
    assert [each.key for each in present(hub, "a")] == ["cy"]


def test_what_ends_with_a_process_that_has_many_connections_is_done_in_steps(hub):
    one, two = object(), object()
    for number in range(2 * STEPS):
        room = f"r{number % 3}"
        hub.listen(room, one, 0.0)
        hub.enter(room, Connection(one, number), f"{number}", {}, 1.0 if number % 2 else 0.0, 0.0)
    hub.enter("r0", Connection(two, 1), "1", {}, 0.0, 0.0)
    hub.enter("r0", Connection(two, 2), "stays", {}, 0.0, 0.0)
    hub.reserve(one, 10, 0, 100)
    hub.remove_later(one, 5.0)
    assert hub.reserved == {}
    assert not any(room.listeners for _, room in hub.states())
    left, ticks = [], 0
    while hub.deadline <= 5.0:
        some = hub.tick(5.0)
        assert len(some) <= STEPS
        left += some
        ticks += 1
        # Meanwhile, others come and go.
        hub.leave("r0", Connection(two, 1), "1", 0.0, 5.0)
        if ticks == 1:
            assert hub.enter("r2", Connection(two, 3), "late", {}, 0.0, 5.0) is not None
    assert 2 <= ticks <= 5
    assert sorted(int(each.present.key) for each in left) == list(range(0, 2 * STEPS, 2))
    assert hub.deadline == 6.0
    while hub.deadline <= 6.0:
        some = hub.tick(6.0)
        assert len(some) <= STEPS
        left += some
    assert len({each.present.key for each in left}) == len(left) == 2 * STEPS
    assert [each.key for room in ("r0", "r1", "r2") for each in present(hub, room)] == ["stays", "late"]


def test_what_comes_while_its_process_is_being_removed_stays_and_what_was_told_again_too(hub):
    one = object()
    for number in range(3 * STEPS):
        hub.enter("a", Connection(one, number), f"{number}", {}, 0.0, 0.0)
    hub.listen("a", one, 0.0)
    hub.listen("b", one, 0.0)
    hub.reserve(one, 10, 0, 100)
    hub.remove_later(one, 1.0, ({"b"}, {("a", 0), ("b", 1), ("a", 3 * STEPS - 2)}))
    assert [room.listeners for _, room in hub.states()] == [set(), {one}]
    assert hub.reserved == {one: 10}
    left = hub.tick(1.0)
    assert hub.is_removing(one)
    hub.enter("a", Connection(one, 3 * STEPS - 1), f"{3 * STEPS - 1}", {}, 0.0, 1.0)
    assert hub.enter("a", Connection(one, 3 * STEPS), "new", {}, 0.0, 1.0) is not None
    while hub.is_removing(one):
        left += hub.tick(1.0)
    assert [each.present.key for each in left] == [f"{number}" for number in range(1, 3 * STEPS - 2)]
    assert [each.key for each in present(hub, "a")] == ["0", f"{3 * STEPS - 2}", f"{3 * STEPS - 1}", "new"]
    # It ends before it has been removed: everything goes.
    hub.remove_later(one, 2.0, (set(), {("a", 0)}))
    hub.remove_later(one, 3.0)
    assert hub.reserved == {}
    assert {each.present.key for each in hub.tick(3.0)} == {"0", *(f"{3 * STEPS - n}" for n in (1, 2)), "new"}
    assert not hub.is_removing(one)


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_room_that_is_forgotten_while_the_end_of_a_process_is_handled_is_not_taken_for_its_room(comes_back):
    hub, one, two = Hub(1000, max_rooms=2), object(), object()
    for process, number in [(one, 1), *((two, number) for number in range(STEPS))]:
        hub.listen("a", process, 0.0)
        hub.enter("a", Connection(process, number), f"{number} of {id(process)}", {}, 0.0, 0.0)
    hub.remove_later(one, 1.0)
    hub.tick(1.0)
    assert hub.deadline < 0, "it goes on in the next step"
    for number in range(STEPS):
        hub.leave("a", Connection(two, number), f"{number} of {id(two)}", 0.0, 2.0)
    hub.ignore("a", two, 2.0)
    hub.position("b", 3.0)
    hub.position("c", 3.0)  # the room that was left first is forgotten
    epoch = hub.listen("a", two, 3.0).epoch if comes_back else None
    hub.tick(4.0)
    for name in "def":
        hub.position(name, 5.0)
    hub.tick(5.0 + FORGET_TIME)
    assert [name for name, _ in hub.states()] == (["a"] if comes_back else [])
    assert not comes_back or hub.publish("a", "x", None, 400.0) == (
        Position(epoch, 1),
        Publication(1, "x"),
        {two},
    )


def test_the_keys_of_a_room_are_read_in_parts(hub):
    one = object()
    for number in range(10):
        hub.enter("a", Connection(one, number), f"{number}", {}, 0.0, 0.0)
    part, following = hub.presence("a", 0, 4)
    assert [each.key for each in part] == ["0", "1", "2", "3"]
    # Keys that leave and come meanwhile move none from one part to another.
    for number in (1, 3, 5):
        hub.leave("a", Connection(one, number), f"{number}", 0.0, 0.0)
    hub.enter("a", Connection(one, 1), "1", {}, 0.0, 0.0)
    part, following = hub.presence("a", following, 4)
    assert [each.key for each in part] == ["4", "6", "7", "8"]
    part, following = hub.presence("a", following, 4)
    assert ([each.key for each in part], following) == (["9", "1"], 0)
    other = Hub(0)
    for name, room in hub.states():
        other.add(name, room, 0.0)
    part, following = other.presence("a", 0, 5)
    part += other.presence("a", following, 5)[0]
    assert [each.key for each in part] == ["0", "2", "4", "6", "7", "8", "9", "1"]


def test_the_end_of_all_graces(hub):
    one = object()
    hub.enter("a", Connection(one, 1), "ada", {}, 10.0, 0.0)
    hub.enter("a", Connection(one, 2), "bob", {}, 10.0, 0.0)
    hub.leave("a", Connection(one, 1), "ada", 10.0, 0.0)
    assert [left.present.key for left in hub.end_graces(1.0)] == ["ada"]
    assert [each.key for each in present(hub, "a")] == ["bob"]
    assert hub.tick(100.0) == []

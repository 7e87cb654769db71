"""Positions, the bounds of a history, the options and the frames of the bus."""

from __future__ import annotations

from dataclasses import fields

import pytest

from endwell.errors import RoomLimit
from endwell.rooms import History, Position, Publication, RoomOptions, Rooms
from endwell.rooms.frames import (
    OWN,
    PUBLICATION,
    PUBLISH,
    PUBLISHED,
    WORD,
    Decoder,
    dump,
    forward,
    load,
    pack_publication,
    pack_publish,
    pack_published,
    pack_word,
    unpack_publication,
    unpack_publish,
    unpack_published,
)
from endwell.rooms.options import RoomKeywords
from endwell.rooms.tail import MAX_TAIL, MAX_TAIL_BYTES, Tail

MESSAGES = ["", "text", "é" * 300, b"", b"\x00\xff", b"x" * 70000]


def test_a_position_is_a_text_and_back():
    position = Position("f3Zk0q", 17)
    assert str(position) == "f3Zk0q:17"
    assert Position.parse("f3Zk0q:17") == position
    assert Position.parse("a:b:0") == Position("a:b", 0)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", "a", "a:", ":1", "a:-1", "a:+1", "a: 1", "a:1_0", "a:\u0661", "a:" + "9" * 19),
        *("\ud800:1", "\u00e9:1", "a" * 65 + ":1"),
    ],
)
def test_other_text_is_no_position(text):
    with pytest.raises(ValueError, match="not a position"):
        Position.parse(text)
    assert Position.parse("a" * 64 + ":1") == Position("a" * 64, 1)


@pytest.mark.parametrize("name", ["messages", "seconds", "bytes"])
@pytest.mark.parametrize(
    ("value", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_a_bound_of_a_history_is_positive(name, value, error):
    with pytest.raises(error, match=name):
        History(**{name: value})


def test_a_bound_of_a_history_fits_into_a_frame():
    for name, value in (("seconds", float("inf")), ("seconds", float("nan")), ("messages", 2**63)):
        with pytest.raises(ValueError, match=f"{name} must be positive and less than"):
            History(**{name: value})
    most = History(2**63 - 1, 2.0**62, 2**63 - 1)
    ((_, body),) = Decoder().feed(pack_publish(1, "a", "x", most, "skip"))
    assert unpack_publish(body)[3] == most


def test_a_name_of_a_room_fits_into_a_frame():
    with pytest.raises(ValueError, match="max_name must be at most 65535"):
        Rooms(max_name=65536)
    name = Rooms(max_name=65535)["x" * 65535].name
    ((_, body),) = Decoder().feed(pack_publish(1, name, "x", None, "skip"))
    assert unpack_publish(body)[1] == name


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"history": 5}, TypeError),
        ({"grace": -1}, ValueError),
        ({"grace": 2**63}, ValueError),
        ({"grace": float("nan")}, ValueError),
        ({"grace": "1"}, TypeError),
        ({"max_members": 0}, ValueError),
        ({"max_members": 1.5}, TypeError),
        ({"max_member": 1}, TypeError),
    ],
)
def test_an_option_of_a_room_that_is_wrong_is_named(keywords, error):
    (name,) = keywords
    with pytest.raises(error, match=name):
        Rooms().configure("*", **keywords)


def test_a_key_of_a_user_that_is_too_deep_is_too_long():
    key = ()
    for _ in range(100_000):
        key = (key,)
    with pytest.raises(RoomLimit, match="the JSON text of key"):
        Rooms().user(key)


@pytest.mark.parametrize("name", ["max_rooms", "max_message", "max_name", "max_history", "max_known_rooms"])
def test_a_limit_of_rooms_is_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be positive"):
        Rooms(**{name: 0})
    with pytest.raises(TypeError, match=f"{name} must be an integer"):
        Rooms(**{name: "1"})


def test_the_keywords_are_the_fields_of_the_options():
    assert RoomKeywords.__optional_keys__ == {each.name for each in fields(RoomOptions)}


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("history", [None, History(7, 1.5, 1 << 40)])
def test_a_publish_frame_and_back(message, history):
    frame = 1 << 40, "räume", message, history, "close"
    ((kind, body),) = Decoder().feed(pack_publish(*frame))
    assert kind == PUBLISH
    assert unpack_publish(body) == frame


@pytest.mark.parametrize("message", MESSAGES)
def test_a_publication_frame_and_back(message):
    publication = Publication(1 << 40, message)
    ((kind, body),) = Decoder().feed(pack_publication("räume", "épo", publication, "queue"))
    assert kind == PUBLICATION
    assert unpack_publication(body) == ("räume", "épo", publication, "queue")


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("history", [None, History(7, 1.5, 1 << 40)])
def test_a_publish_frame_is_forwarded_as_a_publication(message, history):
    ((_, body),) = Decoder().feed(pack_publish(1, "räume", message, history, "close"))
    publication = Publication(1 << 40, message)
    assert forward(body, "épo", 1 << 40) == pack_publication("räume", "épo", publication, "close")


def test_the_other_frames_and_back():
    answer = 3, 1 << 40, 2, OWN, "epoch"
    word = pack_word("left", "räume", None, [1])
    frames = Decoder().feed(pack_published(*answer) + word)
    assert [kind for kind, _ in frames] == [PUBLISHED, WORD]
    assert unpack_published(frames[0][1]) == answer
    assert [load(dump(message)) for message in MESSAGES] == MESSAGES


def test_a_stream_of_frames_may_be_split_anywhere():
    stream = b"".join(pack_word("word", number) for number in range(20))
    whole = Decoder().feed(stream)
    assert len(whole) == 20
    for size in (1, 2, 3, 7, 50):
        decoder = Decoder()
        parts = [stream[begin : begin + size] for begin in range(0, len(stream), size)]
        assert [frame for part in parts for frame in decoder.feed(part)] == whole


def test_a_tail_keeps_publications_only_while_the_history_is_read():
    tail = Tail()
    tail.append(Publication(1, "x"))
    position = Position("a", 1)
    assert tail.reaches(position, position)
    assert not tail.reaches(Position("a", 0), position)
    with tail:
        with tail:
            tail.append(Publication(2, "y"))
        tail.append(Publication(3, "z"))
        assert tail.reaches(Position("a", 1), Position("a", 3))
        assert not tail.reaches(Position("a", 0), Position("a", 3))
        assert not tail.reaches(Position("b", 2), Position("a", 3))
        assert not tail.reaches(Position("a", 4), Position("a", 3))
        assert [each.message for each in tail.after(2)] == ["z"]
    assert list(tail.after(0)) == []


@pytest.mark.parametrize(("message", "kept"), [("", MAX_TAIL), ("x" * (MAX_TAIL_BYTES // 4), 4)])
def test_a_tail_is_bounded(message, kept):
    tail = Tail()
    with tail:
        for number in range(1, MAX_TAIL + 10):
            tail.append(Publication(number, message))
        assert len(list(tail.after(0))) == kept


def test_rooms_have_no_list_of_all_names():
    rooms = Rooms()
    with pytest.raises(TypeError, match="not iterable"):
        iter(rooms)
    with pytest.raises(TypeError, match=r"not a container|not iterable"):
        "name" in rooms  # noqa: B015


@pytest.mark.parametrize(
    ("bus", "error"), [(5, TypeError), ("http://localhost", ValueError), ("redis", ValueError)]
)
def test_a_bus_is_a_url_of_one(bus, error):
    with pytest.raises(error, match="bus must be a URL"):
        Rooms(bus=bus)


def test_a_room_that_is_in_use_cannot_be_configured():
    rooms = Rooms()
    room = rooms["chat/a"]
    with pytest.raises(
        ValueError, match=r"configure\('chat/\*'\) must come before the first use of the room 'chat/a'"
    ):
        rooms.configure("chat/*", history=History(messages=5))
    rooms.configure("chat/b", history=History(messages=5))
    assert room.name == "chat/a"

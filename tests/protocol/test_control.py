"""The control channel: its messages are between the two libraries."""

from __future__ import annotations

from endwell.options import Options
from endwell.protocol.connection import Connection
from endwell.protocol.control import ControlChannel
from endwell.protocol.heartbeat import ANSWER, HEARTBEAT, QUESTION
from endwell.wire.codec import Codec
from tests.protocol.core import frame, sent_frames


class Numbered:
    """A user whose messages start with a mark, and are acknowledged together."""

    def __init__(self, mark):
        self.mark = mark

    def greeting(self):
        return f"{self.mark}hello"

    def claims(self, message):
        return message.startswith(self.mark)

    def answers(self, messages):
        return [f"{self.mark}{len(messages)}"]


def opened(*users, **options):
    core = Connection(False, Options(**options), 0.0)
    core.accept(Codec(False), 0.0, ControlChannel(*users))
    return core


def receive(core, *messages):
    core.receive(b"".join(frame(core, "message", message) for message in messages), 1.0)


def test_take_removes_control_messages_and_returns_the_answers():
    channel = ControlChannel(Numbered("a"), Numbered("b"))
    messages = ["a", "b1", "x", "a1", b"a", "b2", "b3", "y"]
    assert channel.take(messages, 1) == ["a1", "b3"]
    assert messages == ["a", "x", b"a", "y"]
    assert channel.take(messages, 1) == []
    assert messages == ["a", "x", b"a", "y"]


def test_each_user_greets_the_peer_when_the_connection_opens():
    core = opened(Numbered("\x01"), HEARTBEAT)
    assert sent_frames(core) == ["\x01hello", ANSWER]


def test_control_messages_are_answered_and_neither_delivered_nor_counted():
    core = opened(Numbered("\x01"), HEARTBEAT)
    sent_frames(core)
    receive(core, "first", "\x01one", QUESTION, "\x01two", "second")
    assert list(core.inbox) == ["first", "second"]
    assert sent_frames(core) == ["\x012", ANSWER]
    assert (core.messages_in, core.messages_out) == (2, 0)


def test_no_control_message_is_answered_while_the_outbox_is_full():
    core = opened(Numbered("\x01"), write_limit=20)
    sent_frames(core)
    core.send("x" * 100, 0.0)
    receive(core, "\x01one")
    assert sent_frames(core) == ["x" * 100]
    receive(core, "\x01two")
    assert sent_frames(core) == ["\x011"]


def test_the_greeting_is_sent_although_the_response_fills_the_outbox():
    core = Connection(False, Options(write_limit=20), 0.0)
    core.open(b"x" * 100)
    core.accept(Codec(False), 0.0, ControlChannel(HEARTBEAT))
    assert core.outbox.size > 100

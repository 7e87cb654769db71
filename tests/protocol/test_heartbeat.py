"""The heartbeat of a page: answered by the library, and invisible to the application."""

from __future__ import annotations

import pytest

from endwell.ending import Close
from endwell.http import Headers, Request
from endwell.options import Options
from endwell.protocol import heartbeat
from endwell.protocol.connection import Connection
from endwell.protocol.control import ControlChannel
from endwell.protocol.heartbeat import ANSWER, HEARTBEAT, QUESTION
from endwell.wire.codec import Codec


def opened(heartbeat=True, **options):
    core = Connection(False, Options(**options), 0.0)
    core.accept(Codec(False), 0.0, ControlChannel(HEARTBEAT) if heartbeat else None)
    return core


def said(core):
    """The messages that the page receives."""
    events, data = [], b"".join(core.outbox.buffers())
    core.sent(len(data), 1.0)
    Codec(True, None).receive(data, events)
    return events


def message(text):
    return Codec(True).message(text)


@pytest.mark.parametrize("target", ["/?endwell=heartbeat", "/chat?name=Ada&endwell=heartbeat&x=1"])
def test_the_query_requests_the_heartbeat(target):
    assert heartbeat.asked_for(Request("GET", target, Headers()))


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/endwell=heartbeat",
        "/?endwell=heartbeats",
        "/?xendwell=heartbeat",
        "/?endwell",
        "/?x=endwell=heartbeat",
    ],
)
def test_no_other_query_requests_the_heartbeat(target):
    assert not heartbeat.asked_for(Request("GET", target, Headers()))


def test_the_page_is_notified_of_the_heartbeat_at_once():
    assert said(opened()) == [ANSWER]


def test_heartbeats_are_answered_and_removed_from_the_messages():
    core = opened()
    said(core)
    core.receive(
        message("a") + message(QUESTION) + message(b"\x05") + message(QUESTION) + message("\x05\x05"), 1.0
    )
    assert list(core.inbox) == ["a", b"\x05", "\x05\x05"]
    assert said(core) == [ANSWER]
    core.receive(message(QUESTION), 2.0)
    assert said(core) == [ANSWER]


def test_a_heartbeat_is_neither_a_message_nor_activity():
    core = opened(idle_timeout=10.0, ping_interval=None)
    core.receive(message("a"), 1.0)
    core.receive(message(QUESTION), 9.0)
    said(core)
    core.tick(11.0)
    assert not core.is_open
    core.eof(12.0)
    assert (core.ending.messages_in, core.ending.messages_out) == (1, 0)


def test_heartbeats_without_reading_queue_no_answers():
    core = opened(write_limit=10)
    core.send("x" * 100, 0.0)
    core.sent(0, 0.0)
    size = core.outbox.size
    for _ in range(1000):
        core.receive(message(QUESTION), 1.0)
    assert core.outbox.size == size
    assert not core.inbox


def test_no_heartbeat_answer_follows_a_close():
    core = opened()
    core.close(Close(1000, ""), 1.0)
    said(core)
    core.receive(message(QUESTION), 2.0)
    assert not core.outbox.size
    assert not core.inbox


def test_without_a_heartbeat_its_text_is_an_ordinary_message():
    core = opened(heartbeat=False)
    assert said(core) == []
    core.receive(message(QUESTION), 1.0)
    assert list(core.inbox) == [QUESTION]
    assert said(core) == []

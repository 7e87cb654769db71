"""The inbox that threads read from: one queue, and its limits."""

from __future__ import annotations

from collections import deque
from sys import getsizeof
from types import SimpleNamespace

import pytest

from endwell.options import Options
from endwell.sync import inbox as module
from endwell.sync.inbox import ThreadInbox
from endwell.sync.portal import Portal


@pytest.fixture
def portal():
    return Portal(SimpleNamespace())


def filled(portal, *messages, senders=(), **options):
    inbox = ThreadInbox(Options(**options), portal, senders)
    deliver(inbox, *messages)
    return inbox


def deliver(inbox, *messages):
    inbox.messages.extend(messages)
    inbox.count(0)


def test_delivered_messages_are_in_the_queue_of_the_threads(portal):
    inbox = filled(portal, "first", b"second")
    assert (inbox.messages, list(inbox), len(inbox), inbox.arrived) == ([], ["first", b"second"], 2, 2)
    assert inbox.popleft() == "first"
    assert inbox.queue.popleft() == b"second"
    with pytest.raises(IndexError):
        inbox.popleft()
    assert not inbox
    deliver(inbox, "third")
    inbox.clear()
    assert not inbox


def test_the_inbox_is_full_at_max_queue_messages_until_half_are_read(portal):
    inbox = filled(portal, "1", "2", "3", max_queue=4)
    assert not inbox.is_full()
    deliver(inbox, "4")
    assert inbox.is_full()
    assert inbox.paused
    inbox.popleft()
    assert inbox.is_full()
    inbox.popleft()
    assert not inbox.is_full()
    assert not inbox.paused
    deliver(inbox, "5")
    assert not inbox.is_full()


def test_the_inbox_is_full_at_max_size_unread_bytes(portal):
    inbox = filled(portal, b"x" * 6, max_size=10)
    assert not inbox.is_full()
    inbox.popleft()
    deliver(inbox, b"x" * 6, b"x" * 4)
    assert inbox.is_full()
    inbox.popleft()
    assert not inbox.is_full()


def test_an_emptied_inbox_restarts_its_count_of_bytes(portal):
    inbox = filled(portal, max_size=10)
    for _ in range(5):
        deliver(inbox, b"x" * 6)
        assert not inbox.is_full()
        inbox.popleft()


def test_a_blocked_sender_extends_the_inbox_by_the_loops_allowance(portal, monkeypatch):
    monkeypatch.setattr(module, "DEADLOCK_ALLOWANCE", 3 * getsizeof(b"x"))
    senders = deque(["blocked"])
    inbox = filled(portal, b"x", b"x", senders=senders, max_queue=2)
    assert not inbox.is_full()
    assert inbox.paused
    for taken in (1, 2):
        deliver(inbox, b"x")
        assert portal.surplus == taken * getsizeof(b"x")
        assert not inbox.is_full()
    deliver(inbox, b"x")
    assert inbox.is_full()
    other = filled(portal, b"x", b"x", senders=senders, max_queue=2)
    assert other.is_full()
    for _ in range(4):
        inbox.popleft()
    assert not inbox.is_full()
    assert portal.surplus == 0
    assert not other.is_full()


def test_without_a_blocked_sender_the_inbox_has_no_allowance(portal):
    senders = deque(["blocked"])
    inbox = filled(portal, b"x", b"x", senders=senders, max_queue=2)
    assert not inbox.is_full()
    deliver(inbox, b"x")
    senders.clear()
    assert inbox.is_full()
    inbox.release()
    assert portal.surplus == 0


def test_whether_a_long_queue_is_full_is_known_without_a_look_at_each_message(portal):
    asked = []

    class Message(bytes):
        def __len__(self):
            asked.append(self)
            return 1

    inbox = filled(portal, *(Message() for _ in range(1000)), senders=["blocked"], max_queue=4, max_size=10)
    asked.clear()
    for _ in range(10):
        assert not inbox.is_full()
    assert not asked
    assert inbox.paused

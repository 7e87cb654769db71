from __future__ import annotations

import sys
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endwell.protocol.inbox import Inbox


@given(st.lists(st.one_of(st.text(max_size=3), st.just("take"), st.just("clear"))))
def test_an_inbox_behaves_like_a_deque(steps):
    inbox, model = Inbox(), deque()
    for step in steps:
        if step == "take":
            if model:
                assert inbox.popleft() == model.popleft()
        elif step == "clear":
            inbox.clear()
            model.clear()
        else:
            inbox.messages.append(step)
            inbox.count(len(inbox.messages) - 1)
            model.append(step)
        assert list(inbox) == list(model)
        assert len(inbox) == len(model)
        assert bool(inbox) is bool(model)
        assert inbox.size == sum(map(len, model))


def test_an_empty_inbox_raises_index_error():
    with pytest.raises(IndexError):
        Inbox().popleft()


def test_an_inbox_that_is_never_empty_releases_consumed_messages():
    inbox = Inbox()
    inbox.messages.append("first")
    taken = str(object())
    before = sys.getrefcount(taken)
    for _ in range(1000):
        inbox.messages.append(taken)
        inbox.popleft()
    inbox.messages.append("last")
    while len(inbox) > 1:
        inbox.popleft()
    assert sys.getrefcount(taken) <= before + 2

"""What a process has missed of a room: the history and what was heard meanwhile, compared by their numbers."""

from __future__ import annotations

import asyncio

import pytest

from endwell.rooms import Position
from endwell.rooms.frames import Shared
from endwell.rooms.listening import Heard, Listening, Missed


def heard(*numbers, epoch="e"):
    return [Heard(Position(epoch, each), Shared(b"8 octets", each, str(each), "skip")) for each in numbers]


@pytest.mark.parametrize(
    ("epoch", "now", "history", "kept", "lost", "delivered"),
    [
        # The same epoch, from 5 on.
        ("e", 5, [], [], 0, []),
        ("e", 8, [6, 7, 8], [], 0, [6, 7, 8]),
        ("e", 8, [7, 8], [], 1, [7, 8]),
        ("e", 8, [], [], 3, []),
        ("e", 8, [], [7, 8, 9], 1, [7, 8]),
        ("e", 8, [6, 7], [8], 0, [6, 7, 8]),
        ("e", 8, [], [6], 3, []),
        ("e", 3, [], [], 0, []),
        # Another epoch, whose first number is 3.
        ("f", 2, [1, 2], [], None, []),
        ("f", 4, [1, 2, 3, 4], [], None, [3, 4]),
        ("f", 5, [], [5], None, [5]),
        ("f", 9, [8, 9], [], None, [8, 9]),
    ],
)
async def test_catching_up(epoch, now, history, kept, lost, delivered):
    state = Listening("a")
    state.advance(Position("e", 5))
    for each in heard(*kept, epoch=epoch):
        state.keep(each, 1)
    missed = state.catch_up(2, Position(epoch, now), heard(*history, epoch=epoch))
    assert missed.lost == lost
    assert [each.position.sequence for each in missed.heard] == delivered
    if now >= 5 or epoch == "f":
        assert missed.position.sequence == now - len(delivered)
    else:
        assert missed == Missed(0, Position("e", 5), [])


async def test_what_follows():
    state = Listening("a")
    state.advance(Position("e", 5))
    follows = [state.follows(each) for each in heard(4, 5, 6, 7)]
    assert follows == [None, None, True, False]
    assert state.follows(heard(6, epoch="f")[0]) is False
    waiting = asyncio.ensure_future(state.change())
    await asyncio.sleep(0)
    state.advance(Position("e", 6))
    await waiting
    assert state.reached(Position("e", 6))
    assert not state.reached(Position("f", 6))

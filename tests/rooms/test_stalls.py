"""Processes that stand still while calls wait for the bus."""

from __future__ import annotations

import asyncio
import time

import pytest

from endwell.rooms import returning
from tests.pair import loop_turns, within

from .house import BETWEEN, SERVERS, house

#: The limit of a call in these tests, and a longer stall.
LIMIT, STALL = 2.5, 3.0


@pytest.mark.parametrize("bus", [each for each in BETWEEN if each in SERVERS])
async def test_calls_survive_a_stall_of_this_process_that_is_longer_than_their_limit(bus, monkeypatch):
    async with house(1, bus) as made:
        await made.joined()
        room, other, new = (made.room(name=name) for name in ("a", "b", "c"))
        (membership,) = made.memberships

        async def join():
            await new.join(membership.ws)

        monkeypatch.setattr(returning, "WAIT_TIME", LIMIT)
        calls = (
            join(),
            room.publish("x"),
            other.publish("x"),
            room.position(),
            room.history(),
            room.presence(),
        )
        waiting = asyncio.gather(*calls)
        await loop_turns(3)  # all are sent, and nothing is answered yet
        time.sleep(STALL)  # noqa: ASYNC251 (a handler that blocks the event loop)
        await within(waiting)

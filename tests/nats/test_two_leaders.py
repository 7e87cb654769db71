"""Two processes have numbered publications: no call waits for a publication that this process does not get."""

from __future__ import annotations

import asyncio

import pytest

from endwell.errors import BusUnavailable
from endwell.rooms.nats import asks
from tests.pair import until, within
from tests.raw import BOUND
from tests.rooms.two import two

from .faults import follower_of, leader_of
from .server import shared_server


class Held:
    """Holds the answers to the calls of publish() of a process back."""

    def __init__(self, bus, monkeypatch):
        self._answered, self.answers = bus._asks.answered, []
        monkeypatch.setattr(bus._asks, "answered", self._answer)
        self._asks = bus._asks._asks
        # The leader before may have answered.
        monkeypatch.setattr(asks, "DOUBT_TIME", 2 * BOUND)

    def _answer(self, number, *values):
        if number in self._asks and b"a publication" in self._asks[number].frame:
            self.answers.append((number, *values))
        else:
            self._answered(number, *values)

    def release(self):
        for values in self.answers:
            self._answered(*values)


@pytest.fixture(params=["another leader", "the same leader"])
def begin_again(request):
    """What makes the numbers of all rooms begin again."""

    async def another_leader(leader, follower):
        follower._leadership._claim()
        await until(lambda: follower._leadership._serves)

    async def same_leader(leader, follower):
        # It has heard another one, of a lower rank.
        leader._leadership._sequencer.renew_all()
        await leader.publish("a", "the next one", None, "skip", None)

    return another_leader if request.param == "another leader" else same_leader


async def test_a_publication_of_numbers_that_have_ended_is_an_error_at_once(monkeypatch, begin_again):
    async with two(shared_server().url) as pair:
        leader, follower = leader_of(pair.buses), follower_of(pair.buses)
        before = follower._rooms["a"].position
        held = Held(follower, monkeypatch)
        monkeypatch.setattr(follower, "_arrived", lambda *values: None)
        publishing = asyncio.create_task(pair.rooms[pair.buses.index(follower)].publish("a publication"))
        await until(lambda: held.answers)
        # The process hears of the other numbers before it hears the publication.
        monkeypatch.setattr(follower, "_arrived", type(follower)._arrived.__get__(follower))
        await begin_again(leader, follower)
        await until(lambda: follower._rooms["a"].position.epoch != before.epoch)
        held.release()
        with pytest.raises(
            BusUnavailable, match="was published, but the members in this process do not get it"
        ):
            await within(publishing)
        # Both go on.
        for number, room in enumerate(pair.rooms):
            await within(room.publish(f"after {number}"))
        await until(lambda: pair.all_got("after 0", "after 1"))


async def test_a_publication_that_waits_to_be_heard_when_its_numbers_end_is_an_error_at_once(
    monkeypatch, begin_again
):
    async with two(shared_server().url) as pair:
        leader, follower = leader_of(pair.buses), follower_of(pair.buses)
        before = follower._rooms["a"].position
        heard, arrived = [], follower._arrived
        monkeypatch.setattr(follower, "_arrived", lambda *values: heard.append(values))
        publishing = asyncio.create_task(pair.rooms[pair.buses.index(follower)].publish("a publication"))
        await until(lambda: heard and follower._own)
        monkeypatch.setattr(follower, "_arrived", arrived)
        await begin_again(leader, follower)
        await until(lambda: follower._rooms["a"].position.epoch != before.epoch)
        with pytest.raises(
            BusUnavailable, match="was published, but the members in this process do not get it"
        ):
            await within(publishing)

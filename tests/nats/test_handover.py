"""A leader that stops leaves the state of all rooms to the next one, while other processes end, too."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from contextlib import asynccontextmanager

from endwell.rooms.nats import NatsBus, sequencer
from endwell.rooms.nats.heritage import PART_SIZE
from tests.pair import until, within
from tests.rooms.witness import Witness

from .faults import crash, leader_of
from .server import shared_server


class Listener(Witness):
    """Notes who has left, too."""

    def __init__(self):
        super().__init__()
        self.left = []

    def came(self, room, present):
        pass

    def went(self, room, present):
        self.left.append(present.key)


@asynccontextmanager
async def three():
    """Three buses that listen to a room: the one that leads is the first."""
    url = f"{shared_server().url}?prefix={secrets.token_hex(4)}"
    listeners = {NatsBus(url, 1 << 20): Listener() for _ in range(3)}
    for bus, listener in listeners.items():
        await bus.start(listener)
        listener.positions["a"] = await bus.listen("a")
    leader = leader_of(listeners)
    yield [leader, *(bus for bus in listeners if bus is not leader)], listeners
    for bus in listeners:
        await bus.stop()


async def publish(bus):
    return await within(bus.publish("a", "x", None, "skip", None))


async def test_what_a_process_had_that_ends_before_a_hand_over_goes_with_its_lease(monkeypatch):
    async with three() as ((leader, dead, heir), listeners):
        dead.enter("a", 1, "ada", {}, 0.1)
        assert await dead.reserve(0, 5, 5) == (5, 5)
        await until(lambda: leader._leadership._sequencer._hub.has("a", "ada"))
        crash(dead)
        await leader.stop()
        assert [each.key for each in await heir.presence("a")] == ["ada"]
        assert await heir.reserve(0, 1, 5) == (0, 5)
        monkeypatch.setattr(sequencer, "LEASE_TIME", 1.0)
        await until(lambda: listeners[heir].left == ["ada"])
        assert await heir.presence("a") == []
        assert await heir.reserve(0, 1, 5) == (1, 1)
        _, workers = await publish(heir)
        assert workers == 1


async def test_a_leader_that_stops_is_told_once_who_has_left():
    async with three() as ((leader, *_), listeners):
        leader.enter("a", 1, "ada", {}, 0.0)
        await leader.flush()
        leader.leave("a", 1, "ada", 0.0)
        # It is told, and stops before its own confirmation is back from NATS.
        await leader.flush()
        await leader.stop()
        assert [each.left for each in listeners.values()].count(["ada"]) == 1
        assert sum(len(each.left) for each in listeners.values()) == 1


async def test_what_a_process_that_stops_has_not_confirmed_is_told_once():
    async with three() as ((leader, other, _), listeners):
        other.enter("a", 1, "ada", {}, 0.0)
        await other.flush()
        other.leave("a", 1, "ada", 0.0)
        # The leader tells it after it has said goodbye.
        await other.stop()
        await leader.flush()
        await until(lambda: not leader._leadership._sequencer._tellings._words)
        assert sum(len(each.left) for each in listeners.values()) == 1


async def test_the_last_process_that_stops_is_told_of_the_keys_within_their_grace():
    url = f"{shared_server().url}?prefix={secrets.token_hex(4)}"
    bus, listener = NatsBus(url, 1 << 20), Listener()
    await bus.start(listener)
    for number, key in enumerate(("ada", "bob")):
        bus.enter("a", number, key, {}, 60.0)
    bus.leave("a", 0, "ada", 60.0)
    await bus.flush()
    await bus.stop()
    assert sorted(listener.left) == ["ada", "bob"]


async def test_a_leader_that_returns_leads_on_though_a_new_process_has_begun_to_lead_meanwhile():
    async with three() as ((first, other, third), _):
        other.enter("a", 1, "ada", {}, 0.0)
        await other.flush()
        await first.stop()
        leader = leader_of((other, third))
        leader.enter("a", 2, "bob", {}, 0.0)
        await leader.flush()
        # NATS restarts, and a new process connects before the others.
        for bus in (other, third):
            bus._link._task.cancel()
        await until(lambda: not (other.is_connected or third.is_connected))
        url = f"nats://{leader._place.address.partition('//')[2]}?prefix={leader._place.prefix}"
        new = NatsBus(url, 1 << 20)
        await new.start(Listener())
        assert new._leadership._serves
        leader._link._task = asyncio.create_task(leader._link._run())
        await until(lambda: bool(leader._leadership._serves) and not new._leadership._serves)
        assert {each.key for each in await new.presence("a")} == {"ada", "bob"}
        await new.stop()


async def test_a_hand_over_that_was_cut_off_does_not_spoil_the_next_one():
    async with three() as ((leader, other, heir), listeners):
        await publish(leader)
        # The leader is killed after it has sent a part.
        _, parts = leader._leadership._sequencer.leave_all(0.0, 1 << 20)
        leader._leadership._send(heir._process, "heritage", parts[0])
        await until(lambda: heir._leadership._heritage is not None)
        crash(leader)
        other._leadership._claim()
        await until(lambda: bool(other._leadership._serves) and heir._leadership.leader is not None)
        await until(lambda: all(listeners[bus].gaps == [("a", None)] for bus in (other, heir)))
        await publish(other)
        await other.stop()
        await publish(heir)
        # Nothing more is lost.
        assert listeners[heir].gaps == [("a", None)]
        assert heir._leadership._serves


async def test_the_next_leader_unpacks_much_in_several_turns_of_the_loop(monkeypatch):
    async with three() as ((leader, other, heir), _):
        keys = [f"user{number}" for number in range(3000)]
        for number, key in enumerate(keys):
            other.enter("a", number, key, {"text": "x" * 200}, 0.0)
        await other.flush()
        turn, parts, add = 0, Counter(), heir._leadership.on_heritage

        async def count_turns():
            nonlocal turn
            while True:
                turn += 1
                await asyncio.sleep(0)

        def spy(part):
            parts[turn] += len(part)
            add(part)

        monkeypatch.setattr(heir._leadership, "on_heritage", spy)
        counting = asyncio.create_task(count_turns())
        await leader.stop()
        counting.cancel()
        assert parts.total() > 10 * PART_SIZE
        assert max(parts.values()) <= 2 * PART_SIZE
        await until(lambda: heir._leadership._serves)
        assert [each.key for each in await heir.presence("a")] == keys

"""What is much is done in steps: many keys leave or come again, and many messages arrive."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, defaultdict
from contextlib import asynccontextmanager
from math import inf

import pytest

from endwell.rooms import returning
from endwell.rooms.hub import STEPS
from endwell.rooms.nats import NatsBus
from endwell.rooms.nats.link import TURN
from endwell.rooms.tellings import MAX_TELLING
from tests.pair import until, within
from tests.rooms.witness import Witness

from .faults import crash, cut
from .server import shared_server

#: A few steps, and a last one that is not full.
COUNT = 2 * STEPS + 10


class Turn:
    """Counts the turns of the loop."""

    def __init__(self):
        self.number = 0
        self._go_on()

    def _go_on(self):
        self.number += 1
        self._handle = asyncio.get_running_loop().call_soon(self._go_on)

    def stop(self):
        self._handle.cancel()


class Told(Witness):
    """Notes what each key was told, in all processes, and how many calls each turn of the loop had."""

    def __init__(self, turn, events):
        super().__init__()
        self.turn, self.events = turn, events
        self.calls = Counter()

    def came(self, room, present):
        self.note(present.key, "joined")

    def went(self, room, present):
        self.note(present.key, "left")

    def note(self, key, event):
        self.events[key].append(event)
        self.calls[self.turn.number] += 1


class Processes:
    """Two processes: the leader and another one."""

    def __init__(self, leader, other, receivers, events, turn):
        self.leader, self.other = leader, other
        self.receivers, self.events, self.turn = receivers, events, turn

    @property
    def sequencer(self):
        return self.leader._leadership._sequencer

    async def enter(self, grace=0.0):
        """The other process has many keys."""
        for number in range(COUNT):
            self.other.enter("a", number, f"{number}", {}, grace)
        await until(lambda: len(self.events) == COUNT)
        # A process that is removed before the leader knows that it was told would be told once more.
        await until(lambda: not self.sequencer._tellings._words)

    def end_lease(self):
        """The lease of the other process ends. Its connections are being removed then."""
        self.sequencer._processes[self.other._process] = -inf
        self.leader._leadership.tick()
        assert self.sequencer._hub.is_removing(self.other._process)

    async def is_restored(self):
        await until(lambda: self.other._restoring is not None and self.other._restoring.done())
        hub = self.sequencer._hub
        await until(lambda: not hub.is_removing(self.other._process))

    async def keys(self):
        return sorted([each.key for each in await self.leader.presence("a")], key=int)


@asynccontextmanager
async def processes():
    url = f"{shared_server().url}?prefix={secrets.token_hex(4)}"
    turn, events = Turn(), defaultdict(list)
    receivers = [Told(turn, events) for _ in range(2)]
    buses = [NatsBus(url, 1 << 20) for _ in receivers]
    for bus, receiver in zip(buses, receivers, strict=True):
        await bus.start(receiver)
        receiver.positions["a"] = await bus.listen("a")
    assert buses[0]._leadership._serves
    yield Processes(*buses, receivers, events, turn)
    for bus in reversed(buses):
        await bus.stop()
    turn.stop()


def count_asks(bus, found):
    """Note how many calls a process has in progress."""
    send = bus._asks.send

    def spy(*values, **options):
        result = send(*values, **options)
        found.append(len(bus._asks._asks))
        return result

    bus._asks.send = spy


async def test_the_keys_of_a_process_that_ends_leave_step_by_step():
    async with processes() as made:
        await made.enter()
        assert await made.other.reserve(0, 5, 5) == (5, 5)
        told, send = Counter(), made.sequencer._send

        def spy(process, token, data):
            told[made.turn.number] += token == "tell"
            send(process, token, data)

        made.sequencer._send = spy
        crash(made.other)
        made.end_lease()
        # Its places are free at once. Its keys are present until it is their turn.
        assert await within(made.leader.reserve(0, 1, 5)) == (1, 1)
        await until(lambda: all(len(each) == 2 for each in made.events.values()))
        assert made.events == {f"{number}": ["joined", "left"] for number in range(COUNT)}
        assert await made.keys() == []
        assert sum(told.values()) == COUNT
        assert max(told.values()) <= STEPS
        assert max(made.receivers[0].calls.values()) <= TURN


async def test_graces_that_end_together_end_step_by_step():
    async with processes() as made:
        await made.enter()
        made.receivers[1].calls.clear()
        for number in range(COUNT):
            made.other.leave("a", number, f"{number}", 1e-9)
        await until(lambda: all(len(each) == 2 for each in made.events.values()))
        assert made.events == {f"{number}": ["joined", "left"] for number in range(COUNT)}
        assert max(made.receivers[1].calls.values()) <= TURN


async def test_a_process_that_returns_tells_its_keys_step_by_step():
    async with processes() as made:
        await made.enter()
        asks = []
        count_asks(made.other, asks)
        cut(made.other)
        await until(lambda: not made.other.is_connected)
        await until(lambda: made.other.is_connected)
        await until(lambda: len(asks) > COUNT)
        await made.is_restored()
        # The confirmations of what it is told are calls, too.
        assert max(asks) <= returning.BATCH + MAX_TELLING + 10
        assert await made.keys() == [f"{number}" for number in range(COUNT)]
        # It was not away, as far as the callbacks know.
        assert made.events == {f"{number}": ["joined"] for number in range(COUNT)}


async def test_a_process_that_returns_in_the_middle_of_its_removal_is_present_again():
    async with processes() as made:
        await made.enter()
        # Another process has the first and the last key, too.
        both = ["0", f"{COUNT - 1}"]
        for number, key in enumerate(both):
            made.leader.enter("a", number, key, {}, 0.0)
        await made.leader.flush()
        asks = []
        count_asks(made.other, asks)
        made.end_lease()
        await asyncio.sleep(0)
        # It does not wait until it is told.
        made.other._restore()
        # Meanwhile, a key leaves for good, and others come.
        made.other.leave("a", COUNT - 2, f"{COUNT - 2}", 0.0)
        made.other.enter("a", COUNT, f"{COUNT}", {}, 0.0)
        made.leader.enter("a", COUNT, "1", {}, 0.0)
        await until(lambda: made.other._process in made.sequencer._processes)
        await made.is_restored()
        await made.leader.flush()
        assert await made.keys() == [f"{number}" for number in range(COUNT + 1) if number != COUNT - 2]
        events = made.events
        assert events.pop(f"{COUNT - 2}") == ["joined", "left"]
        assert [events.pop(key) for key in both] == [["joined"]] * 2
        # This one may have come before the removal was at it, or after.
        assert events.pop("1") in (["joined"], ["joined", "left", "joined"])
        assert events.pop(f"{COUNT}") in (["joined"], ["joined", "left", "joined"])
        assert all(each == ["joined", "left", "joined"] for each in events.values())
        assert len(events) == COUNT - 4
        # The confirmations of what it is told are calls, too.
        assert max(asks) <= returning.BATCH + MAX_TELLING + 10
        present = {each.key: each.connections for each in await made.leader.presence("a")}
        assert [present[key] for key in (*both, "1")] == [2, 2, 2]


async def test_a_process_that_was_removed_while_it_was_disconnected_is_told_to_have_returned():
    async with processes() as made:
        await made.enter()
        made.other._link._task.cancel()
        await until(lambda: not made.other.is_connected)
        # This one leaves meanwhile, and its grace is over before the process returns.
        made.other.leave("a", 7, "7", 0.0)
        made.end_lease()
        await until(lambda: all(len(each) == 2 for each in made.events.values()))
        made.other._link._task = asyncio.create_task(made.other._link._run())
        await until(lambda: made.other._process in made.sequencer._processes)
        await made.is_restored()
        assert made.events.pop("7") == ["joined", "left"]
        assert {*map(tuple, made.events.values())} == {("joined", "left", "joined")}
        assert len(await made.keys()) == len(made.events) == COUNT - 1
        assert not made.other._presence._leaving


async def removed(made):
    """The other process was removed, and does not know it."""
    made.other._asks.tell = lambda word: None
    made.end_lease()
    await until(lambda: all(len(each) == 2 for each in made.events.values()))
    await until(lambda: not made.sequencer._tellings._words)


@pytest.mark.parametrize("between", [0, 300])
async def test_a_process_that_was_removed_once_and_restores_its_keys_twice_joins_once(between):
    async with processes() as made:
        await made.enter()
        await removed(made)
        made.other._restore()
        await until(lambda: sum(len(each) == 3 for each in made.events.values()) >= between)
        # It is told to do so again, or its connection was cut.
        made.other._restore()
        await made.is_restored()
        await made.leader.flush()
        await until(lambda: not made.sequencer._tellings._words)
        assert {*map(tuple, made.events.values())} == {("joined", "left", "joined")}
        assert not made.other._presence._untold


async def test_what_a_process_asks_that_was_removed_waits_until_it_knows_that():
    async with processes() as made:
        await made.enter()
        await removed(made)
        made.other.enter("a", COUNT, "new", {}, 0.0)
        made.other.leave("a", 0, "0", 0.0)
        await made.other.flush()
        made.leader.enter("a", 1, "new", {}, 0.0)
        await made.leader.flush()
        made.other._restore()
        await made.is_restored()
        await made.other.flush()
        await until(lambda: not made.sequencer._tellings._words)
        assert made.events.pop("new") == ["joined"]
        assert made.events.pop("0") == ["joined", "left"]
        assert {*map(tuple, made.events.values())} == {("joined", "left", "joined")}
        assert not made.other._presence._untold
        assert not made.other._presence._leaving


async def test_a_key_that_has_left_elsewhere_while_its_process_was_cut_off_leaves_once():
    async with processes() as made:
        await made.enter()
        made.other.leave("a", 7, "7", 3600.0)
        await made.other.flush()
        made.other._link._task.cancel()
        await until(lambda: not made.other.is_connected)
        made.leader.enter("a", 7, "7", {}, 0.0)
        made.leader.leave("a", 7, "7", 0.0)
        await until(lambda: made.events["7"] == ["joined", "left"])
        made.other._link._task = asyncio.create_task(made.other._link._run())
        await until(lambda: not made.other._presence._leaving)
        await made.is_restored()
        assert made.events["7"] == ["joined", "left"]
        assert "7" not in await made.keys()


async def test_connections_that_leave_before_the_leader_is_told_are_forgotten():
    async with processes() as made:
        await made.enter()
        made.leader.enter("a", 0, "new", {}, 0.0)
        await made.leader.flush()
        made.other._restore()
        for number in (COUNT, COUNT + 1):
            made.other.enter("a", number, "new", {}, 0.0)
        for number in (COUNT, COUNT + 1):
            made.other.leave("a", number, "new", 0.0)
        await made.is_restored()
        await made.other.flush()
        assert made.events["new"] == ["joined"]
        assert not made.other._presence._untold


async def test_a_key_within_its_grace_that_returns_with_its_process_has_neither_left_nor_joined():
    async with processes() as made:
        await made.enter(grace=3600.0)
        made.end_lease()
        await until(lambda: made.other._process in made.sequencer._processes)
        await made.is_restored()
        present = await made.leader.presence("a")
        assert [each.connections for each in present] == [1] * COUNT
        assert made.events == {f"{number}": ["joined"] for number in range(COUNT)}


async def test_a_connection_that_leaves_before_the_next_leader_knows_it_is_told_to_have_left():
    async with processes() as made:
        await made.enter()
        enter, left = made.other._presence._enter, []

        def spy(room, connection, entry):
            if not left:
                # The first one is being told again.
                left.extend((COUNT // 2, COUNT - 1))
                for number in left:
                    made.other.leave("a", number, f"{number}", 0.0)
            return enter(room, connection, entry)

        made.other._presence._enter = spy
        crash(made.leader)
        await until(lambda: len(left) == 2)
        await until(lambda: all(len(made.events[f"{number}"]) == 2 for number in left))
        assert [made.events.pop(f"{number}") for number in left] == [["joined", "left"]] * 2
        assert {*map(tuple, made.events.values())} == {("joined",)}
        present = {each.key for each in await made.other.presence("a")}
        assert present == {f"{number}" for number in range(COUNT) if number not in left}


async def test_a_process_returns_though_the_leader_has_no_place_for_one_of_its_rooms():
    async with processes() as made:
        await made.enter()
        made.other.enter("another", 1, "ada", {}, 0.0)
        await made.other.flush()
        hub = made.sequencer._hub
        del hub._rooms["another"]
        hub._max_rooms = 1
        cut(made.other)
        await until(lambda: not made.other.is_connected)
        made.end_lease()
        await until(lambda: all(len(made.events[f"{number}"]) == 3 for number in range(COUNT)))
        await made.is_restored()
        assert await made.keys() == [f"{number}" for number in range(COUNT)]
        assert await made.leader.presence("another") == []

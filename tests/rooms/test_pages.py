"""The supervisor answers with a history in parts, so that none blocks it for long."""

from __future__ import annotations

import asyncio
import json
import socket
import time

import pytest

import endwell
from endwell import CloseCode
from endwell.errors import BusUnavailable
from endwell.rooms import History, broker
from endwell.rooms.broker import PAGE, PAGE_BYTES, Broker, Link
from endwell.rooms.frames import Decoder, load, pack_word
from tests.pair import until, within

from .house import House, house
from .test_rooms import catch_up, one_server, two_workers

LARGE = History(messages=10**6, seconds=3600, bytes=1 << 30)


@pytest.fixture
def asked():
    """Asks a broker for a history, as a worker does; returns the answer and the size of its frame."""
    made = Broker(1 << 30)
    near, far = socket.socketpair()
    link = Link(near)
    made.add(link)

    def ask(messages, *words, after=None, limit=None):
        for message in messages:
            made._hub.number("a", message, LARGE, time.monotonic())
        far.sendall(b"".join([*words, pack_word("page", 7, "a", after, limit)]))
        made.readable(link)
        decoder, size, frames = Decoder(), 0, []
        while not frames:
            made.flush()
            part = far.recv(1 << 20)
            size += len(part)
            frames = decoder.feed(part)
        ((_, body),) = frames
        _, _, (position, lost, publications) = json.loads(body)
        return position, lost, [(number, load(message)) for number, message in publications], size

    yield ask
    far.close()
    link.close()


ASKS_ON = pack_word("asks on")


@pytest.mark.parametrize("message", ["x" * 1000, "é" * 500, bytes(1000)])
def test_an_answer_has_a_bounded_size(asked, message):
    position, lost, publications, size = asked([message] * 2000, ASKS_ON)
    assert (position[1], lost) == (2000, None)
    assert [number for number, _ in publications] == list(range(1, PAGE_BYTES // 1000 + 1))
    # Six characters of JSON for one that has two bytes.
    assert size < 3.2 * PAGE_BYTES


def test_an_answer_has_a_bounded_number_of_publications(asked):
    _, _, publications, _ = asked([""] * (PAGE + 5), ASKS_ON)
    assert len(publications) == PAGE
    _, lost, publications, _ = asked([], after=[asked([])[0][0], PAGE])
    assert (lost, [number for number, _ in publications]) == (0, [PAGE + each for each in range(1, 6)])


def test_a_large_message_is_alone_in_its_answer(asked):
    messages = ["x", "y" * (2 * PAGE_BYTES), "z"]
    _, _, publications, _ = asked(messages, ASKS_ON)
    assert publications == [(1, "x")]
    position, _, _, _ = asked([])
    _, lost, publications, _ = asked([], after=[position[0], 1])
    assert (lost, publications) == (0, [(2, messages[1])])


def test_a_worker_of_an_older_version_gets_all_at_once(asked):
    assert len(asked(["x" * 1000] * 2000)[2]) == 2000


@pytest.fixture
def in_parts(monkeypatch):
    """Three publications in each answer, or fewer if they are long."""
    monkeypatch.setattr(broker, "PAGE", 3)
    monkeypatch.setattr(broker, "PAGE_BYTES", 250)


@two_workers
async def test_a_process_reads_all_parts(two: House, in_parts):
    for number in range(20):
        await two.room(0).publish(f"{number:0{1 + number * 10}d}")
    for limit in (None, 0, 1, 2, 3, 4, 7, 19, 20, 21):
        history = await two.room(1).history(limit=limit)
        assert [int(each.message) for each in history] == list(range(20))[:limit]
    epoch = (await two.room(0).position()).epoch
    history = await two.room(1).history(since=f"{epoch}:15")
    assert [each.sequence for each in history] == [16, 17, 18, 19, 20]
    member, found = await two.joined(1, since=f"{epoch}:0")
    assert [int(found if each == 0 else await within(member.recv())) for each in range(20)] == list(range(20))


@two_workers
async def test_a_process_that_was_behind_catches_up_in_parts(two: House, monkeypatch, in_parts):
    await catch_up(two, monkeypatch)


@pytest.mark.parametrize("dies", ["some", "all"])
async def test_publications_that_leave_the_history_meanwhile_leave_no_hole(monkeypatch, in_parts, dies):
    async with house(2, "supervisor", history=History(messages=10)) as made:
        for number in range(10):
            await made.room(0).publish(str(number))
        bus = made.servers[1].rooms._registry.bus
        asked = bus._ask_page

        def ask(number, room, after, limit):
            if after is not None and after.sequence == 6:
                # Between two parts.
                for extra in range(12 if dies == "all" else 8):
                    hub = made.pump.broker._hub
                    hub.number("a", str(10 + extra), History(messages=10), time.monotonic())
            asked(number, room, after, limit)

        monkeypatch.setattr(bus, "_ask_page", ask)
        page = await bus.page("a", None, None)
        numbers = [each.sequence for each in page.publications]
        assert numbers == list(range(numbers[0], page.position.sequence + 1))
        # What is left, up to the position at the begin at least.
        assert numbers == ([13, 14, 15] if dies == "all" else [9, 10, 11])
        assert page.lost is None


async def test_what_is_published_while_a_process_reads_is_not_waited_for(monkeypatch, in_parts):
    async with house(2, "supervisor", history=LARGE) as made:
        for number in range(10):
            await made.room(0).publish(str(number))
        bus = made.servers[1].rooms._registry.bus
        asked, parts = bus._ask_page, []

        def ask(number, room, after, limit):
            parts.append(after)
            # More than one answer has.
            for extra in range(5 if len(parts) < 50 else 0):
                made.pump.broker._hub.number("a", str(extra), LARGE, time.monotonic())
            asked(number, room, after, limit)

        monkeypatch.setattr(bus, "_ask_page", ask)
        page = await bus.page("a", None, None)
        # Of the position 15, in parts of 3.
        assert len(parts) == 5
        assert [each.sequence for each in page.publications] == list(range(1, 16))
        assert page.position.sequence == 15


@one_server
async def test_members_that_return_to_the_same_position_share_one_call(one: House, monkeypatch):
    for number in range(3):
        await one.room().publish(str(number))
    await one.joined(key="stays")  # so that the process listens already
    bus = one.servers[0].rooms._registry.bus
    page, asked, answers = bus.page, [], asyncio.Event()

    async def late(room, after, limit):
        asked.append(after)
        found = await page(room, after, limit)
        await answers.wait()
        return found

    monkeypatch.setattr(bus, "page", late)
    epoch = (await one.room().position()).epoch
    clients = [await one.client(since=f"{epoch}:{1 + number // 4}", key=f"{number}") for number in range(8)]
    await until(lambda: one.room()._tail.readers == 8)
    await one.room().publish("3")  # none of the answers has it
    # One of them does not wait for its answer.
    gone = clients.pop()
    await gone.close()
    answers.set()
    for number, ws in enumerate(clients):
        missed = [str(each) for each in range(1 + number // 4, 4)]
        found = [await within(ws.recv()) for _ in range(len(missed) + 1)]
        assert [each for each in found if each.isdecimal()] == missed
        assert f"Resumed(replayed={len(missed)})" in found
    assert sorted(each.sequence for each in asked) == [1, 2]


@one_server
async def test_all_members_are_told_that_a_shared_call_has_failed(one: House, monkeypatch):
    await one.joined(key="stays")
    await one.room().publish("0")
    bus = one.servers[0].rooms._registry.bus
    asked, fails = [], asyncio.Event()

    async def fail(room, after, limit):
        asked.append(after)
        await fails.wait()
        raise BusUnavailable("it is away")

    monkeypatch.setattr(bus, "page", fail)
    epoch = (await one.room().position()).epoch
    clients = [await one.client(since=f"{epoch}:0", key=f"{number}") for number in range(3)]
    await until(lambda: one.room()._tail.readers == 3)
    fails.set()
    for ws in clients:
        with pytest.raises(endwell.ConnectionClosed):
            await within(ws.recv())
        assert ws.ending.code == CloseCode.TRY_AGAIN_LATER
    assert len(asked) == 1

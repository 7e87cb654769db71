"""What members are told when the bus fails: each gap once, at its place, and nothing waits for ever."""

from __future__ import annotations

import asyncio
import re

import pytest

import endwell
from endwell import CloseCode
from endwell.errors import BusUnavailable
from endwell.rooms import Position, Publication, broker, members
from endwell.rooms import replay as replay_module
from endwell.rooms.frames import SENT, pack_published
from tests.pair import until, within

from .house import House
from .test_rooms import hold_publications, one_server, received, two_workers


@two_workers
async def test_a_plain_callback_tells_the_members_of_a_gap_between_what_is_before_and_after_it(
    two: House, monkeypatch
):
    monkeypatch.setattr(broker, "MAX_QUEUE", 1000)
    server = two.servers[1]

    @server.rooms.on_gap
    def on_gap(room, gap):
        position = room.members[0].position.sequence
        server.broadcast(
            [each.ws for each in room.members], f"{gap.lost} lost, now at {position}", slow="queue"
        )

    ws, _ = await two.joined(1)
    await hold_publications(two, 80)
    numbers, at = [], None
    while not numbers or numbers[-1] != 79:
        message = await within(ws.recv())
        if found := re.fullmatch(r"(\d+) lost, now at (\d+)", message):
            at = len(numbers)
            lost, position = map(int, found.groups())
        else:
            numbers.append(int(message))
    assert at is not None
    # The numbers of the messages begin with 0, those of the publications with 1.
    assert (numbers[:at], numbers[at]) == ([*range(at)], at + lost)
    assert position == at + lost


@one_server
async def test_a_member_that_joins_while_a_gap_is_told_is_not_told_of_it(one: House, monkeypatch):
    told = []

    @one.servers[0].rooms.on_gap
    async def on_gap(room, gap):
        told.append([each.key for each in room.members])

    await one.joined(key="first")
    room = one.room()
    listen = room._listen

    async def listen_and_lose():
        await listen()
        position = await room.position()
        one.servers[0].rooms._registry.lost("a", 3, Position(position.epoch, position.sequence + 3))

    monkeypatch.setattr(room, "_listen", listen_and_lose)
    await one.joined(key="second")
    await until(lambda: len(room.members) == 2)
    assert told == [["first"]]


@two_workers
async def test_a_member_that_returns_does_not_wait_for_ever_for_a_bus_that_has_ended(two: House, monkeypatch):
    monkeypatch.setattr(broker, "MAX_QUEUE", 1000)
    monkeypatch.setattr(replay_module, "HEAR_TIME", 0.2, raising=False)
    await two.joined(1)
    page, asked = two.pump.broker._page, []

    def page_of_the_second_only(link, *values):
        asked.append(values)
        if len(asked) > 1:
            page(link, *values)

    two.pump.broker._words["page"] = page_of_the_second_only
    await hold_publications(two, 40)
    await until(lambda: bool(asked))  # the process reads what it has missed, and gets no answer
    epoch = (await two.room(0).position()).epoch
    returning = await two.client(1, since=Position(epoch, 0))
    await until(lambda: len(asked) > 1)
    two.pump.end(two.pump.links[1])
    while (await within(returning.read())) is not None:
        pass
    assert returning.ending.code == CloseCode.TRY_AGAIN_LATER


@two_workers
async def test_a_publication_whose_receipt_is_the_last_word_of_the_supervisor_does_not_wait_for_ever(
    two: House,
):
    await two.joined(0)
    two.pump.holds = True
    bus, room = two.servers[0].rooms._registry.bus, two.room(0)
    publishing = asyncio.create_task(room.publish("x"))
    await until(lambda: bool(bus._publishing))
    (number,) = bus._publishing
    bus.data_received(pack_published(number, 1, 1, SENT, "epoch"))
    two.pump.end(two.pump.links[0])
    with pytest.raises(BusUnavailable, match="may have been sent"):
        await within(publishing)
    two.pump.holds = False  # otherwise the other server waits for it when it stops


@one_server
async def test_a_gap_comes_after_all_publications_before_it_in_a_room_with_many_members(
    one: House, monkeypatch
):
    monkeypatch.setattr(members, "BATCH", 1)
    server, told = one.servers[0], []

    @server.rooms.on_gap
    def on_gap(room, gap):
        for each in room.members:
            told.append(each.position)
            server.broadcast([each.ws], "gap", slow="queue")

    clients = [(await one.joined())[0] for _ in range(3)]
    registry, room = server.rooms._registry, one.room()
    epoch = (await room.position()).epoch
    registry.published("a", Position(epoch, 1), Publication(1, "before"), "queue", None)
    registry.lost("a", None, Position("another", 7))
    registry.published("a", Position("another", 8), Publication(8, "after"), "queue", None)
    assert told == [Position("another", 7)] * 3
    for ws in clients:
        assert await received(ws, 3) == ["before", "gap", "after"]


@two_workers
async def test_a_callback_that_removes_all_members_ends_what_the_room_is_delivered(two: House, monkeypatch):
    monkeypatch.setattr(broker, "MAX_QUEUE", 1000)
    server = two.servers[1]

    @server.rooms.on_gap
    def on_gap(room, gap):
        for each in room.members:
            each.leave()

    await two.joined(1)
    await hold_publications(two, 80)
    await until(lambda: not two.room(1).members)
    await two.joined(1)
    assert two.memberships[-1].position == await two.room(0).position()


@one_server
async def test_many_members_are_closed_after_a_gap_in_several_turns_of_the_loop(one: House, monkeypatch):
    monkeypatch.setattr(members, "BATCH", 2)
    clients = [(await one.joined(key=f"{number}"))[0] for number in range(6)]
    await until(lambda: len(one.room().members) == 6)
    room, here = one.room(), [each.ws for each in one.room().members]
    position = await room.position()
    room._lost(3, Position(position.epoch, position.sequence + 3))
    assert [each.is_open for each in here] == [False] * 2 + [True] * 4
    # It is after the gap, so no member gets it.
    room._published(
        Position(position.epoch, position.sequence + 4),
        Publication(position.sequence + 4, "late"),
        "queue",
        None,
    )
    late, _ = await one.joined(key="late")
    for ws in clients:
        with pytest.raises(endwell.ConnectionClosed):
            await within(ws.recv())
        assert ws.ending.code == CloseCode.TRY_AGAIN_LATER
    assert late.is_open
    await until(lambda: len(room.members) == 1)


@one_server
async def test_a_member_that_joins_while_others_are_closed_is_at_the_last_publication_that_it_was_sent(
    one: House, monkeypatch
):
    monkeypatch.setattr(members, "BATCH", 1)
    for number in range(9):
        await one.joined(key=f"{number}")
    late, _ = await one.joined(path="other")
    (ws,) = (each.ws for each in one.room(name="other").members)
    registry, room = one.servers[0].rooms._registry, one.room()
    epoch = (await room.position()).epoch
    registry.lost("a", 3, Position(epoch, 3))
    membership = await room.join(ws)
    registry.published("a", Position(epoch, 4), Publication(4, "next"), "queue", None)
    assert membership.position == Position(epoch, 3)
    assert await within(late.recv()) == "next"
    assert membership.position == Position(epoch, 4)
    membership.leave()


@one_server
async def test_members_are_closed_in_as_many_turns_after_a_delivery_that_a_gap_has_cut_short(
    one: House, monkeypatch
):
    monkeypatch.setattr(members, "BATCH", 1)
    clients = [(await one.joined())[0] for _ in range(9)]
    registry, room = one.servers[0].rooms._registry, one.room()
    here = [each.ws for each in room.members]
    epoch = (await room.position()).epoch
    registry.published("a", Position(epoch, 1), Publication(1, "before"), "queue", None)
    registry.lost("a", 3, Position(epoch, 4))
    are_open, turns = [each.is_open for each in here], 0
    while any(are_open):
        before = sum(are_open)
        await asyncio.sleep(0)
        are_open = [each.is_open for each in here]
        assert before - sum(are_open) <= 1
        turns += 1
    assert turns >= 8
    for ws in clients:
        assert await received(ws, 1) == ["before"]


@one_server
async def test_a_room_with_many_members_does_not_take_turns_of_the_loop_for_each_of_many_publications(
    one: House, monkeypatch
):
    monkeypatch.setattr(members, "BATCH", 1)
    clients = [(await one.joined(key=f"{number}"))[0] for number in range(4)]
    registry, room = one.servers[0].rooms._registry, one.room()
    here = room.members
    epoch = (await room.position()).epoch
    own = members.Call(here[2]._engine)
    texts = [f"{number}" for number in range(1, 101)]
    for number, text in enumerate(texts, 1):
        call = own if number == 50 else None
        registry.published("a", Position(epoch, number), Publication(number, text), "queue", call)
    turns = 0
    while any(each.position != Position(epoch, 100) for each in here):
        await asyncio.sleep(0)
        turns += 1
        positions = [each.position.sequence for each in here]
        assert positions == sorted(positions, reverse=True)
    # Four turns for the first publication, and for each 16 of the others.
    assert turns <= 4 * 8
    assert (own.report.sent, own.report.gone) == (3, 0)
    await within(own.delivered)
    for number, ws in enumerate(clients):
        expected = [text for text in texts if (number, text) != (2, "50")]
        assert await received(ws, len(expected)) == expected


@one_server
async def test_a_member_whose_connection_is_closing_has_no_position(one: House):
    await one.joined()
    (member,) = one.room().members
    closing = asyncio.create_task(member.ws.close())
    await until(lambda: not member.ws.is_open)
    assert one.room().members == [member]
    assert member.position is None
    await within(closing)

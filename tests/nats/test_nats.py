"""The bus by NATS: its server is killed and stopped, and the process that leads ends: nothing is lost silently."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import sys

import pytest
import trustme
from nats.aio.client import Client

import endwell
from endwell.errors import BusUnavailable, RoomLimit
from endwell.rooms import Gap, History, Position, following, returning
from endwell.rooms.nats import NatsBus, leadership, sequencer
from tests.pair import until, within
from tests.rooms.house import house
from tests.rooms.two import is_up, two
from tests.rooms.witness import Witness, Witnesses

from .faults import crash, cut, follower_of, leader_of
from .server import shared_server


@pytest.fixture
def shared():
    return shared_server()


@pytest.fixture
def quick(monkeypatch):
    """Short intervals: the tests wait for the events that they cause."""
    monkeypatch.setattr(following, "RETRY_INTERVAL", 0.05)


# -- NATS ends and comes back -----------------------------------------------------------


async def test_a_restart_of_nats_loses_nothing_because_the_leader_lives(nats, quick, caplog):
    caplog.set_level(logging.INFO, "endwell.rooms")
    async with two(nats.url) as pair:
        before = (await pair.rooms[0].publish("before")).position
        await until(lambda: pair.all_got("before"))
        nats.kill()
        await until(lambda: not any(bus.is_connected for bus in pair.buses))
        assert not pair.made.servers[0].rooms.is_connected
        waiting = asyncio.create_task(pair.rooms[1].publish("meanwhile"))
        nats.start()
        assert (await within(waiting)).position == Position(before.epoch, 2)
        await until(lambda: pair.all_got("meanwhile"))
        assert (pair.got, pair.gaps) == ([["before", "meanwhile"]] * 2, [[], []])
        present = await pair.rooms[1].presence()
        assert {each.key: each.connections for each in present} == {"user0": 1, "user1": 1}
        assert [event for _, event, _, _ in pair.made.events] == ["joined", "joined"]
    assert "no connection to NATS at nats://127.0.0.1" in caplog.text
    assert "connected to NATS at nats://127.0.0.1" in caplog.text


async def test_publishing_while_nats_is_away_waits_and_then_says_that_nothing_was_sent(
    nats, quick, monkeypatch
):
    async with two(nats.url) as pair:
        nats.kill()
        await until(lambda: not any(bus.is_connected for bus in pair.buses))
        monkeypatch.setattr(returning, "WAIT_TIME", 0.05)
        pair.buses[0]._asks._overdue._tick()
        for call in (pair.rooms[0].publish("x"), pair.rooms[0].position(), pair.rooms[0].presence()):
            with pytest.raises(BusUnavailable, match=r"not available \(.*; nothing was sent"):
                await within(call)
        monkeypatch.setattr(returning, "WAIT_TIME", 60.0)
        monkeypatch.setattr(returning, "MAX_QUEUE", 10_000)
        with pytest.raises(BusUnavailable, match="bytes wait for NATS already; nothing was sent"):
            await pair.rooms[0].publish("x" * 20_000)
        assert not is_up(pair)


async def test_a_publication_without_an_answer_may_have_been_sent(nats, quick):
    async with two(nats.url) as pair:
        nats.pause()
        waiting = asyncio.create_task(pair.rooms[0].publish("x"))
        await until(lambda: any(ask.sent and not ask.repeats for ask in pair.buses[0]._asks._asks.values()))
        nats.kill()
        with pytest.raises(BusUnavailable, match="may have been sent"):
            await within(waiting)


async def test_a_call_whose_caller_has_given_up_is_not_sent_later(nats, quick):
    async with two(nats.url) as pair:
        leader, follower = leader_of(pair.buses), follower_of(pair.buses)
        room = pair.rooms[pair.buses.index(follower)]
        await room.publish("before")
        crash(leader)
        await until(lambda: not leader.is_connected)
        given_up = asyncio.create_task(room.publish("given up")), asyncio.create_task(follower.listen("new"))
        await until(lambda: len(follower._asks._asks) >= 2)
        for each in given_up:
            each.cancel()
        follower.ignore("new")
        assert (await within(room.publish("after"))).position.sequence == 1
        numbers = follower._leadership._sequencer._hub
        assert "new" not in numbers._rooms
        await until(lambda: "after" in pair.got[pair.buses.index(follower)])
        assert "given up" not in pair.got[pair.buses.index(follower)]


async def test_a_room_that_was_left_waits_for_nothing(shared, monkeypatch):
    monkeypatch.setattr(returning, "WAIT_TIME", 60.0)
    async with house(2, shared.url) as made:
        await made.joined(0)
        await made.joined(1)
        for each in made.memberships:
            each.leave()
        buses = [server.rooms._registry.bus for server in made.servers]
        await until(lambda: not any(bus._asks._asks for bus in buses))


async def test_a_server_that_starts_without_nats_connects_later(nats, monkeypatch):
    monkeypatch.setattr(returning, "WAIT_TIME", 0.05)
    nats.kill()
    async with house(1, nats.url) as made:
        assert not made.servers[0].rooms.is_connected
        monkeypatch.setattr(returning, "WAIT_TIME", 60.0)
        nats.start()
        await until(lambda: made.servers[0].rooms.is_connected)
        ws, found = await made.joined()
        assert found == "Fresh()"
        await made.room().publish("x")
        assert await within(ws.recv()) == "x"


async def test_a_connection_attempt_that_swallows_its_cancellation_ends_with_the_bus(shared, monkeypatch):
    monkeypatch.setattr(returning, "WAIT_TIME", 0.05)
    swallowed = []

    async def connect(client, **arguments):
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed.append(True)
                if len(swallowed) == 2:
                    raise

    monkeypatch.setattr(Client, "connect", connect)
    bus = NatsBus(shared.url, 1 << 20)
    await bus.start(Witness())
    await within(bus.stop())
    assert len(swallowed) == 2


# -- deafness ---------------------------------------------------------------------------


async def test_a_nats_that_stands_still_is_noticed_and_nothing_is_lost(nats, quick, caplog):
    async with two(nats.url) as pair:
        nats.pause()
        await until(lambda: not any(bus.is_connected for bus in pair.buses))
        # A link is not connected any more a moment before it knows why.
        await until(lambda: "is not heard for" in caplog.text)
        waiting = asyncio.create_task(pair.rooms[0].publish("x"))
        nats.go_on()
        await within(waiting)
        await until(lambda: pair.all_got("x"))
        assert pair.gaps == [[], []]


async def test_a_process_whose_subscriptions_are_not_served_notices_it_alone(shared, quick):
    async with two(shared.url) as pair:
        follower = follower_of(pair.buses)
        for subscription in follower._link._subscriptions.values():
            follower._link._client._subs.pop(subscription._id)
            subscription._stop_processing()
        await pair.rooms[pair.buses.index(leader_of(pair.buses))].publish("missed")
        await until(lambda: not follower.is_connected)
        assert leader_of(pair.buses).is_connected
        await until(lambda: pair.all_got("missed"))
        assert pair.gaps == [[], []]


async def test_a_publication_that_gets_lost_is_found_without_a_later_one(shared, monkeypatch):
    monkeypatch.setattr(following, "TRANSIT_TIME", 0.0)
    async with two(shared.url) as pair:
        bus = pair.buses[1]
        monkeypatch.setattr(bus, "_arrived", lambda state, heard, size: None)
        receipt = await pair.rooms[0].publish("lost")
        await until(lambda: pair.got[0] == ["lost"])
        await pair.rooms[1].position()  # a round trip: the publication was delivered, and dropped
        monkeypatch.undo()
        monkeypatch.setattr(following, "TRANSIT_TIME", 0.0)
        await bus._check_all()
        await until(lambda: pair.got[1] == ["lost"])
        assert pair.rooms[1]._position == receipt.position
        assert pair.gaps == [[], []]


async def test_a_slow_process_is_cut_off_by_nats_and_reads_what_it_has_missed(nats, quick, caplog):
    nats.kill()
    nats.start(configuration='max_pending: 2000000\nwrite_deadline: "100ms"\n')
    async with two(nats.url) as pair:
        follower, leader = follower_of(pair.buses), leader_of(pair.buses)
        rooms = pair.rooms[pair.buses.index(leader)]
        await rooms.publish("first", slow="queue")
        await until(lambda: pair.all_got("first"))
        # The process stands still, as far as NATS sees it.
        follower._link._client._transport._io_writer.transport.pause_reading()
        follower._link._canaries[1] = 1_000_000  # NATS notices it, not the process
        # The system has buffers of some MiB.
        while "no connection to NATS" not in caplog.text:
            await within(rooms.publish("x" * 1_000_000, slow="queue"))
        last = (await rooms.publish("last", slow="queue")).position
        await until(lambda: pair.all_got("last"))
        got, gaps = (each[pair.buses.index(follower)] for each in (pair.got, pair.gaps))
        # The history has 1 MiB, so the rest is told to be lost, with its exact number.
        assert last.sequence - len(got) == sum(gap.lost for gap in gaps) > 0
        assert pair.gaps[pair.buses.index(leader)] == []


# -- the process that leads -------------------------------------------------------------


async def test_a_leader_that_stops_leaves_everything_to_the_next_one(shared):
    buses = [NatsBus(f"{shared.url}?prefix=leaving", 1 << 20) for _ in range(3)]
    witnesses = Witnesses(buses)
    await witnesses.start()
    left = leader_of(buses)
    number = buses.index(left)
    left_keys = []
    for each, witness in enumerate(witnesses.witnesses):
        witness.came = lambda room, present: None
        witness.went = lambda room, present, each=each: left_keys.append((each, present.key))
    left.enter("long", 1, "ada", {"color": "red"}, 60.0)
    left.leave("long", 1, "ada", 0.5)
    buses[number - 1].enter("long", 2, "bob", {}, 60.0)
    await witnesses.progress()
    epochs = {room: position.epoch for room, position in witnesses.witnesses[0].positions.items()}
    # As a server does: it stops to publish, then its bus stops.
    witnesses.buses, witnesses.witnesses = list(buses), list(witnesses.witnesses)
    for task in witnesses.tasks[3 * number : 3 * number + 3]:
        task.cancel()
    await asyncio.gather(*witnesses.tasks[3 * number : 3 * number + 3], return_exceptions=True)
    del witnesses.tasks[3 * number : 3 * number + 3]
    await left.stop()
    stopped = witnesses.witnesses.pop(number)
    witnesses.buses.pop(number)
    assert stopped.faults == []
    await witnesses.progress()
    assert leader_of(witnesses.buses)
    assert [key for _, key in left_keys] in ([], ["ada"])
    present = await witnesses.buses[0].presence("long")
    assert "bob" in [each.key for each in present]
    await until(lambda: [key for _, key in left_keys] == ["ada"])
    assert left_keys[0][0] != number
    for witness in witnesses.witnesses:
        assert {room: position.epoch for room, position in witness.positions.items()} == epochs
        assert not any(witness.losses.values())
    page = await witnesses.buses[0].page("long", Position(epochs["long"], 0), None)
    assert page.lost == 0
    await witnesses.end()


async def test_a_publication_that_is_slower_than_the_sign_of_life_of_the_next_leader_is_no_gap(
    shared, monkeypatch
):
    monkeypatch.setattr(leadership, "FOLLOW_TIME", 1000.0)
    async with two(shared.url) as pair:
        leader, follower = leader_of(pair.buses), follower_of(pair.buses)
        rooms = pair.rooms[pair.buses.index(leader)]
        before = (await rooms.publish("before")).position
        await until(lambda: pair.all_got("before"))
        # As after a hand-over, if the routes between several servers of NATS differ in length.
        rank = leader._leadership.rank
        follower._leadership.rank = rank._replace(term=rank.term + 1)
        after = (await rooms.publish("after")).position
        assert after == Position(before.epoch, before.sequence + 1)
        await until(lambda: pair.all_got("after"))
        assert await within(follower.position("a")) == after
        assert pair.gaps == [[], []]


async def test_a_leader_that_stops_gives_no_number_even_if_it_is_disconnected_meanwhile(shared, monkeypatch):
    async with two(shared.url) as pair:
        leader, heir = leader_of(pair.buses), follower_of(pair.buses)
        heard = []
        monkeypatch.setattr(heir._leadership, "on_lead", lambda *values: heard.append(values))
        stopping = asyncio.create_task(leader._leadership.stop())
        await until(lambda: heard)
        cut(leader)
        await until(lambda: not leader.is_connected)
        await until(lambda: leader.is_connected)
        await within(leader._link._client.flush())  # the answer to "who leads" is there
        assert not leader._leadership._serves
        await within(stopping)


async def test_a_leader_that_crashes_is_replaced_and_members_are_told(shared, quick):
    async with house(3, shared.url) as made:
        buses = [server.rooms._registry.bus for server in made.servers]
        await made.room(0).position()
        number = buses.index(leader_of(buses))
        other, third = [each for each in range(3) if each != number]
        gaps = []
        made.servers[other].rooms.on_gap(lambda room, gap: gaps.append(gap))
        ws, _ = await made.joined(other, key="bob")
        before = (await made.room(third).publish("before")).position
        assert await within(ws.recv()) == "before"
        crash(buses[number])
        receipt = None
        while receipt is None:
            # What was on its way to the leader is lost with it, and its publisher is told so.
            with contextlib.suppress(BusUnavailable):
                receipt = await within(made.room(third).publish("after"))
        assert receipt.position.epoch != before.epoch
        assert await within(ws.recv()) == "after"
        assert gaps == [Gap(None, 0)]
        assert [each.key for each in await made.room(third).presence()] == ["bob"]
        assert [event for _, event, _, _ in made.events] == ["joined"]
        # A client that returns to another process.
        again = await made.client(third, since=before)
        assert [await within(again.recv()) for _ in range(2)] == ["after", repr(Gap(None, 1))]


async def test_a_process_that_leads_and_stands_still_does_not_number_when_it_goes_on(shared, quick):
    program = """
import asyncio, sys
from endwell.rooms.nats import NatsBus

class Receiver:
    def published(self, *args): pass
    arrived = lost = came = went = published

async def main():
    bus = NatsBus(sys.argv[1], 1 << 20)
    await bus.start(Receiver())
    await bus.position("long")
    print("leads", flush=True)
    while True:
        print(bus._leadership.rank.term, bool(bus._leadership._serves), flush=True)
        await asyncio.sleep(0.2)

asyncio.run(main())
"""
    url = f"{shared.url}?prefix=still"
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, url, stdout=pipe)
    try:
        assert await within(process.stdout.readline()) == b"leads\n"
        witnesses = Witnesses([NatsBus(url, 1 << 20) for _ in range(2)])
        await witnesses.start()
        await witnesses.progress()
        assert not any(bus._leadership._serves for bus in witnesses.buses)
        process.send_signal(19)  # SIGSTOP
        await until(lambda: any(bus._leadership._serves for bus in witnesses.buses))
        term = leader_of(witnesses.buses)._leadership.rank.term
        process.send_signal(18)  # SIGCONT
        while await within(process.stdout.readline()) != b"%d False\n" % term:
            pass
        await witnesses.progress()
        await witnesses.end()
    finally:
        process.kill()
        await process.wait()


async def test_a_leader_that_nats_cuts_off_leads_again(shared, quick):
    async with two(shared.url) as pair:
        leader = leader_of(pair.buses)
        rank, epoch = leader._leadership.rank, (await pair.rooms[0].publish("x")).position.epoch
        cut(leader)
        await until(lambda: not leader.is_connected)
        assert (await within(pair.rooms[0].publish("y"))).position == Position(epoch, 2)
        await until(lambda: pair.all_got("x", "y"))
        assert leader._leadership.rank == rank
        assert pair.gaps == [[], []]


# -- presence ---------------------------------------------------------------------------


async def test_the_keys_of_a_process_that_ends_leave_once(shared, quick, monkeypatch):
    # Longer than LEAD_TIME and an interval of the others: a leader that stood still for less ends no lease.
    monkeypatch.setattr(sequencer, "LEASE_TIME", 3.0)
    async with house(3, shared.url) as made:
        buses = [server.rooms._registry.bus for server in made.servers]
        await made.joined(0, key="ada")
        await made.joined(1, key="bob")
        await made.joined(2, key="eve")
        number = buses.index(follower_of(buses))
        key = ("ada", "bob", "eve")[number]
        crash(buses[number])
        await until(lambda: any(event == "left" for _, event, _, _ in made.events))
        room = made.room(buses.index(leader_of(buses)))
        assert [each.key for each in await room.presence()] == [
            each for each in ("ada", "bob", "eve") if each != key
        ]
        (left,) = [each for each in made.events if each[1] == "left"]
        assert left[0] != number
        assert left[3] == key


async def test_a_key_leaves_though_the_leader_that_knew_it_has_ended(shared, quick):
    async with house(2, shared.url, grace=4.0) as made:
        buses = [server.rooms._registry.bus for server in made.servers]
        number = buses.index(follower_of(buses))
        ws, _ = await made.joined(number, key="ada")
        made.memberships[0].ws.abort()
        await within(ws.closed)
        assert [each.connections for each in await made.room(number).presence()] == [0]
        crash(buses[1 - number])
        await until(lambda: (number, "left", "a", "ada") in made.events)
        assert [event for _, event, _, _ in made.events] == ["joined", "left"]
        assert await made.room(number).presence() == []


async def test_a_key_that_comes_and_leaves_while_nats_is_away_is_told_of_both(nats):
    async with house(1, nats.url) as made:
        bus = made.servers[0].rooms._registry.bus
        nats.kill()
        await until(lambda: not bus.is_connected)
        bus.enter("a", 1, "ada", {}, 0.0)
        bus.leave("a", 1, "ada", 0.0)
        nats.start()
        await until(lambda: len(made.events) == 2)
        assert [event for _, event, _, _ in made.events] == ["joined", "left"]
        await until(lambda: not bus._presence._untold and not bus._presence._leaving)


async def test_a_key_that_comes_again_elsewhere_is_not_told_to_have_left(shared):
    async with house(2, shared.url, grace=60.0) as made:
        ws, _ = await made.joined(0, key="ada")
        made.memberships[0].ws.abort()
        await within(ws.closed)
        await made.joined(1, key="ada")
        presence = made.servers[0].rooms._registry.bus._presence
        await until(lambda: not presence._leaving)
        assert [each.connections for each in await made.room(0).presence()] == [1]
        assert [event for _, event, _, _ in made.events] == ["joined"]


async def test_a_key_that_comes_again_before_its_coming_was_told_has_joined(shared):
    async with house(2, shared.url, grace=60.0) as made:
        bus = follower_of([server.rooms._registry.bus for server in made.servers])
        bus.enter("a", 1000, "ada", {}, 60.0)
        bus.leave("a", 1000, "ada", 60.0)
        bus.enter("a", 1001, "ada", {}, 60.0)
        await until(lambda: made.events)
        bus.leave("a", 1001, "ada", 0.0)
        await until(lambda: len(made.events) == 2)
        assert [event for _, event, _, _ in made.events] == ["joined", "left"]


@pytest.mark.parametrize("returns", [True, False])
async def test_a_key_whose_process_ends_before_it_tells_it_has_joined_before_it_leaves(
    shared, quick, monkeypatch, returns
):
    monkeypatch.setattr(sequencer, "LEASE_TIME", 3.0)
    async with house(2, shared.url) as made:
        buses = [server.rooms._registry.bus for server in made.servers]
        follower, leader = follower_of(buses), leader_of(buses)
        hub = leader._leadership._sequencer._hub
        follower._told = lambda *values: None  # it ends before that
        follower.enter("a", 1000, "ada", {}, 60.0 if returns else 0.0)
        await until(lambda: hub.has("a", "ada"))
        await follower.flush()
        crash(follower)
        if returns:
            await until(lambda: not hub.listeners_of("a", "ada"))
            leader.enter("a", 1001, "ada", {}, 0.0)
            await until(lambda: made.events)
            leader.leave("a", 1001, "ada", 0.0)
        await until(lambda: len(made.events) == 2)
        number = buses.index(leader)
        assert made.events == [(number, "joined", "a", "ada"), (number, "left", "a", "ada")]


async def test_the_next_leader_knows_the_connections_of_all_processes(shared, quick):
    buses = [NatsBus(f"{shared.url}?prefix=places", 1 << 20) for _ in range(3)]
    for bus in buses:
        await bus.start(Witness())
    assert await buses[0].reserve(0, 2, 5) == (2, 2)
    assert await buses[1].reserve(0, 9, 5) == (3, 5)
    assert await buses[2].reserve(0, 1, 5) == (0, 5)
    leader = leader_of(buses)
    await leader.stop()  # its connections have ended
    others = [bus for bus in buses if bus is not leader]
    left = sum(bus._reserved[0] for bus in others)
    await until(lambda: any(bus._leadership._serves for bus in others))
    held, _ = others[1]._reserved
    assert await within(others[1].reserve(held, 9, 5)) == (5 - left, 5)
    for bus in others:
        await bus.stop()


# -- limits -----------------------------------------------------------------------------


async def test_a_message_that_nats_does_not_take_is_an_error_that_names_the_limit(shared):
    async with house(2, shared.url) as made:
        ws, _ = await made.joined(1)
        with pytest.raises(RoomLimit, match=r"NATS takes 1048320 \(max_payload\)"):
            await made.room(0).publish(b"x" * (1 << 20))
        largest = b"x" * ((1 << 20) - 400)
        assert (await made.room(0).publish(largest)).position.sequence == 1
        assert await within(ws.recv()) == largest


async def test_a_history_that_is_larger_than_a_message_of_nats_comes_in_parts(shared):
    async with house(2, shared.url, history=History(bytes=64 << 20)) as made:
        room = made.room(0)
        start = await room.position()
        messages = [b"%d" % number + b"x" * 300_000 for number in range(10)]
        for message in messages:
            await room.publish(message)
        assert [each.message for each in await made.room(1).history(start)] == messages
        assert [each.message for each in await made.room(1).history(start, 7)] == messages[:7]


async def test_a_limit_of_the_leader_is_an_error_of_the_call(shared, monkeypatch):
    async with house(2, shared.url) as made:
        await made.joined(0)
        leader = leader_of([server.rooms._registry.bus for server in made.servers])
        leader._leadership._sequencer._hub._max_rooms = 1
        for number in (0, 1):
            with pytest.raises(RoomLimit, match="max_known_rooms"):
                await made.room(number, "another").publish("x")
        assert (await made.room(1).publish("x")).position.sequence == 1


async def test_long_and_strange_names_of_rooms_are_apart(shared):
    server = endwell.Server(
        rooms=endwell.rooms.Rooms(max_name=5000, bus=f"{shared.url}?prefix=names"), compression=None
    )
    names = ["a.b", "a b", "a>", "*", "é", "x" * 4000, "x" * 4001]
    async with server.serving(grace=1.0):
        bus = server.rooms._registry.bus
        for name in names:
            await bus.listen(name)
            assert (await server.rooms[name].publish(name)).position.sequence == 1
        assert len({bus._topic(name) for name in names}) == len(names)


# -- where NATS is ----------------------------------------------------------------------


async def test_a_password_and_a_token(nats, monkeypatch):
    for settings, right, wrong in (
        ('authorization { user: "u", password: "p:w" }', "u:p%3Aw@", "u:mistake@"),
        ('authorization { token: "secret" }', "secret@", ""),
    ):
        nats.kill()
        nats.start(configuration=settings)
        where = f"127.0.0.1:{nats.port}"
        monkeypatch.setattr(returning, "WAIT_TIME", 60.0)
        async with endwell.Server(bus=f"nats://{right}{where}", compression=None).serving(
            grace=1.0
        ) as server:
            assert (await server.rooms["a"].publish("x")).position.sequence == 1
        monkeypatch.setattr(returning, "WAIT_TIME", 0.1)
        async with endwell.Server(bus=f"nats://{wrong}{where}", compression=None).serving(
            grace=1.0
        ) as server:
            assert not server.rooms.is_connected


async def test_tls_and_several_servers_of_which_one_answers(nats, tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca")
    certificate.private_key_pem.write_to_path(tmp_path / "key")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert")
    nats.kill()
    nats.start(configuration=f'tls {{ cert_file: "{tmp_path}/cert", key_file: "{tmp_path}/key" }}')
    url = f"tls://localhost:1,localhost:{nats.port}?ssl_ca_certs={tmp_path}/ca"
    async with endwell.Server(bus=url, compression=None).serving(grace=1.0) as server:
        assert (await server.rooms["a"].publish("x")).position.sequence == 1
        transport = server.rooms._registry.bus._link._client._transport._io_writer.transport
        assert isinstance(transport.get_extra_info("ssl_object"), ssl.SSLObject)

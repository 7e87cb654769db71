"""Rooms: every member gets every publication once and in order, and is told exactly what it has missed."""

from __future__ import annotations

import asyncio
import functools
import inspect

import pytest

import endwell
from endwell import Cause, CloseCode
from endwell.errors import BusUnavailable, RoomLimit
from endwell.rooms import Fresh, Gap, History, Position, Resumed, Rooms, broker, members
from endwell.rooms.blocking import BlockingMembership
from endwell.rooms.frames import pack_word
from endwell.rooms.options import RoomLimits
from endwell.rooms.rooms import use_bus
from endwell.rooms.supervised import SupervisorBus
from tests.pair import loop_turns, until, within
from tests.raw import BOUND, RawPeer

from .house import BETWEEN, BUSES, House, Pump, house


def on(buses, count):
    """Decorator: run a test with ``count`` servers whose rooms are connected by each of ``buses``."""

    def decorate(test):
        first, *others = inspect.signature(test).parameters.values()

        @functools.wraps(test)
        async def run(bus, **fixtures):
            async with house(count, bus) as made:
                await test(made, **fixtures)

        run.__signature__ = inspect.Signature([*others, inspect.Parameter("bus", first.kind)])
        return pytest.mark.parametrize("bus", buses)(run)

    return decorate


#: One server, with each bus; or two servers with the same rooms.
one_server = on(BUSES, 1)
two_servers = on(BETWEEN, 2)
#: Two workers of a supervisor, which the test holds or ends.
two_workers = on(["supervisor"], 2)


async def received(ws, count):
    return [await within(ws.recv()) for _ in range(count)]


# -- publications ---------------------------------------------------------------------


@two_servers
async def test_all_members_of_all_processes_get_the_same_order(two: House):
    clients = [(await two.joined(number % 2))[0] for number in range(6)]
    await asyncio.gather(*(publish(two, number, 50) for number in range(4)))
    got = await asyncio.gather(*(received(ws, 200) for ws in clients))
    assert len(set(got[0])) == 200
    assert all(each == got[0] for each in got)
    for number in range(4):
        own = [message for message in got[0] if message.startswith(f"{number}:")]
        assert own == [f"{number}:{count}" for count in range(50)]


async def publish(where, number, count):
    room = where.room(number % len(where.servers))
    for each in range(count):
        await room.publish(f"{number}:{each}")


@one_server
async def test_text_and_binary_messages_arrive_as_they_are(one: House):
    ws, _ = await one.joined()
    for message in ("é", "", b"", b"\x00\xff", bytearray(b"x"), memoryview(b"y")):
        receipt = await one.room().publish(message)
        assert receipt.sent == 1
        assert await within(ws.recv()) == (message if isinstance(message, str) else bytes(message))


@two_servers
async def test_a_receipt_names_the_position_and_whom_it_reached(two: House):
    room = two.room(0)
    empty = await room.publish("to nobody")
    assert (empty.position.sequence, empty.workers, empty.sent) == (1, 0, 0)
    await two.joined(0)
    await two.joined(0)
    await two.joined(1)
    full = await room.publish("to three")
    assert (full.position.sequence, full.workers, full.sent) == (2, 2, 2)
    assert full.position.epoch == empty.position.epoch
    assert await room.position() == full.position == await two.room(1).position()


@one_server
async def test_a_publisher_can_be_excluded(one: House):
    first, _ = await one.joined()
    second, _ = await one.joined()
    receipt = await one.room().publish("x", exclude=one.memberships[0].ws)
    assert receipt.sent == 1
    await one.room().publish("y")
    assert await within(first.recv()) == "y"
    assert await received(second, 2) == ["x", "y"]


LARGE = b"x" * 65536


async def reading_nothing(one):
    """A member that reads nothing."""
    peer = await RawPeer.connect_tcp(one.servers[0].port, buffer=4096)
    await peer.write(peer.request("/a"))
    assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
    assert (await peer.read_frame()).payload == b"Fresh()"
    return peer, one.memberships[-1]


@one_server
async def test_a_slow_member_is_skipped_and_counted_and_delays_no_other(one: House):
    peer, slow = await reading_nothing(one)
    with peer:
        fast, _ = await one.joined()
        # The kernel may still take something of a full send queue, so a member is not slow before a receipt says so.
        async with asyncio.timeout(BOUND):
            while not (receipt := await one.room().publish(LARGE)).slow:
                assert receipt.sent == 2
                assert await within(fast.recv()) == LARGE
        assert (receipt.sent, receipt.slow) == (1, (slow.ws,))
        assert await within(fast.recv()) == LARGE
        assert slow.missed == 1
        await one.room().publish("y", slow="queue")
        assert slow.missed == 1
        published = (await one.room().position()).sequence
        frames = [await peer.read_frame() for _ in range(published - slow.missed)]
        assert frames[-1].payload == b"y"


@one_server
async def test_a_slow_member_can_be_closed_instead(one: House):
    peer, slow = await reading_nothing(one)
    with peer:
        async with asyncio.timeout(BOUND):
            while not (receipt := await one.room().publish(LARGE, slow="close")).slow:
                assert receipt.sent == 1
        assert receipt.slow == (slow.ws,)
        seen = await peer.read_to_the_end(answer=True)
        assert seen.close.code == CloseCode.TRY_AGAIN_LATER
        await until(lambda: not one.room().members)


@one_server
async def test_a_wrong_argument_raises_at_the_call(one: House):
    room = one.room()
    with pytest.raises(ValueError, match="slow must be"):
        await room.publish("x", slow="never")
    with pytest.raises(TypeError, match="message must be a str or bytes-like"):
        await room.publish(5)
    with pytest.raises(ValueError, match=r"^message contains a lone surrogate"):
        await room.publish("\ud800")
    with pytest.raises(TypeError, match="since must be"):
        await room.history(5)
    with pytest.raises(ValueError, match="limit must not be negative"):
        await room.history(limit=-1)
    with pytest.raises(TypeError, match="limit must be"):
        await room.history(limit="1")
    assert await room.history(limit=1 << 70) == []
    with pytest.raises(TypeError, match="ws must be"):
        room.join("x")
    for value in (float("nan"), float("inf"), {1}):
        with pytest.raises(TypeError, match="must be values that JSON has"):
            room.join(one.memberships, x=value)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    # How deep JSON may be depends on the version of Python.
    with pytest.raises((TypeError, RoomLimit), match="the keyword arguments of join"):
        room.join(one.memberships, x=deep)
    for wrong in ("x", [], room):
        with pytest.raises(TypeError, match="exclude must be a WebSocket"):
            await room.publish("x", exclude=wrong)
        with pytest.raises(TypeError, match="ws must be a WebSocket"):
            room.leave(wrong)
    epoch = (await room.position()).epoch
    for sequence in ("0", -1, None, True):
        with pytest.raises(TypeError, match="since must be"):
            await room.history(Position(epoch, sequence))
    with pytest.raises(TypeError, match="name of a room must be a str"):
        one.servers[0].rooms[5]
    assert (await room.position()).sequence == 0


@one_server
async def test_a_lone_surrogate_raises_at_the_call_or_arrives_as_it_was(one: House):
    text, server = "x\ud800", one.servers[0]
    client, _ = await one.joined()
    ws, room, blocking = one.memberships[0].ws, one.room(0, "b"), server.rooms.blocking
    for rooms in (server.rooms, blocking):
        with pytest.raises(ValueError, match=r"^the name of a room contains a lone surrogate"):
            rooms[text]
    with pytest.raises(ValueError, match=r"^pattern contains a lone surrogate"):
        server.rooms.configure(text)
    with pytest.raises(ValueError, match=r"^key contains a lone surrogate"):
        room.join(ws, key=text)
    with pytest.raises(ValueError, match=r"^message contains a lone surrogate"):
        await asyncio.to_thread(blocking["b"].publish, text)
    for subject in (ws.authorize, server.revoke):
        with pytest.raises(ValueError, match=r"^subject contains a lone surrogate"):
            await subject(subject=text)
    assert room.members == []
    assert (await room.position()).sequence == 0
    # These are JSON, which has them.
    await room.join(ws, key="ada", name=text)
    assert [each.info for each in await room.presence()] == [{"name": text}]
    server.sessions.join((text, 1), ws)
    while (await server.rooms.user((text, 1)).publish("hello")).sent == 0:
        pass
    assert await within(client.recv()) == "hello"


@one_server
async def test_many_members_get_a_publication_in_several_turns_and_in_order(one: House, monkeypatch):
    monkeypatch.setattr(members, "BATCH", 2)
    clients = [(await one.joined())[0] for _ in range(7)]
    room = one.room()
    tasks = [asyncio.create_task(room.publish(str(number))) for number in range(3)]
    # A member that joins or leaves meanwhile gets what is published from then on, or nothing more.
    await asyncio.sleep(0)
    positions = [membership.position.sequence for membership in one.memberships]
    assert max(positions) <= 3
    one.memberships[6].leave()
    assert one.memberships[6].position is None
    late, found = await one.joined()
    await asyncio.gather(*tasks)
    assert all(task.result().sent in (6, 7, 8) for task in tasks)
    await room.publish("last")
    for ws in clients[:6]:
        assert await received(ws, 4) == ["0", "1", "2", "last"]
    assert found == "Fresh()"
    assert (await within(late.recv())) in ("0", "1", "2", "last")


# -- returning members ------------------------------------------------------------------


@two_servers
async def test_a_member_that_returns_gets_what_it_has_missed(two: House):
    room = two.room(0)
    start = await room.position()
    await publish(two, 0, 20)
    _, found = await two.joined(1)
    assert found == repr(Fresh())
    for missed in (0, 1, 20):
        ws = await two.client(1, since=Position(start.epoch, 20 - missed))
        assert await received(ws, missed) == [f"0:{number}" for number in range(20 - missed, 20)]
        assert await within(ws.recv()) == repr(Resumed(missed))


@two_servers
async def test_a_gap_has_its_exact_size(two: House):
    start = await two.room().position()
    await publish(two, 0, 70)
    ws = await two.client(1, since=Position(start.epoch, 5))
    assert await received(ws, 50) == [f"0:{number}" for number in range(20, 70)]
    assert await within(ws.recv()) == repr(Gap(15, 50))
    assert two.memberships[-1].arrived == Gap(15, 50)


@pytest.mark.parametrize("since", ["other:3", "no position", "{epoch}:99"])
@one_server
async def test_a_gap_from_a_position_that_the_room_never_had_is_unknown(one: House, since):
    epoch = (await one.room().position()).epoch
    await publish(one, 0, 3)
    ws = await one.client(since=since.format(epoch=epoch).replace(" ", "%20"))
    assert await received(ws, 3) == ["0:0", "0:1", "0:2"]
    assert await within(ws.recv()) == repr(Gap(None, 3))


@one_server
async def test_without_a_history_a_gap_is_known_too(one: House):
    one.servers[0].rooms.configure("*")
    room = one.room(0, "without")
    start = await room.position()
    await room.publish("x")
    await room.publish("y")
    _, found = await one.joined(path="without", since=start)
    assert found == repr(Gap(2, 0))
    _, found = await one.joined(path="without", since=await room.position())
    assert found == repr(Resumed(0))


@two_servers
async def test_a_member_that_joins_while_the_room_is_busy_misses_and_repeats_nothing(two: House):
    one_room, other_room = two.room(0), two.room(1)
    two.servers[0].rooms.configure("busy", history=History(messages=100_000))
    two.servers[1].rooms.configure("busy", history=History(messages=100_000))
    one_room, other_room = two.room(0, "busy"), two.room(1, "busy")
    start = await one_room.position()
    sent = 0
    done = False

    async def flood(room):
        nonlocal sent
        while not done:
            number, sent = sent, sent + 1
            await room.publish(str(number))

    floods = [asyncio.create_task(flood(room)) for room in (one_room, other_room)]
    await until(lambda: sent > 300)
    clients = [await two.client(number % 2, "busy", since=start) for number in range(4)]
    await until(lambda: len(two.memberships) == 4)
    await asyncio.sleep(0.05)
    done = True
    await asyncio.gather(*floods)
    orders = []
    for ws in clients:
        messages = await received(ws, sent + 1)
        (found,) = [message for message in messages if message.startswith("Resumed")]
        messages.remove(found)
        orders.append(messages)
    assert sorted(map(int, orders[0])) == list(range(sent))
    assert all(order == orders[0] for order in orders)


@two_servers
async def test_a_history_is_read_in_pages(two: House):
    room = two.room(1)
    start = await room.position()
    await publish(two, 0, 10)
    history = await room.history(Position(start.epoch, 4), limit=3)
    assert [(each.sequence, each.message) for each in history] == [(5, "0:4"), (6, "0:5"), (7, "0:6")]
    assert len(await room.history()) == 10
    assert await room.history(f"{start.epoch}:10") == []


@pytest.mark.parametrize("version", ["13", "hixie-76"])
async def test_a_member_without_binary_messages_is_sent_the_text_of_the_history(version):
    server = endwell.Server(legacy=True, compression=None)
    server.rooms.configure("*", history=History())
    room, binary = server.rooms["a"], version == "13"

    @server.websocket("/")
    async def member(ws):
        async with room.join(ws, since=start) as membership:
            await ws.send(f"{membership.arrived} {membership.missed}")
            receipt = await room.publish(b"now")
            await ws.send(f"{receipt.sent} {len(receipt.unsupported)} {membership.missed}")
            await ws.wait_closed()

    async with server.serving():
        start = await room.position()
        for message in ("one", b"two", "three"):
            await room.publish(message)
        uri = f"ws://127.0.0.1:{server.port}/"
        async with endwell.connect(uri, version=version, compression=None) as ws:
            expected = (
                ["one", b"two", "three", "Resumed(replayed=3) 0", b"now", "1 0 0"]
                if binary
                else ["one", "three", "Resumed(replayed=2) 1", "0 1 2"]
            )
            assert await received(ws, len(expected)) == expected


# -- joining and leaving ------------------------------------------------------------------


@one_server
async def test_a_member_leaves_with_its_connection_and_nothing_is_left(one: House):
    ws, _ = await one.joined()
    room = one.room()
    assert [each.ws for each in room.members] == [one.memberships[0].ws]
    await ws.close()
    await until(lambda: not room.members)
    assert room._position is None
    registry = one.servers[0].rooms._registry
    await until(lambda: not registry._rooms_of)
    assert not registry._listened
    # A bus may learn it by another connection than the one that publishes.
    async with asyncio.timeout(BOUND):
        while (await room.publish("x")).workers:
            pass


@one_server
async def test_a_member_can_leave_and_join_again_and_not_twice(one: House):
    answers = asyncio.Queue()

    @one.servers[0].websocket("/own/handler")
    async def handler(ws):
        room = one.room(0, "own")
        membership = await room.join(ws, color="red")
        with pytest.raises(ValueError, match="a member of the room 'own' already"):
            await room.join(ws)
        assert membership.info == {"color": "red"}
        room.leave(ws)
        room.leave(ws)
        membership.leave()
        await room.publish("missed")
        async with room.join(ws):
            await room.publish("got")
        await room.publish("missed")
        answers.put_nowait(room.members)
        await ws.wait_closed()
        with pytest.raises(endwell.ConnectionClosed):
            await room.join(ws)
        answers.put_nowait(room.members)

    ws = await one.client(path="own/handler")
    assert await within(ws.recv()) == "got"
    assert await within(answers.get()) == []
    await ws.close()
    assert await within(answers.get()) == []


@one_server
async def test_a_join_that_is_used_in_a_wrong_way_says_so(one: House):
    await one.joined(path="b")
    ws = one.memberships[0].ws
    with pytest.raises(TypeError, match=r"async with room\.join.*rooms\.blocking"), one.room().join(ws):
        pass
    with pytest.warns(RuntimeWarning, match=r"'Room\._join' was never awaited"):
        one.room().join(ws)
    assert one.room().members == []


@one_server
async def test_of_two_joins_of_a_connection_at_once_one_fails_and_the_member_leaves_with_it(one: House):
    answers = asyncio.Queue()

    @one.servers[0].websocket("/own/handler")
    async def handler(ws):
        room = one.room(0, "own")
        joins = await asyncio.gather(room.join(ws, key="x"), room.join(ws, key="y"), return_exceptions=True)
        answers.put_nowait([type(each).__name__ for each in joins])
        await ws.wait_closed()

    ws = await one.client(path="own/handler")
    assert sorted(await within(answers.get())) == ["Membership", "ValueError"]
    room = one.room(0, "own")
    assert len(room.members) == len(await room.presence()) == 1
    await ws.close()
    await until(lambda: not room.members)
    assert not one.servers[0].rooms._registry._listened


@one_server
async def test_the_limits_name_themselves(one: House):
    server = endwell.Server(rooms=Rooms(max_rooms=2, max_message=10, max_name=5), compression=None)
    server.rooms.configure("full", max_members=1)
    errors = []

    @server.websocket("/")
    async def handler(ws):
        rooms = server.rooms
        await rooms["full"].join(ws)
        await rooms["b"].join(ws)
        for call in (
            lambda: rooms["c"].join(ws),
            lambda: rooms["b"].publish("x" * 11),
            lambda: rooms["b"].publish("é" * 6),
            lambda: rooms["b"].join(ws, key="k" * 256),
            lambda: rooms["b"].join(ws, info="x" * 5000),
        ):
            with pytest.raises(RoomLimit) as caught:
                await call()
            errors.append(str(caught.value))
        await rooms["b"].publish("x" * 10)
        await ws.wait_closed()

    @server.websocket("/other")
    async def other(ws):
        with pytest.raises(RoomLimit) as caught:
            await server.rooms["full"].join(ws)
        await ws.send(str(caught.value))

    with pytest.raises(RoomLimit, match=r"1 to 5 bytes \(max_name\), and has 6"):
        server.rooms["abcdef"]
    with pytest.raises(RoomLimit, match="and has 0"):
        server.rooms[""]
    async with server.serving(grace=1.0):
        uri = f"ws://127.0.0.1:{server.port}/"
        async with endwell.connect(uri) as ws:
            assert await within(ws.recv()) == "x" * 10
            async with endwell.connect(f"{uri}other") as refused:
                assert "max_members" in await within(refused.recv())
    names = ["max_rooms", "max_message", "max_message", "key must have 1 to 255 bytes", "4096 bytes of JSON"]
    assert [name in error for name, error in zip(names, errors, strict=True)] == [True] * 5


@one_server
async def test_the_number_of_rooms_is_limited(one: House):
    registry = one.servers[0].rooms._registry
    registry.limits = RoomLimits(max_known_rooms=1)
    await one.joined(path="a")
    ws = await one.client(path="b")
    await within(ws.closed)
    assert ws.ending.code == CloseCode.INTERNAL_ERROR
    assert one.room(name="b").members == []
    await one.room(name="a").publish("x")


@on([bus for bus in BETWEEN if bus not in ("redis", "cluster")], 2)
async def test_the_process_that_numbers_limits_the_number_of_rooms(two: House):
    await two.joined(0, path="a")
    await two.joined(1, path="b")
    two.pump.broker._hub._max_rooms = 2
    for server in two.servers:
        bus = server.rooms._registry.bus
        sequencer = getattr(getattr(bus, "_leadership", None), "_sequencer", None)
        for owner in (bus, sequencer):
            if hasattr(owner, "_hub"):
                owner._hub._max_rooms = 2
    room = two.room(0, "c")
    for call in (lambda: room.publish("x"), room.position, room.history):
        with pytest.raises(RoomLimit, match="max_known_rooms"):
            await within(call())
    ws = await two.client(1, path="c")
    await within(ws.closed)
    assert ws.ending.code == CloseCode.INTERNAL_ERROR
    assert (await two.room(0, "b").publish("x")).workers == 1


@two_workers
async def test_a_join_that_is_cancelled_leaves_nothing_behind(two: House):
    two.pump.holds = True
    ws, room = await two.client(), two.room()
    await until(lambda: room._users == 1)
    await ws.close()
    two.pump.holds = False
    two.pump.flush()
    await until(lambda: room._users == 0)
    assert room._listening is None
    bus = two.servers[0].rooms._registry.bus
    assert "a" not in bus._delivered
    _, found = await two.joined()
    assert found == "Fresh()"


@one_server
async def test_a_join_that_is_cancelled_takes_nothing_from_the_others_of_its_room(one: House):
    for _ in range(2):
        await one.joined(path="elsewhere")
    first, second = (each.ws for each in one.memberships)

    async def join(room, ws):
        return await room.join(ws)

    # In one of these turns, the process has begun to listen, and neither call knows it yet.
    for turns in range(30):
        room = one.room(name=str(turns))
        joining = asyncio.create_task(join(room, first)), asyncio.create_task(join(room, second))
        await loop_turns(turns)
        joining[0].cancel()
        await asyncio.gather(*joining, return_exceptions=True)
        assert (await within(room.publish("x"))).sent == len(room.members) >= 1


# -- presence ---------------------------------------------------------------------------


@two_servers
async def test_presence_spans_processes_and_each_event_comes_once(two: House):
    first, _ = await two.joined(0, key="ada")
    second, _ = await two.joined(1, key="ada")
    third, _ = await two.joined(1, color="red")
    await two.joined(1)  # without a key and other arguments, it is not shown
    # Another process may learn it later than the client that has joined.
    async with asyncio.timeout(BOUND):
        while sum(each.connections for each in await two.room(0).presence()) < 3:
            await asyncio.sleep(0.005)
    present = await two.room(0).presence()
    assert [(each.key, each.connections) for each in present] == [("ada", 2), (two.memberships[2].key, 1)]
    assert present[1].info == two.memberships[2].info == {"color": "red"}
    assert (two.memberships[3].key, two.memberships[3].info) == (None, {})
    await first.close()
    async with asyncio.timeout(BOUND):
        while (await two.room(0).presence())[0].connections > 1:  # the second one is the last one of Ada
            await asyncio.sleep(0.005)
    await third.close()
    await until(lambda: len(two.events) == 3)
    await second.close()
    await until(lambda: len(two.events) == 4)
    anonymous = two.memberships[2].key
    assert two.events == [
        (0, "joined", "a", "ada"),
        (1, "joined", "a", anonymous),
        (1, "left", "a", anonymous),
        (1, "left", "a", "ada"),
    ]
    assert await two.room(0).presence() == []


@one_server
async def test_a_key_that_returns_within_its_grace_was_never_away(one: House):
    one.servers[0].rooms.configure("*", grace=60)
    ws, _ = await one.joined(path="b", key="ada")
    one.memberships[0].ws.abort()
    await within(ws.closed)
    assert [each.connections for each in await one.room(0, "b").presence()] == [0]
    ws, _ = await one.joined(path="b", key="ada")
    assert [each.connections for each in await one.room(0, "b").presence()] == [1]
    await ws.close()  # 1000 forbids a reconnection
    await until(lambda: len(one.events) == 2)
    assert [event for _, event, _, _ in one.events] == ["joined", "left"]


@two_workers
async def test_when_a_process_ends_its_keys_leave(two: House):
    await two.joined(0, key="ada")
    await two.joined(1, key="bob")
    two.pump.end(two.pump.links[0])
    await until(lambda: (1, "left", "a", "ada") in two.events)
    assert [each.key for each in await two.room(1).presence()] == ["bob"]


@one_server
async def test_a_callback_that_fails_is_logged_and_stops_nothing(one: House, caplog):
    @one.servers[0].rooms.joined
    def broken(room, present):
        raise RuntimeError("asked for")

    _, found = await one.joined(key="ada")
    assert found == "Fresh()"
    await until(lambda: "asked for" in caplog.text)
    with pytest.raises(TypeError, match="will be called"):
        one.servers[0].rooms.left(lambda room: None)
    with pytest.raises(TypeError, match="must be a function"):
        one.servers[0].rooms.left(5)


# -- threads ------------------------------------------------------------------------------


@pytest.mark.parametrize("bus", BUSES)
async def test_plain_handlers_use_rooms_from_their_threads(bus):
    async with house(1, bus) as made:
        server, memberships = made.servers[0], []

        @server.websocket("/plain/{name}")
        def plain(ws, name):
            room = server.rooms.blocking[name]
            with room.join(ws, since=ws.request.query.get("since"), key="ada", color="red") as membership:
                memberships.append(membership)
                ws.send(repr(membership.arrived))
                for message in ws:
                    receipt = room.publish(message, exclude=ws if message == "not to me" else None)
                    ws.send(f"published {receipt.position.sequence} {room.position().sequence}")
            assert membership.position is None
            room.leave(ws)

        ws = await made.client(path="plain/b")
        assert await within(ws.recv()) == "Fresh()"
        await ws.send("hello")
        assert await received(ws, 2) == ["hello", "published 1 1"]
        await ws.send("not to me")
        assert await within(ws.recv()) == "published 2 2"
        (membership,) = memberships
        assert isinstance(membership, BlockingMembership)
        assert (membership.key, membership.info, membership.missed) == ("ada", {"color": "red"}, 0)
        assert membership.ws.is_open
        assert (await asyncio.to_thread(lambda: membership.position)).sequence == 2
        room = server.rooms.blocking["b"]
        assert room.name == "b"
        assert [each.key for each in await asyncio.to_thread(room.presence)] == ["ada"]
        history = await asyncio.to_thread(room.history, None, 1)
        assert [each.message for each in history] == ["hello"]
        with pytest.raises(endwell.ConcurrencyError, match="would block the event loop"):
            room.position()
        again = await made.client(
            path="plain/b", since=Position((await made.room(0, "b").position()).epoch, 1)
        )
        assert await received(again, 2) == ["not to me", "Resumed(replayed=1)"]
        await ws.close()
        await again.close()
    with pytest.raises(endwell.ConcurrencyError, match="does not serve"):
        room.position()


# -- a bus that fails -----------------------------------------------------------------------


async def hold_publications(two, count, slow="skip"):
    """Publish while the second server gets nothing; more than its queue takes."""
    room = two.room(0)
    last = (await room.position()).sequence + count
    two.pump.holds = True
    tasks = [asyncio.create_task(room.publish(f"{number:100d}", slow=slow)) for number in range(count)]
    link = two.pump.links[1]
    await until(lambda: bool(link.behind))
    await until(lambda: two.pump.broker._hub.position("a", 0.0).sequence == last)
    two.pump.holds = False
    two.pump.flush()
    await asyncio.gather(*tasks)


@two_workers
async def test_a_supervisor_of_an_older_version_sends_each_publication_back(two: House):
    for link in two.pump.links:
        await until(lambda link=link: link.keeps_own)
        link.keeps_own = False
    (first, _), (second, _) = await two.joined(0), await two.joined(1)
    receipts = await asyncio.gather(*(two.room(0).publish(str(number)) for number in range(20)))
    assert [receipt.position.sequence for receipt in receipts] == list(range(1, 21))
    assert {(receipt.workers, receipt.sent) for receipt in receipts} == {(2, 1)}
    for ws in (first, second):
        assert [int(each) for each in await received(ws, 20)] == list(range(20))


async def catch_up(two, monkeypatch):
    """The second server is behind, and its member gets everything from the history."""
    monkeypatch.setattr(broker, "MAX_QUEUE", 1000)
    first, _ = await two.joined(0)
    second, _ = await two.joined(1)
    await hold_publications(two, 40)
    for ws in (first, second):
        assert [int(each) for each in await received(ws, 40)] == list(range(40))
    await two.room(1).publish("after")
    assert await within(second.recv()) == "after"


@two_workers
async def test_a_process_that_was_behind_catches_up_from_the_history(two: House, monkeypatch):
    await catch_up(two, monkeypatch)
    assert (await two.room(1).position()).sequence == 41


@pytest.mark.parametrize("slow", ["close", "queue", "skip"])
@two_workers
async def test_what_was_missed_has_the_policy_of_the_last_publication(two: House, monkeypatch, slow):
    monkeypatch.setattr(broker, "MAX_QUEUE", 1000)
    second, _ = await two.joined(1)
    room, policies = two.room(1), []
    deliver, deliver_together = room._published, room._arrived

    def published(position, publication, policy, call):
        policies.append(policy)
        deliver(position, publication, policy, call)

    def arrived(epoch, batch, alone):
        policies.extend(each[2] for each in batch)
        deliver_together(epoch, batch, alone)

    monkeypatch.setattr(room, "_published", published)
    monkeypatch.setattr(room, "_arrived", arrived)
    await two.room(0).publish("before", slow=slow)
    assert await within(second.recv()) == "before"
    await hold_publications(two, 40, slow)
    await received(second, 40)
    assert policies == [slow] * 41


@pytest.mark.parametrize("told", [False, True])
@two_workers
async def test_members_are_told_of_a_gap_that_the_history_cannot_fill(two: House, monkeypatch, caplog, told):
    monkeypatch.setattr(broker, "MAX_QUEUE", 1000)
    gaps = []
    if told:

        @two.servers[1].rooms.on_gap
        async def on_gap(room, gap):
            gaps.append(gap)

    second, _ = await two.joined(1)
    await hold_publications(two, 80)
    if told:
        messages = []
        while not messages or messages[-1] != 79:
            messages.append(int(await within(second.recv())))
        (gap,) = gaps
        missing = sorted({*range(80)} - {*messages})
        assert len(missing) == gap.lost
        assert missing == list(range(missing[0], missing[-1] + 1))
        assert messages == sorted({*messages})
    else:
        while (await within(second.read())) is not None:
            pass
        ending = second.ending
        assert ending.code == CloseCode.TRY_AGAIN_LATER
        assert ending.received.reason == "messages of a room were lost; retry 0-5s"
        assert (await within(two.memberships[-1].ws.closed)).cause is Cause.ROOM_GAP
    assert "publications for this process" in caplog.text


@two_workers
async def test_a_call_that_the_supervisor_does_not_understand_fails(two: House, caplog):
    bus = two.servers[0].rooms._registry.bus
    with pytest.raises(BusUnavailable, match="the supervisor has failed to answer; nothing was sent"):
        await within(bus.page("a", None, "x"))
    with pytest.raises(UnicodeEncodeError):
        await bus.publish("a", "\ud800", None, "skip", None)
    assert bus._publishing == bus._calls == {}
    assert (await bus.position("a")).sequence == 0
    assert "a frame of kind 4 that is not valid" in caplog.text


@two_workers
async def test_a_frame_that_the_supervisor_does_not_understand_ends_nothing(two: House, caplog):
    ws, _ = await two.joined(1)
    bus = two.servers[0].rooms._registry.bus
    for frame in (pack_word("listen"), pack_word("page", 1, "a", ["x"], None), pack_word("new", 1)):
        bus._send(frame)
    await two.room(0).publish("after")
    assert await within(ws.recv()) == "after"
    assert caplog.text.count("not valid") == 2


@two_workers
async def test_without_the_supervisor_publishing_raises(two: House):
    _, _ = await two.joined(0)
    two.pump.holds = True
    waiting = asyncio.create_task(two.room(0).publish("x"))
    await until(lambda: two.pump.broker._hub.position("a", 0.0).sequence == 1)
    two.pump.end(two.pump.links[0])
    with pytest.raises(BusUnavailable, match="may have been sent"):
        await within(waiting)
    for call in (
        two.room(0).publish("x"),
        two.room(0).position(),
        two.room(0).presence(),
        two.room(0).history(),
    ):
        with pytest.raises(BusUnavailable, match="nothing was sent"):
            await call
    two.pump.holds = False  # otherwise the other server waits for it when it stops


@two_workers
async def test_a_room_that_is_left_while_its_loss_is_read_does_not_end_the_bus(two: House, monkeypatch):
    monkeypatch.setattr(broker, "MAX_QUEUE", 1000)
    await two.joined(1)
    bus = two.servers[1].rooms._registry.bus
    ask, asked = bus._ask_page, []

    def ask_and_leave(*args):
        ask(*args)
        asked.append(args)
        two.memberships[0].leave()

    monkeypatch.setattr(bus, "_ask_page", ask_and_leave)
    await hold_publications(two, 40)
    await until(lambda: bool(asked))
    assert await within(two.room(1).position()) == await two.room(0).position()
    again, _ = await two.joined(1)
    await two.room(0).publish("after")
    assert await within(again.recv()) == "after"


# -- where rooms can be used ----------------------------------------------------------------


@pytest.mark.parametrize("bus", BUSES)
async def test_rooms_can_be_used_from_on_start_to_on_stop(bus):
    pump, server, events = Pump(), endwell.Server(), []
    if bus == "supervisor":
        use_bus(server.rooms, SupervisorBus(pump.connect()))
    room = server.rooms["a"]

    @server.on_start
    async def on_start():
        events.append((await room.publish("x")).position.sequence)

    @server.on_stop
    async def on_stop():
        events.append((await room.publish("x")).position.sequence)

    @server.on_stop
    def in_a_thread():
        events.append(server.rooms.blocking["a"].publish("x").position.sequence)

    async with server.serving():
        pass
    await pump.stop()
    assert events == [1, 2, 3]
    with pytest.raises(endwell.ConcurrencyError, match="does not serve"):
        await room.publish("x")


async def test_rooms_that_are_not_in_use_or_belong_to_another_loop_say_so():
    server = endwell.Server()
    room = server.rooms["a"]
    calls = (lambda: room.publish("x"), room.position, room.presence, room.history)
    for call in calls:
        with pytest.raises(endwell.ConcurrencyError, match=r"does not serve; .*`async with rooms:`"):
            await call()
    async with server.serving():
        for call in calls:
            with pytest.raises(endwell.ConcurrencyError, match=r"another event loop.*rooms\.blocking"):
                await asyncio.to_thread(lambda call=call: asyncio.run(call()))
        with pytest.raises(endwell.ConcurrencyError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, enter(server.rooms))
        assert (await room.publish("x")).position.sequence == 1


@one_server
async def test_leaving_belongs_to_the_event_loop(one: House):
    ws, _ = await one.joined()
    (membership,) = one.memberships
    for leave in (membership.leave, lambda: one.room().leave(membership.ws)):
        with pytest.raises(endwell.ConcurrencyError):
            await asyncio.to_thread(leave)
    assert one.room().members == [membership]
    await asyncio.to_thread(one.servers[0].rooms.blocking["a"].leave, membership.ws)
    assert one.room().members == []
    await ws.close()


async def enter(rooms):
    async with rooms:
        pass


async def test_two_servers_may_have_the_same_rooms():
    rooms = Rooms()
    events = []

    @rooms.left
    def left(room, present):
        events.append(present.key)

    async with endwell.Server(rooms=rooms).serving() as one:
        two = endwell.Server(rooms=rooms)

        @two.websocket("/")
        async def member(ws):
            async with rooms["a"].join(ws, key="ada"):
                await ws.wait_closed()

        async with two.serving():
            ws = await endwell.connect(f"ws://127.0.0.1:{two.port}/")
            await until(lambda: bool(rooms["a"].members))
            assert (await rooms["a"].publish("x")).sent == 1
            ws.abort()
            await until(lambda: not rooms["a"].members)
        assert events == []  # the grace
        receipt = await asyncio.to_thread(one.rooms.blocking["a"].publish, "y")
        assert receipt.position.sequence == 2
    assert events == ["ada"]

"""Sessions of several processes: one connection of each key stays, and each key joins and leaves once."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

import endwell
from endwell import Cause, Close
from endwell.errors import BusUnavailable, RoomLimit
from endwell.rooms import Rooms
from endwell.rooms.frames import pack_word
from endwell.rooms.keys import SESSIONS
from endwell.rooms.supervised import SupervisorBus
from endwell.server import claims
from tests.face import ASYNCIO
from tests.pair import BOUND, until, within

from .house import BETWEEN, BUSES, House, house


class Hall:
    """Servers whose handlers join the sessions, and what the callbacks were told."""

    def __init__(self, made: House, face) -> None:
        self.made = made
        self.servers = made.servers
        #: The number of the server, the event, and the key.
        self.events: list[tuple[int, str, object]] = []
        self.endings: list[object] = []
        self.clients: list[endwell.WebSocket] = []
        for number, server in enumerate(self.servers):
            self._watch(number, server, face)

    def _watch(self, number, server, face):
        server.sessions.grace = 0.05

        async def handler(ws, name):
            server.sessions.join(name, face.for_handler(ws))
            await ws.send("in")
            async for _ in ws:
                pass

        server.websocket("/user/{name}")(face.handler(handler))

        @server.sessions.joined
        def joined(key, ws):
            self.events.append((number, "joined", key))

        @server.sessions.left
        def left(key, ending):
            self.events.append((number, "left", key))
            self.endings.append(ending)

    async def connect(self, number=0, name="ada"):
        uri = f"ws://127.0.0.1:{self.servers[number].port}/user/{name}"
        # The client does not read, so its answer to a Close would wait.
        ws = await endwell.connect(uri, compression=None, answer_timeout=0)
        self.clients.append(ws)
        return ws

    async def join(self, number=0, name="ada"):
        """A client that has joined."""
        ws = await self.connect(number, name)
        assert await within(ws.recv()) == "in"
        return ws

    async def present(self, number=0):
        return await self.servers[number].sessions.presence()

    async def heard(self, number, name="ada"):
        """Wait until all processes have heard the claim of a key, and its connection gets notifications."""
        server = self.servers[number]
        known = server.sessions._claims._known
        text = json.dumps(name)
        await until(lambda: text in known and known[text].state is claims._State.HEARD)
        room = server.rooms.user(name)
        await until(lambda: room.members)

    def buses(self):
        return [server.rooms._registry.bus for server in self.servers]


@pytest.fixture(params=BETWEEN)
def hall(request, face):
    @asynccontextmanager
    async def hall(count=2):
        async with house(count, request.param) as made:
            yield Hall(made, face)

    return hall


async def test_the_newest_connection_in_all_processes_replaces_the_others(hall):
    async with hall(3) as place:
        ws = await place.join(0)
        await place.heard(0)
        for number in (1, 2, 0, 1, 1, 2):
            before, ws = ws, await place.join(number)
            assert (await within(before.closed)).received == Close(4991, "replaced")
            assert ws.is_open
        await until(lambda: len(place.events) == 1)
        assert await place.present() == await place.present(2) == {"ada"}
        assert [len(server.sessions) for server in place.servers] == [0, 0, 1]
        assert [server.sessions.present for server in place.servers] == [set(), set(), {"ada"}]
        await ws.close(1000)
        await until(lambda: place.events == [(0, "joined", "ada"), (2, "left", "ada")])
        assert place.endings[0].code == 1000
        assert await place.present() == set()


async def test_the_ending_of_a_replaced_connection_names_the_cause(hall):
    async with hall() as place:
        endings = []
        place.servers[0].on_close(lambda ws, ending: endings.append(ending))
        await place.join(0)
        await place.join(1)
        await until(lambda: endings)
        assert (endings[0].cause, endings[0].ok) == (Cause.REPLACED, True)


async def test_of_connections_that_join_at_once_in_all_processes_exactly_one_stays(hall):
    async with hall(3) as place:
        for _ in range(3):
            clients = await asyncio.gather(*(place.connect(number % 3) for number in range(9)))
            await until(lambda clients=clients: sum(ws.is_open for ws in clients) == 1)
            await until(lambda: sum(len(server.sessions) for server in place.servers) == 1)
        await until(lambda: [each[1:] for each in place.events] == [("joined", "ada")])


async def test_a_key_that_comes_and_leaves_before_the_bus_tells_that_it_has_left_has_joined_as_often(hall):
    async with hall() as place:
        ws = await place.join(0)
        await place.heard(0)
        sessions = place.servers[0].sessions
        told = sessions._claims
        (known,) = told._known.values()
        engine = next(iter(place.servers[0].connections))
        for _ in range(3):
            told.ended("ada", None, 0.0)
            told.join("ada", known.ws, engine, known.executor)
        await ws.close(1000)

        def count(what):
            return sum(event == what for _, event, _ in place.events)

        # With Redis, one call waits until the one before is confirmed.
        async with asyncio.timeout(BOUND):
            while await place.present():
                await asyncio.sleep(0.01)
        await until(lambda: not sessions and count("joined") == count("left") > 0)


async def test_a_key_that_returns_in_another_process_within_its_grace_was_never_away(hall):
    async with hall() as place:
        for server in place.servers:
            server.sessions.grace = 30.0
        for number in (0, 1, 1, 0):
            ws = await place.join(number)
            await place.heard(number)
            await ws.close(1001)
            await until(lambda number=number: not place.servers[number].sessions)
            assert place.servers[number].sessions.present == {"ada"}
            assert await place.present() == {"ada"}
        await until(lambda: place.events)
        assert place.events == [(0, "joined", "ada")]


async def test_a_key_leaves_after_its_grace_and_joins_again(hall):
    async with hall() as place:
        for number in (0, 1):
            ws = await place.join(number)
            await place.heard(number)
            await ws.close(1001)
            await until(lambda number=number: len(place.events) == 2 * number + 2)
        joined_and_left = [(number, event, "ada") for number in (0, 1) for event in ("joined", "left")]
        assert place.events == joined_and_left
        assert [ending.code for ending in place.endings] == [1001, 1001]
        assert not place.servers[0].sessions.present


async def test_a_notification_reaches_the_one_connection_of_a_user(hall):
    async with hall() as place:
        here, there = (server.rooms.user("ada") for server in place.servers)
        assert (await there.publish("nobody")).workers == 0
        old = await place.join(0)
        await place.heard(0)
        assert (await there.publish("one")).workers == 1
        assert await within(old.recv()) == "one"
        new = await place.join(1)
        await place.heard(1)
        await within(old.closed)
        await until(lambda: not here.members)
        while (await here.publish("wait")).workers > 1:
            pass  # the bus does not know yet that the process of the old connection has no member
        assert (await here.publish("two")).workers == 1
        assert (await there.publish("three")).sent == 1
        while (message := await within(new.recv())) == "wait":
            pass
        assert [message, await within(new.recv())] == ["two", "three"]
        await new.close()
        await until(lambda: not there.members)
        while (await there.publish("nobody")).workers:
            pass


@pytest.mark.parametrize("face", [ASYNCIO], ids=["asyncio"])
async def test_a_user_above_the_number_of_rooms_gets_notifications_when_there_is_room(
    caplog, monkeypatch, face
):
    monkeypatch.setattr(claims, "RETRY_INTERVAL", 0.01)
    async with house(1, "faulty") as made:
        hall = Hall(made, face)
        registry = made.servers[0].rooms._registry
        monkeypatch.setattr(registry, "limits", replace(registry.limits, max_known_rooms=1))
        ada = await hall.join(0, "ada")
        await hall.heard(0, "ada")
        await hall.join(0, "eve")
        await until(lambda: "there are 1 rooms with members already (max_known_rooms)" in caplog.text)
        await ada.close()
        await hall.heard(0, "eve")
        assert (await made.servers[0].rooms.user("eve").publish("x")).workers == 1
    assert caplog.text.count("max_known_rooms") == 1


@pytest.mark.parametrize("bus", BUSES)
async def test_a_publication_in_the_process_of_the_user_need_not_wait(bus, face):
    async with house(1, bus) as made:
        server = made.servers[0]

        async def handler(ws, name):
            server.sessions.join(name, face.for_handler(ws))
            if face is ASYNCIO:
                receipt = await server.rooms.user(name).publish("hello")
                present = await server.sessions.presence()
            else:
                receipt = server.rooms.blocking.user(name).publish("hello")
                present = server.sessions.blocking.presence()
            await ws.send(f"{receipt.sent} {present}")

        server.websocket("/user/{name}")(face.handler(handler))
        async with endwell.connect(f"ws://127.0.0.1:{server.port}/user/ada") as ws:
            assert [await within(ws.recv()) for _ in range(2)] == ["hello", "1 {'ada'}"]
        await until(lambda: not server.rooms.user("ada").members)
        assert (await server.rooms.user("ada").publish("nobody")).workers == 0


async def test_a_connection_of_several_keys_gets_the_notifications_of_each():
    async with house(1, "local", max_members=1) as made:
        server = made.servers[0]

        @server.websocket("/many/{count}")
        async def handler(ws, count):
            for number in range(int(count)):
                server.sessions.join(number, ws)
            for number in range(int(count)):
                await server.rooms.user(number).publish(str(number))
            async with server.rooms["a"].join(ws):
                await ws.wait_closed()

        async with endwell.connect(f"ws://127.0.0.1:{server.port}/many/200") as ws:
            # More than max_rooms, which counts the rooms of the application only.
            assert [await within(ws.recv()) for _ in range(200)] == [str(number) for number in range(200)]
            await until(lambda: server.rooms["a"].members)
        await until(lambda: not server.rooms.user(7).members)
        assert (await server.rooms.user(7).publish("nobody")).workers == 0


@pytest.mark.parametrize("key", [None, True, 1.5, b"ada", frozenset(), ("a", None), "type", "enum"])
async def test_a_key_that_other_processes_would_not_get_alike_is_refused(face, key):
    key = {"type": type("Name", (str,), {})("ada"), "enum": Cause.REPLACED}.get(key, key)
    async with house(1, "supervisor") as made:
        server = made.servers[0]

        async def handler(ws):
            with pytest.raises(TypeError, match="key must be a str, an int or a tuple of these"):
                server.sessions.join(key, face.for_handler(ws))
            with pytest.raises(TypeError, match="key must be a str, an int or a tuple of these"):
                server.rooms.user(key)
            with pytest.raises(RoomLimit, match="at most 1024 characters"):
                server.sessions.join("a" * 1023, face.for_handler(ws))
            await ws.send("told")

        server.websocket("/refused/key")(face.handler(handler))
        async with endwell.connect(f"ws://127.0.0.1:{server.port}/refused/key") as ws:
            assert await within(ws.recv()) == "told"
        assert not server.sessions.present


async def test_keys_arrive_as_they_are():
    keys = {"ada", "", "\ud800", 1, -(10**100), ("a", ("b", 2)), ()}
    async with house(2, "supervisor") as made:
        one, two = made.servers

        @one.websocket("/all/keys")
        async def handler(ws):
            for key in keys:
                one.sessions.join(key, ws)
            await ws.wait_closed()

        async with endwell.connect(f"ws://127.0.0.1:{one.port}/all/keys"):
            await until(lambda: len(one.sessions) == len(keys))
            assert await two.sessions.presence() == keys


async def test_rooms_without_a_server_have_users_that_join_by_themselves():
    async with Rooms() as rooms:
        assert (await rooms.user("ada").publish("hello")).workers == 0
    with pytest.raises(RoomLimit, match="reserved"):
        rooms["\0user:1"]


async def test_of_servers_with_the_same_rooms_the_first_ones_sessions_are_connected(face):
    async with house(2, "supervisor") as made:
        place = Hall(made, face)
        third = endwell.Server(rooms=place.servers[0].rooms, compression=None)
        place.servers.append(third)
        place._watch(2, third, face)
        async with third.serving(grace=1.0):
            ws = await place.join(0)
            await place.join(2)
            await place.heard(0)
            assert ws.is_open
            assert third.sessions._claims is None
            await place.join(1)
            await within(ws.closed)
            assert len(third.sessions) == 1


# -- a bus that is away ------------------------------------------------------------------


async def test_claims_that_were_lost_are_repeated_and_the_connection_that_opened_later_stays(face):
    async with house(2, "supervisor") as made:
        place = Hall(made, face)
        clients = [await place.join(0, name) for name in ("ada", "eve")]
        for name in ("ada", "eve"):
            await place.heard(0, name)
        one, two = (server.sessions._claims for server in place.servers)
        # The claims of the second process do not arrive at the first one.
        published, one.published = one.published, lambda *_: None
        clients += [await place.join(1, name) for name in ("ada", "eve")]
        await place.heard(1, "ada")
        await place.heard(1, "eve")
        one.published = published
        assert all(ws.is_open for ws in clients)
        for each in (one, two):
            each.lost(SESSIONS, None, None)
        await until(lambda: [ws.is_open for ws in clients] == [False, False, True, True])
        await place.heard(1, "ada")
        assert [len(server.sessions) for server in place.servers] == [0, 2]


@pytest.mark.parametrize("first", [0, 1])
async def test_a_repeated_claim_of_an_older_connection_is_answered(face, first):
    async with house(2, "supervisor") as made:
        place = Hall(made, face)
        old = await place.join(first)
        await place.heard(first)
        claimed = place.servers[first].sessions._claims
        published, claimed.published = claimed.published, lambda *_: None
        new = await place.join(1 - first)
        await place.heard(1 - first)
        claimed.published = published
        # Only the process of the older connection has lost claims.
        claimed.lost(SESSIONS, 1, None)
        assert (await within(old.closed)).code == 4991
        assert new.is_open


async def test_a_claim_that_cannot_be_sent_is_sent_later(face, monkeypatch):
    monkeypatch.setattr(claims, "RETRY_INTERVAL", 0.01)
    async with house(2, "supervisor") as made:
        place = Hall(made, face)
        old = await place.join(0)
        await place.heard(0)
        publish, listen, fails = SupervisorBus.publish, SupervisorBus.listen, [True]

        async def failing(self, *args):
            if fails and self is place.buses()[1]:
                raise BusUnavailable("away")
            return await (publish if len(args) == 5 else listen)(self, *args)

        monkeypatch.setattr(SupervisorBus, "publish", failing)
        monkeypatch.setattr(SupervisorBus, "listen", failing)
        new = await place.join(1)
        assert place.servers[1].sessions["ada"] is not None
        assert old.is_open
        fails.clear()
        assert (await within(old.closed)).code == 4991
        assert new.is_open
        await place.heard(1)
        here = place.servers[0].rooms.user("ada")
        await until(lambda: not here.members)
        while (await here.publish("wait")).workers > 1:
            pass  # as above
        assert (await here.publish("hello")).workers == 1


async def test_a_claim_that_is_not_valid_is_logged(caplog, face):
    async with house(2, "supervisor") as made:
        place = Hall(made, face)
        await place.join(0)
        await place.heard(0)
        await place.buses()[1].publish(SESSIONS, "[1]", None, "skip", None)
        await until(lambda: "a claim of sessions is not valid" in caplog.text)
        await place.join(1)
        await place.heard(1)


async def test_when_a_process_ends_its_keys_leave_in_another_one(hall):
    async with hall() as place:
        place.servers[1].sessions.grace = 0.0
        await place.join(1)
        await place.heard(1)
        await place.join(0, "eve")
        bus = place.buses()[1]
        if isinstance(bus, SupervisorBus):
            place.made.pump.end(place.made.pump.links[1])
            await until(lambda: (0, "left", "ada") in place.events)
            assert place.endings == [None]


async def test_nothing_is_kept_of_a_key_that_has_left(hall, monkeypatch):
    monkeypatch.setattr(claims, "MARGIN", 0.0)
    async with hall() as place:
        for number in (0, 1, 0):
            ws = await place.join(number)
            await place.heard(number)
        await ws.close()
        held = [server.sessions._claims._known for server in place.servers]
        await until(lambda: held == [{}, {}] and place.events[-1][1:] == ("left", "ada"))
        assert not any(server.sessions._claims._unsent for server in place.servers)


async def test_a_key_whose_process_ends_before_it_has_confirmed_joined_leaves(face):
    async with house(1, "supervisor") as made:
        place, pump = Hall(made, face), made.pump
        for name in ("bob", "ada"):
            far = pump.connect()
            with far:
                # It may have called joined before it ended.
                far.sendall(pack_word("enter", SESSIONS, 1, json.dumps(name), {}, 0.05))
                await until(lambda name=name: pump.broker._hub.has(SESSIONS, json.dumps(name)))
            if name == "ada":
                await place.join(0)  # within the grace
        await until(lambda: len(place.events) == 2)
        await place.servers[0].rooms._registry.bus.flush()
        await place.clients[0].close(1000)
        await until(lambda: len(place.events) == 3)
        events = [event[1:] for event in place.events]
        assert sorted(events[:2]) == [("joined", "ada"), ("left", "bob")]
        assert events[2] == ("left", "ada")

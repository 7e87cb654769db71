"""max_connections holds for all processes together: exactly, and places that are given back can be used again."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

import endwell
from endwell.errors import BusUnavailable, HandshakeError
from endwell.rooms.hub import Hub
from endwell.rooms.supervised import SupervisorBus
from endwell.server import places
from endwell.server.places import SharedPlaces
from tests.pair import until, within

from .house import BETWEEN, House, house


@pytest.fixture(params=[bus for bus in BETWEEN if bus != "nats"])
def limited(request):
    @contextlib.asynccontextmanager
    async def limited(count, limit):
        async with house(count, request.param, limit) as made:
            yield made

    return limited


async def attempt(made: House, number: int, path="/a"):
    """A client, or the status with which it was refused."""
    try:
        ws = await endwell.connect(f"ws://127.0.0.1:{made.servers[number].port}{path}", answer_timeout=0)
    except HandshakeError as error:
        return error.response.status
    made.clients.append(ws)
    return ws


def open_at(made: House) -> int:
    return sum(len(server.connections) for server in made.servers)


def held_by(made: House) -> int:
    return sum(server._listener.places._used for server in made.servers)


async def test_a_storm_of_connects_to_all_processes_reaches_the_limit_and_never_exceeds_it(limited):
    async with limited(3, 5) as made:
        results = await asyncio.gather(*(attempt(made, number % 3) for number in range(30)))
        assert open_at(made) == held_by(made) == 5
        assert results.count(503) == 25
        clients = [each for each in results if each != 503]
        await asyncio.gather(*(ws.close() for ws in clients[:3]))
        await until(lambda: held_by(made) == 2)
        # All of them by the same process, which had some of the others.
        results = await asyncio.gather(*(attempt(made, 0) for _ in range(6)))
        assert results.count(503) == 3
        assert open_at(made) == 5


async def test_a_client_that_closes_and_connects_to_another_process_finds_its_place(limited, monkeypatch):
    # Longer than the news of the free place is on its way.
    monkeypatch.setattr(places, "RECHECK_TIME", 1.0)
    async with limited(2, 1) as made:
        for number in range(10):
            ws = await attempt(made, number % 2)
            assert ws != 503
            await within(ws.close())


async def test_an_idle_connection_makes_room_for_one_that_waits(limited):
    async with limited(2, 1) as made:

        @made.servers[0].get("/page/one")
        async def page(request):
            return "page"

        reader, writer = await asyncio.open_connection("127.0.0.1", made.servers[0].port)
        writer.write(b"GET /page/one HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: made.servers[0]._listener.idle)
        assert await attempt(made, 1) == 503
        assert (await attempt(made, 0)).is_open
        assert (await within(reader.read())).endswith(b"page")
        writer.close()


async def test_reaching_and_leaving_the_limit_of_all_processes_is_logged_once_each(limited, caplog):
    async with limited(2, 2) as made:
        clients = [await attempt(made, number) for number in (0, 1)]
        for _ in range(3):
            assert await attempt(made, 0) == 503
        for ws in clients:
            await ws.close()
        await until(lambda: held_by(made) == 0)
        assert await attempt(made, 0) != 503
    told = [record.getMessage() for record in caplog.records if "max_connections" in record.getMessage()]
    assert told == [
        "max_connections (2) is reached: more are refused with 503",
        "max_connections (2) is no longer reached; refused meanwhile: 3",
    ]


async def test_without_a_bus_and_on_a_bus_that_does_not_count_the_limit_is_that_of_a_process(monkeypatch):
    async with house(1, "local", 1) as made:
        assert made.servers[0]._listener.places is None
    monkeypatch.setattr(SupervisorBus, "__init__", _old_supervisor(SupervisorBus.__init__))
    async with house(2, "supervisor", 1) as made:
        for number in (0, 1):
            assert (await attempt(made, number)).is_open
            assert await attempt(made, number) == 503


def _old_supervisor(init):
    return lambda self, sock: init(self, sock, can_reserve=False)


async def test_the_places_of_a_process_that_ends_are_given_back():
    async with house(2, "supervisor", 2) as made:
        for _ in range(2):
            assert (await attempt(made, 1)).is_open
        assert await attempt(made, 0) == 503
        made.pump.end(made.pump.links[1])
        for _ in range(2):
            assert (await attempt(made, 0)).is_open
        assert await attempt(made, 0) == 503
        # Without a supervisor, nothing says how many connections there are.
        assert await attempt(made, 1) == 503


class FaultyBus:
    """A hub that answers when the test says so, or is away."""

    def __init__(self, hub, name):
        self.hub, self.name = hub, name
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def reserve(self, held, wanted, limit):
        if self.away:
            raise BusUnavailable("away")
        await self.gate.wait()
        result = self.hub.reserve(self.name, held, wanted, limit)
        if self.away == "reply":
            raise BusUnavailable("the reply is lost")
        return result


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(places, "RECHECK_TIME", 0.0)
    monkeypatch.setattr(places, "RETRY_INTERVAL", 0.0)


async def test_a_place_whose_connection_has_ended_while_it_was_asked_for_is_given_back(quick):
    hub = Hub(0)
    bus = FaultyBus(hub, "one")
    bus.gate.clear()
    shared = SharedPlaces(bus, 2)
    tasks = [asyncio.ensure_future(shared.take()) for _ in range(3)]
    await until(lambda: shared.waiting == 3)
    await asyncio.sleep(0)
    tasks[0].cancel()
    await asyncio.sleep(0)
    bus.gate.set()
    # The third one asked for a place when the first one was not known to be free.
    assert await asyncio.gather(*tasks[1:]) == [True, True]
    assert hub._reserved == {"one": 2}
    shared.give()
    shared.give()
    await until(lambda: hub._reserved == {"one": 0})
    shared.stop()
    assert await shared.take() is False


async def test_while_the_bus_is_away_no_place_is_given_and_later_it_has_the_true_number(quick):
    hub = Hub(0)
    bus = FaultyBus(hub, "one")
    shared = SharedPlaces(bus, 3)
    assert await shared.take()
    bus.away = True
    assert not await shared.take()
    bus.away = "reply"
    bus.hub = Hub(0)  # it has lost its data, too
    assert not await shared.take()
    bus.away = False
    await until(lambda: bus.hub._reserved == {"one": 1})
    assert await shared.take()
    assert bus.hub._reserved == {"one": 2}
    shared.stop()


async def test_an_error_of_the_bus_is_logged_and_answered(quick, caplog):
    shared = SharedPlaces(FaultyBus(None, "one"), 3)
    assert await shared.take() is False
    assert "asking for the places of connections failed" in caplog.text
    shared.stop()

"""The feed of one process shows all processes that a bus connects."""

from __future__ import annotations

import asyncio

import pytest

import endwell
from endwell import Close
from endwell.errors import BusUnavailable
from endwell.server.dashboard import workers
from tests.pair import until, within
from tests.raw import BOUND
from tests.rooms.house import BETWEEN, house

from .client import feed, url


def prepare(server):
    server.dashboard()

    @server.websocket("/app/{name}")
    async def app(ws, name):
        server.sessions.join(name, ws)
        await server.rooms["all"].join(ws)
        await ws.send("in")
        async for _ in ws:
            pass


def open_house(count, bus):
    return house(count, bus, prepare=prepare)


async def joined(server, name):
    ws = await endwell.connect(url(server, f"/app/{name}"), compression=None)
    assert await within(ws.recv()) == "in"
    return ws


async def listening(made):
    """Wait until the processes hear each other."""
    for server in made.servers:
        await until(lambda server=server: server._dashboard._workers.listens)


@pytest.fixture(params=BETWEEN)
def bus(request):
    return request.param


async def test_a_summary_has_all_processes(bus):
    async with open_house(3, bus) as made:
        await listening(made)
        made.clients += [await joined(made.servers[0], "ann"), await joined(made.servers[1], "ben")]
        async with feed(made.servers[2]) as client:
            summary = await client.summary()
            assert summary["missing_workers"] == 0
            assert sorted(worker["open"] for worker in summary["workers"]) == [0, 1, 1]
            assert len({worker["worker"] for worker in summary["workers"]}) == 3
            assert summary["connections"] == 2
            assert summary["by_route"] == {"/app/{name}": 2}
            assert summary["rooms"] == {"count": 1, "largest": [["all", 2]]}
            assert summary["bus"]["kind"] == {"cluster": "redis"}.get(bus, bus)
            await within(made.clients[0].close())
            while not (causes := (await client.receive())["summary"]["endings"]["by_cause"]):
                pass
            assert causes == {"peer_closed": 1}


async def test_a_list_is_one_list_page_by_page(bus):
    async with open_house(3, bus) as made:
        await listening(made)
        names = [f"user-{number:02}" for number in range(10)]
        for number, name in enumerate(names):
            made.clients.append(await joined(made.servers[number % 3], name))
        async with feed(made.servers[0]) as client:
            for limit in (1, 3, 200):
                rows = await client.rows(sort="key", limit=limit)
                assert [row["key"] for row in rows] == names
                rows = await client.rows(sort="age", descending=True, limit=limit)
                assert [row["key"] for row in rows] == names, "the oldest first, whatever the process"
            assert [row["key"] for row in await client.rows(search="user-07")] == ["user-07"]
            assert len({row["worker"] for row in rows}) == 3


async def test_a_connection_of_another_process_is_found_and_closed(bus):
    async with open_house(2, bus) as made:
        await listening(made)
        ws = await joined(made.servers[1], "ann")
        made.clients.append(ws)
        async with feed(made.servers[0]) as client:
            [row] = await client.rows()
            name = row["connection"]
            assert (await client.ask("connection", connection=name))["connection"]["key"] == "ann"
            assert await client.ask("close", connection=name, code=4007, reason="go") == {"done": True}
            assert await within(ws.read()) is None
            assert ws.ending.received == Close(4007, "go")
            while not (rows := (await client.ask("endings"))["rows"]):
                pass
            assert (rows[0]["key"], rows[0]["connection"]) == ("ann", name)
            assert await client.ask("connection", connection=name) == {"error": "the connection has ended"}
            answer = await client.ask("close", connection=name)
            assert answer == {"error": "the connection has ended, or is closing"}


async def test_a_large_answer_comes_in_parts(bus, monkeypatch):
    monkeypatch.setattr(workers, "PART", 100)
    async with open_house(2, bus) as made:
        await listening(made)
        for number in range(3):
            made.clients.append(await joined(made.servers[1], f"user-{number}"))
        async with feed(made.servers[0]) as client:
            assert len(await client.rows()) == 3


async def test_a_process_that_does_not_answer_is_missing(bus, monkeypatch):
    monkeypatch.setattr(workers, "TIME_LIMIT", 0.2)
    async with open_house(3, bus) as made:
        await listening(made)
        made.clients.append(await joined(made.servers[1], "ann"))
        # The process is stopped or blocked: it hears, and does not answer.
        monkeypatch.setattr(made.servers[2]._dashboard._workers, "_asked", lambda message: None)
        async with feed(made.servers[0]) as client:
            # The answer of another process may be late on a busy machine.
            async with asyncio.timeout(BOUND):
                while (summary := await client.summary())["missing_workers"] != 1:
                    pass
                while (page := await client.ask("list"))["missing_workers"] != 1:
                    pass
            assert (len(summary["workers"]), page["total"]) == (2, 1)
            silent = made.servers[2]._dashboard._knowledge.worker
            for name in (silent, "deadbeef"):
                answer = await client.ask("connection", connection=f"{name}:1")
                assert answer == {"error": "the worker does not answer, or has exited"}
                # The operator must not believe that it was not done: the worker has the ask.
                answer = await client.ask("close", connection=f"{name}:1")
                assert answer["error"].endswith("; a worker that runs again may still do it")


async def test_actions_of_a_process_that_is_read_only_are_refused_there(monkeypatch):
    async with open_house(2, "faulty") as made:
        await listening(made)
        made.clients.append(await joined(made.servers[1], "ann"))
        monkeypatch.setattr(made.servers[1]._dashboard._actions, "_allowed", False)
        async with feed(made.servers[0]) as client:
            [row] = await client.rows()
            answer = await client.ask("close", connection=row["connection"])
            assert answer == {"error": "this dashboard is read-only: it was made with actions=False"}
        assert made.clients[0].is_open


async def test_while_the_bus_is_away_the_own_process_is_shown(monkeypatch):
    monkeypatch.setattr(workers, "TIME_LIMIT", 0.2)
    async with open_house(2, "supervisor") as made:
        await listening(made)
        made.clients.append(await joined(made.servers[0], "ann"))
        async with feed(made.servers[0]) as client:
            while (await client.summary())["missing_workers"]:
                pass  # the answer of the other process was late
            for link in made.pump.broker.links:
                made.pump.end(link)
            while (summary := (await client.receive())["summary"])["bus"]["connected"]:
                pass
            assert summary["connections"] == 1
            assert summary["missing_workers"] == 1


async def test_no_answer_is_awaited_that_the_bus_has_not_asked_for(monkeypatch):
    monkeypatch.setattr(workers, "TIME_LIMIT", 3600)
    async with open_house(2, "faulty") as made:
        await listening(made)
        made.clients.append(await joined(made.servers[0], "ann"))

        async def publish(*_):
            raise BusUnavailable("not connected")

        async with feed(made.servers[0]) as client:
            assert (await client.ask("list"))["missing_workers"] == 0
            monkeypatch.setattr(made.servers[0]._dashboard._workers._bus, "publish", publish)
            page = await client.ask("list")
            assert (page["missing_workers"], page["total"]) == (1, 1)
            answer = await client.ask("connection", connection="deadbeef:1")
            assert answer == {"error": "the worker does not answer, or has exited"}


async def test_a_message_of_another_version_is_logged_and_ignored(caplog):
    async with open_house(2, "faulty") as made:
        await listening(made)
        bus = made.servers[0]._dashboard._workers._bus
        await bus.publish("\0dashboard", "{}", None, "skip", None)
        async with feed(made.servers[0]) as client:
            assert (await client.summary())["missing_workers"] == 0
    assert {each.getMessage() for each in caplog.records if each.levelname == "ERROR"} == {
        "a message between dashboards is not valid"
    }


async def test_only_one_of_several_servers_with_the_same_rooms_is_connected():
    async with open_house(2, "faulty") as made:
        await listening(made)
        other = endwell.Server(rooms=made.servers[0].rooms)
        other.dashboard()
        async with other.serving(), feed(other) as client:
            assert len((await client.summary())["workers"]) == 1

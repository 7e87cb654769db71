"""What the feed of a dashboard says about one process."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

import endwell
from endwell import Close, Server
from endwell.server.dashboard import dashboard, endings, knowledge
from endwell.server.dashboard import feed as feed_module
from endwell.server.dashboard.order import SORTS
from tests.pair import nothing_left_behind, until, within

from .client import feed, url


@pytest.fixture
def server():
    server = Server()
    server.dashboard()

    @server.websocket("/chat/{name}")
    async def chat(ws, name):
        ws.authorize(subject=f"subject of {name}")
        server.sessions.join(name, ws)
        await server.rooms[f"room of {name}"].join(ws)
        await ws.send("in")
        async for message in ws:
            await ws.send(message)

    return server


async def chatting(server, name, **how):
    ws = await endwell.connect(url(server, f"/chat/{name}"), **how)
    assert await within(ws.recv()) == "in"
    return ws


async def end(*connections):
    for ws in connections:
        await within(ws.close())


async def test_a_summary_counts_the_connections_and_what_they_have_sent(server):
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        ann = await chatting(server, "ann")
        ben = await chatting(server, "ben")
        await ann.send("four")
        assert await within(ann.recv()) == "four"
        summary = await client.summary()
        [worker] = summary["workers"]
        assert (worker["pid"], worker["state"], worker["drain"]) == (os.getpid(), "serving", None)
        assert (worker["open"], worker["closing"], worker["messages_in"], worker["messages_out"]) == (
            2,
            0,
            1,
            3,
        )
        assert worker["bytes_in"] > 4
        assert worker["memory"] > 2**20
        assert summary["connections"] == 2
        assert summary["by_route"] == {"/chat/{name}": 2}
        assert summary["rooms"] == {"count": 2, "largest": [["room of ann", 1], ["room of ben", 1]]}
        assert summary["bus"] == {
            "kind": "local",
            "connected": True,
            "disconnections": 0,
            "lost_publications": 0,
        }
        assert summary["missing_workers"] == 0
        counters = "messages_in", "messages_out", "bytes_in", "bytes_out"
        assert summary["totals"] == {name: worker[name] for name in counters}, "without those of the feed"
        await end(ann, ben)
        # What a connection has counted stays after its end.
        while (summary := (await client.receive())["summary"])["connections"]:
            pass
        [worker] = summary["workers"]
        assert (worker["messages_in"], worker["messages_out"]) == (1, 3)
        assert summary["totals"] == {name: worker[name] for name in counters}
        endings = summary["endings"]
        assert endings["by_cause"] == {"peer_closed": 2}
        assert endings["by_code"] == {"1000": 2}
        for counts in (endings["minutes"], endings["hours"]):
            assert sum(causes["peer_closed"] for _, causes, _ in counts) == 2
            assert sum(codes["1000"] for _, _, codes in counts) == 2


async def test_summaries_come_each_period_until_they_are_stopped(server):
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        first = await client.summary(every=0.5)
        second = (await client.receive())["summary"]
        assert second["at"] > first["at"]
        assert await client.ask("summary", every=0) == {"done": True}
        assert set(await client.ask("connection", connection="x:1")) == {"error"}
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.8):
                await client.ws.recv()


async def test_several_clients_share_their_summaries(server, monkeypatch):
    process, made = server._dashboard._knowledge, []
    summary = process.summary

    async def counted():
        made.append(1)
        return await summary()

    monkeypatch.setattr(process, "summary", counted)
    for name in ("SUMMARY_AGE", "MAX_SUMMARY_AGE"):
        monkeypatch.setattr(dashboard, name, 1000)
    async with nothing_left_behind(), server.serving(), feed(server) as one, feed(server) as two:
        for _ in range(2):
            await asyncio.gather(*(client.summary(every=60) for client in (one, two)))
        assert len(made) == 1
        monkeypatch.setattr(dashboard, "SUMMARY_AGE", 0)
        await one.summary(every=60)
        assert len(made) == 2


async def test_summaries_of_many_connections_come_less_often(server, monkeypatch):
    monkeypatch.setattr(feed_module, "PER_CONNECTION", 1000)
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        await client.summary()
        ws = await chatting(server, "ann")
        while not (await client.receive())["summary"]["connections"]:
            pass
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.8):
                await client.ws.recv()
        await end(ws)


async def test_a_row_describes_a_connection(server):
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        ws = await chatting(
            server, "ann%20b?token=secret", additional_headers={"User-Agent": "agent/1"}, compression=None
        )
        [row] = await client.rows()
        local = ws.local_address
        assert row == row | {
            "key": "ann b",
            "subject": "subject of ann b",
            "address": f"127.0.0.1:{local[1]}",
            "route": "/chat/{name}",
            "path": "/chat/ann b",
            "latency": None,
            "queued": 0,
            "messages_in": 0,
            "messages_out": 1,
            "bytes_in": 0,
            "state": "open",
            "subprotocol": None,
            "compressed": False,
            "user_agent": "agent/1",
            "rooms": ["room of ann b"],
        }
        assert 0 <= row["idle"] <= row["age"]
        assert row["connection"].startswith(row["worker"] + ":")
        answer = await client.ask("connection", connection=row["connection"])
        assert answer["connection"]["key"] == "ann b"
        await end(ws)
        await until(lambda: not [each for each in server.connections if each.request.route == "/chat/{name}"])
        answer = await client.ask("connection", connection=row["connection"])
        assert answer == {"error": "the connection has ended"}


async def test_a_list_is_sorted_searched_and_read_page_by_page(server):
    names = ["ann", "ben", "cat", "dan", "eve"]
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        connections = [await chatting(server, name) for name in names]
        for number, ws in enumerate(connections):
            for _ in range(number % 2):  # equal values must not hide a connection from the next page
                await ws.send("x")
                await within(ws.recv())

        async def keys(**fields):
            return [row["key"] for row in await client.rows(**fields)]

        assert await keys() == names[::-1], "the youngest first"
        assert await keys(sort="key", limit=2) == names
        assert await keys(sort="key", descending=True, limit=2) == names[::-1]
        for descending in (False, True):
            counted = await client.rows(sort="messages_in", descending=descending, limit=1)
            values = [row["messages_in"] for row in counted]
            assert values == sorted([0, 1, 0, 1, 0], reverse=descending)
            assert sorted(row["key"] for row in counted) == names
        assert await keys(search="BEN") == ["ben"]
        assert await keys(search=f"{connections[2].local_address[1]}") == ["cat"]
        assert await keys(search="subject of d", sort="age") == ["dan"]
        assert await keys(slow=True) == []
        for sort in (
            "latency",
            "queued",
            "messages_out",
            "bytes_in",
            "bytes_out",
            "route",
            "address",
            "idle",
        ):
            assert sorted(await keys(sort=sort, limit=3)) == names
        await end(*connections)


async def test_no_page_hides_the_next_one_when_connections_have_ended_meanwhile(server, monkeypatch):
    # The selection of a large list is used again for some seconds.
    monkeypatch.setattr(knowledge, "WALK_INTERVAL", 1000)
    monkeypatch.setattr(knowledge, "MAX_AGE", 1000)
    names = ["ann", "ben", "cat", "dan"]
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        connections = [await chatting(server, name) for name in names]
        page = await client.ask("list", sort="key", limit=2)
        assert [row["key"] for row in page["rows"]] == ["ann", "ben"]
        await end(*connections[:2])
        await until(lambda: len(server.connections) == 3)
        page = await client.ask("list", sort="key", limit=2)
        assert page["rows"] == []
        page = await client.ask("list", sort="key", limit=2, after=page["after"])
        assert [row["key"] for row in page["rows"]] == ["cat", "dan"]
        await end(*connections[2:])


async def test_a_walk_over_many_connections_takes_many_turns(server, monkeypatch):
    for name in ("WALKED", "SEARCHED"):
        monkeypatch.setattr(knowledge, name, 2)
    monkeypatch.setattr(endings, "SEARCHED", 2)
    process = server._dashboard._knowledge

    async def turns(walk):
        """The number of turns of the loop that a walk lets pass."""
        task, count = asyncio.create_task(walk), 0
        while not task.done():
            await asyncio.sleep(0)
            count += 1
        await task
        return count

    async with nothing_left_behind(), server.serving():
        connections = [await chatting(server, f"user-{number}") for number in range(10)]
        assert await turns(process.list({})) >= 5
        assert await turns(process.list({"search": "x"})) >= 5
        await end(*connections)
        await until(lambda: len(server._dashboard.endings.recent) == 10)
        assert await turns(process.list_endings({})) >= 5


async def test_a_summary_looks_at_each_connection_once(server):
    class Walked(set):
        walks = 0

        def __iter__(self):
            self.walks += 1
            return super().__iter__()

    async with nothing_left_behind(), server.serving():
        connections = [await chatting(server, f"user-{number}") for number in range(3)]
        walked = server.connections = server._metering._connections = Walked(server.connections)
        worker = (await server._dashboard._knowledge.summary())["worker"]
        assert (worker["connections"], worker["messages_out"], walked.walks) == (3, 3, 1)
        await end(*connections)


async def test_a_connection_whose_queue_is_full_is_slow(server):
    @server.websocket("/flood")
    async def flood(ws):
        while ws.is_open:
            await ws.send(b"x" * 100_000)

    async with nothing_left_behind(), server.serving(), feed(server) as client:
        ws = await endwell.connect(url(server, "/flood"), compression=None)
        while not (rows := await client.rows(slow=True)):
            pass
        assert rows[0]["queued"] > 0
        assert (await client.summary())["workers"][0]["slow"] == 1
        ws.abort()
        await within(ws.closed)


async def test_the_last_endings_are_told_with_who_it_was_newest_first(server):
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        ann = await chatting(server, "ann")
        [row] = await client.rows()
        await within(ann.close(4001, "enough"))
        await end(await chatting(server, "ben"))
        while len(rows := (await client.ask("endings"))["rows"]) < 2:
            pass
        newest, oldest = rows
        assert newest["key"] == "ben"
        assert oldest["connection"] == row["connection"]
        assert (oldest["key"], oldest["subject"], oldest["route"]) == (
            "ann",
            "subject of ann",
            "/chat/{name}",
        )
        assert oldest["sentence"].startswith("peer closed with 4001 'enough'")
        assert oldest["ending"]["cause"] == "peer_closed"

        async def found(**fields):
            return [each["key"] for each in (await client.ask("endings", **fields))["rows"]]

        assert await found(code=4001) == ["ann"]
        assert await found(cause="peer_closed", limit=1) == ["ben"]
        assert await found(cause="slow_peer") == []
        assert await found(search="ENOUGH") == ["ann"]
        assert await found(search=row["connection"]) == ["ann"]
        # All that match, whatever the limit.
        for fields in ({}, {"cause": "peer_closed"}):
            answer = await client.ask("endings", limit=1, **fields)
            assert (answer["total"], len(answer["rows"]), answer["rows"][0]["key"]) == (2, 1, "ben")


@pytest.mark.parametrize("actions", [True, False])
async def test_about_says_what_the_page_needs_once(actions):
    server = Server()
    server.dashboard(actions=actions)
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        about = await client.ask("about")
        assert about["version"] == endwell.__version__
        assert about["causes"]["peer_closed"] == "the peer closed"
        assert len(about["causes"]) == len(endwell.Cause)
        # What close() would refuse is not offered.
        assert about["codes"]["1000"] == "NORMAL_CLOSURE"
        assert "1006" not in about["codes"]
        assert list(about["phases"]) == ["close", "last_call", "wait", "cancel", "abort", "over"]
        # Without a supervisor, a worker cannot be drained.
        assert about["actions"] == (["close"] if actions else [])


async def test_codes_of_peers_above_the_bound_are_counted_as_other_and_hide_no_others(monkeypatch):
    monkeypatch.setattr("endwell.server.dashboard.endings.CODES_OF_PEERS", 1)
    dashboard = Server()
    dashboard.dashboard()

    @dashboard.websocket("/{code}")
    async def app(ws, code):
        if int(code):
            await ws.close(int(code))
        await ws.wait_closed()

    async with nothing_left_behind(), dashboard.serving(), feed(dashboard) as client:
        for theirs, ours in (4001, 0), (4002, 0), (4003, 0), (1001, 0), (0, 4004), (4004, 0):
            async with endwell.connect(url(dashboard, f"/{ours}")) as ws:
                if theirs:
                    await ws.close(theirs)
                await within(ws.wait_closed())
        while len((await client.ask("endings"))["rows"]) < 6:
            pass
        endings = (await client.summary())["endings"]
        assert endings["by_code"] == {"4001": 1, "other": 2, "1001": 1, "4004": 2}
        assert sum(codes["other"] for _, _, codes in endings["hours"] if "other" in codes) == 2


async def test_the_last_1000_endings_are_kept(server):
    log = server._dashboard.endings
    assert log.recent.maxlen == 1000


async def test_close_ends_a_connection_with_code_and_reason(server):
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        ws = await chatting(server, "ann")
        [row] = await client.rows()
        name = row["connection"]
        for fields, error in (
            ({"code": 1005}, "code 1005 may not be sent in a Close"),
            ({"code": "x"}, "code must be a number"),
            ({"reason": "x" * 124}, "reason must be at most 123 bytes of UTF-8, not 124"),
            ({"reason": 1}, "reason must be a str, not int"),
        ):
            assert await client.ask("close", connection=name, **fields) == {"error": error}
        assert await client.ask("close", connection=name, code=4001, reason="bye") == {"done": True}
        assert await within(ws.read()) is None
        assert ws.ending.received == Close(4001, "bye")
        await until(lambda: len(server.connections) == 1)
        answer = await client.ask("close", connection=name)
        assert answer == {"error": "the connection has ended, or is closing"}


async def test_a_connection_with_a_handler_of_either_kind_is_shown_and_closed(face, transport):
    server = Server()
    server.dashboard()

    async def script(ws):
        server.sessions.join("ann", face.for_handler(ws))
        await ws.send("in")
        while await ws.read() is not None:
            pass

    server.websocket("/")(face.handler(script))
    served = server.serving(ssl=transport.server)
    async with nothing_left_behind(), served, feed(server, ssl=transport.client) as client:
        secure = transport.server is not None
        ws = await within(endwell.connect(url(server, "/", secure=secure), ssl=transport.client))
        assert await within(ws.recv()) == "in"
        [row] = await client.rows(sort="latency")
        assert (row["key"], row["messages_out"]) == ("ann", 1)
        answer = await client.ask("close", connection=row["connection"], code=4001, reason="bye")
        assert answer == {"done": True}
        assert await within(ws.read()) is None
        assert ws.ending.received == Close(4001, "bye")
        while not (rows := (await client.ask("endings"))["rows"]):
            pass
        assert (rows[0]["key"], rows[0]["ending"]["cause"]) == ("ann", "app_closed")


async def test_drain_and_restart_need_a_supervisor(server):
    async with nothing_left_behind(), server.serving(), feed(server) as client:
        worker = (await client.summary())["workers"][0]["worker"]
        for name in ("drain", "restart"):
            answer = await client.ask(name, worker=worker)
            assert answer == {"error": f"{name} needs a supervisor: run the server with workers"}


async def test_the_feed_shows_the_drain(server):
    # The handler is busy, so that the drain goes on until the feed has seen it.
    busy = asyncio.Event()

    @server.websocket("/busy")
    async def handler(ws):
        await busy.wait()

    async with nothing_left_behind(), server.serving(grace=5), feed(server) as client:
        ws = await endwell.connect(url(server, "/busy"))
        drain = asyncio.create_task(server.drain(deadline=30))
        while (worker := (await client.summary())["workers"][0])["drain"] is None:
            pass
        assert worker["state"] == "draining"
        assert worker["drain"]["deadline"] == 30
        assert worker["drain"]["phase"] in ("close", "last_call")
        assert worker["drain"]["open"] == 2
        assert 0 < worker["drain"]["seconds_left"] <= 30
        assert list(worker["drain"]["timetable"]) == ["close", "last_call", "wait", "cancel", "abort", "over"]
        busy.set()
        await within(ws.closed)
        # The feed is closed last, and without a wait.
        report = await within(drain)
        assert (await within(client.ws.closed)).code == 1001
        assert report.endings == {"clean": 2}
        assert report.duration < 20


async def test_endings_are_kept_without_the_record_of_the_recorder():
    server, ended = Server(recorder=True), []
    server.dashboard()
    server.on_close(lambda ws, ending: ended.append(ending))

    @server.websocket("/")
    async def handler(ws):
        ws.abort()

    async with nothing_left_behind(), server.serving(), feed(server) as client:
        ws = await endwell.connect(url(server, "/"))
        await within(ws.closed)
        await until(lambda: ended)
        assert ended[0].record is not None
        [row] = (await client.ask("endings"))["rows"]
        assert row["sentence"] == str(ended[0])
        assert "record" not in row["ending"]


async def test_endings_with_an_exception_keep_no_traceback(server):
    @server.websocket("/fails")
    async def fails(ws):
        raise ConnectionResetError("no")

    log = server._dashboard.endings
    async with nothing_left_behind(), server.serving():
        ws = await endwell.connect(url(server, "/fails"))
        await within(ws.closed)
        await until(lambda: log.recent)
    assert all(isinstance(each.ending, dict) or each.ending.exception is None for each in log.recent)


def test_arguments_are_checked():
    server = Server()
    with pytest.raises(TypeError, match="authorize takes a function"):
        server.dashboard(authorize=True)
    with pytest.raises(TypeError, match="actions must be True or False"):
        server.dashboard(actions=1)
    with pytest.raises(ValueError, match="must be a path"):
        server.dashboard("x")
    server.dashboard("/a")
    with pytest.raises(ValueError, match="has a dashboard already, at '/a'"):
        server.dashboard("/b")


async def test_a_dashboard_cannot_be_added_while_the_server_serves():
    server = Server()
    async with server.serving():
        with pytest.raises(ValueError, match="while the server serves"):
            server.dashboard()


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        ("{", "an ask is a JSON object"),
        ("[" * 4000, "an ask is a JSON object"),
        ("NaN", "an ask is a JSON object with the field ask"),
        ("[]", "an ask is a JSON object with the field ask"),
        ("{}", "an ask is a JSON object with the field ask"),
        (b"{}", "an ask is a text message"),
        ('{"ask": "list", "id": 1e400}', "id must be a whole number"),
        ('{"ask": "list", "id": ' + "9" * 5000 + "}", "an ask is a JSON object"),
        ({"ask": "nothing"}, "there is no such ask"),
        ({"ask": "summary", "every": 0.1}, "every must be 0, or seconds from 0.5 to 3600"),
        ({"ask": "list", "sort": "x"}, f"sort must be one of {', '.join(SORTS)}"),
        ({"ask": "list", "descending": 1}, "descending must be true or false"),
        ({"ask": "list", "slow": 1}, "slow must be true or false"),
        ({"ask": "list", "search": 1}, "search must be a text or null"),
        ({"ask": "list", "limit": 201}, "limit must be a whole number from 1 to 200"),
        ({"ask": "endings", "limit": 0}, "limit must be a whole number from 1 to 1000"),
        ({"ask": "endings", "cause": 1}, "cause must be a text or null"),
        ({"ask": "endings", "code": "1000"}, "code must be a number or null"),
        ({"ask": "connection", "connection": "x"}, "connection must be the name of a connection, such as in a row"),
        ({"ask": "drain"}, "worker must be the name of a worker"),
    ],
)  # fmt: skip
async def test_an_ask_that_is_not_valid_is_answered_with_an_error(server, ask, error):
    async with server.serving(), feed(server) as client:
        assert await client.send(ask) == {"error": error}
        # The feed goes on.
        assert (await client.ask("list"))["total"] == 0


@pytest.mark.parametrize(
    "after",
    [
        "x",
        1,
        [],
        "[" * 1000,
        "[1]",
        '["a", "w", 1]',
        '[NaN, "w", 1]',
        "[1, 2, 3]",
        '[1, "w", true]',
        "{}",
        "1",
    ],
)
async def test_a_cursor_that_is_not_valid_is_answered_with_an_error(server, after):
    async with server.serving(), feed(server) as client:
        [answer] = [await client.ask("list", after=after)]
        assert answer["error"].startswith("after must be the cursor of an answer")


async def test_a_forged_cursor_only_says_where_the_list_begins(server):
    async with server.serving(), feed(server) as client:
        ws = await chatting(server, "ann")
        # No float can hold 10**400.
        for number, found in ((-1e9, 1), (1e300, 0), (-(10**400), 1), (10**400, 0)):
            cursor = json.dumps([number, "nobody", 10**30])
            assert len((await client.ask("list", sort="queued", after=cursor))["rows"]) == found
        await end(ws)

"""What a process that ends leaves to the dashboards of the others."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

import endwell
from endwell.server.dashboard import heritage, workers
from endwell.server.dashboard.endings import KEPT, Ended
from endwell.server.dashboard.heritage import SOURCES, Heritage
from endwell.testing import FaultyBus
from tests.pair import until, within
from tests.raw import BOUND

from .client import feed
from .test_workers import joined, prepare


@asynccontextmanager
async def serving(bus):
    """A server, while the block runs. It hears the others before it serves."""
    server = endwell.Server(compression=None)
    prepare(server)
    bus.connect(server.rooms)
    async with server.serving(grace=1.0):
        assert server._dashboard._workers.listens
        yield server


async def ended(server, *names):
    """Let these users come and go."""
    for name in names:
        ws = await joined(server, name)
        await within(ws.close())
    log = server._dashboard.endings
    await until(lambda: [each.key for each in log.recent][-len(names) :] == [*names])


async def seen(server):
    """The counts of the endings, and the users whose endings are found."""
    async with feed(server) as client:
        summary = await client.summary()
        assert summary["missing_workers"] == 0
        endings = await client.ask("endings", limit=1000)
    assert endings["total"] == len(endings["rows"])
    counts = summary["endings"]
    for table in "minutes", "hours":
        causes = [row[1] for row in counts[table]]
        assert sum(map(sum, (each.values() for each in causes))) == sum(counts["by_cause"].values())
    return counts["by_cause"], [row["key"] for row in endings["rows"]]


async def test_endings_of_a_process_that_has_ended_are_shown():
    bus = FaultyBus()
    async with serving(bus) as stays:
        async with serving(bus) as ends:
            await ended(ends, "ann")
            ben = await joined(ends, "ben")
        assert ben.ending is not None or await within(ben.read()) is None
        await ended(stays, "cid")
        assert await seen(stays) == ({"peer_closed": 2, "server_drained": 1}, ["cid", "ben", "ann"])
        async with feed(stays) as client:
            answer = await client.ask("endings", search="ann")
            assert ([row["key"] for row in answer["rows"]], answer["total"]) == (["ann"], 1)
            answer = await client.ask("endings", cause="server_drained")
            assert ([row["key"] for row in answer["rows"]], answer["total"]) == (["ben"], 1)


async def test_the_totals_of_a_process_that_has_ended_still_count():
    bus = FaultyBus()
    async with serving(bus) as stays, feed(stays) as client:
        async with serving(bus) as ends:
            await ended(ends, "ann", "ben")
            while (known := await client.summary())["totals"]["messages_out"] < 2:
                pass
            assert (known["missing_workers"], len(known["workers"])) == (0, 2)
        while len((summary := (await client.receive())["summary"])["workers"]) > 1:
            pass
        assert summary["totals"] == known["totals"]
        await ended(stays, "cid")
        while (await client.summary())["totals"]["messages_out"] != 3:
            pass


async def test_a_process_that_starts_later_gets_what_was_left_before():
    bus = FaultyBus()
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(serving(bus))
        async with serving(bus) as second:
            async with serving(bus) as first:
                await ended(first, "ann")
            await ended(second, "ben")
            third = await stack.enter_async_context(serving(bus))
            assert third._dashboard._heritage.sources() == [first._dashboard._knowledge.worker]
        # All of them have it, and it counts once.
        for server in third, other:
            assert await seen(server) == ({"peer_closed": 2}, ["ben", "ann"])


async def test_a_process_that_still_answers_is_counted_once():
    bus = FaultyBus()
    async with serving(bus) as stays, serving(bus) as ends:
        await ended(ends, "ann", "ben")
        asks = ends._dashboard._workers
        await asks._leave(asks._bus)
        assert stays._dashboard._heritage.sources() == [ends._dashboard._knowledge.worker]
        for server in stays, ends:
            assert await seen(server) == ({"peer_closed": 2}, ["ben", "ann"])


async def test_what_a_process_leaves_is_bounded_and_comes_in_parts(monkeypatch):
    monkeypatch.setattr(heritage, "MAX_BEQUEST", 4000)
    monkeypatch.setattr(workers, "PART", 100)
    bus = FaultyBus()
    async with serving(bus) as stays:
        async with serving(bus) as ends:
            names = [f"user-{number}" for number in range(10)]
            await ended(ends, *names)
        async with feed(stays) as client:
            found = [row["key"] for row in (await client.ask("endings"))["rows"]]
            assert 0 < len(found) < 10
            assert found == names[::-1][: len(found)], "the newest"
            assert (await client.summary())["endings"]["by_cause"] == {"peer_closed": 10}


async def test_a_process_that_begins_to_listen_in_the_middle_gets_all_of_it(monkeypatch, caplog):
    monkeypatch.setattr(workers, "PART", 100)
    bus, heard, goes_on = FaultyBus(), asyncio.Event(), asyncio.Event()
    async with serving(bus) as stays:

        async def end():
            async with serving(bus) as ends:
                await ended(ends, "ann")
                own = ends._dashboard._workers._bus
                publish = own.publish

                async def slow(*arguments):
                    found = await publish(*arguments)
                    heard.set()
                    await goes_on.wait()
                    return found

                monkeypatch.setattr(own, "publish", slow)
                monkeypatch.setattr(workers, "LEAVE_TIME", BOUND)

        ending = asyncio.create_task(end())
        await within(heard.wait())
        async with serving(bus) as late:
            goes_on.set()
            await within(ending)
            await until(late._dashboard._heritage.sources)
            for server in stays, late:
                assert await seen(server) == ({"peer_closed": 1}, ["ann"])
    assert [each.getMessage() for each in caplog.records if each.levelname == "ERROR"] == []


@pytest.mark.parametrize("is_away", [True, False])
async def test_a_bus_that_does_not_answer_does_not_delay_the_end(monkeypatch, is_away):
    monkeypatch.setattr(workers, "LEAVE_TIME", 0.1)
    bus = FaultyBus()
    published = []

    async def publish(*arguments):
        published.append(arguments)
        await asyncio.Event().wait()

    async def serve():
        async with serving(bus) as ends:
            await ended(ends, "ann")
            monkeypatch.setattr(ends._dashboard._workers._bus, "publish", publish)
            if is_away:
                bus.cut(ends.rooms)

    await within(serve())
    assert len(published) == (not is_away)


async def test_a_process_without_endings_leaves_nothing(monkeypatch):
    bus = FaultyBus()
    async with serving(bus) as stays:
        async with serving(bus):
            pass
        assert stays._dashboard._heritage.sources() == []


def ending(number):
    return [
        float(number),
        number,
        None,
        None,
        "",
        "",
        {"text": "it ended", "cause": "peer_closed", "code": 1000},
    ]


def left(source, at, count=1):
    counts = {
        "minutes": [[int(at // 60), {"peer_closed": 1}, {"1000": 1}]],
        "hours": [[int(at // 3600), {"peer_closed": 1}, {"1000": 1}]],
        "by_cause": {"peer_closed": 1}, "by_code": {"1000": 1},
    }  # fmt: skip
    return {"counts": {source: counts}, "rows": [[source, *ending(number)] for number in range(count)]}


async def test_old_processes_and_endings_are_forgotten():
    kept = Heritage()
    for number in range(SOURCES + 1):
        kept.add(left(f"w{number}", time.time()), "own")
    assert kept.sources() == [f"w{number}" for number in range(1, SOURCES + 1)]
    kept.add(left("w1", time.time(), KEPT + 7), "own")
    assert len(kept.recent) == KEPT
    assert kept.recent[-1] == ("w1", Ended(*ending(KEPT + 6)))
    assert (await kept.counts(set()))["by_cause"] == {"peer_closed": SOURCES}
    assert (await kept.counts({"w1", "other"}))["by_cause"] == {"peer_closed": SOURCES - 1}


async def test_what_is_added_while_the_sum_is_made_counts_in_the_next_one():
    kept = Heritage()
    for number in range(3 * heritage.ADDED):
        kept.add(left(f"p{number}", time.time()), "own")
    first = asyncio.create_task(kept.counts(set()))
    await asyncio.sleep(0)
    assert not first.done()
    kept.add(left("late", time.time()), "own")
    await first
    assert (await kept.counts(set()))["by_cause"] == {"peer_closed": 3 * heritage.ADDED + 1}


async def test_counts_by_time_are_of_the_last_hour_and_the_last_day():
    now, kept = time.time(), Heritage()
    kept.add(left("now", now), "own")
    kept.add(left("hours ago", now - 2 * 3600), "own")
    kept.add(left("days ago", now - 2 * 86400), "own")
    counts = await kept.counts(set())
    assert counts["by_cause"] == {"peer_closed": 3}
    assert [len(counts["minutes"]), len(counts["hours"])] == [1, 2]


def test_what_was_left_can_be_passed_on_and_own_endings_are_not_inherited():
    one, other = Heritage(), Heritage()
    one.add(left("a", 7), "own")
    one.add(left("b", 8), "own")
    for _ in range(2):
        other.add(json.loads(json.dumps(one.bequest())), "b")
    assert other.sources() == ["a"]
    assert [source for source, _ in other.recent] == ["a"]


def test_a_message_of_another_version_changes_nothing():
    kept = Heritage()
    with pytest.raises(KeyError):
        kept.add({"counts": {"a": {}}, "rows": []}, "own")
    with pytest.raises(TypeError):
        kept.add({**left("a", 7), "rows": [["a", 1, {"text": "it ended"}]]}, "own")
    assert kept.sources() == []

"""What the supervisor makes of the counts of a process, also of one whose table was full."""

from __future__ import annotations

from collections import Counter

import pytest

import endwell
from endwell.metrics.families import ENDING, ROUTE
from endwell.metrics.meter import OPENED, settle
from endwell.metrics.table import Block
from tests.pair import until, within


def route(name, opened):
    values = [1.0] * 10
    values[OPENED] = opened
    return Block(ROUTE, (name,), values)


def ended(name, count):
    return Block(ENDING, (name, "peer_closed", "peer", "1000", "true"), [count])


@pytest.mark.parametrize(
    ("blocks", "exited"),
    [
        ([route("/", 5.0), ended("/", 5.0)], {}),
        ([route("/", 5.0), ended("/", 3.0)], {"/": 2}),
        ([route("/", 5.0)], {"/": 5}),
        # The table was full: ends of named routes were counted for "other".
        ([route("/", 5.0), ended("other", 5.0)], {}),
        ([route("/", 5.0), ended("/", 1.0), route("/a", 3.0), ended("other", 4.0)], {"/a": 3}),
        ([route("/", 5.0), route("other", 3.0), ended("other", 6.0)], {"/": 2}),
    ],
)
def test_open_connections_of_a_process_that_exited_are_counted_as_ended(blocks, exited):
    settled = list(settle(blocks))
    counts = Counter()
    for block in settled:
        if block.number == ENDING and block.labels[1] == "process_exited":
            counts[block.labels[0]] += block.values[0]
    assert counts == exited
    totals = {
        number: sum(
            block.values[OPENED if number == ROUTE else 0] for block in settled if block.number == number
        )
        for number in (ROUTE, ENDING)
    }
    assert totals[ROUTE] == totals[ENDING]
    assert all(block.values[:OPENED] == [0.0] * OPENED for block in settled if block.number == ROUTE)


async def test_routes_that_have_no_room_are_counted_together():
    """Thousands of routes: the sums are right, and no counter goes back."""
    server = endwell.Server(compression=None)
    for number in range(1500):
        server._metering.meter.table.block(ROUTE, (f"/{'x' * 100}/{number}",), 10)

    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    for path in ("/one", "/two", "/three"):
        server.websocket(path)(echo)

    def found(name):
        rows = server.metrics.get(name, ())
        return {tuple(row["labels"].values()): row["value"] for row in rows if row["value"]}

    async with server.serving():
        opened = []
        for number, path in enumerate(("/one", "/two", "/three", "/one"), 1):
            opened.append(await endwell.connect(f"ws://127.0.0.1:{server.port}{path}"))
            await opened[-1].send("hello")
            await within(opened[-1].recv())
            assert found("endwell_connections") == {("other", "open"): number}
            assert found("endwell_messages_total") == {("other", "in"): number, ("other", "out"): number}
        await opened[0].close()
        await until(lambda: len(server.connections) == 3)
        assert found("endwell_endings_total") == {("other",) * 5: 1}
        assert found("endwell_connections") == {("other", "open"): 3}
        assert found("endwell_messages_total") == {("other", "in"): 4, ("other", "out"): 4}
        for ws in opened:
            await ws.close()

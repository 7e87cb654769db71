"""The connection to NATS."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

from endwell.rooms.nats.link import TURN, Link
from endwell.rooms.nats.place import Place
from tests.pair import until, within

from .server import shared_server


@asynccontextmanager
async def linked(prefix):
    """A link that is connected."""
    connected = asyncio.Event()
    link = Link(
        Place.parse(f"{shared_server().url}?prefix={prefix}"),
        "process1",
        lambda *values: None,
        lambda is_connected: connected.set() if is_connected else None,
    )
    await link.start()
    try:
        await within(connected.wait())
        yield link
    finally:
        await link.stop()


async def test_messages_of_several_subjects_are_received_in_the_order_in_which_they_were_sent():
    received = []
    async with linked("order") as link:
        subjects = ["order.a", "order.b", "order.c"]
        for subject in subjects:
            link.subscribe(subject, lambda name, reply, data, nobody: received.append((name, data)))
        sent = [(subjects[number % 3], b"%d" % number) for number in range(3000)]
        for subject, data in sent:
            link.send(subject, data)
        await until(lambda: len(received) == len(sent))
        assert received == [(subject[-1], data) for subject, data in sent]


async def test_many_messages_are_sent_and_handled_in_several_turns_of_the_loop(monkeypatch):
    turn, sent, handled = 0, Counter(), Counter()

    async def count_turns():
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async with linked("turns") as link:
        publish = link._client.publish

        async def spy(*values):
            sent[turn] += 1
            await publish(*values)

        def receive(*values):
            handled[turn] += 1

        monkeypatch.setattr(link._client, "publish", spy)
        link.subscribe("turns.a", receive)
        counting = asyncio.create_task(count_turns())
        await until(lambda: turn)
        for _ in range(3000):
            link.send("turns.a", b"x")
        await until(lambda: handled.total() == 3000)
        counting.cancel()
    assert sent.total() >= 3000
    assert max(sent.values()) <= TURN
    assert max(handled.values()) <= TURN


async def test_what_a_lost_connection_has_received_is_not_handled_after_its_end():
    received = []
    async with linked("lost") as link:
        link.subscribe("lost.a", lambda name, reply, data, nobody: received.append(link.connected))
        for _ in range(3000):
            link.send("lost.a", b"x")
        await until(lambda: received)
        link._client._transport._io_writer.transport.abort()
        await until(lambda: link.disconnections)
        await until(lambda: link.connected)
    assert False not in received

"""The connection to NATS."""

from __future__ import annotations

import asyncio

from endwell.rooms.nats.link import Link
from endwell.rooms.nats.place import Place
from tests.pair import until, within

from .server import shared_server


async def test_messages_of_several_subjects_are_received_in_the_order_in_which_they_were_sent():
    connected = asyncio.Event()
    link = Link(
        Place.parse(f"{shared_server().url}?prefix=order"),
        "process1",
        lambda *values: None,
        lambda is_connected: connected.set() if is_connected else None,
    )
    received = []
    await link.start()
    try:
        await within(connected.wait())
        subjects = ["order.a", "order.b", "order.c"]
        for subject in subjects:
            link.subscribe(subject, lambda name, reply, data, nobody: received.append((name, data)))
        sent = [(subjects[number % 3], b"%d" % number) for number in range(3000)]
        for subject, data in sent:
            link.send(subject, data)
        await until(lambda: len(received) == len(sent))
        assert received == [(subject[-1], data) for subject, data in sent]
    finally:
        await link.stop()

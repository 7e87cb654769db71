"""Full queues: in both directions at once, with many threads, and their memory."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import suppress

import pytest

import endwell
from endwell import ConnectionClosed, sync
from endwell.sync import inbox
from tests.raw import BOUND
from tests.sync.background import Background, served, until

AMOUNT = 20 * 2**20


@pytest.mark.parametrize("size", [256, 1024, 2**20, AMOUNT])
def test_two_blocking_peers_that_send_before_they_read_do_not_deadlock(size):
    server = endwell.Server(max_size=AMOUNT, compression=None)
    sums = []

    def talk(ws):
        for _ in range(AMOUNT // size):
            ws.send(bytes(size))
        sums.append(sum(len(ws.recv()) for _ in range(AMOUNT // size)))

    server.websocket("/")(talk)
    with sync.serving(server):
        with sync.connect(f"ws://127.0.0.1:{server.port}/", max_size=AMOUNT, compression=None) as ws:
            talk(ws)
        until(lambda: len(sums) == 2)
    assert sums == [AMOUNT, AMOUNT]
    assert ws._bridge.portal.surplus == 0


def test_memory_for_a_blocked_sender_is_bounded(monkeypatch):
    monkeypatch.setattr(inbox, "DEADLOCK_ALLOWANCE", 2**20)
    with served() as (_, address):
        # The peer sends without pause and reads nothing; our sends block.
        ws = sync.connect(address + "/flood", write_timeout=None, compression=None)
        sending = Background(_send_until_closed, ws)
        portal = ws._bridge.portal
        until(lambda: portal.surplus >= 2**20)
        most = portal.surplus
        assert most < 2**20 + 2**19  # a read above it
        with pytest.raises(TimeoutError):
            ws.wait_closed(0.2)
        assert portal.surplus == most
        assert ws.is_open
        for _ in range(2000):
            ws.recv(BOUND)
        ws.abort()
        sending.result()
        assert portal.surplus == 0


def _send_until_closed(ws):
    while True:
        try:
            ws.send(bytes(100_000))
        except ConnectionClosed:
            return


def test_reading_from_a_peer_pauses_without_a_receiver():
    with served() as (_, address):
        ws = sync.connect(address + "/flood", compression=None, max_queue=4)
        until(lambda: not ws._ws._core.wants_read())
        with pytest.raises(TimeoutError):
            ws.wait_closed(0.3)
        # One read of the socket may exceed it.
        assert len(ws._bridge.inbox) < 4 + 300
        assert not ws._ws._core.wants_read()
        for _ in range(2000):
            assert ws.recv(BOUND) == bytes(1000)
        ws.abort()
        ws.wait_closed(BOUND)


def test_a_thousand_threads_lose_and_duplicate_no_message():
    """Each message whose ``send()`` returned comes back once, and all threads get the same ending."""
    with served() as (_, address):
        ws = sync.connect(address + "/echo", compression=None)
        ended, sent, received = [], [], []
        start = threading.Event()

        def hammer(name: int) -> None:
            start.wait()
            try:
                for number in range(20):
                    ws.send(f"{name}:{number}")
                    sent.append(f"{name}:{number}")
                    received.append(ws.recv())
            except ConnectionClosed as exc:
                ended.append(exc.ending)

        threads = [Background(hammer, name) for name in range(1000)]
        start.set()
        for each in threads:
            each.result(3 * BOUND)  # 20,000 messages on a slow machine
        assert not ended
        assert len(sent) == 20_000
        assert Counter(received) == Counter(sent)
        ending = ws.close()
        assert (ending.messages_out, ending.messages_in) == (20_000, 20_000)


def test_messages_accepted_by_send_arrive_although_other_threads_close():
    """Threads send, receive and close: each message accepted before the Close reaches the peer."""
    server = endwell.Server()
    arrived, done = [], []

    @server.websocket("/")
    async def collect(ws):
        async for message in ws:
            arrived.append(message)
            with suppress(ConnectionClosed):
                await ws.send(message)
        done.append(ws.ending)

    with sync.serving(server):
        for _ in range(20):
            arrived.clear()
            done.clear()
            ws = sync.connect(f"ws://127.0.0.1:{server.port}/", max_queue=10_000)
            taken, endings = [], []

            def hammer(name, ws=ws, taken=taken, endings=endings):
                try:
                    for number in range(200):
                        ws.send(f"{name}:{number}")
                        taken.append(f"{name}:{number}")
                        with suppress(TimeoutError):
                            ws.read(0)
                except ConnectionClosed:
                    pass
                if name % 10 == 0:
                    endings.append(ws.close())

            threads = [Background(hammer, name) for name in range(50)]
            for each in threads:
                each.result()
            until(lambda: done)
            assert Counter(arrived) == Counter(taken)
            assert set(map(id, endings)) == {id(ws.ending)}
            assert ws.ending.clean


def test_queued_messages_can_be_received_after_the_loop_is_closed():
    """As in the thread of a handler that its server did not wait for."""
    taken, release = [], threading.Event()
    server = endwell.Server()

    @server.websocket("/")
    def handle(ws):
        ws.wait_closed()
        release.wait(BOUND)
        taken.extend(ws)
        taken.append(ws.close() is ws.ending)

    async def main():
        async with server.serving(grace=0):
            ws = await endwell.connect(f"ws://127.0.0.1:{server.port}/")
            for number in range(16):
                await ws.send(str(number))
            await ws.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("endwell.server.drain.timetable.CLEANUP_TIME", 0.01)
        asyncio.run(main())
    release.set()
    until(lambda: len(taken) == 17)
    assert taken == [*map(str, range(16)), True]

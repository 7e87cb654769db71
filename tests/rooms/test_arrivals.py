"""Publications that arrive together are sent to each member in one piece, and count as if they came one by one."""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import AsyncExitStack

import pytest

import endwell
from endwell.rooms.arrivals import Arrivals
from endwell.rooms.members import Call
from tests.pair import until, within
from tests.raw import BOUND, RawPeer, wss

from .house import BETWEEN, house

#: Offset of tcpi_data_segs_out in Linux's struct tcp_info: the number of segments with data that were sent.
SEGMENTS = 156


class Receiver:
    def __init__(self):
        self.calls = []

    def arrived(self, *arguments):
        self.calls.append(arguments)


def test_the_order_stays_between_rooms_and_epochs():
    arrivals, receiver = Arrivals(), Receiver()
    arrivals.deliver(receiver)
    assert receiver.calls == []
    for room, epoch, sequence in (("a", "e", 1), ("a", "e", 2), ("b", "e", 7), ("a", "e", 3), ("a", "f", 1)):
        arrivals.add(room, epoch, sequence, str(sequence), "skip", None)
    arrivals.deliver(receiver)
    assert [(room, epoch, [each[0] for each in batch]) for room, epoch, batch, _ in receiver.calls] == [
        ("a", "e", [1, 2]),
        ("b", "e", [7]),
        ("a", "e", [3]),
        ("a", "f", [1]),
    ]
    assert not any(alone for *_, alone in receiver.calls)
    # The same room again, in another read.
    arrivals.add("a", "f", 2, "2", "queue", receiver)
    arrivals.deliver(receiver)
    assert receiver.calls[4:] == [("a", "f", [(2, "2", "queue", receiver)], True)]


async def arrive(made, messages, *, slow="skip", alone=True, exclude=None):
    """Deliver messages together, as a bus does. Returns the calls of publish() that get the receipts."""
    room = made.room()
    epoch, begin = room._position.epoch, room._position.sequence + 1
    calls = [Call(exclude) for _ in messages]
    batch = [(begin + number, *each, slow, calls[number]) for number, each in enumerate(zip(messages))]
    room._registry.arrived("a", epoch, batch, alone)
    assert room._position.sequence == begin + len(messages) - 1
    return calls


def segments(membership):
    sock = membership.ws._stream.sock
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, SEGMENTS + 4)
    return int.from_bytes(info[SEGMENTS:], sys.byteorder)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's struct tcp_info")
@pytest.mark.parametrize("alone", [True, False])
async def test_a_member_gets_them_in_one_system_call(alone):
    async with house(1, "local") as made:
        ws, _ = await made.joined()
        (member,) = made.memberships
        before = segments(member)
        calls = await arrive(made, ["one", "two", "three"], alone=alone)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [await within(ws.recv()) for _ in range(3)] == ["one", "two", "three"]
        assert segments(member) == before + 1
        assert [call.report.sent for call in calls] == [1, 1, 1]
        # With and without these, the socket is ready for more.
        await member.ws.send("four")
        assert await within(ws.recv()) == "four"
        assert (member.ws._core.messages_out, member.missed) == (5, 0)


@pytest.mark.parametrize("bus", BETWEEN)
async def test_publications_at_once_have_their_receipts(bus):
    async with house(1, bus) as made:
        first, _ = await made.joined()
        second, _ = await made.joined()
        room, excluded = made.room(), made.memberships[0].ws
        receipts = await asyncio.gather(
            room.publish("x"), room.publish("y", exclude=excluded), room.publish(b"z"), room.publish("é")
        )
        assert [(each.position.sequence, each.sent) for each in receipts] == [(1, 2), (2, 1), (3, 2), (4, 2)]
        assert [await within(first.recv()) for _ in range(3)] == ["x", b"z", "é"]
        assert [await within(second.recv()) for _ in range(4)] == ["x", "y", b"z", "é"]


@pytest.mark.parametrize("slow", ["skip", "queue", "close"])
async def test_a_slow_member_is_treated_as_for_each_of_them(slow):
    async with house(1, "local") as made:
        peer = await RawPeer.connect_tcp(made.servers[0].port, buffer=4096)
        with peer:
            await peer.write(peer.request("/a"))
            assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
            await peer.read_frame()
            (member,) = made.memberships
            fast, _ = await made.joined()
            # The kernel may still take something of a full send queue. Then there is another attempt.
            async with asyncio.timeout(BOUND):
                while True:
                    while not (await made.room().publish(b"x" * 65536)).slow:
                        pass
                    missed = member.missed
                    calls = await arrive(made, ["one", "two"], slow=slow)
                    got = []
                    while got[-2:] != ["one", "two"]:
                        got.append(await within(fast.recv()))
                    if all(each.report.slow for each in calls[: 1 if slow == "close" else 2]):
                        break
            if slow == "close":
                # The first one has closed it.
                assert [(each.report.slow, each.report.gone) for each in calls] == [
                    ((member.ws,), 0),
                    ((), 1),
                ]
            else:
                assert [(each.report.sent, each.report.slow) for each in calls] == [(1, (member.ws,))] * 2
                assert member.missed == missed + (2 if slow == "skip" else 0)
            await asyncio.sleep(0)  # settle
            if slow == "queue":
                count = (await made.room().position()).sequence - member.missed
                frames = [await peer.read_frame() for _ in range(count + 2)]
                assert [each.payload for each in frames[-2:]] == [b"one", b"two"]


async def test_without_receipts_a_slow_member_has_them_in_its_queue():
    async with house(1, "local") as made:
        peer = await RawPeer.connect_tcp(made.servers[0].port, buffer=4096)
        with peer:
            await peer.write(peer.request("/a"))
            await peer.read_head()
            await peer.read_frame()
            (member,) = made.memberships
            async with asyncio.timeout(BOUND):
                while not (await made.room().publish(b"x" * 65536)).slow:
                    pass
            count = (await made.room().position()).sequence - member.missed
            room, size = made.room(), member.ws._core.outbox.size
            epoch, sequence = room._position.epoch, room._position.sequence
            batch = [(sequence + 1, "one", "queue", None), (sequence + 2, "two", "queue", None)]
            room._registry.arrived("a", epoch, batch, True)
            assert member.ws._core.outbox.size == size + 10
            frames = [await peer.read_frame() for _ in range(count + 2)]
            assert [each.payload for each in frames[-2:]] == [b"one", b"two"]


async def test_more_than_the_write_limit_does_not_make_a_prompt_member_slow():
    async with house(1, "local") as made:
        ws, _ = await made.joined()
        messages = ["é" * 20_000, "b" * 20_000, b"c" * 20_000]
        calls = await arrive(made, messages)
        assert [call.report.sent for call in calls] == [1, 1, 1]
        assert [await within(ws.recv()) for _ in range(3)] == messages


async def test_a_member_that_is_closing_is_gone():
    async with house(1, "local") as made:
        await made.joined()
        other, _ = await made.joined()
        gone = made.memberships[0]
        gone.ws._core.close(endwell.Close(1000, ""), 0.0)
        calls = await arrive(made, ["one", "two"])
        assert [(each.report.sent, each.report.gone) for each in calls] == [(1, 1)] * 2
        assert [await within(other.recv()) for _ in range(2)] == ["one", "two"]


@pytest.mark.parametrize("alone", [True, False])
async def test_under_tls_the_rest_of_the_turn_is_sent_too(alone):
    server, transport = endwell.Server(compression=None), wss()
    room = server.rooms["a"]

    @server.websocket("/")
    async def member(ws):
        async with room.join(ws):
            await ws.wait_closed()

    async with server.serving(ssl=transport.server):
        uri = f"wss://localhost:{server.port}/"
        async with endwell.connect(uri, ssl=transport.client, compression=None) as ws:
            await until(lambda: room.members)
            batch = [(1, "one", "skip", None), (2, "two", "skip", None)]
            room._registry.arrived("a", room._position.epoch, batch, alone)
            (ours,) = server.connections
            server.broadcast([ours], "three")
            assert [await within(ws.recv()) for _ in range(3)] == ["one", "two", "three"]


async def test_a_member_without_binary_messages_gets_the_text():
    server = endwell.Server(legacy=True, compression=None)
    room = server.rooms["a"]

    @server.websocket("/")
    async def member(ws):
        async with room.join(ws):
            await ws.send("joined")
            await ws.wait_closed()

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server.serving())
        uri = f"ws://127.0.0.1:{server.port}/"
        ws = await stack.enter_async_context(endwell.connect(uri, version="hixie-76", compression=None))
        assert await within(ws.recv()) == "joined"
        await until(lambda: room.members)
        calls = [Call(None), Call(None)]
        batch = [(1, b"binary", "skip", calls[0]), (2, "text", "skip", calls[1])]
        room._registry.arrived("a", room._position.epoch, batch, True)
        assert await within(ws.recv()) == "text"
        assert [(each.report.sent, len(each.report.unsupported)) for each in calls] == [(0, 1), (1, 0)]
        assert room.members[0].missed == 1


async def test_a_reset_that_is_found_ends_the_member():
    async with house(1, "local") as made:
        peer = await RawPeer.connect_tcp(made.servers[0].port)
        with peer:
            await peer.write(peer.request("/a"))
            await peer.read_head()
            await peer.read_frame()
            peer.reset()
        (member,) = made.memberships
        await arrive(made, ["one", "two"])
        await until(lambda: member.ws.ending is not None)
        await until(lambda: not made.room().members)

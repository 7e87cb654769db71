"""server.broadcast(): one call sends to all connections and waits for none."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from socket import SO_RCVBUF, SOL_SOCKET
from types import SimpleNamespace

import pytest

from endwell import (
    BroadcastReport,
    Cause,
    Close,
    ConcurrencyError,
    ConnectionClosed,
    Deflate,
    Initiator,
    Retry,
    Server,
    TcpEnd,
    connect,
)
from endwell.aio.tcpinfo import MAX_UNSENT
from endwell.options import LEGACY
from tests.old import peer_type
from tests.pair import QUIET, idle, nothing_left_behind, pair, until, until_reset, within
from tests.raw import BOUND, PLAIN, RawPeer, wss
from tests.wire.peer import BINARY, TEXT

SMALL = 16384
#: More octets than our kernel accepts for a peer that does not read.
HUGE = bytes(2 * 2**20)


@pytest.fixture(params=["ws", "wss"])
def transport(request):
    return PLAIN if request.param == "ws" else wss()


@asynccontextmanager
async def hall(transport=PLAIN, handler=idle, **options):
    """A server, and a way to connect raw peers to it."""
    server = Server(**{**QUIET, "close_timeout": 2 * BOUND, **options})
    entered = asyncio.Queue()

    @server.websocket("/")
    async def handle(ws):
        entered.put_nowait(ws)
        await handler(ws)

    async with AsyncExitStack() as peers, server.serving(ssl=transport.server, grace=0):

        async def enter(buffer=None, version="13"):
            connecting = peer_type(version).connect(server.port, transport.client, buffer=buffer)
            peer = peers.enter_context(await connecting)
            return peer, await within(entered.get())

        yield SimpleNamespace(server=server, enter=enter, say=server.broadcast)


async def blocked(room, message=HUGE):
    """A peer that does not read, and our connection to it, whose queue is over its limit."""
    peer, ws = await room.enter(buffer=SMALL)
    await ws.send(message)
    assert ws._core.outbox.size > ws._core.options.write_limit
    return peer, ws


async def receive(peer, count=1):
    frames = [await peer.read_frame() for _ in range(count)]
    return frames[0].payload if count == 1 else [frame.payload for frame in frames]


@pytest.mark.parametrize("size", [0, 5, 1000, 70_000])
@pytest.mark.parametrize("kind", [str, bytes, bytearray, memoryview])
async def test_every_connection_receives_the_message_like_from_send(transport, kind, size):
    message = "ü" * size if kind is str else kind(b"\xff" * size)
    async with hall(transport) as room:
        peers = [(await room.enter())[0] for _ in range(3)]
        assert room.say(room.server.connections, message) == BroadcastReport(sent=3, slow=(), gone=0)
        for peer in peers:
            expected = (TEXT, message.encode()) if kind is str else (BINARY, bytes(message))
            assert await peer.read_frame() == expected


async def test_a_broadcast_counts_in_every_ending():
    async with hall() as room:
        peer, ws = await room.enter()
        room.say([ws], "four")
        await ws.send("five!")
        assert await receive(peer, 2) == [b"four", b"five!"]
        peer.drop()
        ending = await within(ws.closed)
    assert (ending.messages_out, ending.bytes_out, ending.unsent_bytes) == (2, 6 + 7, 0)


@pytest.mark.parametrize(
    ("connections", "message", "policy", "error", "named"),
    [
        (None, "x", "skip", TypeError, "connections"),
        ([None], "x", "skip", TypeError, "connections"),
        ("ws", "x", "skip", TypeError, "connections"),
        ([], 1, "skip", TypeError, "message"),
        ([], None, "skip", TypeError, "message"),
        ([], "\ud800", "skip", ValueError, "message contains a lone surrogate"),
        ([], "x", "drop", ValueError, "slow"),
        ([], "x", None, ValueError, "slow"),
    ],
)
async def test_a_wrong_argument_raises_and_nothing_is_sent(connections, message, policy, error, named):
    async with hall() as room:
        peer, ws = await room.enter()
        given = (
            {None: ws, "ws": "ws"}.get(connections)
            if not isinstance(connections, list)
            else [ws, *connections]
        )
        with pytest.raises(error, match=named):
            room.say(given, message, slow=policy)
        room.say([ws], "right")
        assert await receive(peer) == b"right"


async def test_a_broadcast_to_no_connection_is_allowed():
    assert Server().broadcast([], "anyone?") == BroadcastReport(sent=0, slow=(), gone=0)
    with pytest.raises(TypeError, match="message"):
        Server().broadcast([], 1)


async def test_connections_may_be_any_iterable_and_may_change_afterwards():
    async with hall() as room:
        peers = [await room.enter() for _ in range(3)]
        members = {ws for _, ws in peers}
        assert room.say((ws for ws in members), "a").sent == 3
        assert room.say(members - {peers[0][1]}, "b").sent == 2
        members.clear()
        assert await receive(peers[0][0]) == b"a"
        assert await receive(peers[1][0], 2) == [b"a", b"b"]


async def test_a_broadcast_keeps_its_order_among_sends(transport):
    async with hall(transport) as room:
        peer, ws = await room.enter()
        for number in range(0, 40, 4):
            await ws.send(str(number))
            room.say([ws], str(number + 1))
            room.say([ws], str(number + 2))
            await ws.send(str(number + 3))
        assert await receive(peer, 40) == [str(number).encode() for number in range(40)]


async def test_a_broadcast_in_a_handler_keeps_its_order():
    async def answer(ws):
        async for message in ws:
            await ws.send(message + " to you")
            rooms[0].say(rooms[0].server.connections, message + " to all")
            await ws.send(message + " again")

    rooms = []
    async with hall(handler=answer) as room:
        rooms.append(room)
        speaker, _ = await room.enter()
        other, _ = await room.enter()
        await speaker.write(speaker.octets(TEXT, b"a") + speaker.octets(TEXT, b"b"))
        whole = [f"{name} {what}".encode() for name in "ab" for what in ("to you", "to all", "again")]
        assert await receive(speaker, 6) == whole
        assert await receive(other, 2) == [b"a to all", b"b to all"]


async def test_the_first_broadcast_of_an_iteration_is_written_at_once_others_together():
    async with hall() as room:
        peer, ws = await room.enter()
        outbox = ws._core.outbox
        for number in range(20):
            room.say([ws], str(number))
            assert bool(outbox.size) == bool(number)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not outbox.size
        assert await receive(peer, 20) == [str(number).encode() for number in range(20)]


async def test_more_than_64_kib_are_written_within_the_iteration():
    async with hall(write_limit=2**30) as room:
        _, ws = await room.enter()
        for _ in range(3):  # which the kernel accepts although the peer does not read
            assert room.say([ws], bytes(60_000)).sent == 1
            assert ws._core.outbox.size < 2**16


@pytest.mark.parametrize("write_limit", [0, 100])
async def test_a_prompt_peer_is_not_slow_with_any_limit(transport, write_limit):
    async with hall(transport, write_limit=write_limit) as room:
        peer, ws = await room.enter()
        for _ in range(10):
            assert room.say([ws], "x" * 90) == BroadcastReport(sent=1, slow=(), gone=0)
        assert await receive(peer, 10) == [b"x" * 90] * 10


async def test_a_slow_peer_is_skipped_without_delaying_others(transport):
    async with hall(transport) as room:
        slow_peer, slow = await blocked(room)
        prompt_peer, prompt = await room.enter()
        for number in range(5):
            report = room.say([slow, prompt], f"tick {number}")
            assert report == BroadcastReport(sent=1, slow=(slow,), gone=0)
            assert await receive(prompt_peer) == f"tick {number}".encode()
        assert await receive(slow_peer) == HUGE
        await until(lambda: not room.say([slow], "next").slow)
        assert await receive(slow_peer) == b"next"


async def test_a_slow_peer_is_skipped_before_the_kernel_buffers_much(transport):
    async with hall(transport) as room:
        peer, ws = await room.enter()
        taken = 0
        while not room.say([ws], bytes(SMALL)).slow:
            taken += SMALL
            await asyncio.sleep(0.001)
        # The peer's receive buffer, what our kernel may hold unsent, the limit of the queue, and some more.
        assert taken < peer.sock.getsockopt(SOL_SOCKET, SO_RCVBUF) + MAX_UNSENT + 2**16 + 2**18
        peer.drop()


async def test_a_slow_peer_can_be_closed_with_a_reason(transport):
    async with hall(transport) as room:
        peer, ws = await blocked(room)
        waiting = asyncio.ensure_future(ws.send("waits"))
        await asyncio.sleep(0)
        assert room.say([ws], "too much", slow="close") == BroadcastReport(sent=0, slow=(ws,), gone=0)
        assert not ws.is_open
        assert room.say([ws], "again", slow="close") == BroadcastReport(sent=0, slow=(), gone=1)
        seen = await peer.read_to_the_end(answer=True)
        peer.fin()
        ending = await within(ws.closed)
        with pytest.raises(ConnectionClosed):
            await within(waiting)
    assert [frame.payload for frame in seen.frames] == [HUGE]
    assert ending.sent.code.retry is ending.cause.retry is Retry.LATER
    assert seen.close == Close(1013, "the peer took messages too slowly")
    assert (ending.cause, ending.initiator, ending.clean) == (Cause.SLOW_PEER, Initiator.LOCAL, True)


async def test_a_closed_slow_peer_is_aborted_after_close_timeout():
    async with hall(close_timeout=0.2) as room:
        _, ws = await blocked(room)
        room.say([ws], "too much", slow="close")
        ending = await within(ws.closed)
    assert (ending.cause, ending.sent, ending.tcp) == (Cause.SLOW_PEER, None, TcpEnd.TIMEOUT)


async def test_a_message_can_be_queued_for_a_slow_peer(transport):
    async with hall(transport) as room:
        peer, ws = await blocked(room)
        for number in range(5):
            assert room.say([ws], str(number), slow="queue") == BroadcastReport(sent=0, slow=(ws,), gone=0)
        assert await receive(peer, 6) == [HUGE, b"0", b"1", b"2", b"3", b"4"]


async def between_waiting_sends(room, say):
    """The result of ``say(ws)`` between two waiting sends: the queue is short, but has a waiter."""
    peer, ws = await blocked(room)

    async def send_and_broadcast():
        await ws.send("first")
        return say(ws)

    first = asyncio.ensure_future(send_and_broadcast())
    await asyncio.sleep(0)
    second = asyncio.ensure_future(ws.send("second"))
    await asyncio.sleep(0)
    assert await receive(peer) == HUGE
    return peer, ws, await within(first), second


@pytest.mark.parametrize("policy", ["skip", "queue"])
async def test_a_waiting_send_makes_a_peer_slow(policy):
    async with hall() as room:
        peer, ws, report, second = await between_waiting_sends(
            room, lambda ws: room.say([ws], "cast", slow=policy)
        )
        assert report == BroadcastReport(sent=0, slow=(ws,), gone=0)
        await within(second)
        await ws.send("end")
        frames = []
        while (payload := await receive(peer)) != b"end":
            frames.append(payload)
        assert frames == [b"first", *[b"cast"] * (policy == "queue"), b"second"]


async def test_a_waiting_send_raises_when_the_slow_peer_is_closed():
    async with hall() as room:
        peer, ws, _, second = await between_waiting_sends(
            room, lambda ws: room.say([ws], "cast", slow="close")
        )
        assert await receive(peer) == b"first"
        assert await peer.read_close() == Close(1013, "the peer took messages too slowly")
        peer.drop()
        with pytest.raises(ConnectionClosed) as raised:
            await within(second)
        assert raised.value.ending is ws.ending
    assert ws.ending.cause is Cause.SLOW_PEER


async def test_a_broadcast_does_not_overtake_queued_messages():
    async with hall(write_limit=2**30) as room:
        peer, ws = await room.enter(buffer=SMALL)
        await ws.send(HUGE)
        await asyncio.sleep(0.01)
        # The kernel has room again, but the loop has not noticed.
        peer._received += peer.sock.recv(2**20)
        assert ws._core.outbox.size
        assert room.say([ws], "next").sent == 1
        assert await receive(peer, 2) == [HUGE, b"next"]


async def test_a_reset_found_by_the_slow_check_is_reported_as_gone():
    async with hall(write_limit=100) as room:
        peer, ws = await room.enter()
        room.say([ws], "x" * 150)
        room.say([ws], "x" * 150)  # delayed to the end of the loop iteration
        peer.reset()
        until_reset(ws)
        assert room.say([ws], "x") == BroadcastReport(sent=0, slow=(), gone=1)
        assert (await within(ws.closed)).cause is Cause.CONNECTION_RESET


@pytest.mark.parametrize("policy", ["skip", "close", "queue"])
async def test_a_message_above_the_limit_reaches_peers_that_are_not_slow(transport, policy):
    async with hall(transport) as room:
        peer, ws = await room.enter(buffer=SMALL)
        assert room.say([ws], HUGE, slow=policy) == BroadcastReport(sent=1, slow=(), gone=0)
        assert room.say([ws], "next", slow="skip") == BroadcastReport(sent=0, slow=(ws,), gone=0)
        assert await receive(peer) == HUGE


async def test_a_peer_that_reads_none_of_it_ends_at_write_timeout():
    async with hall(write_timeout=0.2) as room:
        _, ws = await room.enter(buffer=SMALL)
        room.say([ws], HUGE)
        ending = await within(ws.closed)
    assert ending.cause is Cause.WRITE_TIMEOUT
    assert 0 < ending.unsent_bytes < len(HUGE)


async def test_closing_and_ended_connections_are_counted_as_gone():
    async with hall() as room:
        peer, closing = await room.enter()
        gone_peer, gone = await room.enter()
        open_peer, here = await room.enter()
        await gone_peer.close()
        await gone_peer.read_close()
        gone_peer.drop()
        await within(gone.closed)
        task = asyncio.ensure_future(closing.close())
        await asyncio.sleep(0)
        assert room.say([closing, gone, here], "x") == BroadcastReport(sent=1, slow=(), gone=2)
        assert await receive(open_peer) == b"x"
        assert (await peer.read_to_the_end(answer=True)).frames == []
        peer.fin()
        await within(task)


@pytest.mark.parametrize("policy", ["skip", "close", "queue"])
@pytest.mark.parametrize("was_blocked", [False, True])
async def test_a_reset_found_by_a_broadcast_runs_callbacks_afterwards(policy, was_blocked):
    async with hall() as room:
        told = []

        @room.server.on_close
        def left(ws, ending):
            told.append(ending)
            room.say(room.server.connections, "somebody left")

        dying = [await (blocked(room) if was_blocked else room.enter()) for _ in range(3)]
        peer, _ = await room.enter()
        for each, ws in dying:
            each.reset()
            until_reset(ws)
        # The loop has not read from the sockets yet.
        report = room.say(room.server.connections, "news", slow=policy)
        assert told == []
        assert report.sent == 1
        assert len(report.slow) + report.gone == 3
        await until(lambda: len(told) == 3)
        assert await receive(peer, 4) == [b"news", *[b"somebody left"] * 3]
        room.server._observers.close_callbacks.clear()
    assert {ending.cause for ending in told} <= {Cause.CONNECTION_RESET, Cause.SLOW_PEER}


async def test_messages_before_a_reset_are_still_read():
    async with hall() as room:
        peer, ws = await room.enter()
        peer.send_at_once(peer.close_octets(1001, "tab closed"))
        peer.reset()
        room.say([ws], "news")
        ending = await within(ws.closed)
    assert ending.received == Close(1001, "tab closed")


async def test_peers_with_and_without_compression_receive_a_broadcast():
    ways = [
        None,
        Deflate(),
        Deflate(server_no_context_takeover=True),
        Deflate(server_no_context_takeover=True, server_max_window_bits=9),
        Deflate(server_no_context_takeover=True, server_max_window_bits=8),
        Deflate(server_no_context_takeover=True),
    ]
    text = "w" * 10_000
    messages = [text, "short", b"\0" * 5000, "", text]
    async with hall(compression=Deflate(server_max_window_bits=15)) as room, AsyncExitStack() as stack:
        url = f"ws://127.0.0.1:{room.server.port}/"
        clients = [await stack.enter_async_context(connect(url, compression=way)) for way in ways]
        await until(lambda: len(room.server.connections) == len(ways))
        for message in messages:
            assert room.say(room.server.connections, message).sent == len(ways)
        for client in clients:
            assert [await within(client.recv()) for _ in messages] == messages
            await client.close()
        sizes = [client.ending.bytes_in for client in clients]
    assert sizes[0] > 2 * len(text)
    assert all(size < 1000 for size in sizes[1:])


async def test_client_connections_broadcast_with_a_mask_for_each():
    async with pair("client") as one, pair("client") as two:
        assert Server().broadcast([one.ws, two.ws], "up") == BroadcastReport(sent=2, slow=(), gone=0)
        octets = [await both.peer.recv_tcp() for both in (one, two)]
        assert octets[0][:2] == octets[1][:2] == b"\x81\x82"
        assert octets[0][2:6] != octets[1][2:6]
        for raw in octets:
            assert bytes(octet ^ raw[2 + at] for at, octet in enumerate(raw[6:])) == b"up"


async def test_a_broadcast_to_hundreds_of_connections_leaves_nothing_behind():
    async with nothing_left_behind(), hall() as room:
        peers = [(await room.enter())[0] for _ in range(200)]
        slow_peer, slow = await blocked(room)
        room.say(room.server.connections, "first")
        report = room.say(room.server.connections, "second")
        assert report == BroadcastReport(sent=200, slow=(slow,), gone=0)
        for peer in peers:
            assert await receive(peer, 2) == [b"first", b"second"]
        assert await receive(slow_peer) == HUGE


@pytest.mark.parametrize("compression", [None, Deflate(), Deflate(server_no_context_takeover=True)])
async def test_a_broadcast_uses_the_protocol_of_each_connection(compression):
    versions = ["13", *LEGACY] * 2
    messages = ["first", "ü" * 10_000, ""]
    async with hall(legacy=True, compression=compression) as room, AsyncExitStack() as stack:
        url = f"ws://127.0.0.1:{room.server.port}/"
        for order in (versions, versions[::-1]):
            clients = [
                await stack.enter_async_context(connect(url, version=version, compression=compression))
                for version in order
            ]
            await until(lambda: len(room.server.connections) == len(versions))
            for message in messages:
                assert room.say(room.server.connections, message).sent == len(versions)
            for client in clients:
                assert [await within(client.recv()) for _ in messages] == messages
                await client.close()
                assert client.ending.ok


@pytest.mark.parametrize("policy", ["skip", "close", "queue"])
async def test_a_binary_broadcast_reports_connections_without_binary_as_unsupported(policy):
    async with hall(legacy=True) as room:
        able = [(await room.enter(version=version))[0] for version in ("13", "hybi-08", "hybi-03")]
        unable = [await room.enter(version=version) for version in ("hixie-76", "hixie-75")]
        slow = await room.enter(SMALL, "hixie-76")
        await slow[1].send("x" * len(HUGE))
        report = room.say(room.server.connections, b"\0\xff", slow=policy)
        assert (report.sent, report.slow, report.gone) == (len(able), (), 0)
        assert set(report.unsupported) == {ws for _, ws in [*unable, slow]}
        assert room.say(room.server.connections, "text").unsupported == ()
        for peer in able:
            assert await peer.read_frame() == (BINARY, b"\0\xff")
        for peer in [*able, *(peer for peer, _ in unable)]:
            assert await peer.read_frame() == (TEXT, b"text")
        slow[0].drop()
        await within(slow[1].closed)
        assert slow[1] not in room.say([slow[1]], b"\0").unsupported


# --- plain handlers, and their threads -----------------------------------------


@asynccontextmanager
async def plain_hall(transport, talk, **options):
    """A server with plain handlers, each of which runs ``talk(server, ws)`` first."""
    server = Server(**{**QUIET, "close_timeout": 2 * BOUND, **options})
    entered, loop = asyncio.Queue(), asyncio.get_running_loop()

    @server.websocket("/")
    def handle(ws):
        try:
            done = talk(server, ws)
        except Exception as exc:
            done = exc
        loop.call_soon_threadsafe(entered.put_nowait, (ws, done))
        ws.wait_closed()

    async with AsyncExitStack() as peers, server.serving(ssl=transport.server, grace=0):

        async def enter(buffer=None):
            connecting = RawPeer.connect(server.port, transport.client, buffer=buffer)
            peer = peers.enter_context(await connecting)
            return peer, *await within(entered.get())

        yield SimpleNamespace(server=server, enter=enter)


async def test_a_thread_broadcasts_to_plain_handlers_and_to_all_connections(transport):
    def talk(server, ws):
        ws.send("before")
        mine = server.broadcast([ws], "mine")
        ws.send("between")
        everybody = server.broadcast(server.connections, b"everybody")
        ws.send("after")
        return mine, everybody

    async with plain_hall(transport, talk) as room:
        peer, _, (mine, everybody) = await room.enter()
        assert (mine, everybody) == (
            BroadcastReport(sent=1, slow=(), gone=0),
            BroadcastReport(sent=1, slow=(), gone=0),
        )
        told = [b"before", b"mine", b"between", b"everybody", b"after"]
        assert await receive(peer, 5) == told
        second, _, (_, everybody) = await room.enter()
        assert everybody.sent == 2
        assert await receive(second, 5) == told
        assert await receive(peer) == b"everybody"


async def test_the_loop_broadcasts_to_connections_of_both_faces(transport):
    async with plain_hall(transport, lambda server, ws: None) as room:
        peer, ws, _ = await room.enter()
        async with connect(
            f"ws{'s' * (transport is not PLAIN)}://127.0.0.1:{room.server.port}/", ssl=transport.client
        ) as other:
            (theirs,) = room.server.connections - {ws._ws}
            assert room.server.broadcast((each for each in (ws, theirs)), "both") == BroadcastReport(2, (), 0)
            assert await within(other.recv()) == "both"
        assert await receive(peer) == b"both"


async def test_a_slow_peer_of_a_plain_handler_is_reported_as_given():
    async with plain_hall(PLAIN, lambda server, ws: ws.send(HUGE)) as room:
        _, ws, _ = await room.enter(buffer=SMALL)
        assert room.server.broadcast([ws], "tick") == BroadcastReport(sent=0, slow=(ws,), gone=0)


async def test_a_wrong_argument_raises_in_a_thread_too():
    async with plain_hall(PLAIN, lambda server, ws: server.broadcast([ws], 5)) as room:
        _, _, raised = await room.enter()
        assert isinstance(raised, TypeError)
        assert "message" in str(raised)


async def test_a_broadcast_from_another_event_loop_raises_with_advice():
    async def broadcast(server):
        server.broadcast(server.connections, "x")

    async with plain_hall(PLAIN, lambda server, ws: asyncio.run(broadcast(server))) as room:
        _, _, raised = await room.enter()
        assert isinstance(raised, ConcurrencyError)
        assert "call_soon_threadsafe" in str(raised)


async def test_a_broadcast_in_a_thread_after_the_stop_raises():
    async with plain_hall(PLAIN, lambda server, ws: None) as room:
        _, ws, _ = await room.enter()
    with pytest.raises(ConcurrencyError, match="while its server does not serve"):
        await asyncio.to_thread(room.server.broadcast, [ws], "x")
    assert await asyncio.to_thread(room.server.broadcast, room.server.connections, "x") == BroadcastReport(
        0, (), 0
    )


async def test_a_thread_may_broadcast_in_the_moment_in_which_the_server_begins_to_serve():
    """The portal and the first connection come between the two looks of the thread."""
    async with plain_hall(PLAIN, lambda server, ws: None) as room:
        peer, ws, _ = await room.enter()
        portal, room.server._portal = room.server._portal, None

        def connections():
            room.server._portal = portal
            yield ws

        report = await asyncio.to_thread(room.server.broadcast, connections(), "x")
        assert report == BroadcastReport(1, (), 0)
        assert await receive(peer) == b"x"

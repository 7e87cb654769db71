"""The drain and what builds on connections: sessions, broadcasts, reconnecting clients, old protocols."""

from __future__ import annotations

import asyncio
import logging
import threading
from bisect import bisect_left

import pytest

import endwell
from endwell import Cause, Close, CloseCode, HandshakeRejected, RetryAdvice
from endwell.aio.syscalls import monotonic
from tests.old import OldPeer
from tests.pair import until, within
from tests.raw import BOUND
from tests.served import due
from tests.wire.peer import CLOSE, TEXT


def url(server, path="/"):
    return f"ws://127.0.0.1:{server.port}{path}"


def hall():
    """A server whose handler joins a session once the gate is open, and answers each message."""
    server = endwell.Server()
    server.gate, server.taken = asyncio.Event(), 0
    server.gate.set()

    @server.websocket("/{name}")
    async def handler(ws, name):
        async for message in ws:
            server.taken += 1
            await server.gate.wait()
            server.sessions.join(name, ws)
            await ws.send(message)

    return server


async def run_drain(server, **keywords):
    """A drain that ends within BOUND; its deadline is later, so that a stall makes no handler late."""
    async with asyncio.timeout(BOUND):
        return await server.drain(**{"deadline": 8 * BOUND, **keywords})


async def start_drain(server, **keywords):
    """A drain in progress."""
    draining = asyncio.create_task(run_drain(server, **keywords))
    while server._drain_run is None:
        await asyncio.sleep(0)
    return draining


async def send_unanswered(server, ws, message, count=1):
    """Send a message, wait until a handler has received ``count`` in total, and delay its answer."""
    server.gate.clear()
    await ws.send(message)
    await until(lambda: server.taken == count)


@pytest.mark.virtual_clock
async def test_a_session_replaced_during_a_drain_closes_with_replaced(monkeypatch):
    # The older connection waits for its next message and must not be drained before it is replaced.
    monkeypatch.setattr(endwell.server.drain.closings, "QUIET", 3.0)
    server = hall()
    endings = []
    server.on_close(lambda ws, ending: endings.append(ending.cause))
    async with server.serving(), endwell.connect(url(server, "/ada")) as old:
        await old.send("here")
        assert await old.recv() == "here"
        async with endwell.connect(url(server, "/ada")) as new:
            await send_unanswered(server, new, "and here", 2)
            draining = await start_drain(server)
            server.gate.set()
            assert await within(new.recv()) == "and here"
            assert (await within(new.closed)).received.code == CloseCode.GOING_AWAY
            assert (await within(old.closed)).received == Close(4991, "replaced")
            report = await draining
    assert report.endings == {"clean": 2}
    assert sorted(cause.name for cause in endings) == ["REPLACED", "SERVER_DRAINED"]


async def test_after_a_drain_no_session_is_left():
    server = hall()
    left = []
    server.sessions.left(lambda key, ending: left.append((key, ending.cause)))
    async with server.serving(), endwell.connect(url(server, "/ada")) as ws:
        await ws.send("here")
        await ws.recv()
        await run_drain(server)
        assert not server.sessions
        assert left == []  # the user may come back, perhaps to another server
    assert left == [("ada", Cause.SERVER_DRAINED)]


async def test_a_broadcast_during_a_drain_reaches_open_connections_only(
    monkeypatch,
):
    monkeypatch.setattr(endwell.server.drain.closings, "QUIET", 0.0)  # a new client is closed at once, too
    server = hall()
    async with server.serving(), endwell.connect(url(server, "/ada")) as busy:
        everybody = set()
        async with endwell.connect(url(server, "/eve")) as idle:
            await send_unanswered(server, busy, "question")
            everybody |= server.connections
            draining = await start_drain(server)
            assert (await within(idle.closed)).received.code == CloseCode.GOING_AWAY
            told = server.broadcast(everybody, "the server stops")
            assert (told.sent, told.gone, told.slow) == (1, 1, ())
            assert await within(busy.recv()) == "the server stops"
            server.gate.set()
            assert await within(busy.recv()) == "question"
            assert (await draining).endings == {"clean": 2}


@pytest.mark.virtual_clock
async def test_our_clients_reconnect_within_the_window_and_below_the_rate():
    server = endwell.Server()
    rate, count = 40.0, 50
    came, advised, returns = [], [], []

    @server.websocket("/")
    async def handler(ws):
        came.append(monotonic())
        async for _ in ws:
            pass

    async def client():
        def told(last, verdict):
            if last.code == CloseCode.SERVICE_RESTART:
                advised.append((RetryAdvice.parse(last.reason), verdict))
                returns.append(due(clients))

        clients = endwell.reconnecting(url(server), on_ending=told)
        async for ws in clients:
            if (await ws.closed).code != CloseCode.SERVICE_RESTART:
                clients.stop()

    async with asyncio.TaskGroup() as group:
        async with server.serving():
            port = server.port
            for _ in range(count):
                group.create_task(client())
            while len(came) < count:
                await asyncio.sleep(0.01)
            began = monotonic()
            await run_drain(server, code=CloseCode.SERVICE_RESTART, rate=rate)
        came.clear()
        async with server.serving(port=port), asyncio.timeout(BOUND):
            while len(came) < count:
                await asyncio.sleep(0.01)
            await server.drain(code=CloseCode.NORMAL_CLOSURE, rate=None)
    assert len(returns) == len(came) == count
    assert all(advice.earliest <= wait <= advice.latest for advice, wait in advised)
    assert all(moment >= began + wait for moment, (_, wait) in zip(returns, advised, strict=True))
    # Not earlier than the chosen delay; later only by a stall of the machine.
    assert all(moment > chosen - 0.1 for moment, chosen in zip(sorted(came), sorted(returns), strict=True))
    # The waits are spread over 3 s. Of 50 in [0, 3), more than 40 in one second have a probability below
    # 1e-9.
    waits = sorted(wait for _, wait in advised)
    assert max(bisect_left(waits, wait + 1) - number for number, wait in enumerate(waits)) <= rate


@pytest.mark.virtual_clock
async def test_our_client_refused_by_a_drain_reconnects_after_it():
    server = hall()
    refused = []

    async def client(port):
        def told(last, verdict):
            if isinstance(last, HandshakeRejected):
                refused.append((last.response.status, int(last.response.headers["Retry-After"]), verdict))

        answers = []
        policy = endwell.RetryPolicy(base=0.5)
        async for ws in endwell.reconnecting(f"ws://127.0.0.1:{port}/eve", policy=policy, on_ending=told):
            await ws.send("back")
            answers.append(await ws.recv())
            break
        return answers

    async with server.serving(), endwell.connect(url(server, "/ada")) as ws:
        port = server.port
        await send_unanswered(server, ws, "question")
        draining = await start_drain(server)
        coming = asyncio.create_task(client(port))
        await until(lambda: refused)
        server.gate.set()
        assert await within(ws.recv()) == "question"
        assert (await draining).refused == 1
    async with server.serving(port=port):
        assert await within(coming) == ["back"]
    ((status, seconds, verdict),) = refused
    assert status == 503
    assert 1 <= seconds <= verdict <= seconds + 0.5


@pytest.mark.parametrize("version", ["hixie-75", "hixie-76", "hybi-08"])
async def test_an_old_protocol_is_drained_as_far_as_it_can_express(version, face, caplog):
    caplog.set_level(logging.INFO, "endwell.server")
    server = endwell.Server(legacy=[version])
    endings, taken, gate = [], threading.Event(), threading.Event()

    async def work(ws):
        async for message in ws:
            taken.set()
            while not gate.is_set():
                await face.pause(0.001)
            await ws.send(message)

    server.websocket("/")(face.handler(work))
    server.on_close(lambda ws, ending: endings.append(ending))
    speaking = type("Peer", (OldPeer,), {"version": version})
    async with server.serving():
        with await speaking.connect(server.port) as peer:
            await peer.frame(TEXT, b"question")
            await until(taken.is_set)
            draining = await start_drain(server)
            gate.set()
            assert (await peer.read_frame()).payload == b"question"
            if version == "hixie-75":
                assert await peer.read_frame() is None
            else:
                closing = await peer.read_frame()
                assert closing.opcode == CLOSE
                await peer.frame(CLOSE, closing.payload)
                assert await peer.read_frame() is None
            peer.sock.close()
            report = await draining
    assert (report.unanswered, report.last_called, report.cancelled, report.stuck) == (0, 0, 0, ())
    assert report.endings == {"fin" if version == "hixie-75" else "clean": 1}
    (ending,) = endings
    assert (ending.cause, ending.ok) == (Cause.SERVER_DRAINED, True)
    assert ending.sent is None or ending.sent.code == CloseCode.GOING_AWAY

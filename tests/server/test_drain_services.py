"""What stands on connections obeys a drain: sessions, broadcasts, clients that come back, old protocols."""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left

import pytest

import endwell
from endwell import Advice, Cause, Close, CloseCode, HandshakeRejected
from tests.old import OldPeer
from tests.pair import within
from tests.raw import BOUND
from tests.wire.peer import CLOSE, TEXT


def url(server, path="/"):
    return f"ws://127.0.0.1:{server.port}{path}"


def hall():
    """A server whose sessions are joined with the first message, after a while; the rest is answered."""
    server = endwell.Server()

    @server.websocket("/{name}")
    async def handler(ws, name):
        async for message in ws:
            await asyncio.sleep(0.2)
            server.sessions.join(name, ws)
            await ws.send(message)

    return server


async def drained(server, **keywords):
    async with asyncio.timeout(BOUND):
        return await server.drain(**keywords)


async def begun(server, **keywords):
    """A drain under way."""
    draining = asyncio.create_task(drained(server, **keywords))
    while server.departure is None:
        await asyncio.sleep(0)
    return draining


async def test_a_session_that_is_replaced_within_a_drain_is_told_so_and_the_newest_is_drained():
    server = hall()
    endings = []
    server.on_close(lambda ws, ending: endings.append(ending.cause))
    async with server.serving(), endwell.connect(url(server, "/ada")) as old:
        await old.send("here")
        assert await old.recv() == "here"
        async with endwell.connect(url(server, "/ada")) as new:
            await new.send("and here")
            # Of a window of 20 ms; the older one waits for its next message, for 250 ms at least.
            draining = await begun(server)
            assert await within(new.recv()) == "and here"
            assert (await within(new.closed)).received.code == CloseCode.GOING_AWAY
            assert (await within(old.closed)).received == Close(4991, "replaced")
            report = await draining
    assert report.endings == {"clean": 2}
    assert sorted(cause.name for cause in endings) == ["REPLACED", "SERVER_DRAINED"]


async def test_at_the_end_of_a_drain_everybody_has_left_the_sessions():
    server = hall()
    left = []
    server.sessions.left(lambda key, ending: left.append((key, ending.cause)))
    async with server.serving(), endwell.connect(url(server, "/ada")) as ws:
        await ws.send("here")
        await ws.recv()
        await drained(server)
        assert not server.sessions
        assert left == []  # she may come back, to another server perhaps
    assert left == [("ada", Cause.SERVER_DRAINED)]


async def test_a_broadcast_within_a_drain_reaches_those_who_are_open_and_counts_the_others_as_gone(
    monkeypatch,
):
    monkeypatch.setattr(
        endwell.server.drain, "QUIET", 0.0
    )  # a client that has just come is closed at once, too
    server = hall()
    async with server.serving(), endwell.connect(url(server, "/ada")) as busy:
        everybody = set()
        async with endwell.connect(url(server, "/eve")) as idle:
            await busy.send("question")
            await asyncio.sleep(0.05)
            everybody |= server.connections
            draining = await begun(server)
            assert (await within(idle.closed)).received.code == CloseCode.GOING_AWAY
            told = server.broadcast(everybody, "the server stops")
            assert (told.sent, told.gone, told.slow) == (1, 1, ())
            assert await within(busy.recv()) == "the server stops"
            assert await within(busy.recv()) == "question"
            assert (await draining).endings == {"clean": 2}


async def test_our_clients_come_back_in_the_window_they_were_given_and_not_above_the_rate():
    server = endwell.Server()
    rate, count = 100.0, 50
    came, advised = [], []

    @server.websocket("/")
    async def handler(ws):
        came.append(time.monotonic())
        async for _ in ws:
            pass

    async def client():
        clients = endwell.reconnecting(url(server))
        async for ws in clients:
            ending = await ws.closed
            if ending.code == CloseCode.SERVICE_RESTART:
                advised.append((time.monotonic(), Advice.parse(ending.reason)))
            else:
                clients.stop()

    async with asyncio.TaskGroup() as group:
        async with server.serving():
            port = server.port
            for _ in range(count):
                group.create_task(client())
            while len(came) < count:
                await asyncio.sleep(0.01)
            await drained(server, code=CloseCode.SERVICE_RESTART, rate=rate)
        came.clear()
        async with server.serving(port=port), asyncio.timeout(BOUND):
            while len(came) < count:
                await asyncio.sleep(0.01)
            await server.drain(code=CloseCode.NORMAL_CLOSURE, rate=None)
    first = min(moment + advice.earliest for moment, advice in advised)
    last = max(moment + advice.latest for moment, advice in advised)
    assert first - 0.05 <= came[0] <= came[-1] <= last + 0.5
    came.sort()
    assert max(bisect_left(came, moment + 1) - number for number, moment in enumerate(came)) <= rate


async def test_our_client_that_is_refused_by_a_drain_comes_back_after_it():
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
        await ws.send("question")
        await asyncio.sleep(0.05)
        draining = await begun(server)
        coming = asyncio.create_task(client(port))
        assert await within(ws.recv()) == "question"
        assert (await draining).refused == 1
    async with server.serving(port=port):
        assert await within(coming) == ["back"]
    ((status, seconds, verdict),) = refused
    assert status == 503
    assert 1 <= seconds <= verdict <= seconds + 0.5


@pytest.mark.parametrize("version", ["hixie-75", "hixie-76", "hybi-08"])
async def test_an_old_protocol_is_drained_as_far_as_it_has_words_for_it(version, face, caplog):
    caplog.set_level(logging.INFO, "endwell.server")
    server = endwell.Server(legacy=[version])
    endings = []

    async def work(ws):
        async for message in ws:
            await face.pause(0.05)
            await ws.send(message)

    server.websocket("/")(face.handler(work))
    server.on_close(lambda ws, ending: endings.append(ending))
    speaking = type("Peer", (OldPeer,), {"version": version})
    async with server.serving():
        with await speaking.connect(server.port) as peer:
            await peer.frame(TEXT, b"question")
            await asyncio.sleep(0.02)
            draining = await begun(server)
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

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

import endwell
import endwell.sync
from endwell import Cause, Close, CloseCode, RetryAdvice, TcpEnd
from endwell.aio.quiescence import Quiescence
from endwell.aio.syscalls import monotonic
from endwell.aio.websocket import begin_close, quiesce
from endwell.server.drain.timetable import ANSWER_TIME, Phase
from tests.cli.process import PATIENCE
from tests.face import ASYNCIO
from tests.pair import until
from tests.ports import free_port
from tests.raw import BOUND, PLAIN, PROMPT, RawPeer
from tests.served import due
from tests.wire.peer import CLOSE, TEXT

STOP = "server stopping; retry 1-2s"


def url(server):
    return f"ws://127.0.0.1:{server.port}/"


def visiting(server, transport):
    """A client connection over ``transport``."""
    scheme = "ws" if transport.client is None else "wss"
    return endwell.connect(f"{scheme}://127.0.0.1:{server.port}/", ssl=transport.client)


class Work:
    """A server that takes its time for each message, and longer while ``gate`` is not set."""

    def __init__(self, seconds=0.05, face=ASYNCIO):
        self.server = endwell.Server()
        self.taken, self.answered, self.left = [], [], []
        self.begun, self.gate = asyncio.Event(), threading.Event()
        self.gate.set()
        loop = asyncio.get_running_loop()

        async def work(ws):
            try:
                async for message in ws:
                    self.taken.append(message)
                    loop.call_soon_threadsafe(self.begun.set)
                    await face.pause(seconds)
                    while not self.gate.is_set():
                        await face.pause(0.001)
                    await ws.send(message)
                    self.answered.append(message)
            finally:
                self.left.append(ws)

        self.server.websocket("/")(face.handler(work))


async def run_drain(server, **keywords):
    """A drain that ends within BOUND; its deadline is later, so that a stall makes no handler late."""
    async with asyncio.timeout(BOUND):
        return await server.drain(**{"deadline": 8 * BOUND, **keywords})


async def start_drain(server, **keywords):
    """A drain in progress, which has asked each connection to close."""
    draining = asyncio.create_task(run_drain(server, **keywords))
    await until(lambda: server._drain_run and server._drain_run._closings.all_begun)
    return draining


@pytest.fixture
def gathering(monkeypatch):
    """Let an answer wait for its thread without a bound, because the machine may be busy."""
    monkeypatch.setattr("endwell.sync.bridge.GATHERING_TIME", BOUND)


async def test_an_answer_and_the_close_are_sent_in_one_write(transport, face, gathering):
    work = Work(0, face)
    work.gate.clear()
    async with work.server.serving(ssl=transport.server):
        with await RawPeer.connect(work.server.port, transport.client) as peer:
            await peer.frame(TEXT, b"question")
            await work.begun.wait()
            draining = await start_drain(work.server)
            work.gate.set()
            # One read: with plain TCP both frames are in one segment, with TLS in one record.
            assert await peer.more()
            assert (await peer.read_frame()).payload == b"question"
            assert len(peer._received) > 2
            seen = await peer.read_to_the_end(answer=True)
            assert seen.close == Close(1001, STOP)
        report = await draining
    assert (report.endings, report.unanswered, report.last_called) == ({"clean": 1}, 0, 0)
    assert report.slowest[0]
    assert "1 clean" in str(report)


async def test_an_answer_waits_briefly_for_its_thread_to_receive_again(transport, gathering):
    server = endwell.Server()
    taken, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @server.websocket("/")
    def work(ws):
        for message in ws:
            loop.call_soon_threadsafe(taken.set)
            release.wait()
            ws.send(message)
            time.sleep(0.002)  # and the event loop runs

    async with server.serving(ssl=transport.server):
        with await RawPeer.connect(server.port, transport.client) as peer:
            await peer.frame(TEXT, b"question")
            await taken.wait()
            draining = await start_drain(server)
            release.set()
            assert await peer.more()
            assert (await peer.read_frame()).payload == b"question"
            assert len(peer._received) > 2
            await peer.read_to_the_end(answer=True)
        assert (await draining).endings == {"clean": 1}


async def test_a_peer_that_closes_during_the_idle_check_leaves_no_timer(face, monkeypatch, transport):
    monkeypatch.setattr(endwell.server.drain.closings, "QUIET", 2 * BOUND)
    work = Work(0, face)
    async with work.server.serving(ssl=transport.server):
        with await RawPeer.connect(work.server.port, transport.client) as peer:
            await peer.frame(TEXT, b"question")
            assert (await peer.read_frame()).payload == b"question"
            connection = weakref.ref(*work.server.connections)
            draining = asyncio.create_task(run_drain(work.server, deadline=40 * BOUND))
            assert await peer.is_silent(0.05)
            await peer.close(1000)
            await peer.read_to_the_end()
        assert (await draining).endings == {"clean": 1}
    del work

    def forgotten():
        gc.collect()
        return connection() is None

    await until(forgotten)


async def test_messages_in_the_kernel_are_answered_before_the_close(transport, face):
    work = Work(0.01, face)
    async with work.server.serving(ssl=transport.server):
        with await RawPeer.connect(work.server.port, transport.client) as peer:
            await peer.frame(TEXT, b"one")
            assert (await peer.read_frame()).payload == b"one"
            peer.send_at_once(peer.octets(TEXT, b"two"))
            # Before the server's loop has read it.
            (ws,) = work.server.connections
            quiesce(ws, lambda: begin_close(ws, Cause.SERVER_DRAINED, 1001, "now"), 0)
            seen = await peer.read_to_the_end(answer=True)
            assert [frame.payload for frame in seen.frames] == [b"two"]
            assert seen.close == Close(1001, "now")
    assert work.answered == ["one", "two"]


async def test_messages_that_a_limit_holds_back_are_answered_and_do_not_occupy_the_loop(
    transport, face, monkeypatch
):
    attempts = []

    def read(quiescence, original=Quiescence._read):
        attempts.append(quiescence)
        original(quiescence)

    monkeypatch.setattr(Quiescence, "_read", read)
    server = endwell.Server(limits=endwell.Limit(messages=2, burst=1))

    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    server.websocket("/")(face.handler(echo))
    async with server.serving(ssl=transport.server):
        with await RawPeer.connect(server.port, transport.client) as peer:
            await peer.write(peer.octets(TEXT, b"1") + peer.octets(TEXT, b"2") + peer.octets(TEXT, b"3"))
            assert (await peer.read_frame()).payload == b"1"
            draining = asyncio.create_task(run_drain(server))
            seen = await peer.read_to_the_end(answer=True)
        report = await draining
    assert [frame.payload for frame in seen.frames] == [b"2", b"3"]
    assert (seen.close, report.unanswered) == (Close(1001, STOP), 0)
    # In each turn of the loop, it would be thousands.
    assert len(attempts) < 50


@pytest.mark.parametrize("begun", [1, 10])
async def test_a_partial_message_is_waited_for(face, begun, transport):
    work = Work(0, face)
    async with work.server.serving(ssl=transport.server):
        with await RawPeer.connect(work.server.port, transport.client) as peer:
            question = peer.octets(TEXT, b"a long question")
            await peer.write(question[:begun])
            while not work.server.connections:
                await asyncio.sleep(0.001)
            await peer.until_acknowledged()
            draining = asyncio.create_task(run_drain(work.server))
            assert await peer.is_silent(0.1)
            await peer.write(question[begun:])
            seen = await peer.read_to_the_end(answer=True)
            assert [frame.payload for frame in seen.frames] == [b"a long question"]
        assert (await draining).endings == {"clean": 1}


async def test_a_pending_control_frame_does_not_keep_a_connection_open(face, transport):
    work = Work(0, face)
    async with work.server.serving(ssl=transport.server), visiting(work.server, transport) as ws:
        await ws.send("hello")
        assert await ws.recv() == "hello"
        pings = [asyncio.create_task(ws.ping()) for _ in range(3)]
        report = await run_drain(work.server)
        assert (await ws.closed).received.code == 1001
        await asyncio.gather(*pings, return_exceptions=True)
    assert report.last_called == 0


@pytest.mark.parametrize("subscribes", [False, True])
async def test_a_stream_is_closed_at_its_moment_or_after_a_requested_delay(subscribes, face, transport):
    server = endwell.Server()
    raised = []

    async def stream(ws):
        if subscribes:
            await ws.recv()
        try:
            while True:
                await ws.send("news")
                await face.pause(0.01)
        except endwell.ConnectionClosed as exc:
            raised.append(exc)
            raise

    server.websocket("/")(face.handler(stream))
    async with server.serving(ssl=transport.server), visiting(server, transport) as ws:
        await ws.send("subscribe") if subscribes else None
        await ws.recv()
        # The patience is a fifth of the deadline.
        draining = asyncio.create_task(run_drain(server, deadline=5 if subscribes else 5 * PROMPT))
        async for _ in ws:
            pass
        report = await draining
    assert report.last_called == subscribes
    assert report.duration < PROMPT
    assert report.endings == {"clean": 1}
    assert raised[0].ending.cause is Cause.SERVER_DRAINED


async def test_a_handler_that_returns_on_drain_closes_with_the_drains_code(caplog, transport):
    server = endwell.Server()
    told, asked = {}, asyncio.Event()

    @server.on_drain
    def plain(drain):
        told["plain"] = drain.deadline

    @server.on_drain
    async def farewell(drain):
        told["async"] = bool(next(iter(server.connections)).draining)

    @server.on_drain
    def broken(drain):
        raise RuntimeError("broken")

    @server.websocket("/")
    async def handler(ws):
        await ws.recv()
        assert not ws.draining
        asked.set()
        await ws.draining.wait()
        await ws.send("bye")

    async with server.serving(ssl=transport.server), visiting(server, transport) as ws:
        await ws.send("hello")
        await asked.wait()
        assert not ws.draining
        await run_drain(server, deadline=40, code=CloseCode.SERVICE_RESTART)
        assert await ws.recv() == "bye"
        assert (await ws.closed).received == Close(1012, "server restarting; retry 1-2s")
    # A plain callback runs in a thread, beside the others: their order is not fixed.
    assert told == {"plain": 40, "async": True}
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == [
        f"on_drain callback {broken!r} failed"
    ]


def test_a_handler_in_a_thread_can_wait_for_the_drain_too():
    server = endwell.Server()
    told = []

    @server.websocket("/")
    def handler(ws):
        ws.recv()
        told.append((bool(ws.draining), ws.draining.wait(0.01)))
        told.append((ws.draining.wait(BOUND), bool(ws.draining)))
        ws.send("bye")

    async def main():
        async with server.serving(), endwell.connect(url(server)) as ws:
            assert not ws.draining
            await ws.send("hello")
            await until(lambda: told)
            report = await run_drain(server)
            assert await ws.recv() == "bye"
            assert (await ws.closed).received == Close(1001, STOP)
            return report

    report = asyncio.run(main())
    assert told == [(False, False), (True, True)]
    assert (report.endings, report.last_called) == ({"clean": 1}, 0)


async def test_threads_sharing_a_connection_are_idle_when_all_receive_again(transport):
    server = endwell.Server()
    answered, release = [], threading.Event()

    def work(ws):
        for message in ws:
            if message == "slow":
                release.wait(BOUND)
            ws.send(message)
            answered.append(message)

    @server.websocket("/")
    def handler(ws):
        threads = [threading.Thread(target=work, args=(ws,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    async with server.serving(ssl=transport.server), visiting(server, transport) as ws:
        for message in ("slow", "quick", "quick", "quick"):
            await ws.send(message)
        assert await ws.recv() == "quick"
        draining = await start_drain(server)
        release.set()
        assert sorted([message async for message in ws]) == ["quick", "quick", "slow"]
        report = await draining
    assert len(answered) == 4
    assert (report.endings, report.last_called) == ({"clean": 1}, 0)


async def test_a_stuck_thread_is_named_and_delays_at_most_the_deadline(caplog, monkeypatch):
    monkeypatch.setattr(
        "endwell.server.drain.timetable.CLEANUP_TIME", 4.0
    )  # for the callback, and for a stall
    server = endwell.Server()
    release, ended = threading.Event(), []

    @server.websocket("/")
    def hangs(ws):
        release.wait(2 * BOUND)

    @server.on_close
    def slow(ws, ending):
        time.sleep(0.3)
        ended.append(ending.cause)

    async with server.serving():
        with await RawPeer.connect(server.port) as peer:
            reading = asyncio.create_task(peer.read_to_the_end(answer=True))
            report = await run_drain(server, deadline=0.5)
            assert report.duration < 4.4 + PROMPT
            assert (await reading).close == Close(1001, "server stopping; retry 1-2s")
    assert report.stuck == (hangs.__qualname__,)
    assert f"handlers still running: 1 x {hangs.__qualname__}" in caplog.text
    assert ended == [Cause.SERVER_DRAINED]
    release.set()


async def test_a_handler_is_stuck_if_it_runs_not_if_its_connection_lingers(face):
    # The connection must still linger when the drain begins.
    server = endwell.Server(close_timeout=2 * BOUND, linger_timeout=2 * BOUND)
    release = threading.Event()

    async def returns(ws):
        await ws.recv()

    async def goes_on(ws):
        """Runs long after its connection ended, and ignores cancellation."""
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await face.pause(0.01)

    server.websocket("/returns")(face.handler(returns))
    server.websocket("/goes_on")(face.handler(goes_on))
    async with server.serving():
        async with endwell.connect(url(server) + "goes_on"):
            pass
        with await RawPeer.connect_tcp(server.port) as peer:
            await peer.write(peer.request("/returns"))
            await peer.read_head()
            await peer.frame(TEXT, b"hello")
            received = await peer.read_frame()
            assert received.opcode == CLOSE
            await peer.frame(CLOSE, received.payload)  # but TCP stays open
            report = await run_drain(server, deadline=0.5)
        assert report.connections == 1
        assert len(report.stuck) == 1
        assert report.cancelled == (face is ASYNCIO)
        assert report.slowest is None
        release.set()
        await asyncio.sleep(0.05)


async def test_callbacks_of_blocking_handlers_return_before_the_drain_does():
    server = endwell.Server()
    ended = []

    @server.websocket("/")
    def handler(ws):
        ws.read()

    @server.on_close
    def slow(ws, ending):
        time.sleep(0.5)
        ended.append(ending.cause)

    async with server.serving(), endwell.connect(url(server)), endwell.connect(url(server)):
        report = await run_drain(server, deadline=4 * PROMPT)
        assert ended == [Cause.SERVER_DRAINED] * 2
    assert report.duration < PROMPT


async def test_new_connections_are_refused_with_retry_after():
    work = Work(0)
    work.gate.clear()
    async with work.server.serving(), endwell.connect(url(work.server)) as ws:
        await ws.send("hello")
        await work.begun.wait()
        draining = await start_drain(work.server)
        with pytest.raises(endwell.HandshakeRejected) as caught:
            await endwell.connect(url(work.server))
        assert caught.value.response.status == 503
        assert 1 <= int(caught.value.response.headers["Retry-After"]) <= 3
        work.gate.set()
        assert await ws.recv() == "hello"
        report = await draining
    assert report.refused == 1
    assert "1 request refused" in str(report)


async def test_a_server_with_listen_false_stops_listening():
    work, port = Work(0.1), free_port()
    async with work.server.serving(port=port), endwell.connect(url(work.server)) as ws:
        await ws.send("hello")
        await work.begun.wait()
        draining = asyncio.create_task(run_drain(work.server, listen=False))
        await asyncio.sleep(0)
        async with endwell.Server().serving(port=port):
            await draining


async def test_a_second_drain_and_leaving_the_block_wait_for_the_first():
    work = Work(0.1)
    async with work.server.serving(), endwell.connect(url(work.server)) as ws:
        await ws.send("hello")
        await work.begun.wait()
        first, second = await asyncio.gather(run_drain(work.server, code=1012), run_drain(work.server))
        assert first is second
        assert (await ws.closed).received.code == 1012
    async with work.server.serving(), endwell.connect(url(work.server)) as ws:
        assert not next(iter(work.server.connections)).draining
        await ws.send("again")
        assert await ws.recv() == "again"


async def test_leaving_the_block_answers_messages_and_leaves_signal_handlers(face, transport):
    work = Work(0.1, face)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with contextlib.AsyncExitStack() as stack:
        async with work.server.serving(ssl=transport.server):
            ws = await stack.enter_async_context(visiting(work.server, transport))
            await ws.send("hello")
            await work.begun.wait()
            assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        assert await ws.recv() == "hello"
        assert (await ws.closed).received == Close(1001, "server stopping; retry 0-1s")
    assert len(work.left) == 1


async def test_draining_a_server_that_does_not_serve_raises():
    server = endwell.Server()
    with pytest.raises(ValueError, match="serve"):
        await server.drain()
    async with server.serving():
        pass
    with pytest.raises(ValueError, match="serve"):
        await server.drain()
    with pytest.raises(TypeError, match="patience"):
        await server.drain(patience=3)


async def test_a_cancelled_drain_ends_at_once():
    work = Work(3600)
    async with work.server.serving(), endwell.connect(url(work.server)) as ws:
        await ws.send("hello")
        await work.begun.wait()
        draining = asyncio.create_task(work.server.drain())
        await until(lambda: work.server._drain_run and work.server._drain_run._closings.all_begun)
        draining.cancel()
        with pytest.raises(asyncio.CancelledError):
            await draining
        assert (await ws.closed).received == Close(1001, STOP)
    assert len(work.left) == 1


@pytest.mark.virtual_clock
async def test_a_handler_has_its_time_for_cleanup_although_the_process_stalled():
    await drain_with_a_stall(PLAIN, lambda: asyncio.get_running_loop()._pass_time(3))


@pytest.mark.exhaustive
async def test_a_handler_has_its_time_for_cleanup_although_the_process_stalled_on_sockets(transport):
    await drain_with_a_stall(transport, lambda: time.sleep(3))


async def drain_with_a_stall(transport, stall):
    """A drain whose deadline passes while this process stands still."""
    server, events = endwell.Server(), []

    @server.websocket("/")
    async def busy(ws):
        events.append("begun")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            events.append("cleaned up")

    async with server.serving(ssl=transport.server):
        with await RawPeer.connect(server.port, transport.client):
            await until(lambda: events)
            draining = await start_drain(server, deadline=1.0)
            stall()
            report = await draining
    assert events == ["begun", "cleaned up"]
    assert (report.cancelled, report.stuck) == (1, ())


async def test_what_came_while_the_process_stalled_is_read_before_a_connection_is_aborted(
    transport, monkeypatch
):
    # As if there were more connections than one turn of the loop reads.
    monkeypatch.setattr("endwell.aio.reactor.EVENTS", 1)
    for _ in range(10):
        server, taken = endwell.Server(), []

        @server.websocket("/")
        async def upload(ws, taken=taken):
            async for message in ws:
                taken.append(message)

        async with server.serving(ssl=transport.server), contextlib.AsyncExitStack() as stack:
            peers = [
                stack.enter_context(await RawPeer.connect(server.port, transport.client)) for _ in range(5)
            ]
            for peer in peers:
                await peer.frame(TEXT, b"one")
            await until(lambda taken=taken: len(taken) == 5)
            began = monotonic()
            draining = await start_drain(server, deadline=5.0)
            with contextlib.suppress(AssertionError):  # it was aborted, because the machine stalled
                assert {(await peer.read_close()).code for peer in peers} == {CloseCode.GOING_AWAY}
            if monotonic() - began > ANSWER_TIME / 2:
                continue
            for peer in peers:
                peer.send_at_once(peer.octets(TEXT, b"two") + peer.close_octets(CloseCode.GOING_AWAY))
            time.sleep(ANSWER_TIME + 0.5)  # noqa: ASYNC251  (stalls the loop)
            for peer in peers:
                assert (await peer.read_to_the_end()).tcp is TcpEnd.FIN
                peer.fin()
            report = await draining
        assert report.endings == {"clean": 5}
        assert taken == ["one"] * 5 + ["two"] * 5
        return
    raise AssertionError("no attempt was in time")


@pytest.mark.virtual_clock
async def test_a_dead_or_silent_client_delays_at_most_the_deadline(caplog):
    report = await drain_with_a_dead_client(caplog, PLAIN, 25.0)
    assert 20 < report.duration <= 25


@pytest.mark.exhaustive
async def test_a_dead_or_silent_client_delays_at_most_the_deadline_on_sockets(caplog, transport):
    await drain_with_a_dead_client(caplog, transport, 0.5)


async def drain_with_a_dead_client(caplog, transport, deadline):
    server = endwell.Server()

    @server.websocket("/")
    async def stuck(ws):
        while server.addresses:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)

    caplog.set_level(logging.INFO, "endwell.server")
    async with server.serving(ssl=transport.server):
        with await RawPeer.connect(server.port, transport.client):
            report = await run_drain(server, deadline=deadline)
    assert report.endings == {"aborted": 1}
    assert report.cancelled == 1
    assert len(report.stuck) == 1
    assert caplog.records[-1].message == str(report)
    assert "handlers still running: 1 x " in str(report)
    await asyncio.sleep(0.05)
    return report


@pytest.mark.parametrize("answers", [True, False])
async def test_messages_that_cross_the_close_reach_only_handlers_without_pending_answers(
    face, answers, transport
):
    server = endwell.Server()
    taken, endings = [], []

    async def handler(ws):
        async for message in ws:
            taken.append(message)
            if answers:
                await ws.send(message)

    server.websocket("/")(face.handler(handler))
    server.on_close(lambda ws, ending: endings.append(ending))
    async with server.serving(ssl=transport.server):
        with await RawPeer.connect(server.port, transport.client) as peer:
            await peer.frame(TEXT, b"in time")
            draining = asyncio.create_task(run_drain(server))
            while (received := await peer.read_frame()).opcode != CLOSE:
                assert received.payload == b"in time"
            await peer.frame(TEXT, b"late")
            await peer.frame(CLOSE, received.payload)
            await peer.read_to_the_end()
            peer.drop()
            report = await draining
    assert taken == (["in time"] if answers else ["in time", "late"])
    assert report.unanswered == 1
    assert endings[0].dropped_messages == answers


async def test_a_new_client_has_time_for_its_first_request(transport, face, monkeypatch):
    # The Close at the client's moment must come long before the question, to be ruled out.
    monkeypatch.setattr(endwell.server.drain.closings, "QUIET", PROMPT)
    work = Work(0, face)
    async with work.server.serving(ssl=transport.server):
        with await RawPeer.connect(work.server.port, transport.client) as peer:
            draining = asyncio.create_task(run_drain(work.server, deadline=20 * BOUND))
            assert await peer.is_silent(0.05)
            await peer.frame(TEXT, b"first")
            seen = await peer.read_to_the_end(answer=True)
            assert [frame.payload for frame in seen.frames] == [b"first"]
            peer.drop()
        report = await draining
    assert (report.unanswered, report.endings) == (0, {"clean": 1})


async def test_a_handler_that_receives_again_gets_time_for_a_next_request(transport, face, monkeypatch):
    monkeypatch.setattr(endwell.server.drain.closings, "QUIET", PROMPT)
    server = endwell.Server()
    taken, asked, came = (threading.Event() for _ in range(3))

    async def work(ws):
        async for message in ws:
            taken.set()
            while not asked.is_set():
                await face.pause(0.001)
            await ws.send(message)
            while not came.is_set():
                await face.pause(0.001)

    server.websocket("/")(face.handler(work))
    async with server.serving(ssl=transport.server):
        with await RawPeer.connect(server.port, transport.client) as peer:
            await peer.frame(TEXT, b"one")
            await until(taken.is_set)
            draining = await start_drain(server)
            asked.set()
            assert (await peer.read_frame()).payload == b"one"
            came.set()
            assert await peer.is_silent(0.2)
            await peer.frame(TEXT, b"two")
            seen = await peer.read_to_the_end(answer=True)
            assert [frame.payload for frame in seen.frames] == [b"two"]
            peer.drop()
        report = await draining
    assert (report.unanswered, report.last_called, report.endings) == (0, 0, {"clean": 1})


@pytest.mark.virtual_clock
async def test_a_peer_that_does_not_answer_its_close_is_aborted_early():
    await abort_a_silent_peer(PLAIN, ASYNCIO)


@pytest.mark.exhaustive
async def test_a_peer_that_does_not_answer_its_close_is_aborted_early_on_sockets(transport, face):
    await abort_a_silent_peer(transport, face)


async def abort_a_silent_peer(transport, face):
    work = Work(0, face)
    async with work.server.serving(ssl=transport.server):
        with await RawPeer.connect(work.server.port, transport.client) as peer:
            await peer.frame(TEXT, b"question")
            await peer.read_frame()
            # The other bounds are close_timeout and nearly 9/10 of the deadline.
            report = await run_drain(work.server, deadline=2 * PROMPT)
            assert report.endings == {"aborted": 1}
            assert Phase.CANCEL not in report.phases
            assert (await peer.read_to_the_end()).close.code == 1001


@pytest.mark.virtual_clock
async def test_a_peer_that_reads_slowly_is_not_aborted():
    server = endwell.Server(write_limit=2**26)

    @server.websocket("/")
    async def talk(ws):
        await ws.recv()
        for _ in range(8):
            await ws.send(bytes(2**20))
        await ws.read()

    async with server.serving():
        with await RawPeer.connect(server.port, buffer=65536) as peer:
            await peer.frame(TEXT, b"go")
            assert len((await peer.read_frame()).payload) == 2**20
            # A peer that reads nothing is given a fifth of the deadline.
            draining = asyncio.create_task(run_drain(server, deadline=12.5))
            for _ in range(6):
                await asyncio.sleep(0.5)
                received = await peer.read_frame()
                assert received is None or len(received.payload) == 2**20
            seen = await peer.read_to_the_end(answer=True)
            peer.drop()
            report = await draining
    assert report.endings == {"clean": 1}
    assert seen.close.code == 1001


@pytest.mark.virtual_clock
async def test_a_waiting_drain_logs_the_handlers_it_waits_for(caplog):
    server = endwell.Server()
    work = asyncio.Event()

    @server.websocket("/")
    async def busy(ws):
        await ws.recv()
        await work.wait()

    async with server.serving(), endwell.connect(url(server)) as ws:
        await ws.send("question")
        # They are logged 1 s after a fifth of the deadline, and cancelled at 4/5 of it: 11 s later.
        draining = asyncio.create_task(run_drain(server, deadline=20))
        await until(lambda: "s for these handlers: " in caplog.text)
        work.set()
        report = await draining
    assert re.search(r"waits at most \d+\.\d s for these handlers: 1 x \S+busy", caplog.text)
    assert report.cancelled == 0


async def test_a_first_message_that_crosses_the_close_is_dropped(face):
    taken = []

    async def handler(ws):
        while (message := await ws.read()) is not None:
            taken.append(message)

    server = endwell.Server()
    server.websocket("/")(face.handler(handler))
    async with server.serving():
        with await RawPeer.connect(server.port) as peer:
            draining = asyncio.create_task(run_drain(server))
            received = await peer.read_frame()
            assert received.opcode == CLOSE
            await peer.frame(TEXT, b"first question")
            await peer.frame(CLOSE, received.payload)
            await peer.read_to_the_end()
            peer.drop()
            report = await draining
    assert taken == []
    assert report.unanswered == 1


@pytest.mark.virtual_clock
async def test_our_clients_reconnect_when_the_advice_says():
    work = Work(0)
    times, waits = [], []

    def told(last, verdict):
        waits.append(verdict)
        chosen.append(due(client))

    async with work.server.serving():
        port = work.server.port
        chosen = []
        client = endwell.reconnecting(f"ws://127.0.0.1:{port}/", on_ending=told)

        async def visit():
            async for ws in client:
                times.append(monotonic())
                async for _ in ws:
                    pass
                if len(times) == 2:
                    break
                endings.append(ws.ending)

        endings = []
        running = asyncio.create_task(visit())
        while not work.server.connections:
            await asyncio.sleep(0.001)
        began = monotonic()
        await run_drain(work.server, code=CloseCode.SERVICE_RESTART)
    async with asyncio.timeout(BOUND):
        async with work.server.serving(port=port):
            while len(times) < 2:
                await asyncio.sleep(0.01)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    earliest, latest = RetryAdvice.parse(endings[0].reason)
    assert endings[0].code == 1012
    assert earliest <= waits[0] <= latest
    assert began + waits[0] <= chosen[0] < times[1] + 0.1


async def test_a_response_in_progress_arrives():
    server = endwell.Server()

    @server.get("/")
    async def page(request):
        return bytes(16 * 2**20)

    async with server.serving():
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        draining = asyncio.create_task(run_drain(server))
        await asyncio.sleep(0.1)
        assert not draining.done()
        assert len(await reader.read()) == 16 * 2**20
        writer.close()
        report = await draining
    assert report.connections == 0
    assert report.duration < 2 * PROMPT


PROGRAM = """
import asyncio, sys, time, endwell, logging
logging.basicConfig(level=logging.INFO, format="%(message)s")
server = endwell.Server()

def wait(seconds):
    print("at work", file=sys.stderr, flush=True)
    time.sleep(seconds)
    print("waited", flush=True)

@server.websocket("/blocks")
async def blocks(ws):
    print("at work", file=sys.stderr, flush=True)
    time.sleep(3600)

@server.websocket("/thread")
async def thread(ws):
    await asyncio.to_thread(wait, 3600)

@server.websocket("/plain")
def plain(ws):
    wait(3600)

@server.websocket("/drains")
async def drains(ws):
    print("at work", file=sys.stderr, flush=True)
    asyncio.create_task(server.drain(code=1012, deadline=0.5))

@server.websocket("/job")
async def job(ws):
    asyncio.get_running_loop().run_in_executor(None, wait, 0.5)

async def swallow():
    while True:
        try:
            await asyncio.sleep(3600)
        except BaseException:
            pass

@server.get("/swallowing")
async def page(request):
    print("at work", file=sys.stderr, flush=True)
    await swallow()

@server.websocket("/swallows")
async def swallows(ws):
    ws.task = asyncio.create_task(swallow())
    _, ws.writer = await asyncio.open_connection("127.0.0.1", server.port)
    ws.writer.write(b"GET /swallowing HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
    await swallow()

server.run(port=0, drain=endwell.Drain(deadline=DEADLINE))
"""


async def stopped(path, deadline, signals=1):
    """The status and the output of a program that is stopped, with one connection in its handler."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.replace("DEADLINE", str(deadline))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = await asyncio.to_thread(process.stderr.readline)
        with await RawPeer.connect_tcp(int(line.rpartition(":")[2])) as peer:
            await peer.write(peer.request(path))
            await peer.read_head()
            assert await logged(process, "at work")
            for number in range(signals):
                if number:  # two signals at the same time are one
                    await logged(process, "stopping: ")
                process.send_signal(signal.SIGTERM)
            out, err = await asyncio.to_thread(process.communicate, None, PATIENCE)
        return process.returncode, out, err
    finally:
        process.kill()
        process.wait()


async def logged(process, beginning):
    """Read its log up to a line."""
    while not (line := await asyncio.to_thread(process.stderr.readline)).startswith(beginning):
        assert line, "it has ended"
    return line


async def test_a_process_ends_although_a_handler_blocks_the_event_loop():
    status, _, err = await stopped("/blocks", 0)
    assert status == 1
    assert "the event loop is blocked" in err
    assert "in blocks" in err


async def test_a_process_ends_although_an_executor_thread_does_not():
    status, out, err = await stopped("/thread", 0)
    assert (status, out) == (0, "")
    assert "threads of asyncio.to_thread that still run and are abandoned: 1" in err


async def test_a_task_that_swallows_cancellation_is_logged_once_by_endwell():
    status, out, err = await stopped("/swallows", 0)
    assert (status, out) == (0, "")
    *_, report, rest = err.splitlines()
    assert report.endswith("handlers still running: 1 x swallows")
    assert rest == (
        "tasks that ignore their cancellation and are abandoned: swallow, the page '/swallowing' (page)"
    )


async def test_a_drain_waits_for_executor_threads_up_to_the_deadline():
    status, out, err = await stopped("/job", 20)
    assert (status, out) == (0, "waited\n")
    assert "still run" not in err


async def test_a_program_that_drains_its_server_itself_ends():
    status, out, err = await stopped("/drains", 0.5, signals=0)
    assert (status, out) == (0, "")
    assert "drained 1 connection in " in err


def test_a_terminal_shows_the_progress_of_a_drain():
    master, slave = pty.openpty()
    program = [sys.executable, "-c", PROGRAM.replace("DEADLINE", "5")]
    with os.fdopen(master, "rb", 0) as format_address, subprocess.Popen(program, stderr=slave) as process:
        os.close(slave)
        try:
            port = int(format_address.read(100).rpartition(b":")[2])
            with endwell.sync.connect(f"ws://127.0.0.1:{port}/plain"):
                text = b""
                while b"at work" not in text:
                    text += format_address.read(4096)
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(OSError):  # EIO: no process has the terminal any more
                    while octets := format_address.read(4096):
                        text += octets
        finally:
            process.kill()
    assert re.search(rb"draining: 0 of 1 closed, 1 handler runs, \d\.\d s\x1b\[K\r", text)
    assert re.search(rb"draining: 1 of 1 closed, 1 handler runs, \d\.\d s", text)
    assert b"handlers cancelled" not in text
    assert b"; handlers still running: 1 x plain\r\n" in text


async def test_a_second_signal_ends_the_process_at_once_despite_a_busy_thread():
    began = monotonic()
    status, out, err = await stopped("/plain", 3600, signals=2)
    assert monotonic() - began < 2 * BOUND
    assert (status, out) == (0, "")
    assert "handlers still running: 1 x plain" in err

"""A server closes a share of its connections and goes on: how many, which first, and what their peers are told."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest

import endwell
from endwell import Cause, Close, CloseCode
from endwell.server.drain import shed
from tests.cli.process import PATIENCE
from tests.pair import until, within
from tests.raw import BOUND, PLAIN, RawPeer
from tests.server.process.test_workers import connect_to_both_workers
from tests.server.program import running
from tests.wire.peer import TEXT

CLOSE = Close(CloseCode.SERVICE_RESTART, "moving to another server; retry 0-1s")


def echo_server(face):
    server = endwell.Server(ping_interval=None)

    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    server.websocket("/")(face.handler(echo))
    return server


def connections(server, transport, count):
    scheme = "ws" if transport.client is None else "wss"
    url = f"{scheme}://127.0.0.1:{server.port}/"
    return asyncio.gather(*(endwell.connect(url, ssl=transport.client) for _ in range(count)))


async def test_a_fraction_is_closed_idle_connections_first(face, transport):
    server = echo_server(face)
    async with server.serving(ssl=transport.server):
        clients = await connections(server, transport, 8)
        for ws in clients[2:]:
            await ws.send("busy")
            assert await within(ws.recv()) == "busy"
        assert await within(server.shed(0.25, over=0)) == 2
        endings = [await within(ws.closed) for ws in clients[:2]]
        assert [ending.received for ending in endings] == [CLOSE] * 2
        assert all(ending.clean for ending in endings)
        # The others, and new ones, are served.
        for ws in (*clients[2:], *await connections(server, transport, 1)):
            await ws.send("still here")
            assert await within(ws.recv()) == "still here"
            await ws.close()


async def test_connections_that_are_closing_already_are_not_counted(face, transport):
    server = echo_server(face)
    async with server.serving(ssl=transport.server):
        with (
            await RawPeer.connect(server.port, transport.client) as one,
            await RawPeer.connect(server.port, transport.client) as two,
        ):
            for ws in list(server.connections):
                ws.authorize(subject="ada")
            assert await server.revoke("ada") == 2
            for peer in (one, two):  # which do not answer
                await peer.read_close()
            clients = await connections(server, transport, 2)
            await clients[1].send("busy")
            assert await within(clients[1].recv()) == "busy"
            assert len(server.connections) == 4
            assert await within(server.shed(0.5, over=0)) == 1
            assert (await within(clients[0].closed)).received == CLOSE
            assert clients[1].is_open
            await clients[1].close()


async def test_the_handler_is_told_the_cause(face):
    server, told = echo_server(face), []
    server.on_close(lambda ws, ending: told.append((ending.cause, ending.sent, ending.clean)))
    async with server.serving():
        async with endwell.connect(f"ws://127.0.0.1:{server.port}/") as ws:
            assert await within(server.shed(1, over=0)) == 1
            assert (await within(ws.closed)).cause is Cause.PEER_CLOSED
        await until(lambda: told)
    assert told == [(Cause.SHED, CLOSE, True)]


async def test_each_message_that_came_is_answered_before_the_close(face, transport):
    server = endwell.Server()
    release = threading.Event()

    async def slow_echo(ws):
        async for message in ws:
            while not release.is_set():
                await face.pause(0.001)
            await ws.send(message)

    server.websocket("/")(face.handler(slow_echo))
    async with asyncio.timeout(BOUND), server.serving(ssl=transport.server):
        with await RawPeer.connect(server.port, transport.client) as peer:
            for number in range(3):
                await peer.frame(TEXT, b"%d" % number)
            (ws,) = server.connections
            await until(lambda: ws.messages_in == 3)
            closing = asyncio.create_task(server.shed(1, over=0))
            await until(lambda: server._shed_run and server._shed_run._closings.all_begun)
            release.set()
            assert [(await peer.read_frame()).payload for _ in range(3)] == [b"0", b"1", b"2"]
            assert await peer.read_close() == CLOSE
            await peer.close(CLOSE.code)
            assert await closing == 1


async def test_a_handler_that_stays_busy_is_closed_after_some_time(monkeypatch):
    monkeypatch.setattr(shed, "BUSY_TIME", 0.1)
    server, release = endwell.Server(), asyncio.Event()

    @server.websocket("/")
    async def busy(ws):
        await ws.recv()
        await release.wait()

    async with server.serving():
        async with endwell.connect(f"ws://127.0.0.1:{server.port}/") as ws:
            await ws.send("work")
            assert await within(server.shed(1, over=0)) == 1
            assert (await within(ws.closed)).received == CLOSE
        release.set()


async def test_the_closings_are_spread(face):
    server = echo_server(face)
    async with server.serving():
        clients = await connections(server, PLAIN, 20)
        closing = asyncio.create_task(server.shed(1, over=1000))
        await until(lambda: server._shed_run)
        # Each connection has 50 s of its own. The first closing may be due at once.
        moments = [moment for moment, _ in server._shed_run._closings._scheduled]
        assert all(
            50 * index <= moment < 50 * index + 50 for index, moment in enumerate(moments, 20 - len(moments))
        )
        assert len(moments) >= 19
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert sum(ws.is_open for ws in clients) >= 19
        # It can be called again, and connections that have ended by themselves are not counted.
        closing = asyncio.create_task(server.shed(1, over=1000))
        await until(lambda: server._shed_run)
        with pytest.raises(RuntimeError, match="still running"):
            await server.shed()
        for ws in clients:
            await ws.close()
        assert await within(closing) <= 1


async def test_a_drain_ends_it(face):
    server = echo_server(face)
    async with server.serving():
        clients = await connections(server, PLAIN, 4)
        closing = asyncio.create_task(server.shed(1, over=1000))
        await until(lambda: server._shed_run)
        await within(server.drain(window=0))
        assert await within(closing) <= 1
        assert await server.shed(1, over=0) == 0
        codes = [(await within(ws.closed)).code for ws in clients]
        assert codes.count(1001) >= 3


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"fraction": 0}, ValueError, "fraction must be above 0 and at most 1, not 0"),
        ({"fraction": 1.5}, ValueError, "fraction must be above 0"),
        ({"fraction": "all"}, TypeError, "fraction must be a number, not 'all'"),
        ({"fraction": True}, TypeError, "fraction must be a number"),
        ({"over": -1}, ValueError, "over must be a finite number of seconds, not -1"),
        ({"over": float("inf")}, ValueError, "over must be a finite"),
        ({"over": float("nan")}, ValueError, "over must be a finite"),
        ({"over": None}, TypeError, "over must be a number, not None"),
    ],
)
async def test_a_wrong_argument_is_named(arguments, error, text):
    with pytest.raises(error, match=text):
        await endwell.Server().shed(**arguments)


async def test_it_needs_a_server_that_serves():
    with pytest.raises(ValueError, match="does not serve"):
        await endwell.Server().shed()


PROGRAM = """
import logging, os
import endwell

class Server(endwell.Server):
    async def shed(self):
        return await super().shed(1, over=0)

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
server = Server()

@server.websocket("/")
async def handler(ws):
    await ws.send(f"{os.getpid()} here")
    await ws.wait_closed()

if __name__ == "__main__":
    server.run("127.0.0.1", 0, workers=WORKERS)
"""


async def test_sigusr1_closes_a_share_of_all_workers(tmp_path):
    file = tmp_path / "program.py"
    file.write_text(PROGRAM.replace("WORKERS", "2"))
    with running(str(file)) as program:
        clients = await connect_to_both_workers(program)
        program.send(signal.SIGUSR1)
        assert [(await within(ws.closed, PATIENCE)).received for ws in clients.values()] == [CLOSE] * 2
        # The workers go on, and the signal works again.
        again = await connect_to_both_workers(program)
        assert again.keys() == clients.keys()
        program.send(signal.SIGUSR1)
        assert [(await within(ws.closed, PATIENCE)).received for ws in again.values()] == [CLOSE] * 2
        program.send(signal.SIGTERM)
        status, _ = await asyncio.to_thread(program.finish, None)
    assert status == 0


async def test_sigusr1_without_workers(tmp_path):
    with running("-c", PROGRAM.replace("WORKERS", "None")) as program:
        async with endwell.connect(program.url("/"), open_timeout=PATIENCE) as ws:
            program.send(signal.SIGUSR1)
            assert (await within(ws.closed, PATIENCE)).received == CLOSE
        program.send(signal.SIGTERM)
        status, _ = await asyncio.to_thread(program.finish, None)
    assert status == 0


async def test_an_application_that_handles_sigusr1_keeps_its_handler():
    handler = "import signal; signal.signal(signal.SIGUSR1, lambda *_: print('mine', flush=True))\n"
    with running("-c", handler + PROGRAM.replace("WORKERS", "None")) as program:
        async with endwell.connect(program.url("/"), open_timeout=PATIENCE) as ws:
            await within(ws.recv(), PATIENCE)
            program.send(signal.SIGUSR1)
            assert await asyncio.to_thread(program.process.stdout.readline) == "mine\n"
            assert ws.is_open
            program.send(signal.SIGTERM)
            assert (await within(ws.closed, PATIENCE)).code == 1001
        await asyncio.to_thread(program.finish, None)

"""Startup and shutdown callbacks of an application."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import signal
import sys
import threading
import time
from functools import partial

import pytest

import endwell
from tests.cli.process import PATIENCE
from tests.pair import until, within
from tests.raw import BOUND, PROMPT
from tests.server.program import running, write

WHO = contextvars.ContextVar("who", default="nobody")


def connected(server):
    return endwell.connect(f"ws://127.0.0.1:{server.port}/")


async def test_callbacks_run_before_the_server_listens_and_after_its_last_handler():
    server = endwell.Server()
    told = []

    @server.on_start
    async def begin():
        await asyncio.sleep(0)
        WHO.set("a pool")
        told.append(f"start, {server.addresses}")

    @server.on_start
    def begin_too():
        told.append("start too")

    @server.on_stop
    async def end():
        await asyncio.sleep(0)
        told.append(f"stop, {len(server.connections)} connections")

    @server.on_stop
    def end_before_that():
        told.append("stop before that")

    @server.websocket("/")
    async def handler(ws):
        await ws.send(WHO.get())
        async for _ in ws:
            pass
        await asyncio.sleep(0.05)
        told.append("handler over")

    for _ in range(2):
        async with server.serving():
            ws = await connected(server)
            assert await within(ws.recv()) == "a pool"
        await within(ws.closed)
        order = ["start, []", "start too", "handler over", "stop before that", "stop, 0 connections"]
        assert told == order
        told.clear()


@pytest.mark.parametrize("exc", [RuntimeError("no database"), SystemExit("no database")])
async def test_a_failing_startup_callback_ends_the_start(exc):
    server = endwell.Server()

    @server.on_start
    async def fails():
        raise exc

    server.on_start(lambda: pytest.fail("started all the same"))
    server.on_stop(lambda: pytest.fail("stopped, but not started"))
    with pytest.raises(type(exc), match="no database"):
        async with server.serving():
            pytest.fail("served all the same")


@pytest.mark.parametrize("when", ["start", "stop"])
async def test_serving_twice_at_once_is_refused_during_callbacks_too(when):
    server, calls = endwell.Server(), []
    reached, release = asyncio.Event(), asyncio.Event()

    async def callback(name):
        calls.append(name)
        if name == when:
            reached.set()
            await release.wait()

    server.on_start(partial(callback, "start"))
    server.on_stop(partial(callback, "stop"))

    async def serve():
        async with server.serving(grace=BOUND):
            assert len(server.addresses) == 1

    first = asyncio.ensure_future(serve())
    await reached.wait()
    with pytest.raises(RuntimeError, match="already serves"):
        await serve()
    release.set()
    await first
    assert calls == ["start", "stop"]
    await serve()


async def test_shutdown_callbacks_run_if_the_server_cannot_listen():
    server, told = endwell.Server(), []
    server.on_stop(lambda: told.append("stopped"))
    async with endwell.Server().serving() as other:
        with pytest.raises(OSError, match="in use"):
            async with server.serving(port=other.port):
                pytest.fail("served all the same")
    assert told == ["stopped"]


async def test_a_failing_or_hanging_shutdown_callback_does_not_stop_others(caplog):
    server, told = endwell.Server(), []

    @server.on_stop
    async def last():
        told.append("last")

    @server.on_stop
    async def hangs():
        await asyncio.sleep(3600)

    @server.on_stop
    def leaves():
        sys.exit("enough")

    @server.on_stop
    async def fails():
        raise RuntimeError("broken")

    began = time.monotonic()
    async with server.serving(grace=0):
        pass
    assert time.monotonic() - began < 60
    assert told == ["last"]
    text = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.rpartition(">")[2] for line in text] == [
        " failed",
        " failed",
        " still runs after 0.5 s: it is cancelled",
    ]


async def test_each_worker_runs_its_startup_and_shutdown_callbacks(tmp_path):
    hooks = """
    @server.on_start
    async def begin():
        await asyncio.sleep(0.1)
        logging.info("begun %d", os.getpid())

    @server.on_stop
    async def end():
        await asyncio.sleep(0.1)
        logging.info("ended %d", os.getpid())
    """.replace("\n    ", "\n")
    with running(write(tmp_path, **{"ANSWER = ": f"{hooks}\nANSWER = "})) as program:
        program.logged("listening on")
        assert program.log.count("begun") == 2
        ws, process, _ = await program.connect()
        program.send(signal.SIGTERM)
        await within(ws.closed, PATIENCE)
        status, log = await asyncio.to_thread(program.finish, None)
    assert status == 0
    assert log.count("INFO ended") == 2
    assert log.index(f"ended {process}") > log.index("drained 1 connection in")


@pytest.mark.parametrize("workers", [None, 1])
async def test_a_stop_does_not_wait_for_a_hanging_startup_callback(workers, tmp_path):
    hangs = "server.on_start(lambda: (sys.stderr.write('starts\\n'), asyncio.sleep(3600))[1])\nANSWER = "
    file = write(tmp_path, workers=workers, deadline=3600.0, **{"ANSWER = ": hangs})
    with running(file) as program:
        program.logged("starts\n")
        status, log = await asyncio.to_thread(program.finish)
    assert status == 0
    assert "listening" not in log
    assert "Traceback" not in log


async def test_a_plain_callback_may_wait_for_a_thread_that_waits_for_the_event_loop():
    server, loop, told = endwell.Server(), asyncio.get_running_loop(), []

    def join(name):
        async def tell():
            told.append(name)

        thread = threading.Thread(
            target=lambda: asyncio.run_coroutine_threadsafe(tell(), loop).result(BOUND), daemon=True
        )
        thread.start()
        thread.join()

    server.on_start(partial(join, "start"))
    server.on_drain(lambda drain: join("drain"))
    server.on_stop(partial(join, "stop"))
    async with server.serving(grace=3 * PROMPT):
        pass
    assert told == ["start", "drain", "stop"]


async def test_on_drain_and_on_stop_may_join_a_thread_that_broadcasts():
    server = endwell.Server()
    stopping, reports = threading.Event(), []

    def tick():
        while not stopping.is_set():
            reports.append(server.broadcast(server.connections, "tick").sent)

    threads = [threading.Thread(target=tick, daemon=True) for _ in range(2)]

    @server.on_start
    def begin():
        for thread in threads:
            thread.start()

    @server.on_drain
    def end_one(drain):
        reports.append(server.broadcast(server.connections, "drain").sent)
        stopping.set()
        threads[0].join()

    @server.on_stop
    def end_other():
        threads[1].join()

    @server.websocket("/")
    async def handler(ws):
        async for _ in ws:
            pass

    async with server.serving(grace=BOUND), connected(server) as ws:
        assert await within(ws.recv()) == "tick"
        report = await within(server.drain(deadline=BOUND))
    assert not any(thread.is_alive() for thread in threads)
    assert report.duration < PROMPT
    assert 1 in reports


@pytest.mark.parametrize("exc", [RuntimeError("no database"), SystemExit("no database")])
async def test_a_plain_callback_that_fails_to_start_ends_the_start_with_its_exception(exc):
    server = endwell.Server()

    @server.on_start
    def fails():
        raise exc

    with pytest.raises(type(exc), match="no database"):
        async with server.serving():
            pytest.fail("served all the same")


async def test_handlers_see_the_context_variables_that_a_plain_callback_sets():
    server = endwell.Server()
    threads = []

    @server.on_start
    def begin():
        WHO.set("a pool")
        threads.append(threading.current_thread())

    @server.websocket("/")
    async def handler(ws):
        await ws.send(WHO.get())

    async with server.serving(), connected(server) as ws:
        assert await within(ws.recv()) == "a pool"
    assert threads != [threading.current_thread()]


async def test_a_plain_on_stop_that_hangs_is_abandoned_and_the_next_one_runs(caplog):
    server, told, release = endwell.Server(), [], threading.Event()
    server.on_stop(lambda: told.append("last"))
    server.on_stop(lambda: release.wait(6 * PROMPT))
    began = time.monotonic()
    async with server.serving(grace=0):
        pass
    assert time.monotonic() - began < PROMPT
    release.set()
    await until(lambda: told)
    assert "still runs after 0.5 s: its thread is abandoned" in caplog.text


async def test_a_plain_on_stop_runs_although_the_system_gives_no_thread_at_the_end(monkeypatch):
    server, told = endwell.Server(), []
    server.on_stop(lambda: told.append("stopped"))

    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    async with server.serving():
        monkeypatch.setattr("threading.Thread.start", refuse)
    assert told == ["stopped"]

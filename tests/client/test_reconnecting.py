"""The client that comes back, over real sockets: what only the asyncio one has. The rest: ``tests/contract``."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest

import endwell
from endwell import Advice, Cause, Close, HandshakeRejected, Retry, RetryPolicy, Stop
from endwell.client import connect as connecting
from endwell.client.connect import ConnectKeywords
from tests.pair import nothing_left_behind, within
from tests.raw import RawServer
from tests.served import QUICK, SLOW, Served, refusal, serving


async def loop(client):
    async for ws in client:
        async for _ in ws:
            pass


# --- coming back ------------------------------------------------------------------


@pytest.mark.parametrize("turn", [Close(1000), Close(1012), "abort"], ids=str)
@pytest.mark.parametrize("version", ["hixie-76", "hixie-75"])
async def test_without_codes_it_comes_back_whatever_it_was_and_one_more_refusal_too(version, turn):
    async with serving(turn, refusal(503)) as served:
        answers, told = [], []
        async for ws in endwell.reconnecting(
            served.url, policy=QUICK, version=version, on_ending=lambda last, verdict: told.append(last)
        ):
            with contextlib.suppress(endwell.ConnectionClosed):
                await ws.send("hello")
                answers.append(await ws.recv())
                break
        assert answers == ["hello"]
        assert (len(served.times), len(told)) == (3, 2)
        assert isinstance(told[1], HandshakeRejected)


async def test_it_comes_back_within_the_second_that_a_server_advises_whose_connections_have_a_lifetime():
    served = Served(max_lifetime=0.1)
    async with nothing_left_behind(), served.server.serving():
        began = time.monotonic()
        async for ws in endwell.reconnecting(served.url, policy=SLOW):
            ending = await within(ws.closed)
            if len(served.opened) == 2:
                break
        assert time.monotonic() - began < 0.1 + 1.0 + 0.1 + 0.5
    assert (ending.received.code, ending.ok) == (1012, True)


async def test_a_server_that_is_not_there_yet_is_waited_for():
    with RawServer() as listening:
        url = listening.uri
    port = int(url.rpartition(":")[2].strip("/"))
    failures = []

    async def client():
        async for ws in endwell.reconnecting(
            url, policy=QUICK, on_ending=lambda last, verdict: failures.append(last)
        ):
            await ws.close()

    task = asyncio.create_task(client())
    while not failures:
        await asyncio.sleep(0.01)
    async with Served().server.serving(port=port):
        await within(task)
    assert isinstance(failures[0].__cause__, ConnectionRefusedError)
    assert failures[-1].cause is Cause.APP_CLOSED


# --- not coming back --------------------------------------------------------------


async def test_after_the_end_there_is_nothing_more():
    async with serving(Close(1008)) as served:
        turns = aiter(endwell.reconnecting(served.url, policy=QUICK))
        ws = await anext(turns)
        await ws.closed
        with pytest.raises(endwell.ConnectionClosed):
            await anext(turns)
        with pytest.raises(StopAsyncIteration):
            await anext(turns)


# --- when ---------------------------------------------------------------------------


async def crowd(served, size, policy, end):
    """``size`` clients, cut at once by ``end()``; the seconds from then to the return of each, and
    what each chose to wait, in which no stall of the machine is.
    """
    done, waits = asyncio.Event(), []

    async def client():
        async for ws in endwell.reconnecting(
            served.url, policy=policy, compression=None, on_ending=lambda last, verdict: waits.append(verdict)
        ):
            if len(served.opened) <= size:
                await ws.closed
            else:
                await done.wait()
                break

    async with asyncio.TaskGroup() as group:
        for _ in range(size):
            group.create_task(client())
        while len(served.opened) < size:
            await asyncio.sleep(0.01)
        cut = time.monotonic()
        await end(served.opened[:size])
        while len(served.opened) < 2 * size:
            await asyncio.sleep(0.01)
        done.set()
    return [moment - cut for moment in served.times[size:]], waits[:size]


def spread(times, first, last):
    """Whether a quarter of them comes in each quarter of the window, more or less: neither chance
    nor a machine that stands still for a moment moves a quartile by a fifth of it.
    """
    width = last - first
    wanted = [first + width * part / 4 for part in (1, 2, 3)]
    return all(
        abs(found - at) < width / 5
        for found, at in zip(statistics.quantiles(times, n=4), wanted, strict=True)
    )


async def test_200_clients_cut_at_once_come_back_spread():
    async def cut(connections):
        for ws in connections:
            ws.abort()

    async with serving(*["idle"] * 400) as served:
        times, waits = await crowd(served, 200, RetryPolicy(base=2.0), cut)
    assert max(times) < 3
    assert spread(times, 0, 2)
    # 20 are to be expected in each of the 10 parts.
    assert max(Counter(int(wait / 0.2) for wait in waits).values()) <= 45
    assert len(waits) == 200


async def test_200_clients_with_advice_come_back_within_its_window():
    reason = Advice(1, 2).reason("server restarting")

    async def close(connections):
        await asyncio.gather(*[ws.close(1012, reason) for ws in connections])

    async with serving(*["idle"] * 400) as served:
        # The policy's own window would be over before.
        times, waits = await crowd(served, 200, QUICK, close)
    assert min(times) >= 1.0
    assert max(times) < 2.9
    assert spread(times, 1, 2)
    assert max(Counter(int((wait - 1) / 0.1) for wait in waits).values()) <= 45
    assert len(waits) == 200


# --- stopping from outside ------------------------------------------------------------


@pytest.mark.parametrize("when", ["waiting", "connecting", "open"])
async def test_its_task_is_cancelled_at_once(when):
    async with contextlib.AsyncExitStack() as stack:
        reached = asyncio.Event()
        if when == "connecting":
            listening = stack.enter_context(RawServer())  # takes the connection and never answers
            url = listening.uri
        else:
            served = await stack.enter_async_context(serving(*[refusal(503)] * (when == "waiting")))
            url = served.url
        client = endwell.reconnecting(url, policy=SLOW, on_ending=lambda last, verdict: reached.set())
        task = asyncio.create_task(loop(client))
        if when == "connecting":
            stack.enter_context(await listening.reached())
        elif when == "waiting":
            await within(reached.wait())
        else:
            while not served.opened:
                await asyncio.sleep(0.01)
        began = time.monotonic()
        task.cancel()
        await asyncio.wait({task})
        assert time.monotonic() - began < 0.5
        assert task.cancelled()
        if when == "open":
            ending = await within(served.opened[0].closed)
            assert ending.received == Close(1001)
            assert ending.clean


async def test_stopped_in_the_very_turn_in_which_it_opened_it_closes_again(monkeypatch):
    dial = connecting.dial

    async def dial_and_stop(*arguments):
        ws = await dial(*arguments)
        client.stop()
        return ws

    monkeypatch.setattr(connecting, "dial", dial_and_stop)
    async with serving() as served:
        client = endwell.reconnecting(served.url)
        assert [ws async for ws in client] == []
        assert (await within(served.opened[0].closed)).received == Close(1000)


async def test_stopped_it_stays_stopped_whatever_the_policy_says_of_the_ending():
    told, policy = [], RetryPolicy(codes={1000: Retry.NOW})
    async with serving() as served:
        client = endwell.reconnecting(served.url, policy=policy, on_ending=lambda *what: told.append(what))
        async for _ in client:
            await client.aclose()
    ((ending, verdict),) = told
    assert policy.retry(ending) is Retry.NOW
    assert verdict is Stop.STOPPED


async def test_aclose_waits_for_the_end():
    async with serving() as served:
        client = endwell.reconnecting(served.url)
        ws = await anext(turns := aiter(client))
        await client.aclose()
        assert ws.ending.clean
        with pytest.raises(StopAsyncIteration):
            await anext(turns)


@pytest.mark.parametrize("way", ["break", "return", "raise", "cancel"])
async def test_however_the_loop_is_left_the_close_leaves_with_it(way):
    async with serving() as served:
        opened, ready = [], asyncio.Event()

        async def body():
            async for ws in endwell.reconnecting(served.url):
                opened.append(ws)
                if way == "break":
                    break
                if way == "return":
                    return
                if way == "raise":
                    raise KeyError
                ready.set()
                await asyncio.sleep(60)
            # Nothing has been awaited since, and the Close is on its way.
            assert not ws.is_open

        task = asyncio.create_task(body())
        if way == "cancel":
            await within(ready.wait())
            task.cancel()
        with contextlib.suppress(KeyError, asyncio.CancelledError):
            await task
        assert not opened[0].is_open
        ending = await within(served.opened[0].closed)
        assert ending.received == Close(1001 if way == "cancel" else 1000)
        assert ending.clean
        assert (await opened[0].closed).cause is (Cause.CANCELLED if way == "cancel" else Cause.APP_CLOSED)


PROGRAM = """
import asyncio, sys, endwell

async def main():
    async for ws in endwell.reconnecting(sys.argv[1]):
        await ws.send("bye")
        break

asyncio.run(main())
"""


async def test_a_program_that_ends_with_the_loop_has_said_its_close():
    async with serving() as served:
        program = [sys.executable, "-c", PROGRAM, served.url]
        process = await asyncio.to_thread(
            subprocess.run, program, stderr=subprocess.PIPE, timeout=20, check=False
        )
        assert (process.returncode, process.stderr) == (0, b"")
        assert (await within(served.opened[0].closed)).received == Close(1000)


async def test_an_iterator_dropped_by_another_thread_closes_too():
    async with serving() as served:
        holder = [aiter(endwell.reconnecting(served.url))]
        ws = await anext(holder[0])
        thread = threading.Thread(target=holder.clear)
        thread.start()
        thread.join()
        assert (await within(ws.closed)).sent == Close(1000)


def test_an_iterator_dropped_after_its_event_loop_is_no_fault(capsys):
    turns = None

    async def begin():
        nonlocal turns
        turns = aiter(endwell.reconnecting("ws://127.0.0.1:1/", policy=SLOW))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(turns)

    asyncio.run(begin())
    del turns
    gc.collect()
    assert capsys.readouterr().err == ""


async def test_a_wait_that_is_given_up_can_be_taken_up_again():
    async with serving(refusal(503, Retry_After="1")) as served:
        turns = aiter(endwell.reconnecting(served.url, policy=QUICK))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(turns), 0.2)
        await anext(turns)
        assert 1.0 <= served.times[1] - served.times[0] < 1.5


# --- what it tells ----------------------------------------------------------------------


def test_the_keywords_that_are_passed_on_are_those_of_connect():
    names = set(inspect.signature(endwell.connect).parameters) - {"uri", "keywords"}
    assert set(ConnectKeywords.__annotations__) - set(endwell.options.OptionKeywords.__annotations__) == names

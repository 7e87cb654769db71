"""The asyncio reconnecting client over real sockets: what is specific to it.

The rest is in ``tests/contract``.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import random
import subprocess
import sys
import threading
import types
from collections import Counter
from dataclasses import replace

import pytest

import endwell
from endwell import Cause, Close, HandshakeRejected, Retry, RetryAdvice, RetryPolicy, StopReason
from endwell.aio.syscalls import monotonic
from endwell.client import connect as connecting
from endwell.client import reconnecting
from endwell.client.connect import ConnectKeywords
from tests.cli.process import PATIENCE
from tests.pair import nothing_left_behind, within
from tests.ports import free_port
from tests.raw import HOST, PROMPT, RawServer
from tests.served import QUICK, SLOW, ScriptedServer, due, refusal, serving

CLOSED = endwell.Ending(cause=Cause.PEER_CLOSED, initiator=Cause.PEER_CLOSED.initiator, clean=True)


async def loop(client):
    async for ws in client:
        async for _ in ws:
            pass


# --- reconnecting -----------------------------------------------------------------


@pytest.mark.parametrize("turn", [Close(1000), Close(1012), "abort"], ids=str)
@pytest.mark.parametrize("version", ["hixie-76", "hixie-75"])
async def test_without_codes_the_client_reconnects_after_any_ending(version, turn):
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
        assert (len(served.request_times), len(told)) == (3, 2)
        assert isinstance(told[1], HandshakeRejected)


@pytest.mark.virtual_clock
async def test_the_client_reconnects_as_advised_after_max_lifetime(
    monkeypatch,
):
    # Without advice, this jitter would cause a wait of 60 s.
    monkeypatch.setattr(random, "random", lambda: 0.999)
    served, waits = ScriptedServer(max_lifetime=0.1), []
    async with nothing_left_behind(), served.server.serving():
        async for ws in endwell.reconnecting(
            served.url, policy=SLOW, on_ending=lambda last, verdict: waits.append(verdict)
        ):
            ending = await within(ws.closed)
            if len(served.opened) == 2:
                break
    assert waits[0] == pytest.approx(0.999)
    assert (ending.received.code, ending.ok) == (1012, True)


async def test_the_client_waits_for_a_server_that_starts_later():
    failures, port = [], free_port()

    async def client():
        url = f"ws://{HOST}:{port}/"
        async for ws in endwell.reconnecting(
            url, policy=QUICK, on_ending=lambda last, verdict: failures.append(last)
        ):
            await ws.close()

    task = asyncio.create_task(client())
    while not failures:
        await asyncio.sleep(0.01)
    async with ScriptedServer().server.serving(port=port):
        await within(task)
    assert isinstance(failures[0].__cause__, ConnectionRefusedError)
    assert failures[-1].cause is Cause.APP_CLOSED


# --- not reconnecting -------------------------------------------------------------


async def test_an_ended_loop_stays_ended():
    async with serving(Close(1008)) as served:
        turns = aiter(endwell.reconnecting(served.url, policy=QUICK))
        ws = await anext(turns)
        await ws.closed
        with pytest.raises(endwell.ConnectionClosed):
            await anext(turns)
        with pytest.raises(StopAsyncIteration):
            await anext(turns)


# --- when ---------------------------------------------------------------------------


async def crowd(monkeypatch, policy, end):
    """The delays that 200 clients choose after ``end()`` ends them all, with evenly spread jitter.

    Each client reconnects, not before its delay.
    """
    size = 200
    dice = [number / size for number in range(size)]
    random.Random(1).shuffle(dice)
    async with serving(*["idle"] * 2 * size) as served:
        done, waits, early = asyncio.Event(), [], []

        async def visit():
            def tell(last, wait):
                waits.append(wait)
                chosen.append((due(client), wait))

            chosen = []
            client = endwell.reconnecting(served.url, policy=policy, compression=None, on_ending=tell)
            async for ws in client:
                if not chosen:
                    await ws.closed
                else:
                    moment, wait = chosen[0]
                    early.append(moment < began + wait or monotonic() < moment)
                    await done.wait()
                    break

        async with asyncio.TaskGroup() as group:
            for _ in range(size):
                group.create_task(visit())
            while len(served.opened) < size:
                await asyncio.sleep(0.01)
            monkeypatch.setattr(random, "random", lambda: dice.pop() if dice else 0.0)
            began = monotonic()
            await end(served.opened[:size])
            while len(early) < size:
                await asyncio.sleep(0.01)
            done.set()
    assert not any(early)
    return sorted(waits[:size])


@pytest.mark.virtual_clock
async def test_200_clients_aborted_at_once_reconnect_spread_out(monkeypatch):
    async def cut(connections):
        for ws in connections:
            ws.abort()

    waits = await crowd(monkeypatch, RetryPolicy(base=1.0), cut)
    assert waits == pytest.approx([number / 200 for number in range(200)])


@pytest.mark.virtual_clock
async def test_200_clients_with_advice_reconnect_within_its_window(monkeypatch):
    reason = RetryAdvice(1, 2).reason("server restarting")

    async def close(connections):
        await asyncio.gather(*[ws.close(1012, reason) for ws in connections])

    # The window of the policy itself would be over before.
    waits = await crowd(monkeypatch, QUICK, close)
    assert waits == pytest.approx([1 + number / 200 for number in range(200)])


def test_the_default_jitter_is_uniform():
    """Each tenth of the window contains 100 of 1000 delays, plus or minus 75.

    Probability of a false alarm: the count in one tenth has variance 90, so by Bernstein's inequality it is
    off by
    75 with a probability of at most 2 exp(-75**2 / (2 * (90 + 75 / 3))) < 5e-11; for ten of them, 5e-10.
    """
    waits = []
    ending = replace(CLOSED, received=Close(1012), sent=Close(1012))
    for _ in range(1000):
        client = endwell.reconnecting("ws://127.0.0.1:1/", on_ending=lambda last, wait: waits.append(wait))
        client._connecting._ended(ending)
    counts = Counter(int(wait / 0.5) for wait in waits)
    assert set(counts) == set(range(10))
    assert 25 <= min(counts.values()) <= max(counts.values()) <= 175


# --- stopping from outside ------------------------------------------------------------


@pytest.mark.parametrize("when", ["waiting", "credentials", "connecting", "open"])
async def test_cancelling_the_task_ends_the_loop_at_once(when):
    async with contextlib.AsyncExitStack() as stack:
        reached = asyncio.Event()
        if when == "connecting":
            listening = stack.enter_context(RawServer())  # accepts the connection and never answers
            url = listening.uri
        elif when == "credentials":

            async def url():
                reached.set()
                await asyncio.Event().wait()
        else:
            served = await stack.enter_async_context(serving(*[refusal(503)] * (when == "waiting")))
            url = served.url
        client = endwell.reconnecting(
            url,
            policy=SLOW,
            on_ending=lambda last, verdict: reached.set(),
            open_timeout=3 * PROMPT,
            close_timeout=3 * PROMPT,
        )
        task = asyncio.create_task(loop(client))
        if when == "connecting":
            stack.enter_context(await listening.accept_tcp())
        elif when in ("waiting", "credentials"):
            await within(reached.wait())
        else:
            while not served.opened:
                await asyncio.sleep(0.01)
        task.cancel()
        # What it waits for lasts three times as long: open_timeout, close_timeout; the wait of SLOW is 60
        # s.
        await asyncio.wait({task}, timeout=PROMPT)
        assert task.cancelled()
        if when == "open":
            ending = await within(served.opened[0].closed)
            assert ending.received == Close(1001)
            assert ending.clean


async def test_stop_in_the_iteration_of_the_opening_closes_the_connection(monkeypatch):
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


async def test_a_stopped_client_does_not_reconnect_by_policy():
    told, policy = [], RetryPolicy(codes={1000: Retry.NOW})
    async with serving() as served:
        client = endwell.reconnecting(served.url, policy=policy, on_ending=lambda *what: told.append(what))
        async for _ in client:
            await client.aclose()
    ((ending, verdict),) = told
    assert policy.retry(ending) is Retry.NOW
    assert verdict is StopReason.STOPPED


async def test_aclose_waits_for_the_end():
    async with serving() as served:
        client = endwell.reconnecting(served.url)
        ws = await anext(turns := aiter(client))
        await client.aclose()
        assert ws.ending.clean
        with pytest.raises(StopAsyncIteration):
            await anext(turns)


@pytest.mark.parametrize("way", ["break", "return", "raise", "cancel"])
async def test_leaving_the_loop_in_any_way_sends_the_close(way):
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
            # The test has not awaited since, and the Close was sent.
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


async def test_a_program_that_ends_after_the_loop_has_sent_its_close():
    async with serving() as served:
        program = [sys.executable, "-c", PROGRAM, served.url]
        process = await asyncio.to_thread(
            subprocess.run, program, stderr=subprocess.PIPE, timeout=PATIENCE, check=False
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


def test_an_iterator_dropped_after_its_event_loop_is_no_error(capsys):
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


async def test_a_cancelled_wait_can_be_continued(monkeypatch):
    """It continues the wait and does not restart it, by a fake clock."""
    clock, asked, sleep = types.SimpleNamespace(now=100.0), [], asyncio.sleep

    async def wait(seconds):
        asked.append(seconds)
        if len(asked) == 2:
            await asyncio.Event().wait()
        await sleep(0)

    async with serving(refusal(503, Retry_After="7")) as served:
        with monkeypatch.context() as patch:
            patch.setattr(reconnecting, "monotonic", lambda: clock.now)
            patch.setattr(random, "random", lambda: 0.0)
            patch.setattr(asyncio, "sleep", wait)
            turns = aiter(endwell.reconnecting(served.url, policy=QUICK))
            first = asyncio.ensure_future(anext(turns))
            while len(asked) < 2:
                await sleep(0.001)
            first.cancel()
            await asyncio.wait({first})
            clock.now += 3.0
            await anext(turns)
        assert asked == [0.0, 7.0, 4.0]
        del turns


# --- reports --------------------------------------------------------------------------------


def test_reconnecting_has_the_keywords_of_connect():
    names = set(inspect.signature(endwell.connect).parameters) - {"uri", "keywords"}
    assert set(ConnectKeywords.__annotations__) - set(endwell.options.OptionKeywords.__annotations__) == names

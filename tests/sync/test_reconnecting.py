"""The blocking reconnecting client: what is specific to it. The rest is in ``tests/contract``."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import time

import pytest

import endwell
from endwell import Close
from endwell.sync import reconnecting
from endwell.sync.background import background
from tests.cli.process import PATIENCE
from tests.pair import until, within
from tests.raw import BOUND, PROMPT
from tests.served import QUICK, SLOW, refusal, serving


@pytest.fixture(autouse=True)
def there() -> None:
    """The shared loop stays once it is started: no test leaves it behind."""
    background()


#: Gets the URL, and the body of the loop.
PROGRAM = """
import signal, sys, time, endwell
from endwell.sync import reconnecting

client = reconnecting(sys.argv[1], policy=endwell.RetryPolicy(base=60),
                      on_ending=lambda *what: (time.sleep(0.1), print("told", flush=True)))
signal.signal(signal.SIGTERM, lambda *_: client.stop())
try:
    for ws in client:
        %s
except KeyboardInterrupt:
    print("interrupted", flush=True)
print("after the loop", flush=True)
"""


def program(url, body):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM % body, url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def finished(process):
    out, err = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
    return process.returncode, out.splitlines(), err


async def test_leaving_the_loop_at_exit_sends_the_close_and_runs_callbacks():
    async with serving() as served:
        process = program(served.url, "break")
        assert await finished(process) == (0, ["after the loop", "told"], "")
        assert (await within(served.opened[0].closed)).received == Close(1000)


@pytest.mark.parametrize("when", ["waiting", "open"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_loop_at_once(when, number):
    async with serving(*[refusal(503)] * (when == "waiting")) as served:
        process = program(served.url, "print('open', flush=True); list(ws)")
        first = await asyncio.to_thread(process.stdout.readline)
        assert first == ("told\n" if when == "waiting" else "open\n")
        await asyncio.sleep(0.1)  # so that it waits for the next event
        began = time.monotonic()
        process.send_signal(number)
        status, out, err = await finished(process)
        assert time.monotonic() - began < PROMPT
        assert status == 0
        # A client that was never connected logs so once.
        assert [line.partition("; ")[0] for line in err.splitlines()] == [
            f"{served.url}: server refused with HTTP 503 Service Unavailable"
        ] * (when == "waiting")
        told = ["interrupted"] * (number == signal.SIGINT) + ["after the loop"] + ["told"] * (when == "open")
        assert sorted(out) == sorted(told)
        if when == "open":
            assert (await within(served.opened[0].closed)).received == Close(1000)


async def test_blocking_callbacks_delay_no_other_client():
    hang = threading.Event()
    async with serving(Close(1012)) as served:

        def slow():
            for _ in reconnecting(served.url, policy=QUICK, on_attempt=lambda number: hang.wait(3 * PROMPT)):
                break

        thread = threading.Thread(target=slow)
        thread.start()
        ws = await asyncio.to_thread(endwell.sync.connect, served.url)
        assert (await asyncio.to_thread(ws.wait_closed)).code == 1012
        assert len(served.request_times) == 1  # the other one has not been released
        hang.set()
        await asyncio.to_thread(thread.join)
        assert len(served.request_times) == 2


async def test_a_callback_that_calls_sys_exit_does_not_stop_the_later_ones(caplog):
    called = []

    def callback(*_):
        called.append(client.state.phase)
        sys.exit("the application wants to exit")

    async with serving(Close(1000)) as served:
        client = reconnecting(
            served.url, on_attempt=callback, on_state=callback, on_ending=callback, policy=QUICK
        )
        loop = asyncio.create_task(asyncio.to_thread(list, client))
        try:
            await within(asyncio.shield(loop))
        finally:
            client.stop()
        # on_state for CONNECTING, OPEN and STOPPED, on_attempt and on_ending.
        await until(lambda: len(called) == 5)
    assert caplog.text.count("the application wants to exit") >= 5


async def test_a_client_that_hangs_in_a_callback_stops_at_once():
    hang = threading.Event()
    async with serving() as served:
        entered = threading.Event()

        def attempt(number):
            entered.set()
            hang.wait(3 * PROMPT)

        client = reconnecting(served.url, on_attempt=attempt)
        thread = threading.Thread(target=list, args=(client,))
        thread.start()
        await until(entered.is_set)
        client.stop()
        await asyncio.to_thread(thread.join, PROMPT)
        assert not thread.is_alive()
        hang.set()
        assert served.request_times == []


async def test_a_garbage_collected_loop_is_left():
    async with serving() as served:

        def forget():
            turns = iter(reconnecting(served.url))
            next(turns)
            circle = [turns]
            circle.append(circle)

        await asyncio.to_thread(forget)
        gc.collect()
        assert (await within(served.opened[0].closed)).received == Close(1000)


async def test_other_threads_can_use_the_connection_of_a_loop():
    async with serving() as served:

        def run():
            for ws in reconnecting(served.url, policy=SLOW):
                threads = [threading.Thread(target=ws.send, args=(str(n),)) for n in range(5)]
                for thread in threads:
                    thread.start()
                return sorted(ws.recv(timeout=BOUND) for _ in threads)
            return None

        assert await asyncio.to_thread(run) == list("01234")

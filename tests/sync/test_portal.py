"""The portal between threads and the loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from functools import partial

import pytest

import endwell
from endwell import ConcurrencyError, sync
from endwell.sync.portal import MAX_POSTED_PER_TURN, Portal
from tests.pair import until
from tests.raw import BOUND
from tests.sync.background import Background, served
from tests.sync.background import until as until_true


class _Restless:
    """Posts another call whenever one is processed, like a thread that never stops sending."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        self.processed = 0
        self.over = False

    def process_posted(self) -> None:
        self.processed += 1
        if not self.over:
            self.portal.post(self)


async def test_a_thread_that_always_posts_does_not_starve_the_loop():
    portal = Portal.of(asyncio.get_running_loop())
    restless = _Restless(portal)
    portal.post(restless)
    for turn in range(1, 10):
        await asyncio.sleep(0)
        assert restless.processed <= MAX_POSTED_PER_TURN * (turn + 1)
    assert restless.processed >= MAX_POSTED_PER_TURN * 4
    restless.over = True
    await asyncio.sleep(0.01)
    processed = restless.processed
    await asyncio.sleep(0.01)
    assert restless.processed == processed


class _Counted:
    """Counts how often it was processed."""

    def __init__(self) -> None:
        self.processed = 0

    def process_posted(self) -> None:
        self.processed += 1


async def test_posts_beyond_one_iteration_are_processed_in_later_ones():
    portal = Portal.of(asyncio.get_running_loop())
    bridges = [_Counted() for _ in range(3 * MAX_POSTED_PER_TURN + 1)]
    thread = threading.Thread(target=lambda: [portal.post(bridge) for bridge in bridges])
    thread.start()
    thread.join()  # the loop is busy meanwhile
    await until(lambda: all(bridge.processed for bridge in bridges))
    assert all(bridge.processed == 1 for bridge in bridges)


async def test_a_failing_post_does_not_block_later_posts():
    class Broken:
        def process_posted(self) -> None:
            raise RuntimeError("broken")

    loop = asyncio.get_running_loop()
    failures = []
    loop.set_exception_handler(lambda _, context: failures.append(str(context["exception"])))
    portal = Portal.of(loop)
    before, behind, later = Broken(), _Counted(), _Counted()
    portal.post(before)
    portal.post(behind)
    await until(lambda: behind.processed)
    portal.post(before)
    await until(lambda: len(failures) == 2)
    portal.post(later)
    await until(lambda: later.processed)
    assert failures == ["broken", "broken"]


class _Loop:
    """Holds its callbacks until the test runs them."""

    def __init__(self) -> None:
        self.callbacks = deque()

    def call_soon(self, callback, *args) -> None:
        self.callbacks.append((callback, args))

    call_soon_threadsafe = call_soon


def test_many_posting_threads_schedule_at_most_one_callback():
    loop = _Loop()
    portal = Portal(loop)
    bridges = [_Counted() for _ in range(4)]
    posts = 5 * MAX_POSTED_PER_TURN

    def post_repeatedly(bridge):
        for _ in range(posts):
            portal.post(bridge)

    threads = [threading.Thread(target=post_repeatedly, args=(bridge,)) for bridge in bridges]
    for thread in threads:
        thread.start()
    most = 0
    while loop.callbacks or any(thread.is_alive() for thread in threads):
        most = max(most, len(loop.callbacks))
        if loop.callbacks:
            callback, args = loop.callbacks.popleft()
            callback(*args)
    assert [bridge.processed for bridge in bridges] == [posts] * 4
    assert most == 1


def block_loop(call, loop):
    """Have ``loop`` wait for a thread that makes ``call``, and return what the call raised."""
    raised = []

    def wait():
        thread = Background(call)
        try:
            thread.result(2 * BOUND)
        except Exception as exc:
            raised.append(exc)

    Background(lambda: asyncio.run_coroutine_threadsafe(_call(wait), loop).result(3 * BOUND)).result(
        3 * BOUND
    )
    return raised[0]


async def _call(function):
    function()


CALLS = {
    "broadcast": lambda server, ws: server.broadcast(server.connections, "x"),
    "close": lambda server, ws: ws.close(),
    "connect": lambda server, ws: sync.connect(f"ws://127.0.0.1:{server.port}/echo"),
    "ping": lambda server, ws: ws.ping(),
    "send": lambda server, ws: [ws.send(bytes(1000)) for _ in range(1000)],
    "serving": lambda server, ws: sync.serving(endwell.Server()).__enter__(),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_raises_if_the_event_loop_waits_for_its_thread(call, monkeypatch):
    with served() as (server, address), sync.connect(address + "/hold") as ws:
        with monkeypatch.context() as patch:
            for module in ("portal", "bridge"):
                patch.setattr(f"endwell.sync.{module}.MAX_LOOP_WAIT", 0.2)
            raised = block_loop(partial(CALLS[call], server, ws), ws._bridge.portal.loop)
        assert isinstance(raised, ConcurrencyError)
        assert "the event loop has not begun this call within" in str(raised)
        # The loop goes on, without the calls that have raised.
        if call == "send":
            ws.abort()
        elif call != "close":
            assert ws.ping() > 0
            assert len(server.connections) == 1


def test_a_call_that_the_closing_loop_drops_raises():
    """A thread has called it after the last turn of the loop, and before the loop was closed."""
    loop = asyncio.new_event_loop()
    portal = Portal(loop)
    call = Background(portal.run, asyncio.sleep, 0)
    until_true(lambda: loop._ready)
    loop.close()
    with pytest.raises(ConcurrencyError, match="its event loop has ended"):
        call.result()

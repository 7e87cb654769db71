"""Blocking calls in handlers, hooks and callbacks of the same event loop: they work, or they raise."""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import Queue
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

import endwell
from endwell import ConcurrencyError, sync
from tests.sync.background import BOUND, Background, served

#: They run in a thread, so blocking calls work.
IN_A_THREAD = (
    "handler",
    "page",
    "hook",
    "on_start",
    "on_drain",
    "on_stop",
    "on_close of the server",
    "on_close of a connection",
    "on_close of a client",
    "joined",
    "on_attempt",
    "on_ending",
)
#: They run in the event loop, which a blocking call would block.
IN_THE_LOOP = (
    "async handler",
    "async page",
    "async hook",
    "async on_close",
    "on_refused",
    "origins",
    "decide",
)


def serve(server, place, call):
    """Have ``call`` made at ``place`` of the server or of a client of it; returns what a client does."""

    @server.websocket("/plain")
    def plain(ws):
        if place == "on_close of a connection":
            ws.on_close(call)
        elif place == "joined":
            server.sessions.join("key", ws)
        elif place == "handler":
            call()

    @server.websocket("/async")
    async def asynchronous(ws):
        if place == "async on_close":
            ws.on_close(call)
        elif place == "async handler":
            call()

    @server.get("/page")
    def page(request):
        if place == "page":
            call()

    @server.get("/async-page")
    async def async_page(request):
        if place == "async page":
            call()

    async def async_hook(request):
        call()

    register = {
        "hook": server.process_request,
        "on_start": server.on_start,
        "on_drain": server.on_drain,
        "on_stop": server.on_stop,
        "on_close of the server": server.on_close,
        "on_refused": server.on_refused,
        "joined": server.sessions.joined,
    }
    if place == "async hook":
        server.process_request(async_hook)
    elif place in register:
        register[place](call)


def visit(url, place, call):
    if place.endswith("page"):
        with (
            suppress(HTTPError),
            urlopen(f"{url.replace('ws', 'http', 1)}/{place.replace(' ', '-')}", timeout=BOUND),
        ):
            return
    path = "/missing" if place == "on_refused" else "/async" if place.startswith("async") else "/plain"
    if place in ("on_attempt", "on_ending", "decide"):
        policy = endwell.RetryPolicy()
        if place == "decide":

            class Policy(endwell.RetryPolicy):
                def decide(self, *args):
                    call()
                    return super().decide(*args)

            policy = Policy()
        with suppress(ConcurrencyError):
            for ws in sync.reconnecting(
                url + path, policy=policy, **{place: call} if place != "decide" else {}
            ):
                ws.read()
        return
    origin = {"Origin": "http://a"}
    with suppress(endwell.HandshakeError), sync.connect(url + path, additional_headers=origin) as ws:
        if place == "on_close of a client":
            ws.on_close(call)
        ws.read()


@pytest.mark.parametrize("place", IN_A_THREAD + IN_THE_LOOP)
def test_a_blocking_call_works_in_a_thread_and_raises_in_the_event_loop(place):
    results = Queue()
    with served() as (other, address):

        def call(*_):
            # Once, because the calls cause further calls.
            if called.acquire(blocking=False):
                try:
                    other.broadcast(other.connections, "x")
                    with sync.connect(address + "/echo") as ws:
                        ws.send("hello")
                        results.put(ws.recv())
                except Exception as exc:
                    results.put(exc)
            return True

        called = threading.Lock()
        server = endwell.Server(origins=call if place == "origins" else ["*"])
        serve(server, place, call)
        with sync.serving(server, grace=1):
            Background(visit, f"ws://127.0.0.1:{server.port}", place, call).result()
        result = results.get(timeout=BOUND)
    if place in IN_A_THREAD:
        assert result == "hello"
    else:
        assert isinstance(result, ConcurrencyError)
        assert "would block the event loop" in str(result)


def test_on_close_callbacks_that_occupy_all_threads_may_come_back_with_reconnecting():
    """The callbacks of an attempt need a thread of their own."""
    over = threading.Semaphore(0)
    with served() as (_server, address):

        def come_back(_ending):
            for ws in sync.reconnecting(address + "/echo", on_attempt=lambda _number: None):
                ws.send("hello")
                ws.recv()
                break
            over.release()

        connections = [sync.connect(address + "/echo") for _ in range(sync.portal.CALLBACKS)]
        for ws in connections:
            ws.on_close(come_back)
        for ws in connections:
            ws.abort()
        assert all(over.acquire(timeout=BOUND) for _ in connections)

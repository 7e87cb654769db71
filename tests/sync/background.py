"""Background threads of a test, and a server to talk to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import endwell
from endwell.sync import serving
from tests.raw import BOUND


def until(reached: Callable[[], object]) -> None:
    """Wait for ``reached()``, at most BOUND."""
    deadline = time.monotonic() + BOUND
    while not reached():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.001)


class Background:
    """A function in a thread, and its result."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self._outcome: list[tuple[object, BaseException | None]] = []

        def run() -> None:
            try:
                self._outcome.append((function(*args), None))
            except BaseException as exc:
                self._outcome.append((None, exc))

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def result(self, seconds: float = BOUND) -> object:
        self._thread.join(seconds)
        assert self._outcome, "it does not return"
        value, exc = self._outcome[0]
        if exc is not None:
            raise exc
        return value


@contextmanager
def served(**options: object) -> Iterator[tuple[endwell.Server, str]]:
    """A server with the usual handlers, and its address."""
    server = endwell.Server(**options)
    held: list[endwell.WebSocket] = []
    server.held = held

    @server.websocket("/echo")
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    @server.websocket("/hold")
    async def hold(ws):
        """A handler that neither reads nor writes; a test uses its connection."""
        held.append(ws)
        await ws.closed

    @server.websocket("/flood")
    async def flood(ws):
        """A handler that never reads and never stops sending."""
        while ws.is_open:
            await ws.send(bytes(1000))

    with serving(server, grace=1):
        yield server, f"ws://127.0.0.1:{server.port}"

"""The asyncio and the blocking face of endwell with the same calls, so that one test covers both.

A test is an ``async def`` on its own loop, for both faces: with the blocking one each call runs in a thread
and is awaited. A *script* is an ``async def`` that runs as the handler of the application. With the asyncio
face it is a task. With the blocking face it runs in a thread, where each call blocks in place, so that the
coroutine never suspends.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any, Protocol

import endwell
import endwell.sync

__all__ = ["ASYNCIO", "BLOCKING", "Face", "Script"]

#: A handler: takes the connection and the parameters of the route.
Script = Callable[..., Coroutine[Any, Any, None]]


class Face(Protocol):
    """What differs between the faces; all other calls are the same."""

    def for_test(self, ws: Any) -> Any:
        """The connection of a script, as an object for the test."""

    def engine(self, ws: Any) -> endwell.WebSocket:
        """The asyncio connection below."""

    def for_handler(self, ws: Any) -> Any:
        """The connection of a script, as the object that its handler was given."""

    def handler(self, script: Script) -> Callable[..., object]:
        """``script`` as the handler of a route."""

    async def run(self, script: Script, ws: Any) -> None:
        """Run ``script`` with the connection of the test."""

    async def connect(self, uri: str, **how: Any) -> Any:
        """A client connection for the test."""

    async def run_client(self, script: Script, uri: str, **how: Any) -> None:
        """Run ``script`` inside the ``with`` block of a client connection."""

    def reconnecting(self, url: str, **how: Any) -> Any:
        """A reconnecting client for the test."""

    async def recv(self, ws: Any, seconds: float) -> str | bytes:
        """``ws.recv()``; TimeoutError after ``seconds``."""

    async def pause(self, seconds: float) -> None:
        """Sleep in a script."""

    def function(self, script: Callable[[], Coroutine[Any, Any, Any]]) -> Callable[[], Any]:
        """``script`` as a function that a client asks for its URI or its headers."""

    async def wait(self, event: threading.Event) -> None:
        """Wait for ``event`` in a script or in a function of a client."""


class _Asyncio:
    def for_test(self, ws: endwell.WebSocket) -> endwell.WebSocket:
        return ws

    def engine(self, ws: endwell.WebSocket) -> endwell.WebSocket:
        return ws

    def for_handler(self, ws: endwell.WebSocket) -> endwell.WebSocket:
        return ws

    def handler(self, script: Script) -> Script:
        return script

    async def run(self, script: Script, ws: endwell.WebSocket) -> None:
        await script(ws)

    async def connect(self, uri: str, **how: Any) -> endwell.WebSocket:
        return await endwell.connect(uri, **how)

    async def run_client(self, script: Script, uri: str, **how: Any) -> None:
        async with endwell.connect(uri, **how) as ws:
            await script(ws)

    def reconnecting(self, url: str, **how: Any) -> endwell.reconnecting:
        return endwell.reconnecting(url, **how)

    async def recv(self, ws: endwell.WebSocket, seconds: float) -> str | bytes:
        async with asyncio.timeout(seconds):
            return await ws.recv()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def function(self, script: Callable[[], Coroutine[Any, Any, Any]]) -> Callable[[], Any]:
        return script

    async def wait(self, event: threading.Event) -> None:
        while not event.is_set():
            await asyncio.sleep(0.001)


class _Blocking:
    def for_test(self, ws: _AwaitedWebSocket) -> _AwaitedWebSocket:
        return _AwaitedWebSocket(ws._ws, _in_a_thread)

    def engine(self, ws: _AwaitedWebSocket) -> endwell.WebSocket:
        return ws._ws._ws

    def for_handler(self, ws: _AwaitedWebSocket) -> endwell.sync.WebSocket:
        return ws._ws

    def handler(self, script: Script) -> Callable[..., None]:
        def handle(ws: endwell.sync.WebSocket, **params: str) -> None:
            _finish(script(_AwaitedWebSocket(ws, _in_place), **params))

        return handle

    async def run(self, script: Script, ws: _AwaitedWebSocket) -> None:
        await _in_a_thread(_finish, script(_AwaitedWebSocket(ws._ws, _in_place)))

    async def connect(self, uri: str, **how: Any) -> _AwaitedWebSocket:
        ws = await _in_a_thread(lambda: endwell.sync.connect(uri, **how))
        return _AwaitedWebSocket(ws, _in_a_thread)

    async def run_client(self, script: Script, uri: str, **how: Any) -> None:
        def run() -> None:
            with endwell.sync.connect(uri, **how) as ws:
                _finish(script(_AwaitedWebSocket(ws, _in_place)))

        await _in_a_thread(run)

    def reconnecting(self, url: str, **how: Any) -> _AwaitedReconnecting:
        return _AwaitedReconnecting(endwell.sync.reconnecting(url, **how))

    async def recv(self, ws: _AwaitedWebSocket, seconds: float) -> str | bytes:
        message: str | bytes = await ws._call(ws._ws.recv, seconds)
        return message

    async def pause(self, seconds: float) -> None:
        await _in_place(time.sleep, seconds)

    def function(self, script: Callable[[], Coroutine[Any, Any, Any]]) -> Callable[[], Any]:
        return lambda: _finish(script())

    async def wait(self, event: threading.Event) -> None:
        await _in_place(event.wait)


ASYNCIO: Face = _Asyncio()
BLOCKING: Face = _Blocking()


class _AwaitedWebSocket:
    """A blocking connection whose blocking methods are awaited."""

    def __init__(self, ws: endwell.sync.WebSocket, call: Callable[..., Awaitable[Any]]) -> None:
        self._ws = ws
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ws, name)

    async def recv(self) -> Any:
        return await self._call(self._ws.recv)

    async def read(self) -> Any:
        return await self._call(self._ws.read)

    async def send(self, message: Any) -> None:
        await self._call(self._ws.send, message)

    async def ping(self, payload: bytes | None = None) -> Any:
        return await self._call(self._ws.ping, payload)

    async def close(self, *how: Any) -> Any:
        return await self._call(self._ws.close, *how)

    async def wait_closed(self) -> endwell.Ending:
        ending: endwell.Ending = await self._call(self._ws.wait_closed)
        return ending

    @property
    def closed(self) -> Coroutine[Any, Any, endwell.Ending | None]:
        async def ending() -> endwell.Ending | None:
            await self.wait_closed()
            return self._ws.ending

        return ending()

    def __aiter__(self) -> _AwaitedWebSocket:
        return self

    async def __anext__(self) -> Any:
        end = object()  # a StopIteration cannot leave a coroutine
        message = await self._call(next, iter(self._ws), end)
        if message is end:
            raise StopAsyncIteration
        return message


class _AwaitedReconnecting:
    """A blocking reconnecting client whose methods are awaited."""

    def __init__(self, client: endwell.sync.reconnecting) -> None:
        self._client = client

    @property
    def state(self) -> endwell.ClientState:
        return self._client.state

    def stop(self) -> None:
        self._client.stop()

    async def aclose(self) -> None:
        await _in_a_thread(self._client.close)

    def __aiter__(self) -> _AwaitedIterator:
        return _AwaitedIterator(iter(self._client))


class _AwaitedIterator:
    """The iterator of one loop. Dropping it drops the blocking iterator."""

    def __init__(self, connections: Iterator[endwell.sync.WebSocket]) -> None:
        self._connections = connections

    async def __anext__(self) -> _AwaitedWebSocket:
        ws = await _in_a_thread(next, self._connections, None)
        if ws is None:
            raise StopAsyncIteration
        return _AwaitedWebSocket(ws, _in_a_thread)


def _finish(script: Coroutine[Any, Any, Any]) -> Any:
    """Run a script whose calls block in place, from its start to its end, and return its result."""
    try:
        script.send(None)
    except StopIteration as end:
        return end.value
    script.close()
    raise AssertionError("the script waits for something that is not in the words of both faces")


async def _in_place(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


async def _in_a_thread(function: Callable[..., Any], *args: Any) -> Any:
    """Like ``asyncio.to_thread``, but a call that hangs does not keep the loop from being closed."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Any] = loop.create_future()

    def settle(result: list[Any]) -> None:
        value, set_ = result.pop(), result.pop()
        if not outcome.done():
            set_(value)

    def run() -> None:
        nonlocal function, args
        try:
            result = [outcome.set_result, function(*args)]
        except BaseException as exc:
            result = [outcome.set_exception, exc]
        # The test continues before this thread has ended. Objects that the test releases must not stay
        # referenced here: releasing an iterator ends its loop, and releasing a connection closes it.
        del function, args
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, result)

    threading.Thread(target=run, daemon=True).start()
    return await outcome

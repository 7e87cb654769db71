"""Testing an application without sockets and without waiting, or as a process.

`run()` runs a coroutine on an event loop with a virtual clock. There, `Server.serving()` and
`endwell.connect()` meet in memory, and when nothing can go on, the clock jumps to the next timer. `cut()` loses
the network of a connection. `FaultyBus` connects the rooms of several servers, and fails. `LiveServerProcess`
serves in a process of its own. `replay()` repeats a recorded ending.

The how-to guide "Testing your handlers" shows tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from .aio.memory import MemoryTransport
from .aio.virtual import VirtualLoop
from .aio.websocket import WebSocket
from .ending import Ending
from .live import LiveServerProcess
from .protocol.replay import replay as _replay
from .rooms.faulty import FaultyBus

__all__ = ["FaultyBus", "LiveServerProcess", "VirtualLoop", "cut", "replay", "run"]

T = TypeVar("T")


def run(
    main: Coroutine[Any, Any, T], *, timeout: float | None = 86400.0
) -> T:  # size: most of it is documentation
    """Run a coroutine on an event loop with a virtual clock, and return its result.

    `asyncio.sleep()`, timeouts and all time limits of endwell follow that clock. It stands still while a task
    or a thread of the loop runs, and jumps to the next timer when every task waits. So an hour passes in
    milliseconds, and the same test takes the same virtual time on every machine.

    `Server.serving()` and `endwell.connect()` are connected in memory. A server is reached by the host and the
    port that it listens on, without a look-up of the name; a server on `127.0.0.1` also as `localhost`, and one
    on `None` by every host. TLS and the PROXY protocol are left out: `wss` reaches the same server, and `ws.tls` is
    None.

    WebSocket handlers have to be coroutine functions, because the clock cannot know what a thread waits for.
    Other I/O is real, and its timeouts expire before any data arrives.

    Args:
        main: The coroutine.
        timeout: Virtual seconds after which `main` is cancelled, so that a test that waits for something that
            never happens fails. None: no limit. Default: 86400, one day.

    Returns:
        What `main` returns.

    Raises:
        TimeoutError: `timeout` has passed.
        RuntimeError: An event loop runs in this thread, or another thread has a virtual clock.

    Example:
        ```python
        import asyncio
        import endwell
        from endwell import testing

        server = endwell.Server()

        @server.websocket("/")
        async def echo(ws):
            async for message in ws:
                await ws.send(message)

        async def visit():
            async with server.serving(), endwell.connect(f"ws://localhost:{server.port}/") as ws:
                await asyncio.sleep(3600)
                await ws.send("an hour later")
                print(await ws.recv())

        testing.run(visit())
        ```
    """

    async def limited() -> T:
        async with asyncio.timeout(timeout):
            return await main

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(limited())


def cut(ws: WebSocket) -> None:
    """Lose the network of a connection in memory: nothing that either side sends arrives any more.

    Neither side is told. Each notices it by its own timeouts, as after a cable was pulled or a laptop was
    closed.

    Args:
        ws: The WebSocket of either side.

    Raises:
        ValueError: The connection has ended, or is not in memory.

    Example:
        ```python
        import asyncio
        import endwell
        from endwell import testing

        server = endwell.Server(ping_interval=20, ping_timeout=20)

        @server.websocket("/")
        async def wait(ws):
            await ws.closed
            print(ws.ending.cause, round(ws.ending.duration))

        async def visit():
            async with server.serving():
                ws = await endwell.connect(f"ws://localhost:{server.port}/", ping_interval=None)
                testing.cut(ws)
                await asyncio.sleep(60)
                ws.abort()

        testing.run(visit())
        ```
    """
    transport = getattr(ws._stream, "transport", None)
    if not isinstance(transport, MemoryTransport):
        raise ValueError("the connection has ended, or is not in memory")  # noqa: TRY004  (the state is wrong)
    transport.cut()


def replay(recorded: Mapping[str, Any]) -> Ending:
    """Step a connection through the record of its ending, without I/O, and return the ending of the replay.

    It runs the same code as the connection did, on the recorded clock. `endwell replay --as-test` writes a test
    with it.

    Args:
        recorded: An ending with a record, as `Ending.as_dict()` makes it.

    Returns:
        The ending, without a record. It is equal to the recorded one as long as this version of endwell handles
        the recorded events in the same way.

    Raises:
        TypeError: A value has a wrong type. The text names the field.
        ValueError: A value is not valid, there is no record, its format is unknown, or the connection does not end.

    Example:
        ```python
        import asyncio
        import endwell
        from endwell import testing

        server = endwell.Server(recorder=True)

        @server.websocket("/")
        async def fail(ws):
            await ws.close(1011, "no database")

        async def visit():
            async with server.serving(), endwell.connect(f"ws://localhost:{server.port}/", recorder=True) as ws:
                return await ws.closed

        ending = testing.run(visit())
        print(testing.replay(ending.as_dict()))
        ```
    """
    ending = _replay(recorded).ending
    if ending is None:
        raise ValueError("record.cues do not end the connection")
    return ending

"""Running a server as a program: until a signal says otherwise, and never for longer."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from math import inf
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..aio.loop import loop_factory
from ..aio.syscalls import monotonic
from ..sync.threads import Threads
from .timetable import Drain, Phase, Timetable

if TYPE_CHECKING:
    from .app import Server

__all__ = ["run"]

logger = logging.getLogger("endwell.server")

T = TypeVar("T")

#: Seconds past the deadline after which a process whose event loop is blocked ends itself.
OVERTIME = 2.0
#: Seconds that tasks which are not ours have for their cleanup when the loop closes.
WIND_UP_TIME = 0.2
#: Seconds between two looks of the progress line.
LOOK = 0.1


def run(server: Server, serving: AbstractAsyncContextManager[Server], drain: Drain) -> None:
    """Serve until SIGINT or SIGTERM, then drain; or until the application has drained.

    A second signal stops at once. Blocks.
    """
    loop = (loop_factory() or asyncio.new_event_loop)()
    executor = _Executor()
    loop.set_default_executor(executor)
    signalled = asyncio.Event()
    main = loop.create_task(_serve(server, serving, drain, signalled))

    def stop() -> None:
        if signalled.is_set():
            main.cancel()
        signalled.set()

    over = Timetable(drain, 0).begins(Phase.OVER)
    with _Signals(loop, stop, over + OVERTIME) as signals:
        try:
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(main)
        finally:
            _wind_up(loop)
            executor.finish(max(WIND_UP_TIME, over - signals.since()))


async def _serve(
    server: Server, serving: AbstractAsyncContextManager[Server], drain: Drain, signalled: asyncio.Event
) -> None:
    async with serving:
        for address in server.addresses:
            logger.info("listening on %s", _shown(address))
        events = [asyncio.create_task(event.wait()) for event in (signalled, server.draining)]
        try:
            await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for event in events:
                event.cancel()
        logger.info("stopping: %d connections", len(server.connections))
        line = asyncio.create_task(_progress(server)) if sys.stderr.isatty() else None
        try:
            await server.drain(drain)
        finally:
            if line is not None:
                line.cancel()


async def _progress(server: Server) -> None:
    try:
        while True:
            if server.departure is not None:
                # Back to its beginning, so that a line of the log overwrites it.
                sys.stderr.write(f"{server.departure}\x1b[K\r")
                sys.stderr.flush()
            await asyncio.sleep(LOOK)
    finally:
        sys.stderr.write("\x1b[K")
        sys.stderr.flush()


class _Signals:
    """Has ``stop`` called in the loop for SIGINT and SIGTERM, while the block runs.

    A handler that blocks the event loop itself keeps everybody from stopping. So the first
    signal also starts a clock: when ``limit`` seconds have passed, the process ends.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], object], limit: float) -> None:
        self._loop = loop
        self._stop = stop
        self._limit = limit
        self._clocks: list[threading.Timer] = []
        self._began = -inf
        self._before: dict[signal.Signals, Any] = {}

    def since(self) -> float:
        """Seconds since a signal began the stop; endless if none did, or a second was in a hurry."""
        return monotonic() - self._began

    def __enter__(self) -> Self:
        # Python delivers signals to the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # Not loop.add_signal_handler: a loop that is blocked would not see it.
                self._before[number] = signal.signal(number, self._came)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        for clock in self._clocks:
            clock.cancel()

    def _came(self, number: int, _frame: FrameType | None) -> None:
        clock = threading.Timer(OVERTIME if self._clocks else self._limit, _end_process)
        clock.daemon = True
        self._began = -inf if self._clocks else monotonic()
        clock.start()
        self._clocks.append(clock)
        with suppress(RuntimeError):  # the loop is closed: it is over anyway
            self._loop.call_soon_threadsafe(self._stop)


class _Executor(ThreadPoolExecutor):
    """That of ``asyncio.to_thread``, in daemon threads: at its exit Python waits for ever for any other."""

    def __init__(self) -> None:
        super().__init__()
        self._work = Threads(self._max_workers, "endwell executor")

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """As that of its class."""
        future: Future[T] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as exc:
                    future.set_exception(exc)

        self._work.submit(job)
        return future

    def finish(self, seconds: float) -> None:
        """Wait for what still runs, but not longer than that."""
        self._work.finish(seconds)
        if self._work.busy:
            logger.warning("%d threads of asyncio.to_thread still run, and are left alone", self._work.busy)


def _end_process() -> None:
    logger.critical("something blocks the event loop, so the process ends without it; this is where:")
    faulthandler.dump_traceback()
    logging.shutdown()
    os._exit(1)


def _wind_up(loop: asyncio.AbstractEventLoop) -> None:
    """Close the loop. Not asyncio.Runner: it waits for ever for a task that swallows its cancellation."""
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=WIND_UP_TIME))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _shown(address: Any) -> str:
    if isinstance(address, str):
        return address
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

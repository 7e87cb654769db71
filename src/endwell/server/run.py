"""``Server.run()``: serves until a signal, drains, and exits within the deadline."""

from __future__ import annotations

import _socket
import asyncio
import faulthandler
import logging
import signal
import ssl as tls
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar

from ..aio.bind import bind
from ..aio.exchange import Exchange
from ..aio.loop import check_system, loop_factory
from ..aio.syscalls import monotonic
from ..errors import StartupFailed
from ..metrics.table import Table
from ..rooms.options import RoomLimits
from ..rooms.rooms import limits_of, use_bus
from ..sync.threads import Threads
from .metering import use_table
from .process import systemd
from .process.control import OVERTIME, ProcessControl
from .process.options import STARTUP_FAILED, ProcessOptions
from .process.requests import RequestCount
from .process.signals import hand_back, ignore, is_free
from .process.supervisor import Page, Supervisor
from .process.watchdog import Watchdog
from .process.worker import WorkerConfig, find_config

if TYPE_CHECKING:
    from .app import Server

__all__ = ["Listen", "run", "supervise"]

Listen: TypeAlias = Callable[[], list[_socket.socket]]

logger = logging.getLogger("endwell.server")

T = TypeVar("T")

#: Seconds that the application's own tasks have for their cleanup when the loop closes.
TASK_CLEANUP_TIME = 0.2
#: Seconds between two updates of the progress line.
POLL_INTERVAL = 0.1


def run(  # size: a third of it is documentation
    server: Server,
    listen: Listen,
    ssl: tls.SSLContext | None,
    options: ProcessOptions,
    answered: Callable[[Exchange, int], object] | None = None,
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP, then drain; or until the application has drained. Blocks.

    The process serves alone, or as a worker if a supervisor started it, or it supervises workers. A
    second SIGINT or SIGTERM stops immediately.

    ``answered(exchange, status)`` is called in the event loop for each answer to a request. It must not raise.

    Raises:
        NotImplementedError: The system is Windows.
    """
    check_system()
    if answered is not None:
        server._answer_callbacks.append(answered)
    if asyncio._get_running_loop() is not None:
        raise RuntimeError(
            "run() starts its own event loop, but this thread already runs one (an async function, "
            "Jupyter): use 'async with server.serving(host, port): ...' here"
        )
    config = find_config()
    server._open_page = partial(_open_page, config)
    if config is not None:
        channel, socks, loads, bus = config.open()
        if bus is not None:
            use_bus(server.rooms, bus)
        faulthandler.enable()  # the supervisor sends SIGABRT to a worker that does not exit in time
        _use_counts(server, config)
        ignore()  # again, because the application may have set their default action
        control = ProcessControl(config.share(options.drain), channel, loads)
        if options.max_requests is not None:
            count = RequestCount(options.max_requests, options.max_requests_jitter, control.ask_for_successor)
            server._answer_callbacks.append(count.answered)
        _run(server, server._serve_on(lambda: socks, ssl, should_defer=loads.should_defer), control)
        return
    if options.workers is not None:
        pages = [(host, port) for _, host, port in server._pages]
        supervise(listen, options, limits_of(server.rooms), pages)
        return
    passed = _passed(listen, options)
    control = ProcessControl(options.drain.replace(listen=False) if passed else options.drain)
    should_defer = _never if passed else None
    _run(
        server,
        server._serve_on(lambda: passed or _listening(listen), ssl, should_defer=should_defer),
        control,
    )


def _open_page(config: WorkerConfig | None, host: str, port: int) -> list[_socket.socket]:
    """The listening sockets of a page that has its own port."""
    if config is None:
        return _listening_on(host, port)
    # The supervisor does not have a page that is new in the code, or it was started before an update.
    return config.page_sockets(host, port) or _listening_on(host, port, shared=True)


def _listening_on(host: str, port: int, *, shared: bool = False) -> list[_socket.socket]:
    return _listening(partial(bind, host, port, None, shared=shared))


def _use_counts(server: Server, config: WorkerConfig) -> None:
    """Count in the table that all workers share."""
    if config.counts >= 0:
        name = config.counts_name or str(config.supervisor)
        use_table(server._metering, Table(config.counts, config.load), name)


def supervise(
    listen: Listen,
    options: ProcessOptions,
    limits: RoomLimits | None = None,
    pages: Iterable[tuple[str, int]] = (),
) -> None:
    """Run the workers until SIGINT or SIGTERM. Blocks. Each of them runs this program again.

    ``limits`` are those of their rooms, whose numbers and histories are here. Default: those of :class:`Rooms`.
    ``pages`` are the hosts and ports of pages that have their own port. Workers accept from one queue there, too: one
    that is stopped or blocked takes no connection that another one could answer.

    Raises:
        NotImplementedError: The system is Windows.
    """
    check_system()
    opened: list[Page] = [(host, port, _listening_on(host, port)) for host, port in pages]
    passed = _passed(listen, options)
    supervisor = Supervisor(options, limits or RoomLimits())
    supervisor.run(passed or _listening(listen), opened, passed=bool(passed))


def _passed(listen: Listen, options: ProcessOptions) -> list[_socket.socket]:
    """The listening sockets that another process keeps open.

    Clients that connect after our exit wait in the accept queue for the next process that gets the sockets.
    """
    return systemd.sockets() or (_listening(listen) if options.inherited else [])


def _listening(listen: Listen) -> list[_socket.socket]:
    """Return the listening sockets. Raises SystemExit, whose message is one line, if they cannot be opened."""
    try:
        return listen()
    except OSError as error:
        if threading.current_thread() is not threading.main_thread():
            raise  # in another thread, SystemExit would be silent
        where = "" if error.filename is None else f" on {error.filename}"
        raise SystemExit(f"endwell: cannot listen{where}: {error.strerror}") from error


def _never(connections: int) -> bool:
    return False  # no other process accepts from passed sockets at the same time


def _run(server: Server, serving: AbstractAsyncContextManager[Server], control: ProcessControl) -> None:
    loop = (loop_factory() or asyncio.new_event_loop)()
    executor = _Executor()
    loop.set_default_executor(executor)
    main = loop.create_task(_serve(server, serving, control))
    server._control = control
    control.begin(loop, main, server.shed)
    with _Signals(loop, control) as signals:
        try:
            _run_to_the_end(loop, main, signals)
        except StartupFailed as exc:
            if threading.current_thread() is not threading.main_thread():
                raise  # in another thread, SystemExit would be silent
            logger.error("%s", exc, exc_info=exc.__cause__)
            raise SystemExit(STARTUP_FAILED) from exc
        finally:
            server._control = None
            control.send_report(None if server._drain_run is None else server._drain_run.report)
            _close_loop(loop)
            executor.finish(max(TASK_CLEANUP_TIME, control.seconds_left()))


def _run_to_the_end(loop: asyncio.AbstractEventLoop, main: asyncio.Task[None], signals: _Signals) -> None:
    leaving: SystemExit | None = None
    while not main.done():
        try:
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(main)
        except SystemExit as exc:
            if main.done():
                raise
            # sys.exit() in a task or a callback of the application, but not in a handler: drain, then exit.
            leaving = leaving or exc
            signals.begin()
    if leaving is not None:
        raise leaving


async def _serve(
    server: Server, serving: AbstractAsyncContextManager[Server], control: ProcessControl
) -> None:
    async with serving:
        control.ready(server.addresses)
        plan = await control.wait_for_stop(server.draining)
        control.stopping(len(server.connections))
        line = (
            asyncio.create_task(_progress(server)) if control.unsupervised and sys.stderr.isatty() else None
        )
        try:
            if not plan.listen and server._drain_run is None:
                began = monotonic()
                await server._hand_over(plan.deadline / 10)
                plan = plan.replace(deadline=max(0.0, plan.deadline - (monotonic() - began)))
            await server.drain(plan)
        finally:
            if line is not None:
                line.cancel()


async def _progress(server: Server) -> None:
    try:
        while True:
            if server._drain_run is not None:
                # End with a carriage return, so that a log line overwrites the progress line.
                _write_line(f"{server._drain_run}\x1b[K\r")
            await asyncio.sleep(POLL_INTERVAL)
    finally:
        _write_line("\x1b[K")


def _write_line(text: str) -> None:
    with suppress(OSError):  # EIO: the terminal was closed
        sys.stderr.write(text)
        sys.stderr.flush()


class _Signals:
    """Calls ``control.stop`` in the loop after SIGINT, SIGTERM and SIGHUP, and ``shed`` after SIGUSR1, in the block.

    A worker's supervisor handles SIGHUP and SIGUSR1.

    A handler that blocks the event loop prevents the stop. So the process exits ``control.limit`` seconds after
    the first signal, even then.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, control: ProcessControl) -> None:
        self._loop = loop
        self._control = control
        self._limit = control.limit
        self._watchdog: Watchdog | None = None
        self._begun = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        # Python delivers signals to the main thread only.
        if threading.current_thread() is threading.main_thread():
            self._watchdog = Watchdog()
            numbers = [signal.SIGINT, signal.SIGTERM]
            if self._control.unsupervised:
                # Leave a signal alone if it is ignored (nohup), or if the application handles it:
                # faulthandler.register(SIGUSR1), for example.
                numbers += filter(is_free, (signal.SIGHUP, signal.SIGUSR1))
            for number in numbers:
                # Not loop.add_signal_handler(), whose handler does not run while the loop is blocked.
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        hand_back(self._before)
        if self._watchdog is not None:
            self._watchdog.cancel()

    def begin(self) -> None:
        """Stop, unless a stop has begun."""
        if not self._begun:
            self._request_stop()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # When a terminal closes, SIGHUP may arrive twice: from the kernel and from the shell.
        if number == signal.SIGHUP:
            self.begin()
        elif number == signal.SIGUSR1:
            with suppress(RuntimeError):  # the loop is already closed
                self._loop.call_soon_threadsafe(self._control.shed)
        else:
            self._request_stop()

    def _request_stop(self) -> None:
        # Runs in a signal handler, so it must not need resources that may be exhausted, such as a new thread.
        if self._watchdog is not None:
            self._watchdog.limit(OVERTIME if self._begun else self._limit)
        self._begun = True
        with suppress(RuntimeError):  # the loop is already closed
            self._loop.call_soon_threadsafe(self._control.stop)


class _Executor(ThreadPoolExecutor):
    """The executor of ``asyncio.to_thread``. Its threads are daemons, because Python's exit waits for all others."""

    def __init__(self) -> None:
        super().__init__()
        self._work = Threads(self._max_workers, "endwell executor")

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run ``fn`` in a thread, as :meth:`concurrent.futures.Executor.submit`."""
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
        """Wait at most ``seconds`` for the calls that still run."""
        self._work.finish(seconds)
        if self._work.busy:
            logger.warning(
                "threads of asyncio.to_thread that still run and are abandoned: %d", self._work.busy
            )


def _close_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Close the loop. Unlike asyncio.Runner, do not wait forever for a task that ignores its cancellation."""
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.wait(tasks, timeout=TASK_CLEANUP_TIME))
            _abandon([task for task in tasks if not task.done()])
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()


def _abandon(tasks: list[asyncio.Task[Any]]) -> None:
    """Log the tasks that ignore their cancellation, except handlers, which the drain report lists."""
    names = []
    for task in tasks:
        # Otherwise asyncio logs "Task was destroyed but it is pending" for each.
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # missing in typeshed
        name = getattr(task.get_coro(), "__qualname__", "")
        if name == "Dispatcher._answer_http":
            name = task.get_name()
        if name != "Dispatcher._handle":
            names.append(name)
        # Keep the task alive, even at exit. A coroutine that catches all exceptions in a loop would catch
        # GeneratorExit, too, and Python would report an error or not exit.
        with suppress(ImportError, AttributeError):
            import ctypes  # rarely needed, and missing in some builds of Python

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(task))
    if names:
        logger.warning("tasks that ignore their cancellation and are abandoned: %s", ", ".join(sorted(names)))

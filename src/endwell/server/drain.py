"""The drain of a server: closes all connections by the schedule in ``timetable``.

New connections are refused and handlers are notified immediately. The closings are spread over a window. Each
connection is closed as soon as its handler waits for a message and none has arrived, so that every received
message is answered before the Close. Connections whose handler stays busy are closed some time later. Then
handlers are cancelled, and the remaining connections are aborted. The drain ends in time, whatever the
handlers and peers do.
"""
# size: the public report is half documentation

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from math import inf
from typing import Any, cast

from ..aio.exchange import Opening
from ..aio.quiescence import Quiescence
from ..aio.syscalls import monotonic
from ..aio.websocket import WebSocket, bytes_sent, end_delivery, messages_consumed, quiesce
from ..ending import Cause, Ending
from ..errors import ServiceUnavailable
from ..sync.portal import Portal
from .router import Route, blocks
from .threads import HandlerThreads, result_of
from .timetable import CLEANUP_TIME, Drain, Phase, Timetable

__all__ = ["DrainReport", "DrainRun", "call_on_drain", "counted"]

logger = logging.getLogger("endwell.server")

#: If nothing arrives for this number of seconds, about a round trip, then no message is in transit.
QUIET = 0.25
#: Seconds after the last closings until a log line names the handlers that still run.
LOG_DELAY = 1.0
#: Seconds between two checks of the schedule while closings are due.
TICK = 0.01


@dataclass(frozen=True, slots=True)
class DrainReport:
    """The result of a drain, as returned by :meth:`Server.drain`. ``str()`` of it is one line of text.

    Example:
        ```python
        import asyncio
        from endwell import Server

        async def main():
            server = Server()
            async with server.serving(port=0):
                report = await server.drain()
            print(report)  # drained 0 connections in 0.0 s: none
            assert not report.stuck

        asyncio.run(main())
        ```
    """

    #: Number of connections at the start of the drain.
    connections: int
    #: Number of connections by how they ended: "clean" after a complete closing handshake, else how TCP ended
    #: (a value of ``TcpEnd``, such as "aborted"); "open" if the connection was still open at the end.
    endings: Mapping[str, int]
    #: Number of new connections and requests that were refused with 503.
    refused: int
    #: Number of connections that were closed although their handler was busy.
    last_called: int
    #: Number of messages that arrived before the connection ended, but that no handler had received when the
    #: Close was sent.
    unanswered: int
    #: Number of handlers that were cancelled. Handlers in threads cannot be cancelled.
    cancelled: int
    #: Names of the handlers that still ran at the end.
    stuck: tuple[str, ...]
    #: Name of the handler that returned last, and the seconds from the start of the drain until then; None if
    #: no handler returned.
    slowest: tuple[str, float] | None
    #: Seconds spent in each phase.
    phases: Mapping[Phase, float]
    #: Seconds of the whole drain.
    duration: float

    def __str__(self) -> str:
        """Return the report as one line of text."""
        ended = ", ".join(f"{count} {how}" for how, count in sorted(self.endings.items())) or "none"
        parts = [f"drained {counted(self.connections, 'connection')} in {self.duration:.1f} s: {ended}"]
        parts += self._troubles()
        if self.slowest is not None:
            parts.append(f"slowest handler: {self.slowest[0]}, {self.slowest[1]:.1f} s")
        if self.stuck:
            parts.append(f"handlers still running: {_by_name(self.stuck)}")
        return "; ".join(parts)

    def _troubles(self) -> list[str]:
        troubles = [
            (self.unanswered, f"{counted(self.unanswered, 'message')} unanswered"),
            (self.last_called, f"{self.last_called} closed while busy"),
            (self.cancelled, f"{counted(self.cancelled, 'handler')} cancelled"),
            (self.refused, f"{counted(self.refused, 'request')} refused"),
        ]
        return [text for number, text in troubles if number]

    def as_dict(self) -> dict[str, Any]:
        """Return a dict that can be serialized as JSON; :meth:`from_dict` is the inverse."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        phases = {phase.name: seconds for phase, seconds in self.phases.items()}
        return {**named, "stuck": Counter(self.stuck), "phases": phases}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> DrainReport:
        """Return the report from which :meth:`as_dict` made ``values``.

        Raises:
            KeyError: A field is missing.
            TypeError: ``values`` has an unknown field.
        """
        slowest, stuck = values["slowest"], values["stuck"]
        return DrainReport(
            **{
                **values,
                "stuck": tuple(Counter(stuck).elements()),
                "slowest": None if slowest is None else (slowest[0], slowest[1]),
                "phases": {Phase[name]: seconds for name, seconds in values["phases"].items()},
            }
        )

    @staticmethod
    def total(reports: Sequence[DrainReport]) -> DrainReport:
        """Return the sum of the reports of several servers that started to drain at the same time.

        Raises:
            ValueError: ``reports`` is empty.
        """
        slowest = [report.slowest for report in reports if report.slowest is not None]
        phases = {phase for report in reports for phase in report.phases}
        counts = ("connections", "refused", "last_called", "unanswered", "cancelled")
        return DrainReport(
            **{name: sum(getattr(report, name) for report in reports) for name in counts},
            endings=sum((Counter(report.endings) for report in reports), Counter()),
            stuck=tuple(sorted(name for report in reports for name in report.stuck)),
            slowest=max(slowest, key=lambda each: each[1], default=None),
            phases={phase: max(report.phases.get(phase, 0.0) for report in reports) for phase in phases},
            duration=max(report.duration for report in reports),
        )


def counted(number: int, noun: str) -> str:
    """Format a number and a noun: ``1 connection``, ``2 connections``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _by_name(names: Iterable[str]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in Counter(names).items())


def call_on_drain(
    callback: Callable[[Drain], object], drain: Drain, threads: HandlerThreads
) -> Coroutine[Any, Any, None]:
    """Start an ``on_drain`` callback, a plain one in a thread. Returns a coroutine that the caller must run."""
    if blocks(callback):
        # Started here, because a second signal may cancel the coroutine before its first step.
        return _await_callback(
            callback, partial(result_of, threads.start(callback, drain, context=copy_context()))
        )
    return _await_callback(callback, partial(callback, drain))


async def _await_callback(callback: object, call: Callable[[], object]) -> None:
    try:
        # A wrapper that is not a coroutine function may return None instead of a coroutine.
        if (awaitable := call()) is not None:
            await cast("Awaitable[object]", awaitable)
    except (Exception, SystemExit):
        logger.exception("on_drain callback %r failed", callback)


class DrainRun:
    """Performs one drain.

    ``connections``, ``tasks`` and ``openings`` are the server's own collections, from which finished entries
    disappear. ``handlers`` are the running handlers; their connections may already have ended.
    """

    def __init__(
        self,
        drain: Drain,
        connections: set[WebSocket],
        tasks: Collection[asyncio.Task[None]],
        threads: HandlerThreads,
        openings: set[Opening],
        handlers: Mapping[WebSocket, Route],
    ) -> None:
        self.report: DrainReport | None = None
        self.timetable = Timetable(drain, len(connections))
        self._connections = connections
        self._tasks = tasks
        self._threads = threads.running
        self._openings = openings
        self._callbacks = Portal.of(asyncio.get_running_loop()).callbacks
        self._handlers = handlers
        self._scheduled = deque(
            (self.timetable.close_time(index, random.random()), ws)  # noqa: S311  (jitter, not a secret)
            for index, ws in enumerate(connections)
        )
        # Connections that are due, but whose handler is busy. At the time in `_busy`, reading from the peer
        # is paused; at the time in `_last_calls`, the connection is closed.
        self._busy: deque[tuple[float, WebSocket]] = deque()
        self._last_calls: deque[tuple[float, WebSocket]] = deque()
        # Connections whose Close was sent. At the given time they are aborted, unless the number of sent
        # bytes has changed.
        self._closing: deque[tuple[float, WebSocket, int]] = deque()
        self._log_due = self.timetable.begins(Phase.WAIT) + LOG_DELAY
        self._quiescence: dict[WebSocket, Quiescence] = {}
        self._phase = Phase.CLOSE
        self._phases: dict[Phase, float] = {}
        self._began = self._entered = monotonic()
        self._endings: Counter[str] = Counter()
        self._consumed_at_close: dict[WebSocket, int] = {}
        self._refused = self._last_called = self._unanswered = self._cancelled = 0
        self._slowest: tuple[str, float] | None = None
        self._nothing_left = asyncio.Event()
        self._finished = asyncio.Event()
        for ws in connections:
            ws.on_close(partial(self._ended, ws))
        running: list[asyncio.Future[Any]] = [*tasks, *threads.running]
        for waited in running:
            waited.add_done_callback(self._check_finished)

    def elapsed(self) -> float:
        """Seconds since the start of the drain."""
        return monotonic() - self._began

    def seconds_left(self, minimum: float) -> float:
        """Seconds until the deadline, but at least ``minimum``."""
        return max(minimum, self.timetable.drain.deadline - self.elapsed())

    # -- called by the server -------------------------------------------------

    def refuse(self) -> ServiceUnavailable:
        """Count a refused connection; returns the error to send."""
        self._refused += 1
        retry_after = self.timetable.retry_after(self.elapsed(), random.random())  # noqa: S311  (jitter)
        return ServiceUnavailable("the server is stopping", retry_after=retry_after)

    def returned(self, ws: WebSocket) -> None:
        """Record that the handler of ``ws`` has returned."""
        self._slowest = self._handlers[ws].name, self.elapsed()

    def close(self, ws: WebSocket) -> None:
        """Send a Close on ``ws``."""
        if ws.is_open:
            self._consumed_at_close[ws] = messages_consumed(ws)
            code, reason = self.timetable.drain.code, self.timetable.reason(self.elapsed())
            end_delivery(ws, Cause.SERVER_DRAINED, code, reason)
            self._schedule_abort(ws)

    def _schedule_abort(self, ws: WebSocket) -> None:
        self._closing.append((self.elapsed() + self.timetable.abort_delay, ws, bytes_sent(ws)))

    def __str__(self) -> str:
        """The progress as one line of text."""
        done, count = sum(self._endings.values()), self.timetable.count
        handlers = counted(len(self._handlers), "handler")
        runs = "runs" if len(self._handlers) == 1 else "run"
        return f"draining: {done} of {count} closed, {handlers} {runs}, {self.elapsed():.1f} s"

    async def finished(self) -> DrainReport:
        """Wait for the end of the drain."""
        await self._finished.wait()
        assert self.report is not None
        return self.report

    # -- phases ---------------------------------------------------------------

    async def run(self) -> DrainReport:
        """Perform the drain. If this is cancelled, handlers are cancelled and connections aborted immediately."""
        try:
            for phase, following in pairwise(Phase):
                if not self._unfinished():
                    break
                self._enter(phase)
                await self._wait(self.timetable.begins(following))
            await self._wait_for_responses()
        except asyncio.CancelledError:
            self._enter(Phase.CANCEL)
            self._enter(Phase.ABORT)
            await self._wait(self.elapsed() + CLEANUP_TIME)
            raise
        finally:
            self._enter(Phase.OVER)
            self.report = self._report()
            self._finished.set()
            logger.log(logging.WARNING if self.report.stuck else logging.INFO, "%s", self.report)
        return self.report

    def _enter(self, phase: Phase) -> None:
        now = monotonic()
        self._phases[self._phase] = now - self._entered + self._phases.get(self._phase, 0.0)
        self._phase, self._entered = phase, now
        if phase is Phase.CANCEL:
            cancelled = sum(not route.blocking for route in self._handlers.values())
            self._cancelled = self._cancelled or cancelled
            for task in list(self._tasks):
                task.cancel()
        elif phase is Phase.ABORT:
            for ws in list(self._connections):
                self.close(ws)
                ws.abort()

    async def _wait(self, until: float) -> None:
        """Close connections when they are due, until none is left or the time ``until`` has come."""
        while self._unfinished():
            now = self.elapsed()
            due = self._close_due(now)
            if now >= until:
                return
            try:
                async with asyncio.timeout(min(max(due, now + TICK), until) - now):
                    await self._nothing_left.wait()
            except TimeoutError:
                pass

    async def _wait_for_responses(self) -> None:
        """Wait for the ``on_close`` callbacks in threads and for HTTP responses that are not yet sent.

        These do not notify the drain when they finish, so it polls.
        """
        while self.elapsed() < self.timetable.begins(Phase.OVER):
            if not self._callbacks.busy and not any(opening.unsent() for opening in self._openings):
                break
            await asyncio.sleep(TICK)

    def _close_due(self, now: float) -> float:
        """Process the connections that are due; returns the next time at which one is due."""
        busy_time = self.timetable.busy_time
        while self._scheduled and self._scheduled[0][0] <= now:
            moment, ws = self._scheduled.popleft()
            if ws.is_open:
                self._quiescence[ws] = quiesce(ws, partial(self.close, ws), min(QUIET, busy_time / 4))
                self._busy.append((moment + busy_time / 2, ws))
        while self._busy and self._busy[0][0] <= now:
            moment, ws = self._busy.popleft()
            if ws.is_open:
                self._last_calls.append((moment + busy_time / 2, ws))
                self._quiescence[ws].stop_reading()
        while self._last_calls and self._last_calls[0][0] <= now:
            _, ws = self._last_calls.popleft()
            if ws.is_open:
                self._last_called += 1
            self.close(ws)
        while self._closing and self._closing[0][0] <= now:
            _, ws, taken = self._closing.popleft()
            if ws in self._connections:
                if bytes_sent(ws) == taken:
                    ws.abort()
                else:
                    self._schedule_abort(ws)
        if self._log_due <= now:
            self._log_due = inf
            self._log_running_handlers()
        queues = (self._scheduled, self._busy, self._last_calls, self._closing)
        return min([self._log_due, *(queue[0][0] for queue in queues if queue)])

    def _log_running_handlers(self) -> None:
        """Log the handlers that still run after their connection has ended, and so delay the stop."""
        if names := [route.name for ws, route in self._handlers.items() if ws not in self._connections]:
            left = max(0.0, self.timetable.begins(Phase.OVER) - self.elapsed())
            logger.warning("the drain waits at most %.1f s for these handlers: %s", left, _by_name(names))

    def _unfinished(self) -> bool:
        return bool(self._connections or self._tasks or self._threads)

    def _report(self) -> DrainReport:
        if self._connections:
            self._endings["open"] = len(self._connections)
        return DrainReport(
            connections=self.timetable.count,
            endings=dict(self._endings),
            refused=self._refused,
            last_called=self._last_called,
            unanswered=self._unanswered,
            cancelled=self._cancelled,
            stuck=tuple(sorted(route.name for route in self._handlers.values())),
            slowest=self._slowest,
            phases=self._phases,
            duration=self.elapsed(),
        )

    def _ended(self, ws: WebSocket, ending: Ending) -> None:
        self._endings["clean" if ending.clean else ending.tcp.value] += 1
        if (idle := self._quiescence.pop(ws, None)) is not None:
            idle.stop()
        if (taken := self._consumed_at_close.pop(ws, None)) is not None:
            self._unanswered += ending.messages_in - taken
        self._check_finished()

    def _check_finished(self, _task: object = None) -> None:
        if not self._unfinished():
            self._nothing_left.set()

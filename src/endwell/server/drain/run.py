"""The drain of a server: closes all connections by the schedule in ``timetable``.

New connections are refused and handlers are notified immediately. The closings are spread over a window. Each
connection is closed as soon as its handler waits for a message and none has arrived, so that every received
message is answered before the Close. Connections whose handler stays busy are closed some time later. Then
handlers are cancelled, and the remaining connections are aborted. The drain ends in time, whatever the
handlers and peers do.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Collection, Mapping
from functools import partial
from itertools import pairwise
from math import inf
from typing import Any

from ...aio.opening import Opening
from ...aio.syscalls import monotonic
from ...aio.websocket import WebSocket, answers_close, bytes_sent, end_delivery
from ...ending import Cause, Ending
from ...errors import ServiceUnavailable
from ...sync.portal import Portal
from ..router import Route
from ..threads import HandlerThreads
from .closings import Closings
from .report import DrainReport, by_name, counted
from .timetable import CLEANUP_TIME, Drain, Phase, Timetable

__all__ = ["DrainRun"]

logger = logging.getLogger("endwell.server")

#: Seconds after the last closings until a log line names the handlers that still run.
LOG_DELAY = 1.0
#: Seconds between two checks of the schedule while closings are due.
TICK = 0.01


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
        #: Whether the report is logged.
        self.is_logged = True
        self.timetable = Timetable(drain, len(connections))
        self._connections = connections
        self._tasks = tasks
        self._threads = threads.running
        self._openings = openings
        self._loop = asyncio.get_running_loop()
        self._callbacks = Portal.of(self._loop).callbacks
        self._handlers = handlers
        self._closings = Closings(self.timetable.busy_time, self._send_close)
        # Connections whose Close was sent. At the given time they are aborted, unless the number of sent
        # bytes has changed, or the answer has come.
        self._closing: deque[tuple[float, WebSocket, int]] = deque()
        self._log_due = self.timetable.begins(Phase.WAIT) + LOG_DELAY
        self._phase = Phase.CLOSE
        #: Seconds by which a stall of this process has delayed CANCEL, and so the phases after it: a handler that is
        #: cancelled late has as much time for its cleanup.
        self._delay = 0.0
        #: Whether the tasks of handlers and pages are cancelled.
        self.has_cancelled = False
        self._phases: dict[Phase, float] = {}
        self._began = self._entered = monotonic()
        self._endings: Counter[str] = Counter()
        self._refused = self._cancelled = 0
        self._slowest: tuple[str, float] | None = None
        self._nothing_left = asyncio.Event()
        self._finished = asyncio.Event()
        #: Connections that show the drain to an operator. They are closed when the others have ended.
        self._last = {ws for ws in connections if ws in handlers and handlers[ws].closes_last}
        for index, ws in enumerate(connections):
            jitter = random.random()  # noqa: S311  (not a secret)
            if ws not in self._last:
                self._closings.schedule(self.timetable.close_time(index, jitter), ws)
            ws.on_close(partial(self._ended, ws))
        for ws in self._last:
            self._closings.schedule(self.timetable.begins(Phase.WAIT), ws)
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
        self._closings.close(ws)

    def _send_close(self, ws: WebSocket) -> None:
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

    def progress(self) -> dict[str, Any]:
        """The progress for a dashboard, as values that JSON has."""
        ends = self._begins(Phase.OVER)
        return {
            "phase": self._phase.name.lower(),
            "seconds_left": round(max(0.0, ends - self.elapsed()), 3),
            "deadline": self.timetable.drain.deadline,
            "open": len(self._connections),
            "ended": sum(self._endings.values()),
            "timetable": {phase.name.lower(): round(self.timetable.begins(phase), 3) for phase in Phase},
        }

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
                await self._wait(self._begins(following))
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
            if self.is_logged:
                logger.log(logging.WARNING if self.report.stuck else logging.INFO, "%s", self.report)
        return self.report

    def _enter(self, phase: Phase) -> None:
        now = monotonic()
        self._phases[self._phase] = now - self._entered + self._phases.get(self._phase, 0.0)
        self._phase, self._entered = phase, now
        if phase is Phase.CANCEL:
            self.has_cancelled = True
            self._delay = max(0.0, self.elapsed() - self.timetable.begins(phase))
            cancelled = sum(not route.blocking for route in self._handlers.values())
            self._cancelled = self._cancelled or cancelled
            for task in list(self._tasks):
                task.cancel()
        elif phase is Phase.ABORT:
            for ws in list(self._connections):
                self.close(ws)
                ws.abort()

    def _begins(self, phase: Phase) -> float:
        """The latest start time of ``phase``, as far as is known."""
        return self.timetable.begins(phase) + self._delay

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
        while self.elapsed() < self._begins(Phase.OVER):
            if not self._callbacks.busy and not any(opening.unsent() for opening in self._openings):
                break
            await asyncio.sleep(TICK)

    def _close_due(self, now: float) -> float:
        """Process the connections that are due; returns the next time at which one is due."""
        self._close_last()
        following = self._closings.close_due(now)
        while self._closing and self._closing[0][0] <= now:
            _, ws, taken = self._closing.popleft()
            # Not in this task: reading may resume the task of a handler.
            self._loop.call_soon(self._give_up, ws, taken)
            following = now  # it may be scheduled again
        if self._log_due <= now:
            self._log_due = inf
            self._log_running_handlers()
        return min(following, self._log_due, self._closing[0][0] if self._closing else inf)

    def _give_up(self, ws: WebSocket, taken: int) -> None:
        """Abort a connection, unless its peer has answered the Close or goes on reading."""
        if ws not in self._connections:
            return
        if bytes_sent(ws) != taken or answers_close(ws):
            self._schedule_abort(ws)
        else:
            ws.abort()

    def _log_running_handlers(self) -> None:
        """Log the handlers that still run after their connection has ended, and so delay the stop."""
        if names := [route.name for ws, route in self._handlers.items() if ws not in self._connections]:
            left = max(0.0, self._begins(Phase.OVER) - self.elapsed())
            logger.warning("the drain waits at most %.1f s for these handlers: %s", left, by_name(names))

    def _unfinished(self) -> bool:
        return bool(self._connections or self._tasks or self._threads)

    def _report(self) -> DrainReport:
        if self._connections:
            self._endings["open"] = len(self._connections)
        return DrainReport(
            connections=self.timetable.count,
            endings=dict(self._endings),
            refused=self._refused,
            last_called=self._closings.last_called,
            unanswered=self._closings.unanswered,
            cancelled=self._cancelled,
            stuck=tuple(sorted(route.name for route in self._handlers.values())),
            slowest=self._slowest,
            phases=self._phases,
            duration=self.elapsed(),
        )

    def _ended(self, ws: WebSocket, ending: Ending) -> None:
        self._endings["clean" if ending.clean else ending.tcp.value] += 1
        self._closings.ended(ws, ending)
        self._last.discard(ws)
        self._close_last()
        self._check_finished()

    def _close_last(self) -> None:
        if self._last and len(self._last) == len(self._connections):
            for ws in list(self._last):  # the end of a connection may be told at once
                self._closings.close(ws)

    def _check_finished(self, _task: object = None) -> None:
        if not self._unfinished():
            self._nothing_left.set()

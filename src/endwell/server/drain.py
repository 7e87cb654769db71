"""Stopping so that nobody is hurt: what carries the timetable out.

Newcomers are refused and handlers told at once. Then connections are closed, spread over a
window, each as soon as its handler waits for a message and none is there, so that what was
received is answered before the Close. Who stays busy is closed some time later; then handlers
are cancelled, and what is left is cut. Whatever anybody does, it ends in time.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import pairwise
from math import inf
from typing import Any

from ..aio.listen import Opening
from ..aio.quiescence import Quiescence
from ..aio.syscalls import monotonic
from ..aio.websocket import WebSocket, bytes_sent, dismiss, messages_consumed, quiesce
from ..ending import Ending
from ..errors import ServiceUnavailable
from ..sync.portal import Portal
from .router import Route
from .threads import HandlerThreads
from .timetable import CLEANUP_TIME, Drain, Phase, Timetable

__all__ = ["DrainReport", "DrainRun", "counted", "tell"]

logger = logging.getLogger("endwell.server")

#: Seconds for which nothing comes from a client that has nothing on the way: a round trip.
QUIET = 0.25
#: Seconds after the last closings until the handlers that still run are named in the log.
TELLING_TIME = 1.0
#: Seconds between two looks at the timetable while closings are due.
TICK = 0.01


@dataclass(frozen=True, slots=True)
class DrainReport:
    """How a drain went."""

    #: Connections at its beginning.
    connections: int
    #: How many of them ended how: "clean", else the way in which TCP ended (``TcpEnd``), such
    #: as "aborted"; "open" for those that had not ended when it was over.
    endings: Mapping[str, int]
    #: Newcomers that were refused.
    refused: int
    #: Connections that were closed though their handler was busy.
    last_called: int
    #: Messages that came, then or later, but were not taken by a handler when its Close was sent.
    unanswered: int
    #: Handlers that had to be cancelled; those in threads cannot be.
    cancelled: int
    #: The names of handlers that went on even so, and were left alone.
    stuck: tuple[str, ...]
    #: The name of the handler that returned last, and the seconds it took; None without any.
    slowest: tuple[str, float] | None
    #: Seconds spent in each phase.
    phases: Mapping[Phase, float]
    #: Seconds in all.
    duration: float

    def __str__(self) -> str:
        """One line."""
        ended = ", ".join(f"{count} {how}" for how, count in sorted(self.endings.items())) or "none"
        parts = [f"drained {counted(self.connections, 'connection')} in {self.duration:.1f} s: {ended}"]
        parts += self._troubles()
        if self.slowest is not None:
            parts.append(f"slowest handler: {self.slowest[0]}, {self.slowest[1]:.1f} s")
        if self.stuck:
            parts.append(f"stuck and left alone: {_by_name(self.stuck)}")
        return "; ".join(parts)

    def _troubles(self) -> list[str]:
        troubles = [
            (self.unanswered, f"{counted(self.unanswered, 'message')} unanswered"),
            (self.last_called, f"{self.last_called} closed while busy"),
            (self.cancelled, f"{counted(self.cancelled, 'handler')} cancelled"),
            (self.refused, f"{counted(self.refused, 'newcomer')} refused"),
        ]
        return [text for number, text in troubles if number]

    def as_dict(self) -> dict[str, Any]:
        """What :meth:`from_dict` makes a report of again, in another process; ready for JSON."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        phases = {phase.name: seconds for phase, seconds in self.phases.items()}
        return {**named, "stuck": Counter(self.stuck), "phases": phases}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> DrainReport:
        """What :meth:`as_dict` was called on."""
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
        """How several servers drained that began at the same time; raises ValueError for none."""
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
    """``1 connection``, ``2 connections``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _by_name(names: Iterable[str]) -> str:
    return ", ".join(f"{count} x {name}" for name, count in Counter(names).items())


def tell(callback: Callable[[Drain], object], drain: Drain) -> Coroutine[Any, Any, None] | None:
    """Call an ``on_drain`` callback; what is left to be awaited, if it is async."""
    try:
        returned = callback(drain)
    except KeyboardInterrupt:
        raise
    except BaseException:
        logger.exception("on_drain callback %r failed", callback)
        return None
    return _rest(callback, returned) if inspect.isawaitable(returned) else None


async def _rest(callback: object, awaitable: Awaitable[object]) -> None:
    try:
        await awaitable
    except (Exception, SystemExit):
        logger.exception("on_drain callback %r failed", callback)


class DrainRun:
    """A drain under way: carries the timetable out.

    ``connections``, ``tasks`` and ``openings`` are the server's own, and shrink as they end;
    ``handlers`` are those that run, of connections that may have ended before.
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
        portal = Portal.of(asyncio.get_running_loop())
        self._bridges = {bridge.ws: bridge for bridge in portal.bridges}
        self._callbacks = portal.callbacks
        self._handlers = handlers
        self._asked = deque(
            (self.timetable.moment(index, random.random()), ws)  # noqa: S311  (jitter, not a secret)
            for index, ws in enumerate(connections)
        )
        # Those that were asked and have stayed busy: the peers of the former are held back
        # when it is time, the latter are closed then.
        self._busy: deque[tuple[float, WebSocket]] = deque()
        self._last: deque[tuple[float, WebSocket]] = deque()
        # Those that were sent their Close: when they are cut, unless their peer has taken something by then.
        self._closing: deque[tuple[float, WebSocket, int]] = deque()
        self._telling = self.timetable.begins(Phase.WAIT) + TELLING_TIME
        self._quiescence: dict[WebSocket, Quiescence] = {}
        self._phase = Phase.CLOSE
        self._phases: dict[Phase, float] = {}
        self._began = self._entered = monotonic()
        self._endings: Counter[str] = Counter()
        self._taken: dict[WebSocket, int] = {}
        self._refused = self._last_called = self._unanswered = self._cancelled = 0
        self._slowest: tuple[str, float] | None = None
        self._nothing_left = asyncio.Event()
        self._finished = asyncio.Event()
        for ws in connections:
            ws.on_close(partial(self._ended, ws))
        for waited in (*tasks, *threads.running):
            waited.add_done_callback(self._look)

    def at(self) -> float:
        """Seconds since it began."""
        return monotonic() - self._began

    def left(self, least: float) -> float:
        """Seconds until the deadline, and ``least`` if those are fewer."""
        return max(least, self.timetable.drain.deadline - self.at())

    # -- called by the server -------------------------------------------------

    def refuse(self) -> ServiceUnavailable:
        """A newcomer is refused: what it is told."""
        self._refused += 1
        retry_after = self.timetable.retry_after(self.at(), random.random())  # noqa: S311  (jitter)
        return ServiceUnavailable("the server is stopping", retry_after=retry_after)

    def returned(self, ws: WebSocket) -> None:
        """Its handler did."""
        self._slowest = self._handlers[ws].name, self.at()

    def close(self, ws: WebSocket) -> None:
        """Send ``ws`` its Close."""
        if ws.is_open:
            self._taken[ws] = self._consumed(ws)
            dismiss(ws, self.timetable.drain.code, self.timetable.reason(self.at()))
            self._watch(ws)

    def _watch(self, ws: WebSocket) -> None:
        self._closing.append((self.at() + self.timetable.silence, ws, bytes_sent(ws)))

    def __str__(self) -> str:
        """A line that says how far it is."""
        done, count = sum(self._endings.values()), self.timetable.count
        handlers = counted(len(self._handlers), "handler")
        runs = "runs" if len(self._handlers) == 1 else "run"
        return f"draining: {done} of {count} closed, {handlers} {runs}, {self.at():.1f} s"

    async def finished(self) -> DrainReport:
        """Wait for it."""
        await self._finished.wait()
        assert self.report is not None
        return self.report

    # -- the course of it -----------------------------------------------------

    async def run(self) -> DrainReport:
        """Carry it out. Cancelled, it goes to the end at once: what is left is cancelled and cut."""
        try:
            for phase, following in pairwise(Phase):
                if not self._left():
                    break
                self._enter(phase)
                await self._wait(self.timetable.begins(following))
            await self._hear_out()
        except asyncio.CancelledError:
            self._enter(Phase.CANCEL)
            self._enter(Phase.ABORT)
            await self._wait(self.at() + CLEANUP_TIME)
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
        """Close what is due, until nothing is left or the time has come."""
        while self._left():
            now = self.at()
            due = self._close_due(now)
            if now >= until:
                return
            try:
                async with asyncio.timeout(min(max(due, now + TICK), until) - now):
                    await self._nothing_left.wait()
            except TimeoutError:
                pass

    async def _hear_out(self) -> None:
        """Wait for what tells nobody when it is over.

        That is ``on_close`` callbacks of blocking handlers, in threads of their own, and the
        answers to HTTP requests.
        """
        while self.at() < self.timetable.begins(Phase.OVER):
            if not self._callbacks.busy and not any(opening.unsent() for opening in self._openings):
                break
            await asyncio.sleep(TICK)

    def _close_due(self, now: float) -> float:
        """Ask those to close whose time has come, and make those that stay busy; when to look again."""
        patience = self.timetable.patience
        while self._asked and self._asked[0][0] <= now:
            moment, ws = self._asked.popleft()
            if ws.is_open:
                self._quiescence[ws] = self._quiesce(ws, min(QUIET, patience / 4))
                self._busy.append((moment + patience / 2, ws))
        while self._busy and self._busy[0][0] <= now:
            moment, ws = self._busy.popleft()
            if ws.is_open:
                self._last.append((moment + patience / 2, ws))
                self._quiescence[ws].stop_reading()
        while self._last and self._last[0][0] <= now:
            _, ws = self._last.popleft()
            if ws.is_open:
                self._last_called += 1
            self.close(ws)
        while self._closing and self._closing[0][0] <= now:
            _, ws, taken = self._closing.popleft()
            if ws in self._connections:
                if bytes_sent(ws) == taken:
                    ws.abort()
                else:
                    self._watch(ws)
        if self._telling <= now:
            self._telling = inf
            self._tell()
        queues = (self._asked, self._busy, self._last, self._closing)
        return min([self._telling, *(queue[0][0] for queue in queues if queue)])

    def _tell(self) -> None:
        """Name the handlers that go on after their connection, so that one knows what a stop takes its time for."""
        if names := [route.name for ws, route in self._handlers.items() if ws not in self._connections]:
            left = max(0.0, self.timetable.begins(Phase.OVER) - self.at())
            logger.warning("the drain waits for handlers, %.1f s at most: %s", left, _by_name(names))

    def _consumed(self, ws: WebSocket) -> int:
        bridge = self._bridges.get(ws)
        return messages_consumed(ws) if bridge is None else bridge.messages_consumed()

    def _quiesce(self, ws: WebSocket, quiet: float) -> Quiescence:
        bridge, callback = self._bridges.get(ws), partial(self.close, ws)
        return quiesce(ws, callback, quiet) if bridge is None else bridge.quiesce(callback, quiet)

    def _left(self) -> bool:
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
            duration=self.at(),
        )

    def _ended(self, ws: WebSocket, ending: Ending) -> None:
        self._endings["clean" if ending.clean else ending.tcp.value] += 1
        if (idle := self._quiescence.pop(ws, None)) is not None:
            idle.stop()
        self._bridges.pop(ws, None)
        if (taken := self._taken.pop(ws, None)) is not None:
            self._unanswered += ending.messages_in - taken
        self._look()

    def _look(self, _task: object = None) -> None:
        if not self._left():
            self._nothing_left.set()

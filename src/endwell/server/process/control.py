"""Control of a serving process: by signals and systemd, or by its supervisor."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from math import inf
from typing import Any

from ...aio.bind import format_address
from ...aio.flag import Flag
from ...aio.syscalls import monotonic
from ...codes import CloseCode
from ..drain.report import DrainReport, counted
from ..drain.timetable import Drain, DrainKeywords, Phase, Timetable
from . import systemd
from .balance import LoadTable
from .channel import Channel

__all__ = ["OVERTIME", "ProcessControl", "tell_listening"]

logger = logging.getLogger("endwell.server")

#: Seconds after the drain deadline at which a process exits although its event loop is blocked.
OVERTIME = 2.0
#: Seconds that the supervisor has to answer.
SUPERVISOR_TIME = 2.0


#: How each word of the supervisor changes the drain of a worker. "stop": not at all. "leave": another process
#: will accept from the same sockets later. "restart": the new workers already accept from them.
_DRAIN_CHANGES: dict[str, DrainKeywords] = {
    "stop": {},
    "leave": {"listen": False},
    "restart": {"listen": False, "code": CloseCode.SERVICE_RESTART},
}


def tell_listening(where: str) -> None:
    """Log where the server listens; print it if the program has not configured logging."""
    if logger.hasHandlers():
        logger.info("listening on %s", where)
    elif sys.stderr is not None:
        sys.stderr.write(f"listening on {where}; Ctrl-C stops\n")
        sys.stderr.flush()


class ProcessControl:
    """Control of one process: when it stops, and what it reports.

    ``drain`` is how it stops. A worker has a ``channel`` to its supervisor, and a slot in the table
    ``loads``.
    """

    def __init__(self, drain: Drain, channel: Channel | None = None, loads: LoadTable | None = None) -> None:
        self._drain = drain
        self._channel = channel
        self._loads = loads
        self._plan: Drain | None = None
        #: Whether a signal has asked for the stop.
        self._signalled = False
        self._stop_requested = asyncio.Event()
        self._began = -inf
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._ready = False
        self._shed: Callable[[], Coroutine[Any, Any, object]] | None = None
        self._shedding: asyncio.Task[object] | None = None
        #: What was asked of the supervisor and is not answered yet, in order.
        self._asks: deque[asyncio.Future[str | None]] = deque()

    @property
    def unsupervised(self) -> bool:
        """Whether this process has no supervisor."""
        return self._channel is None

    @property
    def limit(self) -> float:
        """Maximum seconds from a stop request to the exit, even if the event loop is blocked."""
        return self._drain_time() + OVERTIME

    def seconds_left(self) -> float:
        """Seconds until the drain deadline; ``-inf`` after a request to stop immediately."""
        return self._drain_time() - (monotonic() - self._began)

    def _drain_time(self) -> float:
        return Timetable(self._drain, 0).begins(Phase.OVER)

    # -- stop requests ------------------------------------------------------------

    def begin(
        self,
        loop: asyncio.AbstractEventLoop,
        main: asyncio.Task[None],
        shed: Callable[[], Coroutine[Any, Any, object]],
    ) -> None:
        """Start reading from the supervisor.

        ``main`` is cancelled by a request to stop immediately. ``shed`` is :meth:`Server.shed`.
        """
        self._loop, self._main, self._shed = loop, main, shed
        if self._channel is not None:
            loop.add_reader(self._channel.fileno(), self._read_channel)

    async def wait_for_stop(self, draining: Flag) -> Drain:
        """Wait for a stop request, or until the application starts a drain; returns how to drain."""
        events = [asyncio.create_task(event.wait()) for event in (self._stop_requested, draining)]
        try:
            await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # Two signals before the loop came to the first, as timeout(1) sends them: at once, but with the
            # code and the reason of the plan.
            if self._plan is None:
                raise
            return self._plan.replace(deadline=0)
        finally:
            for event in events:
                event.cancel()
        return self._plan or self._drain

    def stop(self) -> None:
        """Handle a stop signal: the first one starts the drain, the second one stops immediately.

        The signal to all processes of a service reaches a worker twice: itself, and as a word of its supervisor.
        """
        if self._signalled:
            self._stop_at_once()
        else:
            self._signalled = True
            self._request_stop(self._drain)

    def _request_stop(self, plan: Drain) -> None:
        if self._plan is None:
            self._plan, self._began = plan, monotonic()
            self._stop_requested.set()
            if not self._ready and self._main is not None:
                # The server is still starting, perhaps waiting for a database; no client is connected yet.
                self._main.cancel()

    def shed(self) -> None:
        """Close a share of the connections, so that other machines get their share."""
        if self._loop is None or self._shed is None or not self._ready or self._plan is not None:
            return
        if self._shedding is None or self._shedding.done():
            self._shedding = self._loop.create_task(self._shed())

    def _stop_at_once(self) -> None:
        assert self._main is not None
        self._began = -inf
        self._main.cancel()

    def _read_channel(self) -> None:
        assert self._channel is not None and self._loop is not None
        for word, value in self._channel.receive():
            if word == "now":
                self._stop_at_once()
            elif word == "answer":
                self._answered(value)
            elif word == "shed":
                self.shed()
            elif word in _DRAIN_CHANGES:
                self._request_stop(self._drain.replace(**_DRAIN_CHANGES[word]))
        if self._channel.ended:
            self._loop.remove_reader(self._channel.fileno())
            if self._plan is None:
                logger.error("the supervisor has exited: this worker drains")
            # Close the sockets, so that another supervisor can bind the address.
            self._request_stop(self._drain.replace(listen=False))

    # -- reports --------------------------------------------------------------------

    def ready(self, addresses: Iterable[object]) -> None:
        """Report that the server listens on ``addresses``."""
        self._ready = True
        if self._channel is not None:
            if self._loads is not None:
                self._loads.should_defer(0)  # enters this worker into the table, so that others defer to it
            self._channel.send("ready", self.limit)
            return
        for address in addresses:
            tell_listening(format_address(address))
        systemd.notify("READY=1")

    def ask_for_successor(self) -> None:
        """Ask the supervisor to replace this worker, which has answered enough requests."""
        if self._channel is not None and self._plan is None:
            self._channel.send("replace")

    async def ask_supervisor(self, what: str) -> str | None:
        """Ask the supervisor to ``drain`` this worker, which it replaces, or to ``restart`` all workers.

        Returns:
            None if it has begun; otherwise why not.
        """
        assert self._channel is not None and self._loop is not None
        answer: asyncio.Future[str | None] = self._loop.create_future()
        self._asks.append(answer)
        self._channel.send("ask", what)
        try:
            # A supervisor that was started before an update knows the word not, and does not answer.
            return await asyncio.wait_for(asyncio.shield(answer), SUPERVISOR_TIME)
        except TimeoutError:
            return "the supervisor does not answer"

    def _answered(self, refusal: str | None) -> None:
        if self._asks:
            self._asks.popleft().set_result(refusal)

    def stopping(self, connections: int) -> None:
        """Report that the server drains, and its number of connections."""
        logger.info("stopping: %s", counted(connections, "connection"))
        if self.unsupervised:
            systemd.notify("STOPPING=1")
        if self._loads is not None:
            self._loads.leave()

    def send_report(self, report: DrainReport | None) -> None:
        """Send the report of the drain to the supervisor, if there is a supervisor and a report."""
        if self._channel is not None and report is not None:
            self._channel.send("report", report.as_dict())

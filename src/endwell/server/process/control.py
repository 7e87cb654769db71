"""What a process that serves is told, and what it tells: signals and systemd, or its supervisor."""

from __future__ import annotations

import asyncio
import logging
import sys
from math import inf
from typing import TYPE_CHECKING

from ...aio.bind import format_address
from ...aio.draining import DrainEvent
from ...aio.syscalls import monotonic
from ...codes import CloseCode
from ..drain import counted
from ..timetable import Drain, DrainKeywords, Phase, Timetable
from . import systemd
from .balance import LoadTable
from .channel import Channel

if TYPE_CHECKING:
    from ..app import Server

__all__ = ["OVERTIME", "ProcessControl", "tell_listening"]

logger = logging.getLogger("endwell.server")

#: Seconds past the deadline after which a process whose event loop is blocked ends itself.
OVERTIME = 2.0


#: How a worker drains that is told so: as all do; as a process that will have a successor on
#: the same sockets; as one that has it already.
_CHANGES: dict[str, DrainKeywords] = {
    "stop": {},
    "leave": {"listen": False},
    "restart": {"listen": False, "code": CloseCode.SERVICE_RESTART},
}


def tell_listening(where: str) -> None:
    """Log where the server listens, or print it where the program has not set up logging."""
    if logger.hasHandlers():
        logger.info("listening on %s", where)
    elif sys.stderr is not None:
        sys.stderr.write(f"listening on {where}; Ctrl-C stops\n")
        sys.stderr.flush()


class ProcessControl:
    """Of one process, which drains as ``drain`` says.

    A worker has a ``channel`` to its supervisor, and a place in the table of ``loads``.
    """

    def __init__(self, drain: Drain, channel: Channel | None = None, loads: LoadTable | None = None) -> None:
        self._drain = drain
        self._channel = channel
        self._loads = loads
        self._plan: Drain | None = None
        self._given = asyncio.Event()
        self._began = -inf
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._ready = False

    @property
    def alone(self) -> bool:
        """Whether nobody supervises this process."""
        return self._channel is None

    @property
    def limit(self) -> float:
        """Seconds that a drain takes at most, whatever blocks the event loop."""
        return self._over() + OVERTIME

    def left(self) -> float:
        """Seconds that are left until all is over; endlessly few if it was to be over at once."""
        return self._over() - (monotonic() - self._began)

    def _over(self) -> float:
        return Timetable(self._drain, 0).begins(Phase.OVER)

    # -- what it is told ----------------------------------------------------------

    def begin(self, loop: asyncio.AbstractEventLoop, main: asyncio.Task[None]) -> None:
        """Listen to the supervisor; ``main`` is cancelled if it has to be over at once."""
        self._loop, self._main = loop, main
        if self._channel is not None:
            loop.add_reader(self._channel.fileno(), self._hear)

    async def given(self, draining: DrainEvent) -> Drain:
        """Wait for the order to stop, or until the application drains by itself; how."""
        events = [asyncio.create_task(event.wait()) for event in (self._given, draining)]
        try:
            await asyncio.wait(events, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for event in events:
                event.cancel()
        return self._plan or self._drain

    def stop(self) -> None:
        """A signal says so; the second one means at once."""
        if self._plan is None:
            self._order(self._drain)
        else:
            self._stop_at_once()

    def _order(self, plan: Drain) -> None:
        if self._plan is None:
            self._plan, self._began = plan, monotonic()
            self._given.set()
            if not self._ready and self._main is not None:
                # It still starts, and may wait for a database that is not there: nobody is connected.
                self._main.cancel()

    def _stop_at_once(self) -> None:
        assert self._main is not None
        self._began = -inf
        self._main.cancel()

    def _hear(self) -> None:
        assert self._channel is not None and self._loop is not None
        for word, _ in self._channel.hear():
            if word == "now":
                self._stop_at_once()
            elif word in _CHANGES:
                self._order(self._drain.replace(**_CHANGES[word]))
        if self._channel.ended:
            self._loop.remove_reader(self._channel.fileno())
            if self._plan is None:
                logger.error("the supervisor is gone")
            # So that the address is free for another one.
            self._order(self._drain.replace(listen=False))

    # -- what it tells --------------------------------------------------------------

    def ready(self, server: Server) -> None:
        """It listens."""
        self._ready = True
        if self._channel is not None:
            if self._loads is not None:
                self._loads.should_defer(0)  # from now on others leave newcomers to us
            self._channel.say("ready", self.limit)
            return
        for address in server.addresses:
            tell_listening(format_address(address))
        systemd.notify("READY=1")

    def stopping(self, server: Server) -> None:
        """It drains."""
        logger.info("stopping: %s", counted(len(server.connections), "connection"))
        if self.alone:
            systemd.notify("STOPPING=1")
        if self._loads is not None:
            self._loads.leave()

    def over(self, server: Server) -> None:
        """It has drained, if it ever served."""
        if (
            self._channel is not None
            and server._drain_run is not None
            and server._drain_run.report is not None
        ):
            self._channel.say("report", server._drain_run.report.as_dict())

"""A connection to a server that comes back by itself, and that notices when it hears nothing."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import struct
import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Iterable
from itertools import islice
from math import inf
from typing import Any

from ..errors import RoomLimit
from .stalls import timeout_without_stalls

__all__ = ["MAX_QUEUE", "WAIT_TIME", "ReturningLink", "abort", "in_batches"]

logger = logging.getLogger("endwell.rooms")

#: Maximum seconds for which a call waits for the server.
WAIT_TIME = 5.0
#: Maximum seconds for connecting, and the minimum number of turns of the event loop: to connect takes some dozen, and
#: each of them may be long in a busy process.
CONNECT_TIME = 3.0
CONNECT_TURNS = 100
#: Seconds between two canaries: messages that a process publishes, and must hear itself.
CANARY_INTERVAL = 0.25
#: Number of canaries in sequence that are not heard, at which the process is deaf: 2 s after the first of them.
MAX_UNHEARD = 8
#: Minimum and maximum seconds before the next attempt to connect.
BACKOFF = (0.05, 1.0)
#: Seconds after which a connection counts as good, so that the next one is tried at once.
STABLE_TIME = 5.0
#: Maximum number of bytes that wait while the server is away.
MAX_QUEUE = 64 << 20
#: Number of calls in progress while this process tells the server again what it has. More of them would block the event
#: loop, and a renewal of a lease would wait for them.
BATCH = 100


#: ``struct linger``: on, 0 s.
_NO_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


def abort(writer: asyncio.StreamWriter) -> None:
    """Close a connection that has failed, and make the kernel forget what was not acknowledged.

    Otherwise the kernel goes on to send it, so a publication that was given up could arrive behind later ones when
    the network is back.
    """
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.family != getattr(socket, "AF_UNIX", None) and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    writer.transport.abort()


class ReturningLink(ABC):
    """Connects to a server, and again after each failure, until :meth:`_end`.

    Args:
        server: The server and its address, for texts.
        errors: The exceptions that a connection is known to raise.
    """

    _loop: asyncio.AbstractEventLoop

    def __init__(self, server: str, *errors: type[Exception]) -> None:
        self.connected = False
        #: How often a connection was lost.
        self.disconnections = 0
        self._server = server
        self._errors = (*errors, OSError, EOFError, TimeoutError, _Deaf)
        self._problem = "not connected yet"
        #: The number of the last canary that was sent, and of the last one that was heard.
        self._canaries = [0, 0]
        self._canary_at = 0.0
        #: Seconds that the last canary took that was heard; 0 before.
        self.lag = 0.0

    async def start(self) -> None:
        """Begin to connect; returns when connected, or after :data:`WAIT_TIME`."""
        self._loop = asyncio.get_running_loop()
        self._first = asyncio.Event()
        self._task = self._loop.create_task(self._run())
        try:
            async with asyncio.timeout(WAIT_TIME):
                await self._first.wait()
        except TimeoutError:
            pass  # a warning was logged, and the attempts continue

    async def _end(self) -> None:
        await end_tasks(self._task, interval=1.0)
        self._problem = "the server has stopped"

    async def _run(self) -> None:
        """Connect, again and again. It logs one line when the connection is lost, and one when it is back."""
        pause, told = BACKOFF[0], False
        while True:
            began = inf
            try:
                await self._open_in_time()
                if told:
                    logger.info("connected to %s again", self._server)
                began, told = self._loop.time(), False
                self._canaries = [0, 0]
                self.connected = True
                self._first.set()
                await self._serve()
            except Exception as error:  # of whatever kind: a link that gives up would be deaf for ever
                self._problem = str(error) or "it does not answer"
                if not isinstance(error, self._errors):
                    self._problem = repr(error)
                self.disconnections += began < inf
            finally:
                self.connected = False
                await self._close()
            if not told:
                told = True
                logger.warning("no connection to %s: %s", self._server, self._problem)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311
            pause = BACKOFF[0] if self._loop.time() - began > STABLE_TIME else min(pause * 2, BACKOFF[1])

    async def _open_in_time(self) -> None:
        opening = self._loop.create_task(self._open())
        try:
            async with timeout_without_stalls(CONNECT_TIME, CONNECT_TURNS):
                await asyncio.wait([opening])
        except TimeoutError:
            pass
        finally:
            await end_tasks(opening)
        if opening.cancelled():
            raise TimeoutError
        opening.result()

    @abstractmethod
    async def _open(self) -> None:
        """Connect."""

    @abstractmethod
    async def _serve(self) -> None:
        """Run until the connection fails. Raises the reason."""

    @abstractmethod
    async def _close(self) -> None:
        """The connection has failed, or is not needed any more. Does not wait for the peer."""

    @abstractmethod
    def _send_canary(self, number: int) -> None:
        """Publish a canary."""

    def _canary_heard(self, number: int) -> None:
        """A canary of this connection has come back."""
        self._canaries[1] = number
        if number == self._canaries[0]:
            self.lag = self._loop.time() - self._canary_at

    async def _beat(self) -> None:
        """Publish a canary at intervals. Their number counts, not the time, in which this loop may stand still."""
        due = self._loop.time()
        while True:
            sent, heard = self._canaries
            if sent - heard >= MAX_UNHEARD:
                seconds = CANARY_INTERVAL * MAX_UNHEARD
                raise _Deaf(f"what this process publishes is not heard for {seconds:g} s")
            self._canaries[0] = sent + 1
            self._canary_at = self._loop.time()
            self._send_canary(sent + 1)
            # Timers are late on a busy machine, and the sum of eight delays would count.
            now = self._loop.time()
            due = max(due + CANARY_INTERVAL, now + CANARY_INTERVAL / 2)
            await asyncio.sleep(due - now)

    def unavailable(self, *, sent: bool) -> str:
        """The text of an error."""
        what = "the message may have been sent" if sent else "nothing was sent"
        problem = "there is no answer" if self.connected else self._problem
        return f"{self._server} is not available ({problem}); {what}"


async def in_batches(calls: Iterable[Awaitable[Any]]) -> None:
    """Await calls, :data:`BATCH` at a time. Each of them begins when the iterator yields it.

    A call that a limit of the rooms refuses does not end the others.
    """
    calls = iter(calls)
    while batch := [*islice(calls, BATCH)]:
        for result in await asyncio.gather(*batch, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, RoomLimit):
                raise result


async def end_tasks(*tasks: asyncio.Future[Any], interval: float = 0.1) -> None:
    """Cancel tasks until they have ended.

    Once is not enough for the packages of the servers: in Python 3.11, asyncio.wait_for() swallows a cancellation
    that comes in the same turn of the loop as the result.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=interval)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # the caller may be cancelled, too, and not look at it


class _Deaf(Exception):
    """The canaries are not heard."""

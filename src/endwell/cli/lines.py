"""The log of ``endwell serve`` about requests and endings: many lines in one write."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any

from ..aio import ending_log
from ..aio.bind import format_peer
from ..aio.exchange import Exchange
from ..aio.websocket import WebSocket
from ..ending import Ending
from ..protocol.handshake import wants_websocket
from ..wire.trace import without_values

__all__ = ["AccessLog", "EndingLog", "Lines"]

websocket_logger = logging.getLogger("endwell.serve")
access_logger = logging.getLogger("endwell.access")

#: Maximum seconds until a line is written.
DELAY = 0.1
#: Number of waiting lines at which they are written immediately.
MANY = 500


class Lines:
    """Writes log lines to ``handler`` like the loggers, at a quarter of the cost.

    A log record and a write for each ending or request cost as much as the rest of a short connection. So
    this class formats the lines itself and writes them together. If the application has configured logging
    differently, or ``handler`` is None, each line is an ordinary log record. ``who`` comes before the name of
    the logger in each line.
    """

    def __init__(self, handler: logging.StreamHandler[Any] | None, who: str = "") -> None:
        self._handler = handler
        self._who = who
        self._waiting: list[tuple[float, logging.Logger, int, str, tuple[Any, ...]]] = []
        self._second = -1
        self._clock = ""

    def add(self, logger: logging.Logger, level: int, text: str, *args: Any) -> None:
        """Write ``text % args``, soon. The arguments are formatted then."""
        loop = asyncio._get_running_loop()
        if loop is None or not self.is_only_handler(logger):  # None: in the thread of a plain handler
            logger.log(level, text, *args)
            return
        if not self._waiting:
            loop.call_later(DELAY, self.flush)
        self._waiting.append((time.time(), logger, level, text, args))
        if len(self._waiting) >= MANY:
            self.flush()

    def flush(self) -> None:
        """Write the waiting lines."""
        waiting, self._waiting = self._waiting, []
        lines = []
        for when, logger, level, text, args in waiting:
            start = f"{self._time(when)} {logging.getLevelName(level):7} {self._who}{logger.name}: "
            lines.append(f"{start}{text % args}\n")
        if not lines or self._handler is None:
            return
        self._handler.acquire()
        try:
            # Like the logging module, ignore a failure to write.
            with suppress(OSError):
                self._handler.stream.write("".join(lines))
                self._handler.flush()
        finally:
            self._handler.release()

    def is_only_handler(self, logger: logging.Logger) -> bool:
        """Whether the records of ``logger`` go to the handler, and nowhere else."""
        below: logging.Logger | None = logger
        while below is not None and below.parent is not None:
            if below.handlers or below.filters or not below.propagate:
                return False
            below = below.parent
        return logging.root.handlers == [self._handler]

    def _time(self, when: float) -> str:
        """Format a time like the default of ``%(asctime)s``."""
        second = int(when)
        if second != self._second:
            self._second, self._clock = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._clock},{int(when % 1 * 1000):03}"


class EndingLog:
    """Writes the lines of the logger ``endwell.endings``."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def write(self, level: int, ws: WebSocket, ending: Ending) -> None:
        """Write a line soon, or a record now if its fields may be used. See `ending_log.write_with`."""
        if self._lines.is_only_handler(ending_log.logger):
            peer = format_peer(ws.remote_address)
            self._lines.add(ending_log.logger, level, "%s on %r: %s", peer, ws.request.path, ending)
        else:
            ending_log.write_record(level, ws, ending)


class AccessLog:
    """Logs each answer in uvicorn's format, without the values of the query.

    As in uvicorn, requests for a WebSocket have another logger, ``endwell.serve``: formatters of access logs expect
    a method and a status.
    """

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    def answered(self, exchange: Exchange, status: int) -> None:
        """The callback for each answer to a request."""
        request = exchange.request
        if request is None:
            return
        upgrade = wants_websocket(request)
        logger = websocket_logger if upgrade else access_logger
        if not logger.isEnabledFor(logging.INFO):
            return
        peer, target = format_peer(request.remote_address), request.target
        if "?" in target:
            target = without_values(target)
        if '"' in target:
            target = target.replace('"', "%22")
        if upgrade:
            outcome = "[accepted]" if status == 101 else str(status)
            self._lines.add(logger, logging.INFO, '%s - "WebSocket %s" %s', peer, target, outcome)
        else:
            # The same arguments as in uvicorn, because formatters use them.
            args = peer, request.method, target, request.version, status
            self._lines.add(logger, logging.INFO, '%s - "%s %s HTTP/%s" %d', *args)

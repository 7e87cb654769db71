"""The log of ``endwell serve`` about endings: many lines in one write."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any

from ..aio.bind import format_peer
from ..aio.websocket import WebSocket
from ..ending import Ending

__all__ = ["EndingLog"]

logger = logging.getLogger("endwell.serve")

#: Maximum seconds until a line is written.
DELAY = 0.1
#: Number of waiting lines at which they are written immediately.
MANY = 500


class EndingLog:
    """Logs endings to ``handler`` like the logger ``endwell.serve``, at a quarter of the cost.

    A log record and a write for each ending cost as much as the rest of a short connection. So this class
    formats the lines itself and writes them together. If the application has configured logging
    differently, each ending is an ordinary log record. ``who`` is the prefix of each text.
    """

    def __init__(self, handler: logging.StreamHandler[Any], who: str) -> None:
        self._handler = handler
        self._who = who
        self._waiting: list[tuple[float, int, str, str, Ending]] = []
        self._second = -1
        self._clock = ""

    def ended(self, ws: WebSocket, ending: Ending) -> None:
        """The callback for ``server.on_close``."""
        level = logging.INFO if ending.ok else logging.WARNING
        if not logger.isEnabledFor(level):
            return
        peer = format_peer(ws.remote_address)
        self._waiting.append((time.time(), level, peer, ws.request.path, ending))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(DELAY, self.flush)
        elif len(self._waiting) >= MANY:
            self.flush()

    def flush(self) -> None:
        """Write the waiting lines."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        if logger.handlers or not logger.propagate or logging.root.handlers != [self._handler]:
            for _, level, peer, path, ending in waiting:
                logger.log(level, "%s on %r: %s", peer, path, ending)
            return
        lines = "".join(
            f"{self._time(when)} {logging.getLevelName(level):7} {self._who}: {peer} on {path!r}: {ending}\n"
            for when, level, peer, path, ending in waiting
        )
        self._handler.acquire()
        try:
            # Like the logging module, ignore a failure to write.
            with suppress(OSError):
                self._handler.stream.write(lines)
                self._handler.flush()
        finally:
            self._handler.release()

    def _time(self, when: float) -> str:
        """Format a time like the default of ``%(asctime)s``."""
        second = int(when)
        if second != self._second:
            self._second, self._clock = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._clock},{int(when % 1 * 1000):03}"

"""The lines of ``endwell serve`` about endings: many of them in one write."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any

from ..aio.websocket import WebSocket
from ..ending import Ending
from .address import format_address

__all__ = ["EndingLog"]

logger = logging.getLogger("endwell.serve")

#: Seconds after which a line is written, and lines at which all are.
DELAY = 0.1
MANY = 500


class EndingLog:
    """Logs endings to ``handler`` as the logger ``endwell.serve`` would, at a quarter of its cost.

    A record of its own for each ending, and a write, cost as much as the rest of a short
    connection. So lines are formatted here, and written together. Where the application has
    set up logging otherwise, they are records as all others. ``who`` stands before the text.
    """

    def __init__(self, handler: logging.StreamHandler[Any], who: str) -> None:
        self._handler = handler
        self._who = who
        self._waiting: list[tuple[float, int, str, str, Ending]] = []
        self._second = -1
        self._clock = ""

    def ended(self, ws: WebSocket, ending: Ending) -> None:
        """A callback for ``server.on_close``."""
        level = logging.INFO if ending.ok else logging.WARNING
        if not logger.isEnabledFor(level):
            return
        address = ws.remote_address
        peer = format_address(*address[:2]) if isinstance(address, tuple) else "somebody"
        self._waiting.append((time.time(), level, peer, ws.request.path, ending))
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(DELAY, self.flush)
        elif len(self._waiting) >= MANY:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
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
            # As logging does, a server goes on without its log.
            with suppress(OSError):
                self._handler.stream.write(lines)
                self._handler.flush()
        finally:
            self._handler.release()

    def _time(self, when: float) -> str:
        """As ``%(asctime)s`` is by default."""
        second = int(when)
        if second != self._second:
            self._second, self._clock = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._clock},{int(when % 1 * 1000):03}"

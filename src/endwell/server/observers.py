"""The callbacks that are told of each opened, ended and refused connection, and the log lines of refusals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeAlias

from ..aio.bind import MAX_LOGGED, format_peer
from ..aio.callbacks import Observer, check_arguments, check_callback, check_returned
from ..ending import Ending
from ..http import Request
from ..metrics.meter import Meter

__all__ = ["MAX_LOGGED", "Observers", "Refused"]

logger = logging.getLogger("endwell.server")

Opened: TypeAlias = Callable[[Any], object]
Ended: TypeAlias = Callable[[Any, Ending], object]
Refused: TypeAlias = Callable[[Request | None, int, str], object]


class Observers:
    """Calls the ``on_open``, ``on_close`` and ``on_refused`` callbacks, and logs each refused request.

    An exception in a callback is logged.
    """

    def __init__(self, meter: Meter) -> None:
        self.open_callbacks: list[Opened] = []
        self.close_callbacks: list[Ended] = []
        self._refused_callbacks: list[Refused] = []
        #: Counts the connections and the refused requests.
        self.meter = meter
        #: What is told of the end of each connection, without a callback for each.
        self.of_endings: tuple[Observer, ...] = ()

    def add_open(self, callback: Opened) -> None:
        """Register ``callback(ws)``."""
        check_callback(callback)
        check_arguments(callback, "ws")
        self.open_callbacks.append(callback)

    def add_close(self, callback: Ended) -> None:
        """Register ``callback(ws, ending)``."""
        check_callback(callback)
        check_arguments(callback, "ws", "ending")
        self.close_callbacks.append(callback)

    def add_refused(self, callback: Refused) -> None:
        """Register ``callback(request, status, reason)``."""
        check_callback(callback)
        check_arguments(callback, "request", "status", "reason")
        self._refused_callbacks.append(callback)

    def opened(self, ws: object) -> None:
        """A connection has opened; ``ws`` is the WebSocket that the handler gets."""
        for callback in self.open_callbacks:
            try:
                check_returned(callback(ws), callback)
            except KeyboardInterrupt:
                raise
            except BaseException:
                logger.exception("on_open callback %r failed", callback)

    def ended(self, ws: object, ending: Ending) -> None:
        """A connection has ended."""
        for callback in self.close_callbacks:
            try:
                check_returned(callback(ws, ending), callback)
            except KeyboardInterrupt:
                raise
            except BaseException:
                logger.exception("on_close callback %r failed", callback)

    def refused(self, request: Request | None, status: int, reason: str) -> None:
        """A request is refused."""
        self.meter.refused(status)
        for callback in self._refused_callbacks:
            try:
                check_returned(callback(request, status, reason), callback)
            except KeyboardInterrupt:
                raise
            except BaseException:
                logger.exception("on_refused callback %r failed", callback)

    def no_preamble(self, address: object, reason: str) -> None:
        """A connection does not begin with a valid preamble of the PROXY protocol."""
        self.log_refusal(None, address, 400, reason)
        self.refused(None, 400, reason)

    @staticmethod
    def log_refusal(request: Request | None, address: object, status: int, reason: str) -> None:
        """Log one line. Text from the peer is logged as its ``repr``."""
        logger.info(
            "refused %s from %s with %d: %s", _described(request), format_peer(address), status, reason
        )


def _described(request: Request | None) -> str:
    if request is None:
        return "a malformed request"
    # Omit the query, because it may contain a token.
    text = f"{request.method[:MAX_LOGGED]!r} {request.raw_path[:MAX_LOGGED]!r}"
    origin = request.headers.get("Origin")
    return text if origin is None else f"{text} (Origin {origin[:MAX_LOGGED]!r})"

"""Log lines and ``on_refused`` callbacks for refused requests."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..aio.bind import format_peer
from ..aio.callbacks import check_callback
from ..http import Request

__all__ = ["Refusals"]

logger = logging.getLogger("endwell.server")

#: Maximum characters of a path or an origin in a log line.
MAX_LOGGED = 200


class Refusals:
    """Logs each refused request, and calls the ``on_refused`` callbacks."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Request | None, int, str], object]] = []

    def add(self, callback: Callable[[Request | None, int, str], object]) -> None:
        """Register ``callback(request, status, reason)``."""
        check_callback(callback)
        self._callbacks.append(callback)

    def log(self, request: Request | None, address: object, status: int, reason: str) -> None:
        """Log one line. Text from the peer is logged as its ``repr``."""
        logger.info(
            "refused %s from %s with %d: %s", _described(request), format_peer(address), status, reason
        )

    def notify(self, request: Request | None, status: int, reason: str) -> None:
        """Call the callbacks."""
        for callback in self._callbacks:
            try:
                callback(request, status, reason)
            except KeyboardInterrupt:
                raise
            except BaseException:
                logger.exception("on_refused callback %r failed", callback)


def _described(request: Request | None) -> str:
    if request is None:
        return "a malformed request"
    # Omit the query, because it may contain a token.
    text = f"{request.method[:MAX_LOGGED]!r} {request.raw_path[:MAX_LOGGED]!r}"
    origin = request.headers.get("Origin")
    return text if origin is None else f"{text} (Origin {origin[:MAX_LOGGED]!r})"

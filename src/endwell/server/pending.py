"""A request that waits for the application's code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from ..aio.exchange import Exchange
from ..http import Accept, Request
from ..protocol.negotiation import Accepted

__all__ = ["Decision", "PendingAnswer"]

#: The response of a WebSocket, whether it cannot be computed again, and what the application has said.
Decision: TypeAlias = tuple[Accepted, bool, Accept | None]


class PendingAnswer:
    """A request for which a hook, an ``accept`` function or an HTTP handler runs."""

    __slots__ = ("call", "decision", "exchange", "limited", "request", "work")

    def __init__(self, exchange: Exchange, request: Request) -> None:
        self.exchange = exchange
        self.request = request
        #: What the route's ``accept`` function has decided; None before, and for a route without one.
        self.decision: Decision | None = None
        #: The hook or handler that runs, for log lines.
        self.work = ""
        #: Begins the call of a mounted application, which answers after the hooks; None for a route's handler.
        self.call: Callable[[], Coroutine[Any, Any, None] | None] | None = None
        #: Whether ``open_timeout`` limits the time until the answer.
        self.limited = True

    def begin(self, work: str) -> None:
        """Record that ``work``, a hook or handler, starts in the current task."""
        self.work = work
        if (task := asyncio.current_task()) is not None:
            task.set_name(work)  # for the log line about tasks that still run after the server has stopped

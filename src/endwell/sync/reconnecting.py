"""The blocking client that comes back: ``reconnecting``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any, Unpack

from ..client.connect import ConnectKeywords
from ..client.reconnecting import ReconnectLoop
from ..client.retry import RetryPolicy, StopReason
from ..ending import Ending
from ..errors import ConcurrencyError, HandshakeError
from .background import background, exiting
from .bridge import Bridge
from .executor import SerialExecutor
from .portal import Portal
from .websocket import WebSocket

__all__ = ["reconnecting"]


class reconnecting:
    """Connect, and come back when the connection ends: ``for ws in reconnecting(url):``.

    Parameters, exceptions and what ends the loop are those of
    :class:`endwell.reconnecting`. One thread runs the loop; :meth:`stop` and
    :meth:`close` may be called from any other. Ctrl-C leaves the loop at once,
    whatever it waits for.

    ``on_attempt`` and ``on_ending`` are called in a thread kept for such callbacks, one
    after the other, so they may block; an attempt waits for its ``on_attempt``.
    """

    def __init__(
        self,
        url: str,
        *,
        policy: RetryPolicy | None = None,
        on_attempt: Callable[[int], object] | None = None,
        on_ending: Callable[[Ending | HandshakeError, float | StopReason], object] | None = None,
        **keywords: Unpack[ConnectKeywords],
    ) -> None:
        self._portal = background()
        self._client = _Client(
            self._portal, url, policy=policy, on_attempt=on_attempt, on_ending=on_ending, **keywords
        )

    def __iter__(self) -> Iterator[WebSocket]:
        self._portal.run(self._begin)
        return self._connections()

    def _connections(self) -> Iterator[WebSocket]:
        try:
            while (ws := self._next_connection()) is not None:
                yield ws
        finally:
            # However the loop was left, and in whatever thread; it waits for nothing.
            self._client.leave()

    def _next_connection(self) -> WebSocket | None:
        try:
            return None if exiting() else self._portal.run(self._next)
        except ConcurrencyError:
            # Of a daemon thread: its loop ends, as by stop().
            if exiting():
                return None
            raise

    async def _begin(self) -> None:
        self._client.begin()

    async def _next(self) -> WebSocket | None:
        ws = await self._client.next()
        return None if ws is None else WebSocket(Bridge(ws, self._portal))

    def stop(self) -> None:
        """End the loop, at once: no more waiting, no more connecting, and a Close 1000 for an open connection.

        From any thread, and from a signal handler. The loop ends quietly.
        """
        self._portal.tell(self._client.stop)

    def close(self) -> None:
        """:meth:`stop`, and wait for the end of the connection: for ``contextlib.closing``."""
        self._portal.run(self._client.aclose)


class _Client(ReconnectLoop):
    """The one in the loop. Its callbacks run in a thread, which the loop does not wait for."""

    def __init__(self, portal: Portal, url: str, **keywords: Any) -> None:
        super().__init__(url, **keywords)
        self._calls = SerialExecutor(portal.callbacks)
        self._context = copy_context()

    def _call(self, callback: Callable[..., object] | None, *arguments: Any) -> None:
        if callback is not None:
            self._calls.add(partial(self._context.run, super()._call, callback, *arguments))

    async def _announce(self) -> None:
        await super()._announce()
        if self._on_attempt is not None:
            await self._calls.flushed()

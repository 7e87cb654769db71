"""Sessions: the current connection of each key, such as a user."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Hashable, ItemsView, Iterator, Mapping, ValuesView
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ..aio.callbacks import check_arguments, check_callback, check_returned
from ..aio.websocket import WebSocket, begin_close, loop_of, opened_at
from ..codes import CloseCode, Retry, describe
from ..ending import Cause, Ending
from ..errors import ConcurrencyError
from ..sync.executor import SerialExecutor
from ..sync.websocket import WebSocket as BlockingWebSocket
from ..sync.websocket import bridge_of

__all__ = ["Sessions"]

logger = logging.getLogger("endwell.server")

#: Maximum seconds for the callbacks in threads when the server stops, in addition to its drain deadline.
CALLBACK_TIME = 1.0

Callback = TypeVar("Callback", bound=Callable[..., object])


class _GracePeriod(NamedTuple):
    """A key without a connection, which has not yet left."""

    timer: asyncio.TimerHandle
    ending: Ending
    executor: SerialExecutor | None


class Sessions(Mapping[Hashable, Any]):
    """The current connection of each key, such as a user, a device or a browser tab.

    A newer connection of a key replaces the older one, which is closed with 4991 (REPLACED). As a mapping,
    the object contains the current connections: a :class:`WebSocket`, or the blocking WebSocket of a plain
    handler. :attr:`present` also contains the keys whose connection ended less than ``grace`` seconds ago,
    because a page that is reloaded, or a client that lost its network, reconnects within that time. The
    callbacks :meth:`joined` and :meth:`left` report users that come and go, but not reloads.

    The object belongs to one event loop. Threads of plain handlers may read it, and call :meth:`join` with
    their WebSocket. :attr:`Server.sessions` is such an object.

    Args:
        grace: Seconds after the end of a connection until its key has left. Default: 10.

    Example:
        ```python
        import asyncio
        import endwell

        server = endwell.Server()

        @server.websocket("/user/{name}")
        async def user(ws, name):
            server.sessions.join(name, ws)
            await ws.send(f"here: {sorted(server.sessions.present)}")

        async def main():
            async with server.serving(port=0):
                async with endwell.connect(f"ws://127.0.0.1:{server.port}/user/ada") as ws:
                    print(await ws.recv())  # here: ['ada']

        asyncio.run(main())
        ```
    """

    # 10 s is enough for the reload of a page, and for the first wait of RetryPolicy (5 s) plus a handshake
    # after a network failure.
    def __init__(self, grace: float = 10.0) -> None:
        #: Seconds after the end of a connection until its key has left. After a close code that forbids a
        #: reconnection, such as 1000 or 1008, from either side, the key has left immediately. Default: 10.
        self.grace = grace
        # Changed only in the loop and with the lock held, so that threads see a consistent state of both.
        self._lock = threading.Lock()
        self._current: dict[Hashable, WebSocket | BlockingWebSocket] = {}
        self._grace_periods: dict[Hashable, _GracePeriod] = {}
        self._joined: list[Callable[[Any, Any], object]] = []
        self._left: list[Callable[[Any, Ending], object]] = []
        #: Runs the callbacks for connections of plain handlers.
        self._executor: SerialExecutor | None = None

    # -- reading ------------------------------------------------------------------

    def __getitem__(self, key: Hashable) -> Any:
        return self._current[key]

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._snapshot())

    def __len__(self) -> int:
        return len(self._current)

    def values(self) -> ValuesView[Any]:
        """Return a snapshot of the current connections."""
        return self._snapshot().values()

    def items(self) -> ItemsView[Hashable, Any]:
        """Return a snapshot of the keys and their current connections."""
        return self._snapshot().items()

    def _snapshot(self) -> dict[Hashable, Any]:
        with self._lock:
            return self._current.copy()

    @property
    def present(self) -> set[Hashable]:
        """The keys that have joined and have not left."""
        with self._lock:
            return {*self._current, *self._grace_periods}

    # -- joining and leaving --------------------------------------------------------

    def join(self, key: Hashable, ws: WebSocket | BlockingWebSocket) -> None:
        """Make ``ws`` the current connection of ``key``. A handler calls it when it knows the key.

        An older connection of the key is closed with 4991 "replaced", and its Ending has the cause REPLACED.
        If a newer connection has already joined, ``ws`` is closed in this way instead; this happens if the
        handler of ``ws`` was slower. When ``ws`` ends, it is removed, unless another connection has replaced
        it. A connection that is closing does not join.

        Args:
            key: The user, device or tab: any hashable object.
            ws: The WebSocket of the handler.

        Raises:
            ConcurrencyError: ``ws`` is an asyncio WebSocket, and this thread does not run its event loop.
        """
        if isinstance(ws, BlockingWebSocket):
            bridge_of(ws).portal.run(self._join_soon, key, ws)
        elif _running_loop() is loop_of(ws):
            self._join(key, ws, None)
        else:
            raise ConcurrencyError(
                "join() was called with an asyncio WebSocket in a thread that does not run its event loop; a "
                "plain handler must pass its own WebSocket, other threads use loop.call_soon_threadsafe()"
            )

    def joined(self, callback: Callback) -> Callback:
        """Decorator for a plain function ``callback(key, ws)`` that runs when a key joins.

        For a connection of a plain handler, ``ws`` is the blocking WebSocket; the callback runs in a thread,
        one call after the other, and may block. For other connections, it runs in the event loop, and must
        not block. Exceptions are logged.

        Raises:
            TypeError: ``callback`` is a coroutine function, not callable, or does not take these arguments.
        """
        return _register(self._joined, callback, "key", "ws")

    def left(self, callback: Callback) -> Callback:
        """Decorator for a plain function ``callback(key, ending)`` that runs when a key has left.

        ``ending`` is the Ending of its last connection. The callback runs in a thread or in the event loop,
        as in :meth:`joined`. When the server stops, all keys leave. Exceptions are logged.

        Raises:
            TypeError: ``callback`` is a coroutine function, not callable, or does not take these arguments.
        """
        return _register(self._left, callback, "key", "ending")

    def close(self) -> None:
        """End all grace periods: keys without a connection have left."""
        for key in list(self._grace_periods):
            self._leave(key)

    async def aclose(self) -> None:
        """Call :meth:`close`, then wait at most 1 s for callbacks in threads. A server does this when it stops."""
        self.close()
        if self._executor is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._executor.flushed(), CALLBACK_TIME)

    # -- in the loop ---------------------------------------------------------------

    async def _join_soon(self, key: Hashable, ws: BlockingWebSocket) -> None:
        if self._executor is None:
            self._executor = SerialExecutor(bridge_of(ws).portal.callbacks)
        self._join(key, ws, self._executor)

    def _join(
        self, key: Hashable, ws: WebSocket | BlockingWebSocket, executor: SerialExecutor | None
    ) -> None:
        current, asyncio_ws = self._current.get(key), _asyncio_ws(ws)
        if current is ws or not asyncio_ws.is_open:
            return
        if current is not None and opened_at(_asyncio_ws(current)) > opened_at(asyncio_ws):
            _close_replaced(ws)
            return
        with self._lock:
            self._current[key] = ws
            period = self._grace_periods.pop(key, None)
        asyncio_ws.on_close(lambda ending: self._ended(key, ws, executor, ending))
        if current is not None:
            _close_replaced(current)
        elif period is not None:
            period.timer.cancel()
        else:
            _notify(executor, self._joined, key, ws)

    def _ended(
        self,
        key: Hashable,
        ws: WebSocket | BlockingWebSocket,
        executor: SerialExecutor | None,
        ending: Ending,
    ) -> None:
        if self._current.get(key) is not ws:
            return
        # The code tells the client, too, whether to reconnect.
        leaves = not self.grace or describe(ending.code).retry is Retry.NEVER
        with self._lock:
            del self._current[key]
            if not leaves:
                timer = asyncio.get_running_loop().call_later(self.grace, self._leave, key)
                self._grace_periods[key] = _GracePeriod(timer, ending, executor)
        if leaves:
            _notify(executor, self._left, key, ending)

    def _leave(self, key: Hashable) -> None:
        with self._lock:
            timer, ending, executor = self._grace_periods.pop(key)
        timer.cancel()
        _notify(executor, self._left, key, ending)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _asyncio_ws(ws: WebSocket | BlockingWebSocket) -> WebSocket:
    return bridge_of(ws).ws if isinstance(ws, BlockingWebSocket) else ws


def _close_replaced(ws: WebSocket | BlockingWebSocket) -> None:
    begin_close(_asyncio_ws(ws), Cause.REPLACED, CloseCode.REPLACED, "replaced")


def _register(callbacks: list[Callable[..., object]], callback: Callback, *arguments: str) -> Callback:
    check_callback(callback)
    check_arguments(callback, *arguments)
    callbacks.append(callback)
    return callback


def _notify(executor: SerialExecutor | None, callbacks: list[Callable[..., object]], *args: object) -> None:
    """Call ``callbacks`` in ``executor``, or directly if it is None."""
    if executor is None:
        _call(callbacks, *args)
    else:
        executor.add(partial(_call, callbacks, *args))


def _call(callbacks: list[Callable[..., object]], *args: object) -> None:
    for callback in callbacks:
        try:
            check_returned(callback(*args), callback)
        except KeyboardInterrupt:
            raise
        except BaseException:
            logger.exception("callback %r failed", callback)

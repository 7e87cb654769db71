"""Sessions: the current connection of each key, such as a user."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable, Hashable, ItemsView, Iterator, Mapping, ValuesView
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ..aio.callbacks import check_arguments, check_callback, check_returned
from ..aio.websocket import WebSocket, begin_close, loop_of, opened_at
from ..codes import CloseCode, Retry, describe
from ..ending import Cause, Ending
from ..errors import ConcurrencyError
from ..rooms.keys import SESSIONS, pack_key
from ..rooms.membership import AnyWebSocket, engine_of
from ..rooms.registry import Registry
from ..rooms.rooms import Rooms, registry_of
from ..sync.executor import SerialExecutor
from ..sync.websocket import WebSocket as BlockingWebSocket
from ..sync.websocket import bridge_of
from .claims import Claims
from .places import SharedPlaces

__all__ = ["BlockingSessions", "Sessions", "connected", "shared_places"]

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

    In a server with ``workers`` or a ``bus``, the newest connection of a key in all processes replaces the others,
    and a key joins and leaves once in all processes. The mapping and :attr:`present` have the connections and the
    keys of this process; :meth:`presence` has the keys of all. Then a key is a ``str``, an ``int`` or a tuple of
    these, and :meth:`endwell.rooms.Rooms.user` sends to the user's connection, in whatever process it is.

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
        #: What connects the sessions with those of other processes; None without a bus.
        self._claims: Claims | None = None
        self._registry: Registry | None = None

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
        """The keys that have joined and have not left. With a bus: of those whose last connection is in this process."""
        with self._lock:
            away = () if self._claims is None else self._claims.away()
            return {*self._current, *self._grace_periods, *away}

    async def presence(self) -> set[Hashable]:
        """Return the keys that are present in all processes. Without a bus, it is :attr:`present`.

        In a thread, such as that of a plain handler, call ``sessions.blocking.presence()``.

        Raises:
            BusUnavailable: The bus is not available.
        """
        return self.present if self._claims is None else await self._claims.presence()

    @property
    def blocking(self) -> BlockingSessions:
        """The methods that wait, for threads, such as those of plain handlers."""
        return BlockingSessions(self)

    # -- joining and leaving --------------------------------------------------------

    def join(self, key: Hashable, ws: AnyWebSocket) -> None:
        """Make ``ws`` the current connection of ``key``. A handler calls it when it knows the key.

        An older connection of the key is closed with 4991 "replaced", and its Ending has the cause REPLACED.
        If a newer connection has already joined, ``ws`` is closed in this way instead; this happens if the
        handler of ``ws`` was slower. When ``ws`` ends, it is removed, unless another connection has replaced
        it. A connection that is closing does not join.

        With a bus, the call returns before the other processes know of the connection. While the bus is not
        available, ``ws`` is the current connection of this process; the others are told when the bus is back.

        Args:
            key: The user, device or tab: any hashable object. With a bus: a ``str``, an ``int`` or a tuple of
                these, because other processes must get the same key.
            ws: The WebSocket of the handler. In an ASGI application that :meth:`Server.mount` serves: the WebSocket
                of its framework, or the scope. The mapping and the callbacks have endwell's WebSocket.

        Raises:
            ValueError: ``ws`` is an ASGI WebSocket that is not accepted yet.
            ConcurrencyError: ``ws`` is an asyncio WebSocket, and this thread does not run its event loop.
            TypeError: ``ws`` is something else; or there is a bus, and ``key`` has another type.
            RoomLimit: There is a bus, and the JSON text of ``key`` has more than 1024 characters.
        """
        if self._claims is not None:
            pack_key(key)
        if isinstance(ws, BlockingWebSocket):
            bridge_of(ws).portal.run(self._join_soon, key, ws)
        elif _running_loop() is loop_of(engine := engine_of(ws)):
            self._join(key, engine, None)
        else:
            raise ConcurrencyError(
                "join() was called with an asyncio WebSocket in a thread that does not run its event loop; a "
                "plain handler must pass its own WebSocket, other threads use loop.call_soon_threadsafe()"
            )

    def joined(self, callback: Callback) -> Callback:
        """Decorator for a plain function ``callback(key, ws)`` that runs when a key joins.

        For a connection of a plain handler, ``ws`` is the blocking WebSocket; the callback runs in a thread,
        one call after the other, and may block. For other connections, it runs in the event loop, and must
        not block. Exceptions are logged. With a bus, it runs in the process of the connection, when the bus has
        answered.

        Raises:
            TypeError: ``callback`` is a coroutine function, not callable, or does not take these arguments.
        """
        return _register(self._joined, callback, "key", "ws")

    def left(self, callback: Callback) -> Callback:
        """Decorator for a plain function ``callback(key, ending)`` that runs when a key has left.

        ``ending`` is the Ending of its last connection. The callback runs in a thread or in the event loop,
        as in :meth:`joined`. When the server stops, all keys leave. Exceptions are logged.

        With a bus, it runs once, in the process of the last connection. If that process has ended, it runs in
        another one, and ``ending`` is None. If no other process is left, it does not run.

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
        self._join(key, ws, self._executor_of(lambda: SerialExecutor(bridge_of(ws).portal.callbacks)))

    def _join(
        self, key: Hashable, ws: WebSocket | BlockingWebSocket, executor: SerialExecutor | None
    ) -> None:
        current, asyncio_ws = self._current.get(key), engine_of(ws)
        if current is ws or not asyncio_ws.is_open:
            return
        if current is not None and opened_at(engine_of(current)) > opened_at(asyncio_ws):
            _close_replaced(ws)
            return
        with self._lock:
            self._current[key] = ws
            period = self._grace_periods.pop(key, None)
            if self._claims is not None:
                self._claims.join(key, ws, asyncio_ws, executor)
        asyncio_ws._key = key
        asyncio_ws.on_close(lambda ending: self._ended(key, ws, executor, ending))
        if current is not None:
            _close_replaced(current)
        elif period is not None:
            period.timer.cancel()
        elif self._claims is None:
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
            if self._claims is not None:
                self._claims.ended(key, ending, 0.0 if leaves else self.grace)
                return
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

    # -- the claims call -------------------------------------------------------------

    def _lose(self, key: Hashable) -> None:
        with self._lock:
            ws = self._current.pop(key)
            assert self._claims is not None
            # The newer connection is known already. It may end before this one.
            self._claims.ended(key, None, self.grace)
        _close_replaced(ws)

    def _tell_joined(self, key: Hashable, ws: Any, executor: SerialExecutor | None) -> None:
        _notify(executor, self._joined, key, ws)

    def _tell_left(self, key: Hashable, ending: Ending | None, executor: SerialExecutor | None) -> None:
        _notify(executor, self._left, key, ending)

    def _executor_of(self, make: Callable[[], SerialExecutor]) -> SerialExecutor:
        if self._executor is None:
            self._executor = make()
        return self._executor


class BlockingSessions:
    """The methods of :class:`Sessions` that wait, for threads. ``server.sessions.blocking`` returns it."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def presence(self) -> set[Hashable]:
        """See :meth:`Sessions.presence`."""
        registry = self._sessions._registry
        if self._sessions._claims is None or registry is None:
            return self._sessions.present
        return registry.portal.run(self._sessions.presence)


@asynccontextmanager
async def connected(sessions: Sessions, rooms: Rooms) -> AsyncIterator[None]:
    """Use the rooms of a server, and connect its sessions by their bus, while the block runs.

    Of several servers with the same rooms, the sessions of the first one are connected. Those of the others are
    sessions of one process.
    """
    registry = registry_of(rooms)
    if registry.bus.is_shared and SESSIONS in registry.reserved:
        async with rooms:
            yield
        return
    # The bus may tell of keys that have left as soon as it is connected.
    claims = Claims(registry, sessions) if registry.bus.is_shared else None
    if claims is not None:
        registry.reserved[SESSIONS] = claims
    try:
        async with rooms:
            registry.finders.append(sessions.get)
            sessions._claims, sessions._registry = claims, registry
            try:
                yield
            finally:
                registry.finders.remove(sessions.get)
                sessions._claims = sessions._registry = None
                if claims is not None:
                    claims.stop()
    finally:
        if claims is not None:
            del registry.reserved[SESSIONS]


def shared_places(sessions: Sessions, limit: int | None) -> SharedPlaces | None:
    """The places of a server whose sessions are connected, if ``max_connections`` can hold for all processes."""
    bus = None if sessions._registry is None else sessions._registry.bus
    if limit is None or bus is None or not bus.can_reserve or sessions._claims is None:
        return None
    return SharedPlaces(bus, limit)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _close_replaced(ws: WebSocket | BlockingWebSocket) -> None:
    begin_close(engine_of(ws), Cause.REPLACED, CloseCode.REPLACED, "replaced")


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

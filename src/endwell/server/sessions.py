"""Who is here: for each key one connection, the newest."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Hashable, ItemsView, Iterator, Mapping, ValuesView
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ..aio.callbacks import check_callback, check_returned
from ..aio.websocket import WebSocket, begin_close, loop_of, opened_at
from ..codes import CloseCode, Retry, describe
from ..ending import Cause, Ending
from ..errors import ConcurrencyError
from ..sync.executor import SerialExecutor
from ..sync.websocket import WebSocket as BlockingWebSocket
from ..sync.websocket import bridge_of

__all__ = ["Sessions"]

logger = logging.getLogger("endwell.server")

#: Seconds for callbacks that block when everybody has left: a server's deadline is not theirs.
CALLBACK_TIME = 1.0

Callback = TypeVar("Callback", bound=Callable[..., object])


class _Awaited(NamedTuple):
    """Whoever has a moment left to come back."""

    timer: asyncio.TimerHandle
    ending: Ending
    calls: SerialExecutor | None


class Sessions(Mapping[Hashable, Any]):
    """The current connection of each key: a user, a device, a tab. The newest wins.

    As a mapping it holds the connections that are there now, as their handlers have
    them: of a plain handler the blocking WebSocket. :attr:`present` has also
    the keys whose connection has ended a moment ago, and who are awaited back: a page
    that is reloaded, a client that lost its network. ``joined`` and ``left`` tell of
    those who come and go, and not of reloads.

    ``grace`` is in seconds. Belongs to one event loop; threads of its plain handlers may
    call :meth:`join` with their WebSocket, and read.
    """

    # A reload is back as soon as the page has loaded; a client whose network failed within
    # the first wait of RetryPolicy, 5 s, and a handshake.
    def __init__(self, grace: float = 10.0) -> None:
        #: Seconds that a key has to come back before it has left. Who was closed with a code
        #: that says not to come back (1000, 1008, ...), or said so, has left at once.
        self.grace = grace
        # Changed in the loop only, and with the lock held, so that threads see both in the same moment.
        self._lock = threading.Lock()
        self._current: dict[Hashable, WebSocket | BlockingWebSocket] = {}
        self._awaited: dict[Hashable, _Awaited] = {}
        self._joined: list[Callable[[Any, Any], object]] = []
        self._left: list[Callable[[Any, Ending], object]] = []
        #: Where callbacks of plain handlers' connections run.
        self._calls: SerialExecutor | None = None

    # -- who is here ------------------------------------------------------------

    def __getitem__(self, key: Hashable) -> Any:
        return self._current[key]

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._current)

    def values(self) -> ValuesView[Any]:
        """The connections of this moment."""
        return self._now().values()

    def items(self) -> ItemsView[Hashable, Any]:
        """The keys and connections of this moment."""
        return self._now().items()

    def _now(self) -> dict[Hashable, Any]:
        with self._lock:
            return self._current.copy()

    @property
    def present(self) -> set[Hashable]:
        """The keys that have joined and not left."""
        with self._lock:
            return {*self._current, *self._awaited}

    # -- coming and going ---------------------------------------------------------

    def join(self, key: Hashable, ws: WebSocket | BlockingWebSocket) -> None:
        """Make ``ws`` the current connection of ``key``; call it in the handler, once that is known.

        An older connection of the key is closed with 4991 "replaced", and its ending says
        REPLACED. If a newer one is there already, because this handler was slower to
        find out the key, it is ``ws`` that is closed so. When ``ws`` ends, its entry
        goes with it, unless another connection has taken over by then. A connection that
        is ending joins nothing.

        Raises :exc:`ConcurrencyError` in a thread that is neither a plain handler's, with the
        WebSocket that it was given, nor that of the event loop.
        """
        if isinstance(ws, BlockingWebSocket):
            bridge_of(ws).portal.run(self._join_soon, key, ws)
        elif _running_loop() is loop_of(ws):
            self._join(key, ws, None)
        else:
            raise ConcurrencyError(
                "join() of an asyncio WebSocket was called in a thread that is not its event loop's; a plain "
                "handler joins the WebSocket that it was given, others use loop.call_soon_threadsafe()"
            )

    def joined(self, callback: Callback) -> Callback:
        """Decorate a ``callback(key, ws)``, a plain function, that is told of each key that comes.

        Of a plain handler's connection it gets the blocking WebSocket, is called in a
        thread, one callback after the other, and may block; else in the event loop.
        """
        return _register(self._joined, callback)

    def left(self, callback: Callback) -> Callback:
        """Decorate a ``callback(key, ending)``, a plain function, that is told of each key that has gone.

        ``ending`` is that of its last connection; where that was a plain handler's, the callback runs in a thread, as
        in :meth:`joined`. At a server's end all have gone.
        """
        return _register(self._left, callback)

    def close(self) -> None:
        """Wait for nobody any more: those who are awaited back have left."""
        for key in list(self._awaited):
            self._leave(key)

    async def aclose(self) -> None:
        """:meth:`close`, and wait for the callbacks in threads, a second at most. A server does it when it stops."""
        self.close()
        if self._calls is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._calls.flushed(), CALLBACK_TIME)

    # -- in the loop ---------------------------------------------------------------

    async def _join_soon(self, key: Hashable, ws: BlockingWebSocket) -> None:
        if self._calls is None:
            self._calls = SerialExecutor(bridge_of(ws).portal.callbacks)
        self._join(key, ws, self._calls)

    def _join(self, key: Hashable, ws: WebSocket | BlockingWebSocket, calls: SerialExecutor | None) -> None:
        current, engine = self._current.get(key), _engine(ws)
        if current is ws or not engine.is_open:
            return
        if current is not None and opened_at(_engine(current)) > opened_at(engine):
            _replace(ws)
            return
        with self._lock:
            self._current[key] = ws
            awaited = self._awaited.pop(key, None)
        engine.on_close(lambda ending: self._ended(key, ws, calls, ending))
        if current is not None:
            _replace(current)
        elif awaited is not None:
            awaited.timer.cancel()
        else:
            _tell(calls, self._joined, key, ws)

    def _ended(
        self, key: Hashable, ws: WebSocket | BlockingWebSocket, calls: SerialExecutor | None, ending: Ending
    ) -> None:
        if self._current.get(key) is not ws:
            return
        # Both sides know the code, and a client goes by it.
        gone = not self.grace or describe(ending.code).retry is Retry.NEVER
        with self._lock:
            del self._current[key]
            if not gone:
                timer = asyncio.get_running_loop().call_later(self.grace, self._leave, key)
                self._awaited[key] = _Awaited(timer, ending, calls)
        if gone:
            _tell(calls, self._left, key, ending)

    def _leave(self, key: Hashable) -> None:
        with self._lock:
            timer, ending, calls = self._awaited.pop(key)
        timer.cancel()
        _tell(calls, self._left, key, ending)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _engine(ws: WebSocket | BlockingWebSocket) -> WebSocket:
    return bridge_of(ws).ws if isinstance(ws, BlockingWebSocket) else ws


def _replace(ws: WebSocket | BlockingWebSocket) -> None:
    begin_close(_engine(ws), Cause.REPLACED, CloseCode.REPLACED, "replaced")


def _register(callbacks: list[Callable[..., object]], callback: Callback) -> Callback:
    check_callback(callback)
    callbacks.append(callback)
    return callback


def _tell(calls: SerialExecutor | None, callbacks: list[Callable[..., object]], *args: object) -> None:
    """Have the callbacks called, by ``calls`` if there are any to do it."""
    if calls is None:
        _call(callbacks, *args)
    else:
        calls.add(partial(_call, callbacks, *args))


def _call(callbacks: list[Callable[..., object]], *args: object) -> None:
    for callback in callbacks:
        try:
            check_returned(callback(*args), callback)
        except KeyboardInterrupt:
            raise
        except BaseException:
            logger.exception("callback %r failed", callback)

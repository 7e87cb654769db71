"""Who is here: for each key one connection, the newest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, TypeVar

from ..aio.callbacks import check_callback
from ..aio.websocket import WebSocket
from ..codes import CloseCode, Retry, describe
from ..ending import Cause, Ending

__all__ = ["Sessions"]

logger = logging.getLogger("endwell.server")

Callback = TypeVar("Callback", bound=Callable[..., object])


class Sessions(Mapping[Hashable, WebSocket]):
    """The current connection of each key: a user, a device, a tab. The newest wins.

    As a mapping it holds the connections that are there now. :attr:`present` has also
    the keys whose connection has ended a moment ago, and who are awaited back: a page
    that is reloaded, a client that lost its network. ``joined`` and ``left`` tell of
    those who come and go, and not of reloads.

    ``grace`` is in seconds. Belongs to the event loop's thread.
    """

    # A reload is back as soon as the page has loaded; a client whose network failed within
    # the first wait of RetryPolicy, 5 s, and a handshake.
    def __init__(self, grace: float = 10.0) -> None:
        #: Seconds that a key has to come back before it has left. Who was closed with a code
        #: that says not to come back (1000, 1008, ...), or said so, has left at once.
        self.grace = grace
        self._current: dict[Hashable, WebSocket] = {}
        self._awaited: dict[Hashable, tuple[asyncio.TimerHandle, Ending]] = {}
        self._joined: list[Callable[[Any, WebSocket], object]] = []
        self._left: list[Callable[[Any, Ending], object]] = []

    # -- who is here ------------------------------------------------------------

    def __getitem__(self, key: Hashable) -> WebSocket:
        return self._current[key]

    def __iter__(self) -> Iterator[Hashable]:
        return iter(list(self._current))

    def __len__(self) -> int:
        return len(self._current)

    @property
    def present(self) -> set[Hashable]:
        """The keys that have joined and not left."""
        return {*self._current, *self._awaited}

    # -- coming and going ---------------------------------------------------------

    def join(self, key: Hashable, ws: WebSocket) -> None:
        """Make ``ws`` the current connection of ``key``; call it in the handler, once that is known.

        An older connection of the key is closed with 4991 "replaced", and its ending says
        REPLACED. If a newer one is there already, because this handler was slower to
        find out the key, it is ``ws`` that is closed so. When ``ws`` ends, its entry
        goes with it, unless another connection has taken over by then. A connection that
        is ending joins nothing.
        """
        current = self._current.get(key)
        if current is ws or not ws.is_open:
            return
        if current is not None and current._core.opened > ws._core.opened:
            _replace(ws)
            return
        self._current[key] = ws
        ws.on_close(lambda ending: self._ended(key, ws, ending))
        if current is not None:
            _replace(current)
        elif key in self._awaited:
            self._awaited.pop(key)[0].cancel()
        else:
            _tell(self._joined, key, ws)

    def joined(self, callback: Callback) -> Callback:
        """Decorate a ``callback(key, ws)``, a plain function, that is told of each key that comes."""
        return _register(self._joined, callback)

    def left(self, callback: Callback) -> Callback:
        """Decorate a ``callback(key, ending)``, a plain function, that is told of each key that has gone.

        ``ending`` is that of its last connection. At a server's end all have gone.
        """
        return _register(self._left, callback)

    def close(self) -> None:
        """Wait for nobody any more: those who are awaited back have left. A server does it when it stops."""
        for key in list(self._awaited):
            self._leave(key)

    def _ended(self, key: Hashable, ws: WebSocket, ending: Ending) -> None:
        if self._current.get(key) is not ws:
            return
        del self._current[key]
        # Both sides know the code, and a client goes by it.
        if not self.grace or describe(ending.code).retry is Retry.NEVER:
            _tell(self._left, key, ending)
        else:
            timer = asyncio.get_running_loop().call_later(self.grace, self._leave, key)
            self._awaited[key] = timer, ending

    def _leave(self, key: Hashable) -> None:
        timer, ending = self._awaited.pop(key)
        timer.cancel()
        _tell(self._left, key, ending)


def _replace(ws: WebSocket) -> None:
    ws.begin_close(Cause.REPLACED, CloseCode.REPLACED, "replaced")


def _register(callbacks: list[Callable[..., object]], callback: Callback) -> Callback:
    check_callback(callback)
    callbacks.append(callback)
    return callback


def _tell(callbacks: list[Callable[..., object]], *args: object) -> None:
    for callback in callbacks:
        try:
            callback(*args)
        except Exception:
            logger.exception("callback %r failed", callback)

"""Renews the bearer token of an open connection of a client before it expires."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import TypeAlias
from weakref import ref

from ..aio.authorization import deadline_of
from ..aio.syscalls import monotonic
from ..aio.websocket import WebSocket, say
from ..ending import Ending
from ..http.bearer import RENEWAL
from ..protocol.renewal import ClientRenewal
from .token import Token

__all__ = ["Renewing"]

logger = logging.getLogger("endwell.client")

#: The part of the life of a token after which it is renewed. Precedent: the renewal of leases in HashiCorp Vault's
#: client, between 2/3 and 9/10.
SHARE = 0.8
#: Minimum seconds between two calls of the function, so that a token with a short life makes no busy loop.
MIN_INTERVAL = 1.0

#: Calls the function of the application. Raises HandshakeError if it fails.
Ask: TypeAlias = Callable[[], Awaitable[Token]]


class Renewing(ClientRenewal):
    """Calls ``ask()`` at 80 % of the life of the token, and sends the new one.

    It begins when the server has said that it takes new tokens, and ends with the connection. If ``ask()``
    fails, it is called again at 80 % of the rest.
    """

    def __init__(self, token: Token, ask: Ask) -> None:
        super().__init__(token.value, self._server_takes_tokens)
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        # Weak, so that a connection that the application has dropped is freed and reported.
        self._ws: Callable[[], WebSocket | None] = lambda: None
        self._is_greeted = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._take(token)

    def _take(self, token: Token) -> None:
        self._token = token
        self._expires_at = deadline_of(token.until)
        now = monotonic()
        self._due = now + SHARE * (self._expires_at - now)

    def attach(self, ws: WebSocket) -> None:
        """Set the connection, once."""
        self._ws = ref(ws)
        ws.on_close(self._ended)
        if self._is_greeted:
            self._set_timer()

    def _server_takes_tokens(self) -> None:
        # It may come together with the 101, before attach().
        self._is_greeted = True
        if self._ws() is not None:
            self._set_timer()

    def _set_timer(self) -> None:
        now = monotonic()
        ws = self._ws()
        if ws is not None and ws.is_open and self._token.until is not None and now < self._expires_at:
            self._timer = self._loop.call_later(max(MIN_INTERVAL, self._due - now), self._begin)

    def _begin(self) -> None:
        if self._ws() is not None:
            self._task = self._context.run(self._loop.create_task, self._renew())

    async def _renew(self) -> None:
        try:
            token = await self._ask()
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # a HandshakeError, or what a library raises past `except Exception`
            logger.warning("the token of an open connection was not renewed: %s", exc)
            now = monotonic()
            self._due = now + SHARE * (self._expires_at - now)
        else:
            is_new = token.value != self._token.value
            self._take(token)
            if is_new and (ws := self._ws()) is not None:
                say(ws, RENEWAL + token.value)
        self._set_timer()

    def _ended(self, _ending: Ending) -> None:
        for running in (self._timer, self._task):
            if running is not None:
                running.cancel()

"""New bearer tokens of an open connection: the ``accept`` function of its route decides about each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeAlias

from ..aio.bind import format_peer
from ..aio.cancellation import is_cancelled
from ..aio.syscalls import monotonic
from ..aio.websocket import WebSocket, begin_close, stop_delivery
from ..codes import CloseCode
from ..ending import Cause, Ending
from ..errors import RequestRefused, close_after, unavailable
from ..http import Accept, Request, Response, renewed, set_bearer
from ..http.bearer import is_token
from ..protocol.renewal import ServerRenewal
from .revoke import Revoked, close_revoked

__all__ = ["Decide", "Renewing", "Start"]

logger = logging.getLogger("endwell.server")

#: Tokens that a client may send at once, and the seconds after which it may send one more. A client of this
#: library sends at most one per second.
BURST = 10
INTERVAL = 1.0

#: Calls the ``accept`` function of a route. It may raise RequestRefused.
Decide: TypeAlias = Callable[[Request], Awaitable[Accept | Response | None]]
#: Runs a coroutine as a task of the server, unless the server stops.
Start: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], asyncio.Task[None] | None]


class Renewing(ServerRenewal):
    """The new tokens of one connection. One is decided at a time; of those that come meanwhile, the newest counts.

    ``token`` is that of the opening handshake. ``work`` names the function for log lines. ``limit`` is the number
    of seconds for one decision.
    """

    def __init__(self, token: str, work: str, decide: Decide, start: Start, limit: float | None) -> None:
        super().__init__(token, self._offered_tokens)
        self._work = work
        self._decide = decide
        self._start = start
        self._limit = limit
        self._ws: WebSocket | None = None
        #: The newest token that is not decided.
        self._token: str | None = None
        self._task: asyncio.Task[None] | None = None
        # When the client may send BURST tokens at once again.
        self._full_at = 0.0

    def attach(self, ws: WebSocket) -> None:
        """Set the connection, once."""
        self._ws = ws
        ws.on_close(self._ended)

    def _ended(self, _ending: Ending) -> None:
        # The connection refers to this object: without this, only the garbage collector would free both.
        self._ws = self._token = None
        if self._task is not None:
            self._task.cancel()

    def _offered_tokens(self, tokens: list[str]) -> None:
        """The client has sent these. The connection is parsing what it has received, so all else comes later."""
        now = monotonic()
        self._full_at = max(self._full_at, now) + len(tokens) * INTERVAL
        if self._full_at > now + BURST * INTERVAL:
            self._call_soon(self._flooded)
            return
        self._token = tokens[-1]
        if self._task is None:
            self._call_soon(self._begin)

    def _call_soon(self, callback: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_soon(callback)

    def _flooded(self) -> None:
        self._token = None
        self._close(Cause.POLICY_LIMIT, CloseCode.POLICY_VIOLATION, "too many tokens")

    def _begin(self, _done: object = None) -> None:
        """Decide about the newest token, if no other one is being decided."""
        ws, self._task = self._ws, self._task if _done is None else None
        if ws is None or not ws.is_open or self._task is not None or self._token is None:
            return
        self._task = self._start(self._run)
        if self._task is not None:
            self._task.set_name(self._work)  # for the log line about tasks that still run after a stop
            self._task.add_done_callback(self._begin)

    async def _run(self) -> None:
        ws, token, self._token = self._ws, self._token, None
        if ws is None or token is None:
            return
        if not is_token(token):
            self._refuse()
            return
        request = renewed(ws.request, token)
        try:
            async with asyncio.timeout(self._limit):
                answer = await self._decide(request)
        except Revoked:
            close_revoked(ws)
            return
        except RequestRefused:
            answer = Response(401)
        except asyncio.CancelledError as exc:
            if is_cancelled():
                raise
            self._failed(request, exc)
            return
        except (GeneratorExit, KeyboardInterrupt):
            raise
        except BaseException as exc:
            self._failed(request, exc)
            return
        if self._token is None and ws.is_open:
            self._apply(ws, token, request, answer)

    def _apply(self, ws: WebSocket, token: str, request: Request, answer: Accept | Response | None) -> None:
        if isinstance(answer, Response):
            self._refuse()
            return
        if answer is not None:
            if ws.subject is not None and answer.subject not in (None, ws.subject):
                # The handler has begun for this subject. Another one needs a connection of its own.
                self._refuse()
                return
            request.state.update(answer.state)
            ws.authorize(until=answer.until, subject=answer.subject)
        ws.request.state.update(request.state)
        set_bearer(ws.request, token)

    def _refuse(self) -> None:
        self._close(Cause.AUTH_REFUSED, CloseCode.UNAUTHORIZED, "token refused")

    def _failed(self, request: Request, exc: BaseException) -> None:
        """Log ``exc`` and close the connection, as after an exception of the handler."""
        peer = format_peer(request.remote_address)
        if (away := unavailable(exc)) is None:
            logger.error("%s for %s failed", self._work, peer, exc_info=exc)
        else:
            logger.warning("%s for %s failed: %s", self._work, peer, away)
        self._close(Cause.HANDLER_ERROR, *close_after(exc))

    def _close(self, cause: Cause, code: CloseCode, reason: str) -> None:
        if self._ws is not None and self._ws.is_open:
            stop_delivery(self._ws)
            begin_close(self._ws, cause, code, reason)

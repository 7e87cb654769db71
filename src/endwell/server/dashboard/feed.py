"""One feed: a client that asks over a WebSocket, and gets answers and summaries."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from ...aio.bind import format_peer
from ...aio.websocket import WebSocket, begin_close
from ...codes import CloseCode
from ...ending import Cause
from ...errors import ConnectionClosed, RequestRefused
from .access import Access
from .actions import ACTIONS
from .order import AskError
from .workers import dump

__all__ = ["MAX_ASK", "SUBPROTOCOL", "Feed"]

logger = logging.getLogger("endwell.server")

SUBPROTOCOL = "endwell.feed.1"
#: Maximum size of an ask in bytes.
MAX_ASK = 8192
#: Seconds until a client that only watches must be authorized again.
AUTHORIZATION_INTERVAL = 30.0
#: Maximum seconds for that. A client whose authorization is not known is not authorized.
AUTHORIZATION_TIME = 10.0
#: Seconds between two summaries.
SHORTEST, LONGEST = 0.5, 3600.0
#: Minimum seconds between two summaries for each connection of a process, so that they take less than 1 % of a core,
#: however many there are.
PER_CONNECTION = 1 / 7000

#: Answers an ask of a client.
Answer = Callable[[dict[str, Any], str], Awaitable[dict[str, Any]]]


class Feed:
    """One client. It gets one answer after the other, so that asks that it does not read wait in its own queue."""

    def __init__(self, ws: WebSocket, access: Access, answer: Answer) -> None:
        self._ws = ws
        self._access = access
        self._answer = answer
        self._who = format_peer(ws.remote_address)
        self._summaries: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Answer until the connection ends."""
        watch = self._start(self._watch())
        try:
            async for message in self._ws:
                await self._ws.send(await self._respond(message))
        finally:
            watch.cancel()
            self._stop_summaries()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the feed of the dashboard for %s failed", self._who, exc_info=error)
            begin_close(self._ws, Cause.HANDLER_ERROR, CloseCode.INTERNAL_ERROR)

    async def _watch(self) -> None:
        """End the connection when its client is no longer authorized."""
        while True:
            await asyncio.sleep(AUTHORIZATION_INTERVAL)
            if not await self._is_authorized():
                await self._ws.close(CloseCode.UNAUTHORIZED, "the authorization has ended")
                return

    async def _is_authorized(self) -> bool:
        try:
            async with asyncio.timeout(AUTHORIZATION_TIME):
                return await self._access.allows(self._ws.request)
        except (RequestRefused, TimeoutError):
            return False

    async def _respond(self, message: str | bytes) -> str:
        number: int | None = None
        try:
            ask = _parse(message)
            number = _number(ask)
            if ask["ask"] == "summary":
                answer = self._start_summaries(ask)
            elif ask["ask"] in ACTIONS and not await self._is_authorized():
                # A session that has ended must not act.
                answer = {"error": "you are no longer authorized"}
            else:
                answer = await self._answer(ask, self._who)
        except AskError as error:
            answer = {"error": str(error)}
        return await dump({"id": number, **answer})

    # -- summaries ------------------------------------------------------------------------

    def _start_summaries(self, ask: dict[str, Any]) -> dict[str, Any]:
        every = ask.get("every", 1)
        valid = isinstance(every, int | float) and not isinstance(every, bool)
        if not valid or not (every == 0 or SHORTEST <= every <= LONGEST):
            raise AskError(f"every must be 0, or seconds from {SHORTEST:g} to {LONGEST:g}")
        self._stop_summaries()
        if not every:
            return {"done": True}
        self._summaries = self._start(self._send_summaries(every))
        return {"done": True}

    def _stop_summaries(self) -> None:
        if self._summaries is not None:
            self._summaries.cancel()
            self._summaries = None

    async def _send_summaries(self, every: float) -> None:
        loop = asyncio.get_running_loop()
        due, period = loop.time(), every
        try:
            while True:
                # If the client does not read, send() waits, and no summary is made meanwhile.
                answer = await self._answer({"ask": "summary", "every": period}, self._who)
                await self._ws.send(await dump(answer))
                most = max(worker["connections"] for worker in answer["summary"]["workers"])
                period = max(every, most * PER_CONNECTION)
                due = max(due + period, loop.time())
                await asyncio.sleep(due - loop.time())
        except ConnectionClosed:
            pass


def _parse(message: str | bytes) -> dict[str, Any]:
    """The ask of a client. Raises AskError."""
    if not isinstance(message, str):
        raise AskError("an ask is a text message")
    try:
        ask = json.loads(message)
    except (ValueError, RecursionError):
        raise AskError("an ask is a JSON object") from None
    if not isinstance(ask, dict) or not isinstance(ask.get("ask"), str):
        raise AskError("an ask is a JSON object with the field ask")
    return ask


def _number(ask: dict[str, Any]) -> int | None:
    number = ask.get("id")
    if not isinstance(number, int | None) or isinstance(number, bool) or abs(number or 0) > 2**53:
        raise AskError("id must be a whole number")
    return number

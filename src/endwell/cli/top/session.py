"""The connection of ``endwell top`` to the feed of a dashboard."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from itertools import count
from typing import Any

from ...aio.websocket import WebSocket
from ...client.connect import ConnectKeywords, connect
from ...client.reconnecting import reconnecting
from ...client.retry import RetryPolicy
from ...client.state import ClientPhase, ClientState
from ...codes import Retry
from ...ending import Ending
from ...errors import ConnectionClosed, GaveUp, HandshakeError
from .search import NOT_UNDERSTOOD
from .tables import Table
from .terminal import Terminal
from .view import View

__all__ = ["SUBPROTOCOL", "Watch", "ask_once"]

SUBPROTOCOL = "endwell.feed.1"
#: Seconds between two summaries.
INTERVAL = 1.0
#: A server that restarts is away for a moment, and an operator waits for it.
POLICY = RetryPolicy(base=0.5, max_delay=5.0, codes={1000: Retry.NOW, 1011: Retry.LATER})


async def ask_once(url: str, keywords: ConnectKeywords, rows: int) -> dict[str, Any]:
    """One summary, and the first rows of the lists.

    Raises:
        HandshakeError: The feed cannot be opened.
        ConnectionClosed: It has ended.
    """
    async with connect(url, **keywords) as ws:
        await ws.send(json.dumps({"ask": "summary", "id": 1, "every": 3600}))
        while "summary" not in (answer := json.loads(await ws.recv())):
            pass
        summary = answer["summary"]
        order = {"sort": "age", "descending": True, "limit": rows}
        await ws.send(json.dumps({"ask": "list", "id": 2, **order}))
        connections = json.loads(await ws.recv())
        await ws.send(json.dumps({"ask": "endings", "id": 3, "limit": rows}))
        endings = json.loads(await ws.recv())
    return {"summary": summary, "connections": connections["rows"], "endings": endings["rows"]}


class Watch:
    """The command in a terminal, until the operator quits.

    Args:
        url: The feed.
        keywords: How to connect.
        view: What is shown.
    """

    def __init__(self, url: str, keywords: ConnectKeywords, view: View) -> None:
        self._client = reconnecting(url, policy=POLICY, on_state=self._changed, **keywords)
        self._view = view
        self._terminal: Terminal | None = None
        self._ws: WebSocket | None = None
        self._numbers = count(1)
        #: What the answers with these numbers are for; None: an action.
        self._asked: dict[int, Table | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: What the server has sent, and is not understood.
        self._failure: Exception | None = None

    async def run(self) -> Ending | HandshakeError | None:
        """Show it. Returns how the connection ended, if that is final; None if the operator has quit.

        Raises one of `NOT_UNDERSTOOD`.
        """
        with Terminal(self._typed, self._draw) as self._terminal:
            self._draw()
            clock = asyncio.create_task(self._tick())
            try:
                # What it raises is the last ending.
                with suppress(ConnectionClosed, HandshakeError, GaveUp):
                    async for ws in self._client:
                        await self._follow(ws)
            finally:
                clock.cancel()
                for task in self._tasks:
                    task.cancel()
        if self._failure is not None:
            raise self._failure
        return None if self._view.ended else self._client.state.last

    async def _follow(self, ws: WebSocket) -> None:
        self._ws, self._view.trouble = ws, ""
        self._asked.clear()
        with suppress(ConnectionClosed):
            await self._send({"ask": "summary", "every": INTERVAL}, None)
            self._asked.clear()  # its answer says nothing
            await self._ask_table()
            async for message in ws:
                self._receive(json.loads(message))
                self._draw()
        self._ws = None

    def _receive(self, answer: dict[str, Any]) -> None:
        if "summary" in answer:
            self._view.summarize(answer["summary"])
            # One ask at a time, however slow the answers are.
            if self._view.table not in self._asked.values():
                self._start(self._ask_table())
            return
        number = answer.get("id")
        if number not in self._asked:
            return
        table = self._asked.pop(number)
        if table is None:
            self._view.acted(answer)
        else:
            self._view.listed(table, answer)

    async def _ask_table(self) -> None:
        ask = self._view.wanted()
        if ask is not None:
            await self._send(ask, self._view.table)

    async def _send(self, ask: dict[str, Any], table: Table | None) -> None:
        if self._ws is None:
            self._view.note = "not connected"
            return
        number = next(self._numbers)
        self._asked[number] = table
        with suppress(ConnectionClosed):
            await self._ws.send(json.dumps({**ask, "id": number}))

    def _start(self, coroutine: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _typed(self, text: str) -> None:
        try:
            is_changed = self._view.type(text)
        except NOT_UNDERSTOOD as error:
            self._fail(error)
            return
        # "": the end of the input, or a signal to stop.
        if not text:
            self._view.ended = True
        elif is_changed and self._ws is not None:
            self._start(self._ask_table())
        for ask in self._view.take_asks():
            self._start(self._send(ask, None))
        if self._view.ended:
            self._client.stop()
        self._draw()

    def _changed(self, state: ClientState) -> None:
        self._show_trouble(state)
        self._draw()

    def _show_trouble(self, state: ClientState) -> None:
        why = f" ({state.last})" if state.last is not None else ""
        if state.phase is ClientPhase.OPEN:
            self._view.trouble = ""
        elif state.phase is ClientPhase.WAITING and state.until is not None:
            seconds = max(0.0, state.until - time.time())
            self._view.trouble = f"disconnected, reconnecting in {seconds:.0f} s{why}"
        elif state.phase is ClientPhase.CONNECTING:
            self._view.trouble = f"reconnecting{why}" if state.last is not None else "connecting"

    async def _tick(self) -> None:
        """Count the seconds until the next attempt down."""
        while True:
            await asyncio.sleep(INTERVAL)
            if self._client.state.phase is ClientPhase.WAITING:
                self._show_trouble(self._client.state)
                self._draw()

    def _draw(self) -> None:
        if self._terminal is None or self._view.ended or self._failure is not None:
            return
        try:
            lines = self._view.lines(*self._terminal.size)
        except NOT_UNDERSTOOD as error:
            self._fail(error)
        else:
            self._terminal.draw(lines)

    def _fail(self, error: Exception) -> None:
        """End, because a row is not understood. Most calls come from the event loop, which would print a traceback."""
        self._failure = error
        self._client.stop()


def is_terminal() -> bool:
    """Whether there is a terminal to draw on and to read from."""
    return sys.stdin.isatty() and sys.stdout.isatty()

"""A client of the feed of a dashboard."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import endwell
from endwell.server.dashboard.feed import SUBPROTOCOL
from tests.pair import within
from tests.raw import BOUND

__all__ = ["Client", "feed", "url"]


def url(server: endwell.Server, path: str = "/_endwell/feed", *, secure: bool = False) -> str:
    return f"{'wss' if secure else 'ws'}://127.0.0.1:{server.port}{path}"


class Client:
    """One feed. ``patience`` bounds the wait for an answer, in seconds."""

    def __init__(self, ws: endwell.WebSocket, patience: float = BOUND) -> None:
        self.ws = ws
        self._patience = patience
        self._id = 0

    async def ask(self, name: str, **fields: Any) -> dict[str, Any]:
        """The answer to an ask, without the id."""
        self._id += 1
        return await self.send({"ask": name, "id": self._id, **fields})

    async def send(self, ask: Any) -> dict[str, Any]:
        text = ask if isinstance(ask, str | bytes) else json.dumps(ask)
        await self.ws.send(text)
        while "summary" in (answer := await self.receive()):
            pass
        expected = ask.get("id") if isinstance(ask, dict) else None
        assert answer.pop("id") == expected
        return answer

    async def receive(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await within(self.ws.recv(), self._patience))
        return answer

    async def summary(self, every: float = 0.5) -> dict[str, Any]:
        """The next summary."""
        self._id += 1
        await self.ws.send(json.dumps({"ask": "summary", "id": self._id, "every": every}))
        while "summary" not in (answer := await self.receive()):
            pass
        summary: dict[str, Any] = answer["summary"]
        return summary

    async def rows(self, **fields: Any) -> list[dict[str, Any]]:
        """The rows of all pages of a list."""
        rows: list[dict[str, Any]] = []
        after = None
        while True:
            page = await self.ask("list", after=after, **fields)
            rows += page["rows"]
            if (after := page["after"]) is None:
                assert page["total"] == len(rows)
                return rows


@asynccontextmanager
async def feed(server: endwell.Server, path: str = "/_endwell/feed", **how: Any) -> AsyncIterator[Client]:
    """A feed, while the block runs."""
    address = url(server, path, secure=how.get("ssl") is not None)
    async with endwell.connect(address, subprotocols=[SUBPROTOCOL], **how) as ws:
        yield Client(ws)

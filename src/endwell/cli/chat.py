"""The chat of the demo: rooms, the page that joins them, and a feed of how everybody left."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict, deque
from importlib import resources
from typing import Unpack

from ..aio.websocket import WebSocket
from ..codes import CloseCode
from ..ending import Ending
from ..http import Request, Response
from ..options import OptionKeywords
from ..server.app import Server
from .style import printable

__all__ = ["Chat", "who"]

#: Endings that a page is told when it opens, and characters of a name.
HISTORY = 100
NAME = 24


class Chat:
    """``/chat/{room}?name=...`` is the chat, ``/`` its page, ``/endings`` the feed.

    Whoever says ``/quit`` gets ``goodbye`` and Close 1000 "user quit"; ``/crash``
    crashes its handler. What the feed tells comes from :meth:`Server.on_close`, and
    from nowhere else.
    """

    def __init__(self, **keywords: Unpack[OptionKeywords]) -> None:
        self.server = Server(**keywords)
        self._rooms: defaultdict[str, set[WebSocket]] = defaultdict(set)
        self._endings: deque[str] = deque(maxlen=HISTORY)
        self._feeds: set[asyncio.Queue[str]] = set()
        self._page = resources.files(__package__).joinpath("demo.html").read_text("utf-8")
        self.server.get("/")(self._index)
        self.server.browser_module()
        self.server.websocket("/chat/{room}")(self._chat)
        self.server.websocket("/endings")(self._feed)
        self.server.on_close(self._ended)

    def _index(self, request: Request) -> Response:
        return Response.html(self._page)

    async def _chat(self, ws: WebSocket, room: str) -> None:
        name, members = who(ws), self._rooms[room]
        members.add(ws)
        try:
            self._tell(members, f"* {name} joined, {len(members)} here")
            async for message in ws:
                if message == "/quit":
                    await ws.send("goodbye")
                    await ws.close(CloseCode.NORMAL_CLOSURE, "user quit")
                elif message == "/crash":
                    raise RuntimeError(f"{name} asked for it")
                else:
                    text = message if isinstance(message, str) else f"0x{message.hex()}"
                    self._tell(members, f"{name}: {text}")
        finally:
            members.discard(ws)
            self._tell(members, f"* {name} left, {len(members)} here")
            if not members:
                self._rooms.pop(room, None)

    def _tell(self, members: set[WebSocket], text: str) -> None:
        # Nobody waits for a slow member: that one is closed, so that nobody here has missed a line.
        self.server.broadcast(members, text, slow="close")

    async def _feed(self, ws: WebSocket) -> None:
        queue: asyncio.Queue[str] = asyncio.Queue()
        for row in self._endings:
            queue.put_nowait(row)
        self._feeds.add(queue)
        try:
            async with ws.alive():
                while True:
                    await ws.send(await queue.get())
        finally:
            self._feeds.discard(queue)

    def _ended(self, ws: WebSocket, ending: Ending) -> None:
        room = ws.request.params.get("room")
        if room is None:
            return  # a feed; its end is no news
        row = json.dumps({**ending.as_dict(), "ok": ending.ok, "name": who(ws), "room": room})
        self._endings.append(row)
        for queue in self._feeds:
            queue.put_nowait(row)


def who(ws: WebSocket) -> str:
    """The name that a connection gave itself, fit to be shown."""
    return printable(ws.request.query.get("name", "")[:NAME]).strip() or "somebody"

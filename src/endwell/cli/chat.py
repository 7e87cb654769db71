"""The chat of the demo: rooms, a page that joins them, and a feed of the endings of all connections."""

from __future__ import annotations

import _socket
import asyncio
import ctypes
import json
import socket
import struct
import sys
from collections import defaultdict, deque
from importlib import resources
from typing import Unpack

from ..advice import RetryAdvice
from ..aio.websocket import WebSocket, socket_of
from ..codes import CloseCode
from ..ending import Ending
from ..http import Request, Response
from ..options import OptionKeywords
from ..server.app import Server
from ..server.drain.timetable import Drain
from .elsewhere import row_for
from .style import printable

__all__ = ["Chat", "user_name"]

#: Number of past endings that a page receives when it opens.
HISTORY = 100
#: Maximum characters of a name, and of the identifiers of a page and of its connections.
MAX_NAME = 24
#: Seconds for which the handler reads nothing after ``/slow``.
SLOW_SECONDS = 6.0
#: From asm-generic/socket.h; Python's socket module does not have it.
SO_ATTACH_FILTER = 26
#: The retry advice after ``/restart``.
RETRY_ADVICE = RetryAdvice(3, 8)


class Chat:
    """``/chat/{room}?name=...`` is the chat, ``/`` its page, ``/endings`` the feed.

    A connection with ``key=...`` replaces an older one with the same key. The feed echoes its
    ``id=...``, by which a page recognizes its own connections. These messages end a connection:

    - ``/quit``: the server sends ``goodbye`` and Close 1000 "user quit";
    - ``/kick``: the server sends Close 1008 "kicked";
    - ``/restart``: the server sends Close 1012 with the advice to reconnect in 3 to 8 s;
    - ``/return``: the handler returns;
    - ``/crash``: the handler raises an exception;
    - ``/slow``: the handler reads nothing for 6 s;
    - ``/unplug``: the kernel drops all packets from this client (Linux only).

    The feed starts after the first message of its client. All its rows come from :meth:`Server.on_close`.
    """

    def __init__(self, **keywords: Unpack[OptionKeywords]) -> None:
        self.server = Server(**keywords)
        self._rooms: defaultdict[str, set[WebSocket]] = defaultdict(set)
        self._slow: set[WebSocket] = set()
        self._commands = {
            "/quit": _quit,
            "/kick": _kick,
            "/restart": _restart,
            "/crash": _crash,
            "/slow": self._sleep,
            "/unplug": _unplug,
        }
        self._endings: deque[str] = deque(maxlen=HISTORY)
        # None marks the end: no further ending follows.
        self._feeds: set[asyncio.Queue[str | None]] = set()
        self._page = resources.files(__package__).joinpath("demo.html").read_text("utf-8")
        self.server.get("/")(self._index)
        self.server.browser_module()
        self.server.websocket("/chat/{room}")(self._chat)
        self.server.websocket("/endings")(self._feed)
        self.server.on_close(self._on_close)
        self.server.on_drain(self._on_drain)

    def _index(self, request: Request) -> Response:
        return Response.html(self._page)

    async def _chat(self, ws: WebSocket, room: str) -> None:
        name, members = user_name(ws), self._rooms[room]
        if key := _query_parameter(ws, "key"):
            self.server.sessions.join(key, ws)
        members.add(ws)
        try:
            self._broadcast(members, f"* {name} joined, {len(members)} here")
            async for message in ws:
                if message == "/return":
                    break
                if isinstance(message, str) and message in self._commands:
                    await self._commands[message](ws)
                else:
                    text = message if isinstance(message, str) else f"0x{message.hex()}"
                    self._broadcast(members, f"{name}: {text}")
        finally:
            members.discard(ws)
            self._broadcast(members, f"* {name} left, {len(members)} here")
            if not members:
                self._rooms.pop(room, None)

    async def _sleep(self, ws: WebSocket) -> None:
        self._slow.add(ws)
        try:
            await ws.send(f"* the handler now reads nothing for {SLOW_SECONDS:.0f} s")
            await asyncio.sleep(SLOW_SECONDS)
        finally:
            self._slow.discard(ws)

    def _broadcast(self, members: set[WebSocket], text: str) -> None:
        # A slow member is closed, so no member waits for it, and each member that stays has every line.
        self.server.broadcast(members, text, slow="close")

    # -- the feed -------------------------------------------------------------

    async def _feed(self, ws: WebSocket) -> None:
        # A drain closes a connection without any message immediately. After a message, the connection
        # stays open until this handler returns, so that it can send the endings of the drain.
        await ws.recv()
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        for past in self._endings:
            queue.put_nowait(past)
        self._feeds.add(queue)
        try:
            async with ws.alive():
                while (row := await queue.get()) is not None:
                    await ws.send(row)
        finally:
            self._feeds.discard(queue)

    def _on_close(self, ws: WebSocket, ending: Ending) -> None:
        room = ws.request.params.get("room")
        if room is None:
            return  # the ending of a feed is not shown
        busy = ws in self._slow
        others = row_for(ending, busy)
        row = {
            **ending.as_dict(),
            "ok": ending.ok,
            "name": user_name(ws),
            "room": printable(room),
            "id": _query_parameter(ws, "id"),
            "busy": busy,
            "others": None if others is None else others._asdict(),
        }
        text = json.dumps(row)
        self._endings.append(text)
        self._publish(text)
        if self.server.draining:
            self._end_feeds(ws)

    async def _on_drain(self, _drain: Drain) -> None:
        self._end_feeds()

    def _end_feeds(self, ended: WebSocket | None = None) -> None:
        """End the feeds if no chat connection is open."""
        if not any("room" in ws.request.params for ws in self.server.connections if ws is not ended):
            self._publish(None)

    def _publish(self, row: str | None) -> None:
        for queue in self._feeds:
            queue.put_nowait(row)


async def _quit(ws: WebSocket) -> None:
    await ws.send("goodbye")
    await ws.close(CloseCode.NORMAL_CLOSURE, "user quit")


async def _kick(ws: WebSocket) -> None:
    await ws.close(CloseCode.POLICY_VIOLATION, "kicked")


async def _restart(ws: WebSocket) -> None:
    await ws.close(CloseCode.SERVICE_RESTART, RETRY_ADVICE.reason("back soon"))


async def _crash(ws: WebSocket) -> None:
    raise RuntimeError(f"{user_name(ws)} asked for it")


async def _unplug(ws: WebSocket) -> None:
    sock = socket_of(ws)
    if sock is None:
        return  # the connection has just ended
    try:
        _drop_all(sock)
    except OSError as error:
        await ws.send(f"* cannot unplug: {error}")
    else:
        # The other direction still works, unlike with a real cable.
        await ws.send("* unplugged: nothing that this page sends arrives any more")


def _drop_all(sock: _socket.socket) -> None:
    """Make the kernel drop every packet that arrives for ``sock``, including acknowledgements.

    Raises:
        OSError: The system is not Linux, or the kernel refuses.
    """
    # A classic BPF program of one instruction: BPF_RET | BPF_K, accept 0 bytes (linux/filter.h).
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    if sys.platform != "linux":
        raise OSError("this needs Linux")
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


def _query_parameter(ws: WebSocket, parameter: str) -> str:
    """Return a parameter of the query with control characters escaped; ``""`` if it is missing."""
    return printable(ws.request.query.get(parameter, "")[:MAX_NAME]).strip()


def user_name(ws: WebSocket) -> str:
    """Return the name of the connection's user with control characters escaped."""
    return _query_parameter(ws, "name") or "somebody"

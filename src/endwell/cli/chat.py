"""The chat of the demo: rooms, the page that joins them, and a feed of how each connection ended."""

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
from ..server.timetable import Drain
from .elsewhere import row_for
from .style import printable

__all__ = ["Chat", "who"]

#: Endings that a page is told when it opens.
HISTORY = 100
#: Characters of a name, and of the identifiers that a page gives itself and its connections.
NAME = 24
#: Seconds that the slow handler takes.
SLOW = 6.0
#: Of asm-generic/socket.h; Python's socket module does not have it.
SO_ATTACH_FILTER = 26
#: When a client comes back after ``/restart``.
BACK = RetryAdvice(3, 8)


class Chat:
    """``/chat/{room}?name=...`` is the chat, ``/`` its page, ``/endings`` the feed.

    A connection with ``key=...`` replaces an older one with the same key. The feed echoes its
    ``id=...``, by which a page recognizes its own connections. The messages that end a connection:

    - ``/quit``: the answer is ``goodbye`` and Close 1000 "user quit";
    - ``/kick``: Close 1008 "kicked";
    - ``/restart``: Close 1012 with the advice to come back in 3 to 8 s;
    - ``/return``: the handler returns;
    - ``/crash``: the handler raises an exception;
    - ``/slow``: the handler reads nothing for 6 s;
    - ``/unplug``: the system drops what arrives from this client (Linux only).

    The feed begins when its client has sent a message. Its rows come from :meth:`Server.on_close` only.
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
        # None: no ending will follow.
        self._feeds: set[asyncio.Queue[str | None]] = set()
        self._page = resources.files(__package__).joinpath("demo.html").read_text("utf-8")
        self.server.get("/")(self._index)
        self.server.browser_module()
        self.server.websocket("/chat/{room}")(self._chat)
        self.server.websocket("/endings")(self._feed)
        self.server.on_close(self._ended)
        self.server.on_drain(self._drained)

    def _index(self, request: Request) -> Response:
        return Response.html(self._page)

    async def _chat(self, ws: WebSocket, room: str) -> None:
        name, members = who(ws), self._rooms[room]
        if key := _given(ws, "key"):
            self.server.sessions.join(key, ws)
        members.add(ws)
        try:
            self._tell(members, f"* {name} joined, {len(members)} here")
            async for message in ws:
                if message == "/return":
                    break
                if isinstance(message, str) and message in self._commands:
                    await self._commands[message](ws)
                else:
                    text = message if isinstance(message, str) else f"0x{message.hex()}"
                    self._tell(members, f"{name}: {text}")
        finally:
            members.discard(ws)
            self._tell(members, f"* {name} left, {len(members)} here")
            if not members:
                self._rooms.pop(room, None)

    async def _sleep(self, ws: WebSocket) -> None:
        self._slow.add(ws)
        try:
            await ws.send(f"* the handler now reads nothing for {SLOW:.0f} s")
            await asyncio.sleep(SLOW)
        finally:
            self._slow.discard(ws)

    def _tell(self, members: set[WebSocket], text: str) -> None:
        # Nobody waits for a slow member: that one is closed, so that nobody here has missed a line.
        self.server.broadcast(members, text, slow="close")

    # -- the feed -------------------------------------------------------------

    async def _feed(self, ws: WebSocket) -> None:
        # A drain closes a connection at once if no message ever came on it. This one stays open
        # until the endings that the drain brings about have been sent.
        await ws.recv()
        queue: asyncio.Queue[str | None] = asyncio.Queue()
        for row in self._endings:
            queue.put_nowait(row)
        self._feeds.add(queue)
        try:
            async with ws.alive():
                while (told := await queue.get()) is not None:
                    await ws.send(told)
        finally:
            self._feeds.discard(queue)

    def _ended(self, ws: WebSocket, ending: Ending) -> None:
        room = ws.request.params.get("room")
        if room is None:
            return  # a feed; its end is no news
        busy = ws in self._slow
        others = row_for(ending, busy)
        row = {
            **ending.as_dict(),
            "ok": ending.ok,
            "name": who(ws),
            "room": printable(room),
            "id": _given(ws, "id"),
            "busy": busy,
            "others": None if others is None else others._asdict(),
        }
        self._endings.append(told := json.dumps(row))
        self._publish(told)
        if self.server.draining:
            self._finish(ws)

    def _drained(self, _drain: Drain) -> None:
        self._finish()

    def _finish(self, ended: WebSocket | None = None) -> None:
        """End the feeds if no chat is left."""
        if not any("room" in ws.request.params for ws in self.server.connections if ws is not ended):
            self._publish(None)

    def _publish(self, told: str | None) -> None:
        for queue in self._feeds:
            queue.put_nowait(told)


async def _quit(ws: WebSocket) -> None:
    await ws.send("goodbye")
    await ws.close(CloseCode.NORMAL_CLOSURE, "user quit")


async def _kick(ws: WebSocket) -> None:
    await ws.close(CloseCode.POLICY_VIOLATION, "kicked")


async def _restart(ws: WebSocket) -> None:
    await ws.close(CloseCode.SERVICE_RESTART, BACK.reason("back soon"))


async def _crash(ws: WebSocket) -> None:
    raise RuntimeError(f"{who(ws)} asked for it")


async def _unplug(ws: WebSocket) -> None:
    sock = socket_of(ws)
    if sock is None:
        return  # it has just ended
    try:
        _drop_all(sock)
    except OSError as error:
        await ws.send(f"* cannot unplug: {error}")
    else:
        # The other direction still works; only a real cable cuts both.
        await ws.send("* unplugged: nothing that this page sends arrives any more")


def _drop_all(sock: _socket.socket) -> None:
    """Have the system drop every packet that arrives for ``sock``, acknowledgements too; Linux only.

    Raises OSError where the system cannot.
    """
    # A classic BPF program of one instruction: BPF_RET | BPF_K, accept 0 bytes (linux/filter.h).
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    if sys.platform != "linux":
        raise OSError("only Linux can")
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


def _given(ws: WebSocket, parameter: str) -> str:
    """What the client gave for a parameter of the query, fit to be shown; ``""`` if nothing."""
    return printable(ws.request.query.get(parameter, "")[:NAME]).strip()


def who(ws: WebSocket) -> str:
    """The name that a connection gave itself, fit to be shown."""
    return _given(ws, "name") or "somebody"

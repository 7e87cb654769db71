"""The chat of the demo: rooms, a page that joins them, and a feed of the endings of all connections."""

from __future__ import annotations

import _socket
import asyncio
import ctypes
import json
import socket
import struct
import sys
from contextlib import suppress
from importlib import resources
from typing import Unpack

from ..advice import RetryAdvice
from ..aio.websocket import WebSocket, socket_of
from ..codes import CloseCode
from ..ending import Ending
from ..errors import BusUnavailable
from ..http import Request, Response
from ..options import OptionKeywords
from ..rooms import History, Room
from ..server.app import Server
from ..server.drain.timetable import Drain
from .elsewhere import row_for
from .style import printable

__all__ = ["Chat", "user_name"]

#: Number of past endings that a page receives when it opens.
HISTORY = 100
#: Seconds for which they are kept.
HISTORY_SECONDS = 86400
#: Maximum characters of the names of users and rooms, and of the identifiers of a page and of its connections.
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

    The feed starts after the first message of its client. All its rows come from :meth:`Server.on_close`. The
    chat rooms and the feed are rooms of the server, so they span the workers.

    Args:
        worker: The number of this worker process, which is shown. Default: None, there is one process.
        **keywords: The options of the server.
    """

    def __init__(self, worker: int | None = None, **keywords: Unpack[OptionKeywords]) -> None:
        self.server = Server(**keywords)
        self._worker = worker
        kept = History(messages=HISTORY, seconds=HISTORY_SECONDS)
        self.server.rooms.configure("endings", history=kept)
        self._endings = self.server.rooms["endings"]
        #: The endings that are on the way to the feeds.
        self._posts: set[asyncio.Task[None]] = set()
        #: Set when no further ending follows.
        self._finished = asyncio.Event()
        self._slow: set[WebSocket] = set()
        self._commands = {
            "/quit": _quit,
            "/kick": _kick,
            "/restart": _restart,
            "/crash": _crash,
            "/slow": self._sleep,
            "/unplug": _unplug,
        }
        self._page = resources.files(__package__).joinpath("demo.html").read_text("utf-8")
        self.server.get("/")(self._index)
        self.server.browser_module()
        self.server.websocket("/chat/{room}")(self._chat)
        self.server.websocket("/endings")(self._feed)
        self.server.on_close(self._on_close)
        self.server.on_drain(self._on_drain)
        self.server.on_stop(self._on_stop)

    def _index(self, request: Request) -> Response:
        return Response.html(self._page)

    async def _chat(self, ws: WebSocket, room: str) -> None:
        name, here = user_name(ws), self.server.rooms[f"chat/{room[:MAX_NAME]}"]
        if key := _query_parameter(ws, "key"):
            self.server.sessions.join(key, ws)
        where = ""
        if self._worker is not None:
            where = f" on worker {self._worker}"
            await ws.send(f"* worker {self._worker} serves this connection")
        membership = await here.join(ws, name=name)
        try:
            await _say(here, f"* {name} joined{where}, {len(await here.presence())} here")
            async for message in ws:
                if message == "/return":
                    break
                if isinstance(message, str) and message in self._commands:
                    await self._commands[message](ws)
                else:
                    text = message if isinstance(message, str) else f"0x{message.hex()}"
                    await _say(here, f"{name}: {text}")
        finally:
            membership.leave()
            # The supervisor may have exited.
            with suppress(BusUnavailable):
                await _say(here, f"* {name} left, {len(await here.presence())} here")

    async def _sleep(self, ws: WebSocket) -> None:
        self._slow.add(ws)
        try:
            await ws.send(f"* the handler now reads nothing for {SLOW_SECONDS:.0f} s")
            await asyncio.sleep(SLOW_SECONDS)
        finally:
            self._slow.discard(ws)

    # -- the feed -------------------------------------------------------------

    async def _feed(self, ws: WebSocket) -> None:
        # A drain closes a connection without any message immediately. After a message, the connection
        # stays open until this handler returns, so that it can send the endings of the drain.
        await ws.recv()
        # The text is no position, so the member is sent the whole history.
        async with self._endings.join(ws, since="all"), ws.alive():
            await self._finished.wait()

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
            "worker": self._worker,
            "others": None if others is None else others._asdict(),
        }
        task = asyncio.get_running_loop().create_task(self._post(json.dumps(row)))
        self._posts.add(task)
        task.add_done_callback(self._posted)

    async def _post(self, row: str) -> None:
        with suppress(BusUnavailable):
            await _say(self._endings, row)

    def _posted(self, task: asyncio.Task[None]) -> None:
        self._posts.discard(task)
        if self.server.draining:
            self._end_feeds()

    async def _on_drain(self, _drain: Drain) -> None:
        self._end_feeds()

    def _end_feeds(self) -> None:
        """End the feeds if no chat connection is open."""
        if not self._posts and not any("room" in ws.request.params for ws in self.server.connections):
            self._finished.set()

    async def _on_stop(self) -> None:
        if self._posts:
            await asyncio.wait(self._posts)


async def _say(room: Room, text: str) -> None:
    # A slow member is closed, so no member waits for it, and each member that stays has every line.
    await room.publish(text, slow="close")


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

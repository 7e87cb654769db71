"""A TCP relay that records what each side sends, and how it ends TCP.

It shares no code with endwell, so that endwell's reports can be compared with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

READ_SIZE = 65536


class Close(NamedTuple):
    """The content of a Close frame."""

    code: int | None
    reason: str

    def __str__(self) -> str:
        return f"{self.code or 'without a code'}" + (f" {self.reason!r}" if self.reason else "")


class Event(NamedTuple):
    """An event on the wire: ``side`` is "client", "server" or "tap"."""

    side: str
    what: str  # "Close", "FIN" or "RST"
    close: Close | None = None

    def __str__(self) -> str:
        return f"{self.side} {self.what}" + (f" {self.close}" if self.close else "")


class Frames:
    """Finds the Close frames of one direction, and whether it compresses."""

    def __init__(self) -> None:
        self.compressed = False
        self.upgraded = False
        self._data = b""
        self._skip = 0
        self._opened = False

    def feed(self, data: bytes) -> list[Close]:
        """The Close frames that ``data`` completes."""
        if self._skip >= len(data):
            self._skip -= len(data)
            return []
        self._data += data[self._skip :]
        self._skip = 0
        if not self._opened:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return []
            self._opened = True
            self.upgraded = b"sec-websocket-" in head.lower()
            self._data = rest
        return list(self._closes()) if self.upgraded else []

    def _closes(self) -> Iterator[Close]:
        while len(self._data) >= 2:
            data = self._data
            opcode, length, start = data[0] & 15, data[1] & 127, 2
            extended = {126: 2, 127: 8}.get(length, 0)
            masked = data[1] >> 7
            if len(data) < start + extended + 4 * masked + (length if opcode == 8 else 0):
                return
            if extended:
                length = int.from_bytes(data[2 : 2 + extended], "big")
            start += extended
            key = data[start : start + 4] if masked else bytes(4)
            start += 4 * masked
            self.compressed = self.compressed or bool(data[0] & 0x40)
            if opcode == 8:
                body = bytes(byte ^ key[i % 4] for i, byte in enumerate(data[start : start + length]))
                yield Close(
                    int.from_bytes(body[:2], "big") if body else None, body[2:].decode(errors="replace")
                )
            self._skip = max(0, start + length - len(data))
            self._data = data[start + length :]


@dataclass
class Wire:
    """One connection through the tap."""

    events: list[Event] = field(default_factory=list)
    frames: dict[str, Frames] = field(default_factory=lambda: {"client": Frames(), "server": Frames()})
    #: The sides that can no longer be written to.
    broken: set[str] = field(default_factory=set)
    #: The client's port, and the tap's own port towards the server.
    ports: set[int] = field(default_factory=set)

    def of(self, side: str, *what: str) -> Event | None:
        """The first event of ``side`` whose kind is in ``what``."""
        return next((event for event in self.events if event.side == side and event.what in what), None)

    @property
    def compressing(self) -> list[str]:
        """The sides that sent a compressed message."""
        return [side for side, frames in self.frames.items() if frames.compressed]

    def __str__(self) -> str:
        return ", ".join(map(str, self.events))


class Tap:
    """Relays connections from ``port`` to ``target``."""

    def __init__(self, target: int = 0, frames: Callable[[], Frames] = Frames) -> None:
        self.target = target
        self.frames = frames
        self.wires: dict[asyncio.Task[None], Wire] = {}

    async def __aenter__(self) -> Tap:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.setblocking(False)
        self.port: int = self._listening.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept())
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [self._accepting, *self.wires]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listening.close()

    def wire_at(self, port: int) -> Wire:
        """The connection with ``port``: the own port of a client, or the peer's port of a server."""
        return next(wire for wire in self.wires.values() if port in wire.ports)

    def reset(self) -> None:
        """End every connection, in both directions, with RST."""
        self._cut("RST")

    def drop(self) -> None:
        """End every connection, in both directions, with FIN."""
        self._cut("FIN")

    def _cut(self, what: str) -> None:
        for task, wire in self.wires.items():
            if not task.done():
                wire.events.append(Event("tap", what))
                task.cancel()

    async def _accept(self) -> None:
        while True:
            client, _ = await asyncio.get_running_loop().sock_accept(self._listening)
            wire = Wire(frames={"client": self.frames(), "server": self.frames()})
            self.wires[asyncio.create_task(self._serve(wire, client))] = wire

    async def _serve(self, wire: Wire, client: socket.socket) -> None:
        with client, socket.socket() as server:
            for sock in (client, server):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(server, ("127.0.0.1", self.target))
            wire.ports = {client.getpeername()[1], server.getsockname()[1]}
            try:
                async with asyncio.TaskGroup() as relays:
                    relays.create_task(_relay(wire, ("client", client), ("server", server)))
                    relays.create_task(_relay(wire, ("server", server), ("client", client)))
            except (ExceptionGroup, asyncio.CancelledError):
                for sock in (client, server) if not wire.of("tap", "FIN") else ():
                    # Makes close() send RST.
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


End = tuple[str, socket.socket]


async def _relay(wire: Wire, source: End, target: End) -> None:
    """Relay the data of ``source`` until its FIN. Raises ConnectionResetError once a side has reset."""
    loop = asyncio.get_running_loop()
    side = source[0]
    try:
        while data := await loop.sock_recv(source[1], READ_SIZE):
            wire.events += [Event(side, "Close", close) for close in wire.frames[side].feed(data)]
            await _pass_on(wire, data, target)
    except ConnectionResetError:
        wire.broken.add(side)
    if side in wire.broken:
        wire.events.append(Event(side, "RST"))
        raise ConnectionResetError
    wire.events.append(Event(side, "FIN"))
    with contextlib.suppress(OSError):
        target[1].shutdown(socket.SHUT_WR)


async def _pass_on(wire: Wire, data: bytes, target: End) -> None:
    """Write ``data``. After a failed write, the other relay still reads what a side sent before its reset."""
    side, sock = target
    if side in wire.broken:
        return
    try:
        await asyncio.get_running_loop().sock_sendall(sock, data)
    except OSError:
        wire.broken.add(side)
        if wire.of(side, "FIN"):
            wire.events.append(Event(side, "RST"))
            raise ConnectionResetError from None

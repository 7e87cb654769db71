"""``endwell demo --script``: ends connections in eleven ways, and checks the server's Ending of each.

The peers that follow the protocol use this library's client; the others use raw sockets.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from ..aio.websocket import WebSocket
from ..client.connect import connect
from ..codes import CloseCode
from ..ending import Cause, Close, Ending, Initiator
from .chat import Chat
from .style import BOLD, DIM, GREEN, RED, paint

__all__ = ["run"]

#: ``ping_interval`` and ``ping_timeout`` in seconds: short enough to wait for, long enough for a slow
#: machine.
PING = 1.0
#: Maximum seconds to wait for each Ending.
PATIENCE = 20.0
#: Maximum bytes of a message.
MAX_SIZE = 1000


class Reported(NamedTuple):
    """The fields of an Ending that the script checks."""

    cause: Cause
    initiator: Initiator
    clean: bool | None
    #: The codes of the received and the sent Close; 1005 for a Close without a code, None for no Close.
    received: int | None
    sent: int | None

    @classmethod
    def of(cls, ending: Ending) -> Reported:
        """Return the checked fields of ``ending``."""
        received, sent = _code(ending.received), _code(ending.sent)
        return cls(ending.cause, ending.initiator, ending.clean, received, sent)

    def __str__(self) -> str:
        clean = "clean" if self.clean else "not clean"
        row = f"{self.cause.value:17}  {self.initiator.value:7}  {clean:9}"
        return f"{row}  received {self.received or '-':<4}  sent {self.sent or '-'}"


class Case(NamedTuple):
    """One way to end a connection; ``end(url)`` is the peer's part."""

    title: str
    end: Callable[[str], Awaitable[object]]
    expected: Reported


class Peer:
    """A raw TCP peer that sends arbitrary bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, url: str) -> Peer:
        """Connect, perform the opening handshake, and wait for the greeting."""
        parts = urlsplit(url)
        peer = cls(*await asyncio.open_connection(parts.hostname, parts.port))
        peer.send(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        # With unread input, a later close() would send RST instead of FIN.
        await peer._reader.readuntil(b" here")
        return peer

    def send(self, octets: bytes) -> None:
        """Send ``octets``."""
        self._writer.write(octets)

    async def read(self) -> None:
        """Read until EOF without answering, then close."""
        await self._reader.read()
        self._writer.close()

    def fin(self) -> None:
        """End the TCP connection with FIN."""
        self._writer.close()

    def rst(self) -> None:
        """End the TCP connection with RST."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


async def _close(url: str) -> None:
    async with connect(url) as ws:
        await ws.close(CloseCode.NORMAL_CLOSURE, "bye")


async def _send(url: str, text: str) -> None:
    async with connect(url) as ws:
        await ws.send(text)
        await ws.closed


async def _quit(url: str) -> None:
    await _send(url, "/quit")


async def _crash(url: str) -> None:
    await _send(url, "/crash")


async def _oversized(url: str) -> None:
    await _send(url, "x" * (MAX_SIZE + 1))


async def _reload(url: str) -> None:
    # Every browser does this: it sends Close 1001, and closes TCP without waiting for the answer.
    peer = await Peer.open(url)
    peer.send(b"\x88\x82\0\0\0\0\x03\xe9")
    peer.fin()


async def _fin(url: str) -> None:
    (await Peer.open(url)).fin()


async def _rst(url: str) -> None:
    (await Peer.open(url)).rst()


async def _bad_opcode(url: str) -> None:
    peer = await Peer.open(url)
    peer.send(b"\x83\x80\0\0\0\0")
    await peer.read()


async def _silence(url: str) -> None:
    await (await Peer.open(url)).read()


PEER, LOCAL, NETWORK = Initiator.PEER, Initiator.LOCAL, Initiator.NETWORK

# fmt: off
CASES = [
    Case("clean close", _close, Reported(Cause.PEER_CLOSED, PEER, True, 1000, 1000)),
    Case("/quit", _quit, Reported(Cause.APP_CLOSED, LOCAL, True, 1000, 1000)),
    Case("reload", _reload, Reported(Cause.PEER_CLOSED, PEER, True, 1001, 1001)),
    Case("the page is back", _close, Reported(Cause.PEER_CLOSED, PEER, True, 1000, 1000)),
    Case("FIN without Close", _fin, Reported(Cause.PEER_VANISHED, NETWORK, False, None, None)),
    Case("RST", _rst, Reported(Cause.CONNECTION_RESET, NETWORK, False, None, None)),
    Case("protocol error", _bad_opcode, Reported(Cause.PROTOCOL_ERROR, LOCAL, False, None, 1002)),
    Case("silent peer", _silence, Reported(Cause.KEEPALIVE_TIMEOUT, LOCAL, False, None, 1001)),
    Case("oversized message", _oversized, Reported(Cause.MESSAGE_TOO_BIG, LOCAL, False, None, 1009)),
    Case("handler crash", _crash, Reported(Cause.HANDLER_ERROR, LOCAL, True, 1011, 1011)),
]
STOP = Case("server stop", connect, Reported(Cause.SERVER_DRAINED, LOCAL, True, 1001, 1001))
# fmt: on


def run(*, verbose: bool) -> int:
    """Run every case and print the Endings. Returns 1 if an Ending was wrong."""
    # Hide the log line of the crashing handler, except with -v.
    logging.basicConfig(level=logging.DEBUG if verbose else logging.CRITICAL)
    return asyncio.run(_Script().run())


class _Script:
    def __init__(self) -> None:
        self._chat = Chat(ping_interval=PING, ping_timeout=PING, max_size=MAX_SIZE)
        self._chat.server.on_close(self._on_close)
        self._endings: asyncio.Queue[tuple[str, Ending]] = asyncio.Queue()
        self._wrong = 0

    def _on_close(self, ws: WebSocket, ending: Ending) -> None:
        self._endings.put_nowait((ws.request.params["room"], ending))

    async def run(self) -> int:
        began = time.monotonic()
        async with self._chat.server.serving(grace=PATIENCE) as server:
            for case in CASES:
                await self._end(case, server.port)
                await self._check(case)
            # Keep a reference until the server stops, because an unreferenced WebSocket closes itself.
            peer = await self._end(STOP, server.port)
        await self._check(STOP)
        del peer
        # Entries that are left were reported twice.
        wrong = self._wrong + self._endings.qsize()
        verdict = paint(f"{wrong} wrong", RED) if wrong else paint("all as expected", GREEN)
        print(f"{len(CASES) + 1} endings, {verdict}, in {time.monotonic() - began:.1f} s")
        return 1 if wrong else 0

    async def _end(self, case: Case, port: int) -> object:
        # Each case has its own room, so that peers do not get messages about each other.
        url = f"ws://127.0.0.1:{port}/chat/{quote(case.title, safe='')}"
        # If the peer's part takes too long, the check reports the missing Ending.
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                return await case.end(url)
        return None

    async def _check(self, case: Case) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                title, ending = await self._endings.get()
        except TimeoutError:
            title, reported, sentence = case.title, "nothing", "no ending was reported"
        else:
            reported, sentence = str(Reported.of(ending)), str(ending)
        as_expected = (title, reported) == (case.title, str(case.expected))
        self._wrong += not as_expected
        mark = paint("\N{CHECK MARK}", GREEN) if as_expected else paint("\N{BALLOT X}", RED)
        print(f"{mark} {paint(title, BOLD)}: {sentence}")
        print(f"{paint('    expected', DIM)}  {case.expected}")
        print(f"{paint('    reported', DIM)}  {reported}", flush=True)


def _code(close: Close | None) -> int | None:
    if close is None:
        return None
    return CloseCode.NO_STATUS_RCVD if close.code is None else close.code

"""Peers that end their connections in every possible way, mostly badly: a part of soak.py.

Each is a raw socket that controls what it sends, what it reads, and how it ends TCP.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from endwell.wire.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, build

__all__ = ["ATTACKS", "Crowd"]

NONCE = b"dGhlIHNhbXBsZSBub25jZQ=="
#: Seconds after which an attacker leaves in any case; the limits of the server are shorter.
PATIENCE = 9.0
#: The maximum number of attackers at the same time.
CROWD = 120


class Peer:
    """One attacker."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self._loop = asyncio.get_running_loop()

    async def connect_tcp(self, buffer: int | None = None) -> None:
        """Connect; ``buffer`` is the size of the kernel's receive buffer."""
        if buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        await self._loop.sock_connect(self.sock, ("127.0.0.1", self.port))

    async def send(self, *frames: bytes) -> None:
        await self._loop.sock_sendall(self.sock, b"".join(frames))

    async def read(self) -> bytes:
        return await self._loop.sock_recv(self.sock, 65536)

    async def open(self, path: str = "/", compressed: bool = False) -> None:
        """Do the opening handshake."""
        await self.send(head(path, compressed))
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = await self.read()
            if not more:
                raise ConnectionResetError
            answer += more

    async def to_the_end(self) -> None:
        """Read until the server has ended TCP."""
        while await self.read():
            pass

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def fin(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)


def head(path: str = "/", compressed: bool = False) -> bytes:
    """A request for a WebSocket."""
    extension = b"Sec-WebSocket-Extensions: permessage-deflate\r\n" if compressed else b""
    return (
        b"GET "
        + path.encode()
        + b" HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + NONCE + b"\r\n" + extension + b"\r\n"
    )


def text(words: str) -> bytes:
    return build(TEXT, words.encode(), masked=True)


def close(code: int = 1000) -> bytes:
    return build(CLOSE, code.to_bytes(2, "big"), masked=True)


def deflated(data: bytes) -> bytes:
    deflate = zlib.compressobj(wbits=-15)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


# -- closing handshakes ------------------------------------------------------------------


async def they_close(peer: Peer) -> None:
    await peer.open(random.choice(["/", "/thread"]))
    await peer.send(text("hello"))
    await peer.read()
    await peer.send(close(random.choice([1000, 1001, 4001])))
    await peer.to_the_end()


async def we_close(peer: Peer) -> None:
    await peer.open(random.choice(["/", "/thread"]))
    await peer.send(text(random.choice(["close", "return", "raise"])))
    await peer.read()
    await peer.send(close())
    await peer.to_the_end()


async def compressed(peer: Peer) -> None:
    await peer.open(compressed=True)
    await peer.send(build(TEXT, deflated(b"hello" * 500), masked=True, rsv1=True), close())
    await peer.to_the_end()


async def a_page(peer: Peer) -> None:
    path = random.choice([b"/page", b"/nothing/here", b"/thread-page"])
    await peer.send(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    await peer.to_the_end()


# -- end of TCP without a Close ------------------------------------------------------------


async def rst(peer: Peer) -> None:
    await peer.open(random.choice(["/", "/thread"]))
    await peer.send(text("hello"), text("stream")[: random.choice([3, 100])])
    peer.reset()


async def half_close(peer: Peer) -> None:
    await peer.open(random.choice(["/", "/thread"]))
    await peer.send(text("hello"), random.choice([b"", close(), text("half")[:-2]]))
    peer.fin()
    await peer.to_the_end()


async def drop_unread(peer: Peer) -> None:
    await peer.open()
    await peer.send(text("stream"))
    await asyncio.sleep(0.05)


async def reload(peer: Peer) -> None:
    await peer.open()
    await peer.send(text("stream"))
    await peer.read()
    await peer.send(close(1001))


async def no_answer_to_close(peer: Peer) -> None:
    await peer.open()
    await peer.send(text("close"))
    await asyncio.sleep(PATIENCE)


async def no_end_of_tcp(peer: Peer) -> None:
    await peer.open()
    await peer.send(close())
    await asyncio.sleep(PATIENCE)


# -- silence -----------------------------------------------------------------------------


async def silent(peer: Peer) -> None:
    await peer.open(random.choice(["/", "/thread"]))
    await asyncio.sleep(PATIENCE)


async def silent_in_a_message(peer: Peer) -> None:
    await peer.open()
    await peer.send(build(BINARY, bytes(100_000), masked=True)[:50_000])
    await asyncio.sleep(PATIENCE)


async def never_reading(peer: Peer) -> None:
    await peer.open(random.choice(["/", "/thread"]))
    await peer.send(text("stream"))
    for _ in range(int(PATIENCE)):
        await asyncio.sleep(1)
        await peer.send(build(PONG, b"", masked=True))  # so that only write_timeout can end it


async def slow_opening(peer: Peer) -> None:
    for octet in head():
        await peer.send(bytes((octet,)))
        await asyncio.sleep(0.05)


async def no_opening(peer: Peer) -> None:
    await peer.send(random.choice([b"", head()[:40]]))
    await asyncio.sleep(PATIENCE)


# -- protocol errors -----------------------------------------------------------------------


async def bad_opening(peer: Peer) -> None:
    await peer.send(
        random.choice(
            [
                random.randbytes(200) + b"\r\n\r\n",
                b"\x16\x03\x01\x02\x00" + random.randbytes(300),
                b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 300,
                b"GET /" + b"x" * 40_000,
                head().replace(b"13", b"8"),
                head().replace(b"Host: localhost\r\n", b""),
                head()[:-2] + b"Origin: http://elsewhere.example\r\n\r\n",
                head()[:-2] + b"Content-Length: 5\r\n\r\nhello",
            ]
        )
    )
    await peer.to_the_end()


async def bad_frame(peer: Peer) -> None:
    await peer.open()
    await peer.send(
        text("hello"),
        random.choice(
            [
                build(3, b"x", masked=True),
                build(TEXT, b"x", masked=False),
                build(TEXT, b"\xff\xfe", masked=True),
                build(TEXT, b"x", masked=True, rsv1=True),
                build(CONTINUATION, b"x", masked=True),
                build(CLOSE, b"\x03", masked=True),
                b"\x82\xff" + b"\xff" * 8,
                random.randbytes(500),
            ]
        ),
    )
    await peer.to_the_end()


async def too_big(peer: Peer) -> None:
    await peer.open(compressed=True)
    await peer.send(
        random.choice(
            [
                b"\x82\xff" + (2**40).to_bytes(8, "big") + bytes(4),
                build(BINARY, deflated(bytes(2**22)), masked=True, rsv1=True),
            ]
        )
    )
    await peer.to_the_end()


async def fragments(peer: Peer) -> None:
    await peer.open()
    piece = build(CONTINUATION, random.choice([b"", b"x"]), masked=True, fin=False)
    await peer.send(build(TEXT, b"", masked=True, fin=False), piece * 5000)


async def pings(peer: Peer) -> None:
    await peer.open()
    await peer.send(build(PING, bytes(125), masked=True) * 2000)


async def tiny_messages(peer: Peer) -> None:
    await peer.open()
    await peer.send(text("x") * 5000)


async def octet_by_octet(peer: Peer) -> None:
    await peer.open()
    for octet in text("hello" * 20) + close():
        await peer.send(bytes((octet,)))
    await peer.to_the_end()


ATTACKS: dict[Callable[[Peer], Awaitable[None]], int | None] = {
    # None: the default buffer of the kernel
    **dict.fromkeys((they_close, we_close, compressed, a_page, rst, half_close, reload)),
    **dict.fromkeys(
        (no_answer_to_close, no_end_of_tcp, silent, silent_in_a_message, slow_opening, no_opening)
    ),
    **dict.fromkeys((bad_opening, bad_frame, too_big, fragments, pings, tiny_messages, octet_by_octet)),
    drop_unread: 16384,
    never_reading: 16384,
}


class Crowd:
    """Start ``rate`` attackers per second, of each kind in turn, until paused."""

    def __init__(self, port: int, rate: float) -> None:
        self.port = port
        self.rate = rate
        #: The number of attackers of each kind.
        self.played: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._coming: asyncio.Task[None] | None = None

    def resume(self) -> None:
        """Resume."""
        self._coming = asyncio.ensure_future(self._attack_once())

    async def pause(self) -> None:
        """Wait until all have left."""
        if self._coming is not None:
            self._coming.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _attack_once(self) -> None:
        while True:
            kinds = list(ATTACKS)
            random.shuffle(kinds)
            for kind in kinds:
                await asyncio.sleep(1 / self.rate)
                if len(self._tasks) < CROWD:
                    task = asyncio.ensure_future(self._play(kind))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    async def _play(self, kind: Callable[[Peer], Awaitable[None]]) -> None:
        self.played[kind.__name__] += 1
        peer = Peer(self.port)
        try:
            # An attacker ignores all errors that the server causes it.
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await peer.connect_tcp(ATTACKS[kind])
                    await kind(peer)
        finally:
            peer.sock.close()

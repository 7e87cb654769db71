"""The raw peer: one end of a connection, plain or over TLS, that the test controls octet by octet.

It writes any octets, right or wrong, ends TCP with FIN, with RST or not at all, and records what the kernel
and TLS showed it. TLS runs in memory, so that the test controls TCP below it too: one octet per segment,
FIN without close_notify, RST in the middle of a record.
"""

from __future__ import annotations

import asyncio
import base64
import ctypes
import fcntl
import hashlib
import socket
import ssl
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache
from typing import Any, NamedTuple

import trustme

from endwell import Close, TcpEnd
from tests.memory import MemorySocket, new_socket
from tests.selection import MEMORY
from tests.wire.peer import CLOSE, KEY, frame

__all__ = [
    "BOUND",
    "HOST",
    "NONCE",
    "PLAIN",
    "PROMPT",
    "TRANSPORTS",
    "Frame",
    "RawPeer",
    "RawServer",
    "Seen",
    "TcpState",
    "Transport",
    "named",
    "wss",
]

HOST = "127.0.0.1"

#: The timeout of a wait, in seconds. Only a hang reaches it: a busy machine may stop a process for several
#: seconds.
BOUND = 30.0

#: The bound for "at once", in seconds. The behaviour that a test rules out with it takes at least three
#: times as long, so that a stall of the machine is not mistaken for it.
PROMPT = 10.0

NONCE = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 §1.3
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_SO_ATTACH_FILTER = 26  # Linux's <asm-generic/socket.h>


@dataclass(frozen=True)
class Transport:
    """The TLS contexts of both sides; None for plain TCP."""

    server: ssl.SSLContext | None = None
    client: ssl.SSLContext | None = None
    #: Whether our side uses asyncio's transports instead of the reactor.
    foreign: bool = False
    #: Whether both sides are in memory, on a virtual clock.
    memory: bool = False

    @property
    def fin(self) -> TcpEnd:
        """What ``Ending.tcp`` is after a FIN: a TLS transport does not show it."""
        return TcpEnd.UNKNOWN if self.foreign and self.server is not None else TcpEnd.FIN


PLAIN = Transport()


@cache
def wss() -> Transport:
    """TLS with a certificate that the client trusts."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", HOST).configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return Transport(server, client)


#: The names of the transports in a test's parameters.
TRANSPORTS = ("ws", "wss", "ws over a transport", "wss over a transport", MEMORY)


def named(name: str) -> Transport:
    """The transport of that name."""
    return replace(
        wss() if name.startswith("wss") else PLAIN,
        foreign=name.endswith("transport"),
        memory=name == MEMORY,
    )


class TcpState(Enum):
    """The states of Linux's ``include/net/tcp_states.h`` that an open socket can have."""

    ESTABLISHED = 1
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    CLOSING = 11


class Frame(NamedTuple):
    """A received frame."""

    opcode: int
    payload: bytes


@dataclass
class Seen:
    """What the peer received until TCP ended."""

    #: All frames except Close frames.
    frames: list[Frame] = field(default_factory=list)
    #: The first Close, and the number of Close frames.
    close: Close | None = None
    closes: int = 0
    #: Whether TLS ended with close_notify; None without TLS.
    close_notify: bool | None = None
    #: The fatal TLS alert. OpenSSL answers a FIN without close_notify with "decode error".
    alert: str | None = None
    #: FIN or RST.
    tcp: TcpEnd | None = None


class RawPeer:
    """A client or server that does only what the test says.

    With ``bytewise`` each octet is sent in a segment of its own.
    """

    #: Whether close_notify is answered with close_notify, which asyncio's transports wait for. Others do not:
    #: RFC 8446 §6.1, "This does not have any effect on its write side".
    answers_notify = False

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext | None, *, server: bool, bytewise: bool = False
    ) -> None:
        sock.setblocking(False)
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.server = server
        self.bytewise = bytewise
        self.seen = Seen(close_notify=None if context is None else False)
        self._loop = asyncio.get_running_loop()
        self._fin = False
        self._received = bytearray()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        if context is not None:
            name = None if server else HOST
            self._tls = context.wrap_bio(self._in, self._out, server_side=server, server_hostname=name)

    @classmethod
    async def connect_tcp(
        cls,
        port: int,
        context: ssl.SSLContext | None = None,
        *,
        bytewise: bool = False,
        buffer: int | None = None,
    ) -> RawPeer:
        """A client with a TCP connection only; ``buffer`` is the size in bytes of its receive buffer."""
        sock = new_socket()
        if buffer is not None:
            _limit_receive_buffer(sock, buffer)
        peer = cls(sock, context, server=False, bytewise=bytewise)
        with _closed_if_it_fails(peer):
            async with asyncio.timeout(BOUND):
                await asyncio.get_running_loop().sock_connect(sock, (HOST, port))
        return peer

    @classmethod
    async def connect(cls, port: int, context: ssl.SSLContext | None = None, **how: Any) -> RawPeer:
        """A client after the opening handshake; ``how`` goes to :meth:`connect_tcp`."""
        peer = await cls.connect_tcp(port, context, **how)
        with _closed_if_it_fails(peer):
            await peer.upgrade()
        return peer

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    # -- writing --------------------------------------------------------------

    async def write(self, data: bytes) -> None:
        """Send octets, encrypted if there is TLS."""
        await self.send_tcp(self.encrypt(data))

    async def send_tcp(self, octets: bytes) -> None:
        """Send octets over TCP, below TLS."""
        async with asyncio.timeout(BOUND):
            if not self.bytewise:
                await self._loop.sock_sendall(self.sock, octets)
                return
            for at in range(len(octets)):
                await self._loop.sock_sendall(self.sock, octets[at : at + 1])
                await asyncio.sleep(0)

    async def until_acknowledged(self) -> None:
        """Wait until the other kernel has acknowledged all that was sent: RST would destroy the rest."""
        async with asyncio.timeout(BOUND):
            while self._unacknowledged():
                await asyncio.sleep(0.001)

    def _unacknowledged(self) -> int:
        if isinstance(self.sock, MemorySocket):
            return self.sock.unsent()
        return int.from_bytes(fcntl.ioctl(self.sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    def send_at_once(self, data: bytes) -> None:
        """Send octets before the loop runs on; they have to fit into the kernel's buffer."""
        octets = self.encrypt(data)
        assert self.sock.send(octets) == len(octets)

    def encrypt(self, data: bytes) -> bytes:
        """The TLS records of ``data``; ``data`` itself without TLS."""
        if self._tls is None:
            return data
        if data:
            self._tls.write(data)
        return self._out.read()

    def octets(self, opcode: int, payload: bytes = b"", **fields: Any) -> bytes:
        """A frame, masked as the role demands; see ``tests.wire.peer.frame``."""
        return frame(opcode, payload, **{"key": None if self.server else KEY, **fields})

    def close_octets(self, code: int | None = 1000, reason: str = "") -> bytes:
        """A Close frame."""
        return self.octets(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())

    async def frame(self, opcode: int, payload: bytes = b"", **fields: Any) -> None:
        """Send a frame."""
        await self.write(self.octets(opcode, payload, **fields))

    async def close(self, code: int | None = 1000, reason: str = "") -> None:
        """Send a Close frame."""
        await self.write(self.close_octets(code, reason))

    # -- ending ---------------------------------------------------------------

    async def send_close_notify(self) -> None:
        """Send TLS's close_notify, if there is TLS."""
        if self._tls is not None:
            with suppress(ssl.SSLWantReadError):  # the other close_notify has not come yet
                self._tls.unwrap()
            await self.send_tcp(self._out.read())

    def fin(self) -> None:
        """Send a FIN without a Close or close_notify."""
        if not self._fin:
            self._fin = True
            self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Send a RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def drop(self) -> None:
        """Close the socket as the end of a process does: RST if there is unread data, else FIN."""
        self.sock.close()

    async def vanish(self) -> None:
        """Drop all packets that arrive from now on: no FIN, no RST, no acknowledgement."""
        await self.until_acknowledged()  # otherwise the kernel retransmits it, which a dead peer does not
        if isinstance(self.sock, MemorySocket):
            self.sock.cut()
            return
        # <linux/filter.h>: a filter of one instruction that accepts 0 octets.
        drop = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
        program = struct.pack("@HP", 1, ctypes.addressof(drop))
        self.sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    @property
    def tcp_state(self) -> TcpState:
        """The state of this end of TCP: the first octet of Linux's ``struct tcp_info``."""
        if isinstance(self.sock, MemorySocket):
            return TcpState[self.sock.tcp_state()]
        return TcpState(self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])

    # -- reading --------------------------------------------------------------

    async def read_head(self) -> str:
        """The head of the request or response of the opening handshake."""
        async with asyncio.timeout(BOUND):
            while b"\r\n\r\n" not in self._received:
                assert await self.more(), "the connection ended within the head"
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        return head.decode()

    async def read_frame(self, seconds: float | None = BOUND) -> Frame | None:
        """The next frame, or None at the end of TCP."""
        async with asyncio.timeout(seconds):
            while (parsed := self.parse(self._received)) is None:
                if not await self.more():
                    return None
        received, size = parsed
        del self._received[:size]
        return received

    def parse(self, data: bytearray) -> tuple[Frame, int] | None:
        """The first frame of ``data`` and its size; None while it is incomplete."""
        return _parse(data)

    async def read_close(self) -> Close:
        """The next frame, which has to be a Close."""
        received = await self.read_frame()
        assert received is not None, f"TCP ended: {self.seen.tcp}"
        return close_of(received)

    async def read_to_the_end(self, *, answer: bool = False) -> Seen:
        """Read until the other side ends TCP; pings get no answer.

        ``answer`` echoes the Close. A server ends TCP after a Close, as RFC 6455 §7.1.1 asks.
        """
        while (received := await self.read_frame()) is not None:
            if received.opcode != CLOSE:
                self.seen.frames.append(received)
                continue
            if not self.seen.closes:
                self.seen.close = close_of(received)
                if answer:
                    await self.frame(CLOSE, received.payload)
                if self.server:
                    self.fin()
            self.seen.closes += 1
        return self.seen

    async def until_close_notify(self) -> None:
        """Read until TLS's close_notify; data before it stays in the buffer."""
        while not self.seen.close_notify:
            assert await self.more(), f"TCP ended first: {self.seen.tcp}"

    async def is_silent(self, seconds: float) -> bool:
        """Whether neither data nor the end of TCP arrives for ``seconds``."""
        real = isinstance(self.sock, socket.socket)
        try:
            async with asyncio.timeout(seconds):
                await (self._until_readable() if real else self.more())
        except TimeoutError:
            return True
        if real:
            await self.more()
        return False

    async def _until_readable(self) -> None:
        """Wait for data or the end of TCP, and leave it in the socket.

        It may be cancelled. A ``sock_recv()`` that is cancelled may have read already, and loses the data.
        """
        while self.seen.tcp is None:
            try:
                self.sock.recv(1, socket.MSG_PEEK)
            except BlockingIOError:
                await asyncio.sleep(0.002)
            except OSError:
                return
            else:
                return

    async def more(self) -> bool:
        """Read once; False at the end of TCP, which is recorded in ``seen``."""
        if self.seen.tcp is not None:
            return False
        await asyncio.sleep(0)  # sock_recv() does not suspend while there is data to read
        try:
            octets = await self._loop.sock_recv(self.sock, 2**18)
        except ConnectionResetError:
            self.seen.tcp = TcpEnd.RST
            return False
        if not octets:
            self.seen.tcp = TcpEnd.FIN
            return False
        if self._tls is None:
            self._received += octets
        else:
            self._in.write(octets)
            self._decrypt(self._tls)
            if self.answers_notify and self.seen.close_notify and not self._fin:
                with suppress(OSError):
                    await self.send_close_notify()
        return True

    async def recv_tcp(self) -> bytes:
        """One read of TCP, below TLS: TLS does not receive the data."""
        async with asyncio.timeout(BOUND):
            return await self._loop.sock_recv(self.sock, 2**18)

    def _decrypt(self, tls: ssl.SSLObject) -> None:
        # Data after close_notify is ignored.
        while not self.seen.close_notify and self.seen.alert is None:
            try:
                data = tls.read(2**16)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                data = b""  # SSLZeroReturnError, once we have sent close_notify too
            except ssl.SSLError as exc:
                self.seen.alert = exc.reason
                return
            self.seen.close_notify = not data
            self._received += data

    # -- the openings ---------------------------------------------------------

    async def tls_handshake(self) -> None:
        """Do the TLS handshake, if there is TLS."""
        if self._tls is None:
            return
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.send_tcp(self._out.read())
                octets = await self.recv_tcp()
                assert octets, "the connection ended within the TLS handshake"
                self._in.write(octets)
            else:
                break
        await self.send_tcp(self._out.read())
        self._decrypt(self._tls)

    def tls_flight(self, received: bytes = b"") -> bytes:
        """The next flight of the TLS handshake after ``received``, without sending it."""
        assert self._tls is not None
        self._in.write(received)
        with suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._out.read()

    async def upgrade(self, response: bytes | None = None) -> None:
        """Do the opening handshakes of TLS and WebSocket; a server sends ``response`` instead of its own if
        given.
        """
        await self.tls_handshake()
        if self.server:
            await self.write(response or switching_protocols(await self.read_head()))
        else:
            await self.write(self.request())
            head = await self.read_head()
            assert head.startswith("HTTP/1.1 101 "), head

    def request(self, target: str = "/") -> bytes:
        """The head of a client's opening handshake."""
        return (
            f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {NONCE}\r\n\r\n"
        ).encode()


class RawServer:
    """A listening socket whose connections are raw peers."""

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        *,
        bytewise: bool = False,
        buffer: int | None = None,
        peers: type[RawPeer] = RawPeer,
    ) -> None:
        self._context = context
        self._peers = peers
        self._bytewise = bytewise
        self._sock = new_socket()
        if buffer is not None:
            _limit_receive_buffer(self._sock, buffer)
        self._sock.bind((HOST, 0))
        self._sock.listen()
        self._sock.setblocking(False)
        scheme = "ws" if context is None else "wss"
        #: The URI of this server.
        self.uri = f"{scheme}://{HOST}:{self._sock.getsockname()[1]}/"

    def __enter__(self) -> RawServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    async def accept_tcp(self) -> RawPeer:
        """A server peer with a TCP connection only."""
        async with asyncio.timeout(BOUND):
            sock, _ = await asyncio.get_running_loop().sock_accept(self._sock)
        return self._peers(sock, self._context, server=True, bytewise=self._bytewise)

    async def accept(self, response: bytes | None = None) -> RawPeer:
        """A server peer after the opening handshake, answered with ``response`` if given."""
        peer = await self.accept_tcp()
        with _closed_if_it_fails(peer):
            await peer.upgrade(response)
        return peer


@contextmanager
def _closed_if_it_fails(peer: RawPeer) -> Iterator[None]:
    """Close the socket of ``peer`` if the block raises, because then no test can close it."""
    try:
        yield
    except BaseException:
        peer.drop()
        raise


def _limit_receive_buffer(sock: socket.socket, buffer: int) -> None:
    """Set the size of the kernel's receive buffer and a small segment size, before there is a connection."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    # The 64 KiB segments of loopback would not fit, and then TCP sends only by timer.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1400)


def switching_protocols(request: str) -> bytes:
    """The head of a server's 101."""
    (key,) = (
        line[18:].strip() for line in request.splitlines() if line.lower().startswith("sec-websocket-key:")
    )
    accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def close_of(received: Frame) -> Close:
    """The code and reason of a Close frame."""
    assert received.opcode == CLOSE, received
    code = int.from_bytes(received.payload[:2], "big") if received.payload else None
    return Close(code, received.payload[2:].decode())


def _parse(data: bytearray) -> tuple[Frame, int] | None:
    if len(data) < 2:
        return None
    size = data[1] & 0x7F
    head = {126: 4, 127: 10}.get(size, 2)
    if len(data) < head:
        return None
    if head > 2:
        size = int.from_bytes(data[2:head], "big")
    key = b""
    if data[1] & 0x80:
        head += 4
        key = bytes(data[head - 4 : head])
    if len(data) < head + size:
        return None
    payload = bytes(data[head : head + size])
    if key and size:
        # As one number, because the payloads of some tests are large.
        pad = (key * (size // 4 + 1))[:size]
        payload = (int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")).to_bytes(size, "big")
    return Frame(data[0] & 0x0F, payload), head + size

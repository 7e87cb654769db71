"""A proxy in this process: HTTP CONNECT, also over TLS, and SOCKS 4, 4a and 5.

It resolves names from a table, records what it was asked, and can end a tunnel in every way.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from tests.raw import BOUND, HOST

__all__ = ["KINDS", "Relay", "relaying"]

#: The schemes of the proxies.
KINDS = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")

OK = b"HTTP/1.1 200 Connection established\r\n\r\n"
#: The answer of a Squid to a CONNECT without credentials, shortened.
NEEDS_CREDENTIALS = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
    b'Proxy-Authenticate: Basic realm="relay"\r\nContent-Length: 4\r\n\r\nwho?'
)


class Refused(Exception):
    """The relay does not connect; it has answered."""


class Relay:
    """A running proxy."""

    def __init__(self, scheme: str, credentials: tuple[str, str] | None, hosts: dict[str, str]) -> None:
        self.scheme = scheme
        self.port = 0
        #: The targets that were asked for, as the client named them.
        self.asked: list[tuple[str, int]] = []
        #: The heads of the CONNECT requests.
        self.heads: list[str] = []
        #: Number of times that a client has sent credentials of SOCKS5.
        self.logins = 0
        self._credentials = credentials
        self._hosts = hosts
        self._clients: list[asyncio.StreamWriter] = []

    def url(self, userinfo: str = "") -> str:
        """The URL of the proxy; ``userinfo`` is ``user:password@``."""
        return f"{self.scheme}://{userinfo}{HOST}:{self.port}"

    @property
    def is_busy(self) -> bool:
        """Whether a client is connected."""
        return bool(self._clients)

    def cut(self) -> None:
        """Reset the connections of all clients, as a proxy does that crashes."""
        for writer in [*self._clients]:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def end(self) -> None:
        """End the connections of all clients: with TLS, a close_notify comes first."""
        for writer in [*self._clients]:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.append(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            ask = self._http if self.scheme.startswith("http") else getattr(self, f"_{self.scheme[:6]}")
            host, port, yes, no = await ask(reader, writer)
            self.asked.append((host, port))
            try:
                incoming, upstream = await asyncio.open_connection(self._hosts.get(host, host), port)
            except OSError:
                writer.write(no)
                raise Refused from None
            writer.write(yes)
            await asyncio.gather(_pump(reader, upstream), _pump(incoming, writer))
        except (Refused, OSError, EOFError, ssl.SSLError):
            pass
        finally:
            self._clients.remove(writer)
            for each in (writer, upstream):
                if each is not None:
                    with suppress(OSError, ssl.SSLError):
                        await each.drain()
                    each.close()
                    with suppress(OSError, ssl.SSLError):
                        await each.wait_closed()

    async def _http(self, reader: Any, writer: Any) -> tuple[str, int, bytes, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        method, target, _ = head.split("\r\n")[0].split(" ")
        assert method == "CONNECT"
        if self._credentials is not None:
            proof = base64.b64encode(":".join(self._credentials).encode()).decode()
            if f"\r\nProxy-Authorization: Basic {proof}\r\n" not in head:
                writer.write(NEEDS_CREDENTIALS)
                raise Refused
        host, _, port = target.rpartition(":")
        bad = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 7\r\n\r\nno way\n"
        return host.strip("[]"), int(port), OK, bad

    async def _socks4(self, reader: Any, writer: Any) -> tuple[str, int, bytes, bytes]:
        version, command, port, address = struct.unpack("!BBH4s", await reader.readexactly(8))
        assert (version, command) == (4, 1)
        user = (await reader.readuntil(b"\0"))[:-1].decode()
        host = str(ipaddress.IPv4Address(address))
        if host.startswith("0.0.0."):
            host = (await reader.readuntil(b"\0"))[:-1].decode()
        if self._credentials is not None and user != self._credentials[0]:
            writer.write(b"\x00\x5d" + bytes(6))
            raise Refused
        return host, port, b"\x00\x5a" + bytes(6), b"\x00\x5b" + bytes(6)

    async def _socks5(self, reader: Any, writer: Any) -> tuple[str, int, bytes, bytes]:
        version, count = await reader.readexactly(2)
        assert version == 5
        methods = await reader.readexactly(count)
        method = 0 if self._credentials is None else 2
        writer.write(bytes((5, method if method in methods else 0xFF)))
        if method not in methods:
            raise Refused
        if method == 2:
            await reader.readexactly(1)
            self.logins += 1
            given = [await reader.readexactly((await reader.readexactly(1))[0]) for _ in range(2)]
            ok = tuple(map(bytes.decode, given)) == self._credentials
            writer.write(b"\x01\x00" if ok else b"\x01\x01")
            if not ok:
                raise Refused
        _, command, _, kind = await reader.readexactly(4)
        assert command == 1
        if kind == 3:
            host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        else:
            host = str(ipaddress.ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        (port,) = struct.unpack("!H", await reader.readexactly(2))
        # The address in the answer is a name here, so that its size has to be read.
        return host, port, b"\x05\x00\x00\x03\x05relay\x00\x00", b"\x05\x05\x00\x01" + bytes(6)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()
    except (OSError, ssl.SSLError):
        writer.transport.abort()


@asynccontextmanager
async def relaying(
    scheme: str = "http",
    *,
    tls: ssl.SSLContext | None = None,
    credentials: tuple[str, str] | None = None,
    hosts: dict[str, str] | None = None,
) -> AsyncIterator[Relay]:
    """A proxy; ``tls`` is the context of an https proxy, ``hosts`` are the names that it can resolve."""
    relay = Relay(scheme, credentials, hosts or {})
    tasks: set[asyncio.Task[None]] = set()

    # A coroutine function would become a task of asyncio, which reports its cancellation as an error.
    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.ensure_future(relay.serve(reader, writer)))

    server = await asyncio.start_server(serve, HOST, 0, ssl=tls if scheme == "https" else None)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        for writer in [*relay._clients]:
            writer.transport.abort()
        # Not cancelled: a cancelled open_connection() leaves its socket open.
        async with asyncio.timeout(BOUND):
            await asyncio.gather(*tasks, return_exceptions=True)

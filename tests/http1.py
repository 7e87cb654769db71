"""An HTTP/1.1 client that reads one response after another from a connection, and checks their framing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from endwell import Headers
from tests.raw import BOUND, PLAIN, RawPeer, Transport

__all__ = ["Answer", "HttpPeer", "asked", "request_of"]


@dataclass
class Answer:
    """A response."""

    status: int
    headers: Headers
    body: bytes
    #: The fields behind a chunked body.
    trailers: Headers
    version: str = "HTTP/1.1"

    @property
    def closes(self) -> bool:
        """Whether it announces the end of the connection."""
        return "close" in self.headers.list_of("Connection")


class HttpPeer:
    """One connection to a server."""

    def __init__(self, peer: RawPeer) -> None:
        self.peer = peer

    async def send(self, octets: bytes) -> None:
        await self.peer.write(octets)

    async def ask(self, octets: bytes, method: str = "GET") -> Answer:
        """Send a request and return its response."""
        await self.send(octets)
        return await self.answer(method)

    async def answer(self, method: str = "GET") -> Answer:
        """The next response; ``method`` is that of its request."""
        first, headers = parse(await self.peer.read_head())
        version, status = first.split(" ")[:2]
        answer = Answer(int(status), headers, b"", Headers(), version)
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return answer
        if headers.get("Transfer-Encoding") == "chunked":
            assert "Content-Length" not in headers
            while size := int((await self.line()).partition(b";")[0], 16):
                answer.body += await self.octets(size)
                assert await self.line() == b""
            while line := await self.line():
                name, _, value = line.decode("latin-1").partition(":")
                answer.trailers.add(name, value.strip())
        elif "Content-Length" in headers:
            answer.body = await self.octets(int(headers["Content-Length"]))
        else:
            assert answer.closes
            answer.body = await self.rest()
        return answer

    async def line(self) -> bytes:
        return (await self._until(b"\r\n"))[:-2]

    async def octets(self, size: int) -> bytes:
        async with asyncio.timeout(BOUND):
            while len(self.peer._received) < size:
                assert await self.peer.more(), f"TCP ended within a body: {bytes(self.peer._received)!r}"
        octets = bytes(self.peer._received[:size])
        del self.peer._received[:size]
        return octets

    async def rest(self) -> bytes:
        """All that comes until TCP ends."""
        async with asyncio.timeout(BOUND):
            while await self.peer.more():
                pass
        octets = bytes(self.peer._received)
        self.peer._received.clear()
        return octets

    async def _until(self, mark: bytes) -> bytes:
        async with asyncio.timeout(BOUND):
            while mark not in self.peer._received:
                assert await self.peer.more(), f"TCP ended first: {bytes(self.peer._received)!r}"
        end = self.peer._received.index(mark) + len(mark)
        octets = bytes(self.peer._received[:end])
        del self.peer._received[:end]
        return octets


def parse(head: str) -> tuple[str, Headers]:
    """The first line and the fields of a head."""
    first, *lines = head.split("\r\n")
    return first, Headers(line.split(": ", 1) for line in lines)


def request_of(
    method: str = "GET", path: str = "/", body: bytes | None = None, *fields: str, version: str = "1.1"
) -> bytes:
    """A request, with the length of its body."""
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *fields]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


@asynccontextmanager
async def asked(server: Any, transport: Transport = PLAIN, **how: Any) -> AsyncIterator[HttpPeer]:
    """A connection to ``server``."""
    with await RawPeer.connect_tcp(server.port, transport.client, **how) as peer:
        await peer.tls_handshake()
        yield HttpPeer(peer)

"""The truth table for the protocols before RFC 6455, and raw peers that speak them."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import NoneType

from endwell import (
    Cause,
    Close,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    Initiator,
    InvalidData,
    MessageTooBig,
    TcpEnd,
    WebSocket,
)
from tests.raw import NONCE, Frame, RawPeer
from tests.wire.peer import CLOSE, TEXT

__all__ = ["MAX_SIZE", "TABLE", "End", "OldPeer", "Told", "told"]

LOCAL, PEER, NETWORK = Initiator.LOCAL, Initiator.PEER, Initiator.NETWORK
OK, ERROR = ConnectionClosedOK, ConnectionClosedError
#: The limit on messages under which the table is measured.
MAX_SIZE = 1000

CHALLENGE = b"^n:ds[4U"  # hixie-76 §1.2
KEYS = "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nSec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n"
_OFFERS = {
    "hixie-76": KEYS,
    "hixie-75": "",
    "hybi-08": f"Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: {NONCE}\r\n",
}


class OldPeer(RawPeer):
    """A raw peer of an old protocol; in hixie its frames are ``00 ... FF`` and ``FF 00``."""

    version = ""

    @property
    def hixie(self) -> bool:
        return self.version.startswith("hixie")

    def request(self, target: str = "/") -> bytes:
        head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        body = CHALLENGE if self.version == "hixie-76" else b""
        return f"{head}{_OFFERS[self.version]}\r\n".encode() + body

    async def upgrade(self, response: bytes | None = None) -> None:
        await self.shake()
        if self.server:
            if self.version == "hybi-08":
                await super().upgrade(response)
                return
            await self.write(await self._answer())
            return
        await self.write(self.request())
        head = await self.read_head()
        assert head.startswith("HTTP/1.1 101 "), head
        if self.version == "hixie-76":
            await self._octets(16)

    async def _answer(self) -> bytes:
        lines = (await self.read_head()).split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:])
        prefix = "WebSocket-" if self.version == "hixie-75" else "Sec-WebSocket-"
        head = (
            "HTTP/1.1 101 WebSocket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
            f"{prefix}Origin: {fields['Origin']}\r\n"
            f"{prefix}Location: ws://{fields['Host']}{lines[0].split()[1]}\r\n\r\n"
        ).encode()
        if self.version == "hixie-75":
            return head
        parts = b"".join(_part(fields[f"Sec-WebSocket-Key{number}"]) for number in (1, 2))
        return head + hashlib.md5(parts + await self._octets(8)).digest()

    async def _octets(self, size: int) -> bytes:
        while len(self._received) < size:
            assert await self.more(), "the connection ended within the handshake"
        octets = bytes(self._received[:size])
        del self._received[:size]
        return octets

    def octets(self, opcode: int, payload: bytes = b"", **fields: object) -> bytes:
        if not self.hixie:
            return super().octets(opcode, payload, **fields)
        return b"\xff\0" if opcode == CLOSE else b"\0" + payload + b"\xff"

    async def read_frame(self) -> Frame | None:
        if not self.hixie:
            return await super().read_frame()
        while b"\xff" not in self._received[:-1] and not self._received.endswith(b"\xff"):
            if not await self.more():
                return None
        if self._received[0] == 0xFF:
            if len(self._received) < 2 and not await self.more():
                return None
            del self._received[:2]
            return Frame(CLOSE, b"")
        payload, _, self._received = self._received[1:].partition(b"\xff")
        return Frame(TEXT, bytes(payload))


def _part(key: str) -> bytes:
    digits = int("".join(char for char in key if char.isdigit()))
    return (digits // key.count(" ")).to_bytes(4, "big")


Told = tuple[Cause, Initiator, bool | None, Close | None, Close | None, int, TcpEnd, type[ConnectionClosed]]


def told(ws: WebSocket) -> Told:
    """What ``ws`` tells, in the order of the table."""
    ending = ws.ending
    assert ending is not None
    return (
        ending.cause,
        ending.initiator,
        ending.clean,
        ending.received,
        ending.sent,
        ending.code,
        ending.tcp,
        type(ConnectionClosed.of(ending)),
    )


@dataclass(frozen=True)
class End:
    """One way in which a connection ends: what the peer does, and what is told."""

    act: Callable[[OldPeer], Awaitable[object]]
    told: Told
    exception: type[BaseException | None] = NoneType
    #: What this side closes with, if it is this side that closes.
    ours: tuple[int, str] | None = None


async def _closes(peer: OldPeer) -> None:
    await peer.close(1001, "bye")
    await peer.read_to_the_end()


async def _vanishes(peer: OldPeer) -> None:
    peer.fin()
    await peer.read_to_the_end()


async def _resets(peer: OldPeer) -> None:
    peer.reset()


async def _answers(peer: OldPeer) -> None:
    await peer.read_to_the_end(answer=True)


async def _answers_with_fin(peer: OldPeer) -> None:
    # As em-websocket and txWS do in hixie-76, and everybody in hixie-75.
    await peer.read_frame()
    peer.fin()
    await peer.read_to_the_end()


def _sends(payload: bytes) -> Callable[[OldPeer], Awaitable[None]]:
    async def act(peer: OldPeer) -> None:
        await peer.frame(TEXT, payload)
        peer.fin()
        await peer.read_to_the_end()

    return act


def _unsaid(code: int, reason: str) -> Close:
    return Close(code, reason, unsaid=True)


TOO_BIG, NOT_UTF8 = bytes(MAX_SIZE + 1), b"\xc3("
_BIG_76 = f"frame has {MAX_SIZE + 1} bytes or more; at most {MAX_SIZE} are accepted"
_BIG_08 = f"message has {MAX_SIZE + 1} bytes or more; at most {MAX_SIZE} are accepted"
_UTF8 = "text is not UTF-8 at byte 0"

# fmt: off
TABLE: dict[str, dict[str, End]] = {
    "hixie-76": {
        "the peer closes": End(_closes, (Cause.PEER_CLOSED, PEER, True, Close(), Close(), 1005, TcpEnd.FIN, OK)),
        "FIN": End(_vanishes, (Cause.PEER_VANISHED, NETWORK, False, None, None, 1006, TcpEnd.FIN, ERROR)),
        "RST": End(_resets, (Cause.CONNECTION_RESET, NETWORK, False, None, None, 1006, TcpEnd.RST, ERROR), ConnectionError),
        "bad UTF-8": End(_sends(NOT_UTF8), (Cause.INVALID_DATA, LOCAL, False, None, _unsaid(1007, _UTF8), 1005, TcpEnd.FIN, ERROR), InvalidData),
        "message too big": End(_sends(TOO_BIG), (Cause.MESSAGE_TOO_BIG, LOCAL, False, None, _unsaid(1009, _BIG_76), 1005, TcpEnd.FIN, ERROR), MessageTooBig),
        "we close with 1000": End(_answers, (Cause.APP_CLOSED, LOCAL, True, Close(), _unsaid(1000, ""), 1005, TcpEnd.FIN, OK), ours=(1000, "")),
        "we close with 4001": End(_answers, (Cause.APP_CLOSED, LOCAL, True, Close(), _unsaid(4001, "why"), 1005, TcpEnd.FIN, ERROR), ours=(4001, "why")),
        "we close, and FIN is the answer": End(_answers_with_fin, (Cause.APP_CLOSED, LOCAL, False, None, _unsaid(1000, ""), 1005, TcpEnd.FIN, ERROR), ours=(1000, "")),
    },
    "hixie-75": {
        "FIN": End(_vanishes, (Cause.PEER_VANISHED, NETWORK, None, None, None, 1006, TcpEnd.FIN, OK)),
        "RST": End(_resets, (Cause.CONNECTION_RESET, NETWORK, None, None, None, 1006, TcpEnd.RST, ERROR), ConnectionError),
        "a closing frame, as Perl sends it": End(_closes, (Cause.PEER_CLOSED, PEER, None, Close(), Close(), 1005, TcpEnd.FIN, OK)),
        "bad UTF-8": End(_sends(NOT_UTF8), (Cause.INVALID_DATA, LOCAL, None, None, _unsaid(1007, _UTF8), 1005, TcpEnd.FIN, ERROR), InvalidData),
        "message too big": End(_sends(TOO_BIG), (Cause.MESSAGE_TOO_BIG, LOCAL, None, None, _unsaid(1009, _BIG_76), 1005, TcpEnd.FIN, ERROR), MessageTooBig),
        "we close with 1000": End(_answers_with_fin, (Cause.APP_CLOSED, LOCAL, None, None, _unsaid(1000, ""), 1005, TcpEnd.FIN, OK), ours=(1000, "")),
    },
    "hybi-08": {
        "the peer closes": End(_closes, (Cause.PEER_CLOSED, PEER, True, Close(1001, "bye"), Close(1001, "bye"), 1001, TcpEnd.FIN, OK)),
        "FIN": End(_vanishes, (Cause.PEER_VANISHED, NETWORK, False, None, None, 1006, TcpEnd.FIN, ERROR)),
        "RST": End(_resets, (Cause.CONNECTION_RESET, NETWORK, False, None, None, 1006, TcpEnd.RST, ERROR), ConnectionError),
        "bad UTF-8": End(_sends(NOT_UTF8), (Cause.INVALID_DATA, LOCAL, False, None, Close(1007, _UTF8), 1007, TcpEnd.FIN, ERROR), InvalidData),
        "message too big": End(_sends(TOO_BIG), (Cause.MESSAGE_TOO_BIG, LOCAL, False, None, Close(1009, _BIG_08), 1009, TcpEnd.FIN, ERROR), MessageTooBig),
        "we close with 1000": End(_answers, (Cause.APP_CLOSED, LOCAL, True, Close(1000), Close(1000), 1000, TcpEnd.FIN, OK), ours=(1000, "")),
        "we close with 4001": End(_answers, (Cause.APP_CLOSED, LOCAL, True, Close(4001, "why"), Close(4001, "why"), 4001, TcpEnd.FIN, ERROR), ours=(4001, "why")),
    },
}
# fmt: on

"""Raw peers that speak the protocols before RFC 6455, as the drafts say."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from endwell import Close
from tests.raw import BOUND, NONCE, Frame, RawPeer
from tests.wire.peer import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame

__all__ = ["MISSING_FEATURES", "OldPeer", "close_received", "close_sent", "peer_type"]

#: What each protocol lacks of RFC 6455. hybi-07 is hybi-08 with another number.
MISSING_FEATURES: dict[str, set[str]] = {
    "13": set(),
    "hybi-08": set(),
    "hybi-03": {"codes"},
    "hixie-76": {"codes", "pings", "binary", "fragments"},
    "hixie-75": {"codes", "pings", "binary", "fragments", "close"},
}

CHALLENGE = b"^n:ds[4U"  # hixie-76 §1.2
_KEYS = "Sec-WebSocket-Key1: 4 @1  46546xW%0l 1 5\r\nSec-WebSocket-Key2: 12998 5 Y3 1  .P00\r\n"
_OFFERS = {
    "hixie-75": "",
    "hixie-76": _KEYS,
    "hybi-03": f"{_KEYS}Sec-WebSocket-Draft: 3\r\n",
    "hybi-07": f"Sec-WebSocket-Version: 7\r\nSec-WebSocket-Key: {NONCE}\r\n",
    "hybi-08": f"Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: {NONCE}\r\n",
}
#: The protocols with the handshake and the frames of RFC 6455.
_LIKE_RFC_6455 = {"hybi-07", "hybi-08"}
#: The protocols whose opening handshake ends with 8 octets from the client and 16 from the server.
_WITH_CHALLENGE = {"hixie-76", "hybi-03"}
#: hybi-03 §4.2: its opcodes, in the order of their numbers.
_OPCODES = [CONTINUATION, CLOSE, PING, PONG, TEXT, BINARY]


def close_received(version: str, code: int, reason: str = "") -> Close:
    """A Close as the other side receives it."""
    return Close() if "codes" in MISSING_FEATURES[version] else Close(code, reason)


def close_sent(version: str, code: int, reason: str = "") -> Close:
    """``Ending.sent`` after endwell sent this Close."""
    return Close(code, reason, not_transmitted="codes" in MISSING_FEATURES[version])


def peer_type(version: str) -> type[RawPeer]:
    """The class of the raw peers of a protocol."""
    return RawPeer if version == "13" else type("Peer", (OldPeer,), {"version": version})


class OldPeer(RawPeer):
    """A raw peer of an old protocol. Frames of hixie are ``00 ... FF`` and ``FF 00``."""

    version = ""

    def request(self, target: str = "/") -> bytes:
        head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        body = CHALLENGE if self.version in _WITH_CHALLENGE else b""
        return f"{head}{_OFFERS[self.version]}\r\n".encode() + body

    async def upgrade(self, response: bytes | None = None) -> None:
        if self.version in _LIKE_RFC_6455:
            await super().upgrade(response)
            return
        await self.tls_handshake()
        if self.server:
            await self.write(response or await self.switching_protocols())
            return
        await self.write(self.request())
        head = await self.read_head()
        assert head.startswith("HTTP/1.1 101 "), head
        if self.version in _WITH_CHALLENGE:
            await self._read_exactly(16)

    async def switching_protocols(self) -> bytes:
        """The 101 of a server to the request that it reads, with the proof."""
        lines = (await self.read_head()).split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines[1:])
        prefix = "WebSocket-" if self.version == "hixie-75" else "Sec-WebSocket-"
        head = (
            "HTTP/1.1 101 WebSocket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
            f"{prefix}Origin: {fields['Origin']}\r\n"
            f"{prefix}Location: ws://{fields['Host']}{lines[0].split()[1]}\r\n\r\n"
        ).encode()
        if self.version not in _WITH_CHALLENGE:
            return head
        parts = b"".join(_key_number(fields[f"Sec-WebSocket-Key{number}"]) for number in (1, 2))
        return head + hashlib.md5(parts + await self._read_exactly(8)).digest()

    async def _read_exactly(self, size: int) -> bytes:
        async with asyncio.timeout(BOUND):
            while len(self._received) < size:
                assert await self.more(), "the connection ended within the handshake"
        octets = bytes(self._received[:size])
        del self._received[:size]
        return octets

    def octets(self, opcode: int, payload: bytes = b"", **fields: Any) -> bytes:
        if self.version in _LIKE_RFC_6455:
            return super().octets(opcode, payload, **fields)
        if self.version == "hybi-03":
            modern = frame(opcode, payload, key=None, fin=not fields.get("fin", True))
            return bytes((modern[0] & 0xF0 | _OPCODES.index(opcode),)) + modern[1:]
        assert not fields
        return {TEXT: b"\0" + payload + b"\xff", CLOSE: b"\xff\0"}[opcode]

    def close_octets(self, code: int | None = 1000, reason: str = "") -> bytes:
        if self.version in _LIKE_RFC_6455:
            return super().close_octets(code, reason)
        return self.octets(CLOSE)

    def parse(self, data: bytearray) -> tuple[Frame, int] | None:
        if self.version.startswith("hixie"):
            if data[:1] == b"\xff":
                return (Frame(CLOSE, b""), 2) if len(data) >= 2 else None
            mark = data.find(b"\xff")
            return None if mark < 0 else (Frame(TEXT, bytes(data[1:mark])), mark + 1)
        parsed = super().parse(data)
        if parsed is None or self.version in _LIKE_RFC_6455:
            return parsed
        (opcode, payload), size = parsed
        return Frame(_OPCODES[opcode], payload), size


def _key_number(key: str) -> bytes:
    digits = int("".join(char for char in key if char.isdigit()))
    return (digits // key.count(" ")).to_bytes(4, "big")

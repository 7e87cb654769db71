"""Every recorded conversation of old peers, with endwell in place of the server, then of the client.

``legacy-conversations.json`` was recorded by a proxy between five clients and thirteen servers. Lines:
``C|`` and ``S|`` are the heads of client and server, ``C>`` and ``S>`` the octets after them, FIN and RST.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from endwell.ending import Cause, Close, TcpEnd
from endwell.http import Headers, Request, set_challenge
from endwell.options import Options
from endwell.protocol.connection import Connection
from endwell.protocol.handshake import Offer
from endwell.protocol.opening import accept, confirm
from endwell.wire.head import RequestReader, ResponseReader

RECORDED = json.loads((Path(__file__).parent / "legacy-conversations.json").read_text())
VERSIONS = {"75": "hixie-75", "76": "hixie-76", "03": "hybi-03", "07": "hybi-07", "08": "hybi-08"}
IDS = [f"{one['draft']} {one['client']} {one['server']} {one['closer']}" for one in RECORDED]
BYTEWISE = [False, True]


def octets(line: str) -> bytes:
    return bytes.fromhex(line[3:]) if line[3:] not in ("FIN", "RST") else b""


@dataclass
class Said:
    """The content of the octets after a handshake, parsed as the drafts say and without the package."""

    messages: list[str] = field(default_factory=list)
    closes: int = 0

    @classmethod
    def by(cls, draft: str, data: bytes) -> Said:
        said = cls()
        while data:
            opcode, payload, data = (_hixie if draft in ("75", "76") else _hybi)(data)
            if opcode == {"75": 0xFF, "76": 0xFF, "03": 1}.get(draft, 8):
                said.closes += 1
            else:
                assert opcode == {"75": 0, "76": 0, "03": 4}.get(draft, 1)
                said.messages.append(payload.decode())
        return said


def _hixie(data: bytes) -> tuple[int, bytes, bytes]:
    if data[:2] == b"\xff\x00":
        return 0xFF, b"", data[2:]
    payload, _, rest = data[1:].partition(b"\xff")
    return data[0], payload, rest


def _hybi(data: bytes) -> tuple[int, bytes, bytes]:
    masked, size = data[1] & 0x80, data[1] & 0x7F
    assert size < 126
    start = 6 if masked else 2
    key = data[2:6] if masked else bytes(4)
    payload = bytes(octet ^ key[i % 4] for i, octet in enumerate(data[start : start + size]))
    return data[0] & 0x0F, payload, data[start + size :]


class Side:
    """One recorded side: its head, and its actions after it."""

    def __init__(self, one: dict, side: str) -> None:
        wire = [line for line in one["wire"] if line[0] == side]
        self.head = "\r\n".join(line[3:] for line in wire if line[1] == "|").encode() + b"\r\n"
        self.steps = [line for line in wire if line[1] == ">"]
        data = b"".join(octets(line) for line in self.steps)
        self.proof = {"76": (8, 16), "03": (8, 16)}.get(one["draft"], (0, 0))[side == "S"]
        self.body = data[: self.proof]
        self.said = Said.by(one["draft"], data[self.proof :])

    def pieces(self, bytewise: bool) -> list[bytes]:
        """The octets as recorded, or one by one."""
        reads = [self.head, *map(octets, self.steps)]
        return [bytes((octet,)) for octet in b"".join(reads)] if bytewise else reads


def drain_outbox(core: Connection) -> bytes:
    data = b"".join(core.outbox.buffers())
    if data:
        core.sent(len(data), 0.0)
    return data


def finish(core: Connection, steps: list[str]) -> None:
    """The actions of the other side on TCP."""
    for line in steps:
        if line.endswith("RST"):
            core.lost(ConnectionResetError(104, "reset"), 0.0)
        elif line.endswith("FIN"):
            core.eof(0.0)
    # If the proxy saw the other side's FIN first, this side's FIN answered ours.
    core.eof(0.0)
    drain_outbox(core)


def judge(core: Connection, one: dict, theirs: Side, ours: Said, we_began: bool) -> None:
    ending = core.ending
    assert ending.messages_in == len(theirs.said.messages)
    assert (ending.received is not None) == (theirs.said.closes > 0)
    assert ours.closes <= 1
    if one["draft"] == "75":
        assert ending.clean is None
    else:
        assert ending.clean is (theirs.said.closes > 0)
        assert ours.closes == 1 or not theirs.said.closes
    if we_began:
        assert ending.cause is Cause.APP_CLOSED
        assert ending.sent.not_transmitted is (one["draft"] in ("03", "75", "76"))
        assert ending.code == (1005 if ending.sent.not_transmitted else 1000)
    else:
        assert ending.cause is (Cause.PEER_CLOSED if theirs.said.closes else Cause.PEER_VANISHED)
    if theirs.steps[-1].endswith("FIN"):
        assert ending.tcp is TcpEnd.FIN


@pytest.mark.parametrize("bytewise", BYTEWISE)
@pytest.mark.parametrize("one", RECORDED, ids=IDS)
def test_endwell_as_the_server_of_a_recorded_client(one, bytewise):
    client, server = Side(one, "C"), Side(one, "S")
    options = Options(legacy=True, origins=["*"])
    reader, core = RequestReader(options), Connection(False, options, 0.0)
    request = None
    for piece in client.pieces(bytewise):
        if request is None:
            request = reader.receive(piece)
            if request is None:
                continue
            accepted = accept(request, options)
            core.open(accepted.serialize())
            core.accept(accepted.codec(False, options.max_size), 0.0)
            answer = drain_outbox(core)
            core.receive(reader.rest, 0.0)
        else:
            core.receive(piece, 0.0)
        answer += _echo(core)
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert rest[: server.proof] == server.body
    told, recorded = (dict(_fields(text)) for text in (head, server.head))
    prefix = "websocket" if one["draft"] == "75" else "sec-websocket"
    for name in (f"{prefix}-accept", f"{prefix}-origin", f"{prefix}-location"):
        assert told.get(name) == recorded.get(name)
    finish(core, client.steps)
    assert core.ended
    ours = Said.by(one["draft"], rest[server.proof :])
    assert (
        ours.messages == server.said.messages == [text for text in client.said.messages if text != "!close"]
    )
    judge(core, one, client, ours, one["closer"] == "server")


def _echo(core: Connection) -> bytes:
    while core.inbox:
        message = core.inbox.popleft()
        if message == "!close":
            core.close(Close(1000, ""), 0.0)
        else:
            core.send(message, 0.0)
    return drain_outbox(core)


def _fields(head: bytes) -> list[tuple[str, str]]:
    lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
    return [(name.lower(), value) for name, _, value in lines]


@pytest.mark.parametrize("bytewise", BYTEWISE)
@pytest.mark.parametrize("one", RECORDED, ids=IDS)
def test_endwell_as_the_client_of_a_recorded_server(one, bytewise):
    client, server = Side(one, "C"), Side(one, "S")
    options = Options(version=VERSIONS[one["draft"]], compression=None)
    lines = client.head.decode().split("\r\n")[1:-2]
    fields = Headers([tuple(line.split(": ", 1)) for line in lines])
    asked = Request("GET", "/echo", fields)
    set_challenge(asked, client.body)
    made = Offer(asked, fields.get("Sec-WebSocket-Key") or "", options)
    assert made.request.serialize() == client.head + client.body
    reader, core = ResponseReader(options), Connection(True, options, 0.0)
    core.connected = True
    core.open(made.request.serialize())
    drain_outbox(core)
    sent = list(client.said.messages)
    said, response, messages = b"", None, []
    for piece in server.pieces(bytewise):
        if response is None:
            response = reader.receive(piece)
            if response is None:
                continue
            core.accept(confirm(made, response).codec(True, options.max_size), 0.0)
            for message in sent:
                assert core.send(message, 0.0)
            said += drain_outbox(core)
            core.receive(reader.rest, 0.0)
        else:
            core.receive(piece, 0.0)
        while core.inbox:
            messages.append(core.inbox.popleft())
            if one["closer"] == "client" and messages == sent:
                core.close(Close(1000, ""), 0.0)
        said += drain_outbox(core)
    finish(core, server.steps)
    ours = Said.by(one["draft"], said)
    assert messages == server.said.messages
    assert ours.messages == sent
    judge(core, one, server, ours, one["closer"] == "client")

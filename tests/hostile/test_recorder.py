"""A peer can neither forge a record, nor make it large, nor run code through it: ws and wss, both faces."""

from __future__ import annotations

import json

import pytest

from endwell import Server
from endwell.cli.replay import run as replay_command
from endwell.protocol.record import MAX_RECORD
from endwell.protocol.replay import replay
from tests.pair import until
from tests.raw import RawPeer
from tests.wire.peer import CLOSE, PING, TEXT

#: Ends strings of Python and JSON, and has control characters and characters above the Basic Multilingual Plane.
REASON = "'''\"\"\"\\\n\x1b]0;\x07\x00{0}\U0001f4a5; import os"


async def ending_of(face, transport, act, **options):
    """The recorded ending of a server whose peer does ``act``."""
    recorded = []

    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    server = Server(recorder=recorded.append, **options)
    server.websocket("/")(face.handler(echo))
    async with server.serving(ssl=transport.server):
        with await RawPeer.connect(server.port, transport.client) as peer:
            await act(peer)
            await peer.read_to_the_end()
        await until(lambda: recorded)
    return recorded[0]


class Arguments:
    def __init__(self, file, as_test):
        self.file, self.as_test = file, as_test


@pytest.mark.parametrize("as_test", [False, True])
async def test_the_reason_of_a_close_stays_text(as_test, face, transport, tmp_path, capsys):
    async def close(peer):
        await peer.close(4001, REASON)

    ending = await ending_of(face, transport, close)
    assert ending.received.reason == REASON
    file = tmp_path / "ending.json"
    file.write_text(json.dumps(ending.as_dict()))
    assert replay_command(Arguments(str(file), as_test)) == 0
    out = capsys.readouterr().out
    assert not {char for char in out if not char.isprintable()} - {"\n"}
    if as_test:
        names = {}
        exec(compile(out, "written", "exec"), names)
        names["test_the_recorded_connection_ends_with_peer_closed"]()


async def test_a_flood_of_pings_and_messages_leaves_a_short_record(face, transport):
    async def flood(peer):
        for _ in range(20):
            await peer.frame(PING, b"x" * 100)
            await peer.frame(TEXT, b"y" * 1000)
        await peer.frame(TEXT, b"\xff")

    ending = await ending_of(face, transport, flood)
    assert len(json.dumps(dict(ending.record))) <= MAX_RECORD
    assert len(ending.record["cues"]) < 10
    assert replay(json.loads(json.dumps(ending.as_dict()))).differences() == {}


async def test_no_content_of_messages_and_pings_is_recorded(face, transport):
    async def talk(peer):
        await peer.frame(PING, b"secret")
        await peer.frame(TEXT, b"secret")
        await peer.frame(CLOSE, b"\x0f\xa1bye")

    ending = await ending_of(face, transport, talk)
    assert "secret" not in json.dumps(ending.as_dict())

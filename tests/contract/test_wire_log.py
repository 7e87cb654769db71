"""A connection sends and receives the same while its frames are logged."""

from __future__ import annotations

import logging

from endwell import Server
from tests.pair import within
from tests.raw import HOST

MESSAGES = ["grüß dich", b"\x00\xff", "", bytes(300_000), "ü" * 200_000]


async def test_a_logged_connection_carries_the_same_messages(face, transport, caplog):
    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    server = Server()
    server.websocket("/")(face.handler(echo))
    for compression in ({}, {"compression": None}):
        with caplog.at_level(logging.DEBUG, "endwell.wire"):
            async with server.serving(ssl=transport.server):
                scheme = "ws" if transport.server is None else "wss"
                uri = f"{scheme}://{HOST}:{server.port}/?token=secret"
                ws = await face.connect(
                    uri,
                    ssl=transport.client,
                    additional_headers={"Authorization": "Bearer secret"},
                    **compression,
                )
                for message in MESSAGES:
                    await within(ws.send(message))
                    assert await within(ws.recv()) == message
                await within(ws.ping())
                ending = await within(ws.close(1000, "bye"))
        assert ending.clean
        lines = [record.getMessage() for record in caplog.records if record.name.startswith("endwell.wire")]
        assert lines[0] == "> GET /?token=... HTTP/1.1"
        assert "< HTTP 101 Switching Protocols" in lines
        assert "secret" not in str(lines)
        frames = [line.partition(" ")[2] for line in lines if line.startswith("#")]
        # Both sides of the connection are in this process.
        for kind in ("TEXT", "BINARY", "PING", "PONG", "CLOSE 1000 'bye'"):
            assert sum(line.startswith(f"> {kind}") for line in frames) >= 1, kind
        assert len([line for line in frames if line[0] == ">"]) == len(
            [line for line in frames if line[0] == "<"]
        )
        caplog.clear()

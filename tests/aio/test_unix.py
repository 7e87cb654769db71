"""Unix sockets, both sides."""

from __future__ import annotations

import asyncio
import os
import socket
import stat

import pytest

from endwell import Cause, Close, HandshakeFailed, Server, TcpEnd, connect
from tests.pair import nothing_left_behind, within
from tests.raw import RawPeer


def echoing():
    server = Server()

    @server.websocket("/{room}")
    async def echo(ws, room):
        async for message in ws:
            await ws.send(f"{room}: {message}")

    return server


async def test_messages_and_closes_go_over_a_unix_socket(tmp_path):
    path = tmp_path / "socket"
    server = echoing()
    async with nothing_left_behind(), server.serving(unix_path=path):
        assert server.addresses == [str(path)]
        async with connect("ws://localhost/attic", unix_path=path) as ws:
            await ws.send("hi")
            assert await within(ws.recv()) == "attic: hi"
        assert (ws.ending.sent, ws.ending.received) == (Close(1000), Close(1000))
        assert (ws.ending.clean, ws.ending.tcp) == (True, TcpEnd.FIN)
    assert not path.exists()


async def test_a_drop_over_a_unix_socket_is_told(tmp_path):
    endings = []
    server = echoing()
    server.on_close(lambda ws, ending: endings.append(ending))
    async with server.serving(unix_path=tmp_path / "socket"), nothing_left_behind():
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / "socket"))
            peer = RawPeer(sock, None, server=False)
            await peer.write(peer.request("/attic"))
            await peer.read_head()
        async with asyncio.timeout(1):
            while not endings or server._tasks:
                await asyncio.sleep(0.001)
    assert [ending.cause for ending in endings] == [Cause.PEER_VANISHED]


async def test_a_socket_file_that_a_dead_server_left_behind_is_replaced(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    async with echoing().serving(unix_path=path), connect("ws://localhost/attic", unix_path=path) as ws:
        await ws.send("hi")
        assert await within(ws.recv()) == "attic: hi"


async def test_a_file_that_is_no_socket_is_not_replaced(tmp_path):
    path = tmp_path / "socket"
    path.write_text("precious")
    with pytest.raises(OSError, match="in use"):
        async with echoing().serving(unix_path=path):
            raise AssertionError("it must not start")
    assert path.read_text() == "precious"


async def test_a_unix_socket_that_is_not_there_fails_the_handshake(tmp_path):
    async with nothing_left_behind():
        with pytest.raises(HandshakeFailed) as raised:
            await within(connect("ws://localhost/", unix_path=tmp_path / "socket"))
    assert isinstance(raised.value.ending.exception, FileNotFoundError)
    assert raised.value.ending.tcp is TcpEnd.NONE

"""Unix sockets, both sides."""

from __future__ import annotations

import errno
import os
import socket
import stat
from contextlib import AsyncExitStack

import pytest

from endwell import Cause, Close, HandshakeError, Server, TcpEnd, connect
from endwell.aio.bind import format_address
from tests.pair import nothing_left_behind, until, within
from tests.raw import RawPeer


def echoing():
    server = Server()

    @server.websocket("/{room}")
    async def echo(ws, room):
        async for message in ws:
            await ws.send(f"{room}: {message}")

    return server


async def test_messages_and_closes_work_over_a_unix_socket(tmp_path):
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


async def test_a_drop_over_a_unix_socket_is_reported(tmp_path):
    endings = []
    server = echoing()
    server.on_close(lambda ws, ending: endings.append(ending))
    async with server.serving(unix_path=tmp_path / "socket"), nothing_left_behind():
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(tmp_path / "socket"))
            peer = RawPeer(sock, None, server=False)
            await peer.write(peer.request("/attic"))
            await peer.read_head()
        await until(lambda: endings and not server._dispatcher.tasks)
    assert [ending.cause for ending in endings] == [Cause.PEER_VANISHED]


async def test_a_stale_socket_file_is_replaced(tmp_path):
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


async def test_a_missing_unix_socket_fails_the_handshake(tmp_path):
    async with nothing_left_behind():
        with pytest.raises(HandshakeError) as raised:
            await within(connect("ws://localhost/", unix_path=tmp_path / "socket"))
    assert isinstance(raised.value.ending.exception, FileNotFoundError)
    assert raised.value.ending.tcp is TcpEnd.NONE


async def test_a_path_with_a_running_server_is_in_use(tmp_path):
    path = tmp_path / "socket"
    async with echoing().serving(unix_path=path):
        with pytest.raises(OSError, match="in use: another process listens") as raised:
            async with echoing().serving(unix_path=path):
                raise AssertionError("it must not start")
        assert (raised.value.errno, raised.value.filename) == (errno.EADDRINUSE, str(path))
        async with connect("ws://localhost/attic", unix_path=path) as ws:
            await ws.send("hi")
            assert await within(ws.recv()) == "attic: hi"


async def test_a_path_with_a_full_accept_queue_is_in_use(tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as waiting:
        listening.bind(path)
        listening.listen(0)
        waiting.connect(path)
        with pytest.raises(OSError, match="in use"):
            async with echoing().serving(unix_path=path):
                raise AssertionError("it must not start")
        assert (tmp_path / "socket").is_socket()


@pytest.mark.parametrize("early", [False, True], ids=["stop", "drain"])
async def test_stop_keeps_the_socket_file_of_another_process(tmp_path, early):
    path, old, new = tmp_path / "socket", echoing(), echoing()
    async with AsyncExitStack() as stack:
        async with old.serving(unix_path=path):
            # Like a deployment that renames its socket into place.
            await stack.enter_async_context(new.serving(unix_path=tmp_path / "next"))
            os.rename(tmp_path / "next", path)
            if early:
                await old.drain(listen=False)
        async with connect("ws://localhost/attic", unix_path=path) as ws:
            await ws.send("hi")
            assert await within(ws.recv()) == "attic: hi"


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
async def test_the_socket_file_has_the_requested_mode(tmp_path, mode):
    async with echoing().serving(unix_path=tmp_path / "socket", unix_mode=mode):
        assert stat.S_IMODE(os.stat(tmp_path / "socket").st_mode) == mode


@pytest.mark.parametrize("mode", [True, -1, 0o1777, "660"])
async def test_an_invalid_mode_is_refused_and_no_file_is_left(tmp_path, mode):
    with pytest.raises(ValueError, match="such as 0o660"):
        async with echoing().serving(unix_path=tmp_path / "socket", unix_mode=mode):
            raise AssertionError("it must not start")
    assert not (tmp_path / "socket").exists()


async def test_a_unix_socket_has_no_port(tmp_path):
    server = echoing()
    with pytest.raises(ValueError, match="does not listen"):
        _ = server.port
    async with server.serving(unix_path=tmp_path / "socket"):
        with pytest.raises(ValueError, match=r"no port: it listens on .*/socket$"):
            _ = server.port


async def test_an_abstract_socket_name_works_without_a_file():
    name = f"\0endwell-{os.getpid()}-\N{SNOWMAN}"
    server = echoing()
    async with server.serving(unix_path=name):
        assert server.addresses == [name]
        assert format_address(server.addresses[0]) == f"@{name[1:]}"
        async with connect("ws://localhost/attic", unix_path=name) as ws:
            await ws.send("hi")
            assert await within(ws.recv()) == "attic: hi"
        with pytest.raises(OSError, match="in use"):
            async with echoing().serving(unix_path=name):
                raise AssertionError("it must not start")
    with pytest.raises(ValueError, match="no unix_mode"):
        async with server.serving(unix_path=name, unix_mode=0o600):
            raise AssertionError("it must not start")


@pytest.mark.parametrize("kind", ["directory", "link to a socket", "link to nothing", "file"])
async def test_what_replaces_the_socket_while_it_is_served_is_left_and_named_by_the_next_start(
    tmp_path, kind
):
    path, target = tmp_path / "socket", tmp_path / "other"
    async with AsyncExitStack() as stack:
        async with echoing().serving(unix_path=path):
            path.unlink()
            if kind == "directory":
                path.mkdir()
            elif kind == "file":
                path.touch()
            else:
                path.symlink_to(target)
            if kind == "link to a socket":
                await stack.enter_async_context(echoing().serving(unix_path=target))
        before = os.lstat(path)
        why = {
            "directory": "it is not a socket",
            "file": "it is not a socket",
            "link to nothing": "it is a link to a file that does not exist",
            "link to a socket": "another process listens on it",
        }
        with pytest.raises(OSError, match=why[kind]) as raised:
            async with echoing().serving(unix_path=path):
                raise AssertionError("it must not start")
        assert (raised.value.errno, raised.value.filename) == (errno.EADDRINUSE, str(path))
        assert os.lstat(path).st_ino == before.st_ino

"""``endwell top`` against a server: on a terminal, and with --once."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import termios
from contextlib import AsyncExitStack

import pytest

import endwell
from endwell import Server
from endwell.cli.top.terminal import ENTER, LEAVE
from tests.cli.process import PATIENCE, command, finish
from tests.pair import within
from tests.ports import free_port
from tests.raw import RawServer

from .screen import top


def application(authorize=None, path="/_endwell"):
    server = Server()
    server.dashboard(path, authorize=authorize)

    @server.websocket("/chat/{name}")
    async def chat(ws, name):
        server.sessions.join(name, ws)
        await ws.send("in")
        async for _ in ws:
            pass

    return server


async def chatting(server, name):
    ws = await endwell.connect(f"ws://127.0.0.1:{server.port}/chat/{name}")
    assert await within(ws.recv()) == "in"
    return ws


async def once(*argv, **keywords):
    """The exit status, the output and the errors of ``endwell top --once``."""

    def run():
        with command("top", "--once", *argv, **keywords) as process:
            return finish(process)

    return await asyncio.to_thread(run)


async def test_a_terminal_shows_closes_and_quits_and_is_as_before():
    server = application()
    async with server.serving():
        ann, ben = await chatting(server, "ann"), await chatting(server, "ben")
        async with top(f"http://127.0.0.1:{server.port}") as screen:
            frame = await screen.shows("2 connections", "ann", "ben", "/chat/{name}")
            assert f"127.0.0.1:{ann.local_address[1]}" in frame
            screen.type("/ben\r")
            await screen.shows("1 found with 'ben'")
            screen.type("c")
            await screen.shows("close the connection of ben with 1000? y/N")
            screen.type("y")
            assert await within(ben.read(), PATIENCE) is None
            assert ben.ending.received == endwell.Close(1000, "closed by an operator")
            await screen.shows("1 connections (", "endings: app_closed 1", "done")
            screen.type("\t")
            await screen.shows("how it ended", "the application closed; we closed with 1000", "ben")
            screen.type("\t")
            await screen.shows("memory", str(os.getpid()), "serving")
            screen.resize(60, 12)
            await screen.shows("process")
            async with asyncio.timeout(PATIENCE):
                while len(screen.frame.split("\n")) != 12:
                    await asyncio.sleep(0.01)
            assert {len(line) for line in screen.frame.split("\n")} == {60}
            screen.type("Ry")
            await screen.shows("error: restart needs a supervisor")
            screen.type("q")
            assert await screen.ended() == 0
            assert termios.tcgetattr(screen.inner) == screen.modes
        assert screen.output.count(ENTER) == screen.output.count(LEAVE) == 1
        assert screen.output.endswith(LEAVE)
        await within(ann.close())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_restores_the_terminal(number):
    server = application()
    async with server.serving():
        async with top(f"127.0.0.1:{server.port}") as screen:
            await screen.shows("0 connections (")
            screen.process.send_signal(number)
            assert await screen.ended() == 0
            assert termios.tcgetattr(screen.inner) == screen.modes
        assert screen.output.endswith(LEAVE)


async def test_it_goes_on_after_it_was_suspended():
    server = application()
    async with server.serving():
        async with top(f"127.0.0.1:{server.port}") as screen:
            await screen.shows("0 connections (")
            screen.type("\x1a")
            pid, status = await asyncio.to_thread(os.waitpid, screen.process.pid, os.WUNTRACED)
            assert pid == screen.process.pid
            assert os.WIFSTOPPED(status)
            assert termios.tcgetattr(screen.inner) == screen.modes
            ann = await chatting(server, "ann")
            screen.process.send_signal(signal.SIGCONT)
            await screen.shows("1 connections", "ann")
            screen.type("q")
            assert await screen.ended() == 0
        assert screen.output.count(ENTER) == screen.output.count(LEAVE) == 2
        await within(ann.close())


async def test_it_says_that_it_reconnects_and_shows_the_server_that_has_come_back():
    server, again = application(), application()
    async with AsyncExitStack() as first:
        port = free_port()
        await first.enter_async_context(server.serving(port=port, grace=0))
        async with top(f"http://127.0.0.1:{port}/_endwell/") as screen:
            await screen.shows("0 connections (")
            await first.aclose()
            await screen.shows("reconnecting in", "Connection refused")
            async with again.serving(port=port):
                ann = await chatting(again, "ann")
                await screen.shows("1 connections", "ann")
                assert "reconnecting" not in screen.frame
                screen.type("q")
                assert await screen.ended() == 0
                await within(ann.close())


async def test_a_refusal_ends_it_with_the_terminal_as_before():
    server = application(authorize=lambda request: False)
    async with server.serving():
        async with top(f"127.0.0.1:{server.port}") as screen:
            assert await screen.ended() == 1
            assert termios.tcgetattr(screen.inner) == screen.modes
            await asyncio.sleep(0)
            async with asyncio.timeout(PATIENCE):
                while "ENDWELL_TOKEN" not in screen.output:
                    await asyncio.sleep(0.01)
        after = screen.output.rpartition(LEAVE)[2]
        assert "server refused with HTTP 403 Forbidden" in after


async def test_once_prints_one_summary_and_the_first_rows():
    server = application(path="/ops")
    async with server.serving():
        ann, ben = await chatting(server, "ann"), await chatting(server, "ben")
        await within(ben.close(4001, "\x1b[2Jbye"))
        url = f"http://127.0.0.1:{server.port}/ops"
        status, out, err = await once(url)
        assert (status, err) == (0, "")
        assert "1 connections (0 closing" in out
        assert "ann" in out
        assert "peer closed with 4001 '\\x1b[2Jbye'" in out
        assert "\x1b" not in out
        status, out, err = await once("--json", "--rows", "1", url)
        assert (status, err) == (0, "")
        found = json.loads(out)
        assert found["summary"]["connections"] == 1
        assert [row["key"] for row in found["connections"]] == ["ann"]
        assert [row["key"] for row in found["endings"]] == ["ben"]
        await within(ann.close())


@pytest.mark.parametrize(
    "message",
    [
        '{"summary": {"at": "\x1b[2J"}}',
        '{"summary": []}',
        "[" * 100_000,
        json.dumps({"summary": {"at": 1, "workers": [], "missing_workers": 0, "rooms": [], "bus": 1}}),
    ],
)
async def test_a_server_that_speaks_something_else_ends_it_with_the_terminal_as_before(message):
    server = Server(subprotocols=["endwell.feed.1"])

    @server.websocket("/_endwell/feed")
    async def other(ws):
        async for _ in ws:
            await ws.send(message)

    async with server.serving():
        async with top(f"127.0.0.1:{server.port}") as screen:
            assert await screen.ended() == 1
            assert termios.tcgetattr(screen.inner) == screen.modes
        url = f"ws://127.0.0.1:{server.port}/_endwell/feed"
        status, out, err = await once(f"127.0.0.1:{server.port}")
    assert (status, out) == (1, "")
    assert err == f"endwell top: {url}: the server sends what this version of endwell does not understand\n"


WORKER = {"worker": "a", "connections": 0, "closing": 0, "lingering": 0, "slow": 0, "drain": None}
SUMMARY = {
    "at": 1,
    "workers": [{**WORKER, "messages_in": 0, "messages_out": 0, "bytes_in": 0, "bytes_out": 0}],
    "connections": 0,
    "missing_workers": 0,
    "rooms": {"count": 0},
    "bus": {"kind": "local", "connected": True, "lost_publications": 0},
    "endings": {"by_cause": {}, "minutes": []},
}


@pytest.mark.parametrize("keys", ["\t\t", "\t\t\r"])
async def test_a_table_that_is_not_understood_when_it_is_shown_ends_it_too(keys):
    server = Server(subprotocols=["endwell.feed.1"])

    @server.websocket("/_endwell/feed")
    async def other(ws):
        async for _ in ws:
            await ws.send(json.dumps({"summary": SUMMARY}))

    async with server.serving(), top(f"127.0.0.1:{server.port}") as screen:
        await screen.shows("0 connections")
        screen.type(keys)
        assert await screen.ended() == 1
        assert termios.tcgetattr(screen.inner) == screen.modes
        assert "Traceback" not in screen.output
        assert "what this version of endwell does not understand" in screen.output


async def test_a_server_that_announces_a_message_without_end_is_not_awaited():
    with RawServer() as listening:
        asked = asyncio.create_task(once(listening.uri))
        with await listening.accept() as peer:
            await peer.write(b"\x81\x7f" + (2**40).to_bytes(8, "big"))
            await peer.read_to_the_end()
            status, out, err = await asked
    assert (status, out) == (1, "")
    assert "we closed with 1009 MESSAGE_TOO_BIG" in err


async def test_a_process_with_tls_is_found_and_its_certificate_checked(use):
    server = application()
    async with server.serving(ssl=use("wss").server):
        status, out, err = await once(str(os.getpid()))
        assert (status, out) == (1, "")
        assert "-k accepts any certificate" in err
        status, out, err = await once("--json", "-k", str(os.getpid()))
        assert (status, err) == (0, "")
        assert json.loads(out)["summary"]["connections"] == 0


async def test_a_process_is_found_by_its_id(tmp_path):
    server = application()
    async with server.serving():
        status, out, err = await once("--json", str(os.getpid()))
        assert (status, err) == (0, "")
        assert json.loads(out)["summary"]["workers"][0]["pid"] == os.getpid()


@pytest.mark.parametrize("way", ["tcp", "unix"])
async def test_a_socket_that_refuses_is_not_asked_again_with_tls(way, tmp_path):
    server, refused = application(authorize=lambda request: False), []
    server.on_refused(lambda request, status, reason: refused.append(status))
    where = {"unix_path": str(tmp_path / "socket")} if way == "unix" else {}
    async with server.serving(**where):
        status, _, err = await once(str(os.getpid()))
        assert status == 1
        assert "server refused with HTTP 403" in err
    assert refused == [403]


async def test_a_process_on_a_unix_socket_needs_a_token_which_the_environment_has(tmp_path):
    server = application(authorize=lambda request: request.bearer == "secret")
    path = str(tmp_path / "socket")
    async with server.serving(unix_path=path):
        for token, expected in (("secret", 0), ("wrong", 1)):
            env = {**os.environ, "ENDWELL_TOKEN": token}
            # The command sets the path of the package.
            status, out, err = await asyncio.to_thread(with_token, env, "--unix", path, "http://localhost")
            assert status == expected, err
            assert "secret" not in out + err
    assert "server refused with HTTP 403" in err


def with_token(env, *argv):
    os.environ["ENDWELL_TOKEN"] = env["ENDWELL_TOKEN"]
    try:
        with command("top", "--once", *argv) as process:
            return finish(process)
    finally:
        del os.environ["ENDWELL_TOKEN"]


def test_a_token_that_is_no_field_value_is_a_wrong_argument():
    status, out, err = with_token({"ENDWELL_TOKEN": "secret\n"}, "http://localhost")
    assert (status, out) == (2, "")
    assert err == "endwell top: value of header Authorization contains CR, LF or NUL\n"


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        (["--json", "x"], "--json needs --once"),
        (["--once", "--rows", "0", "x"], "--rows must be from 1 to 200"),
        (["x"], "standard input and output are no terminal; --once prints the present state"),
        (["--once", "ftp://x"], "the URL of a server begins with http:// or https://, not 'ftp://'"),
        (["--once", "999999999"], "there is no process 999999999"),
        (["--once", "--header", "x", "y"], "header 'x' is not 'NAME: VALUE'"),
        (["--once", "http://x:99999"], "uri is malformed: the port is malformed"),
        (["--once", "http://"], "uri is malformed: the host is malformed"),
        (["--once", "--header", "x: \u20ac", "y"], "value of header x has a character outside latin-1"),
    ],
)
def test_wrong_arguments(argv, error):
    with command("top", *argv) as process:
        status, out, err = finish(process)
    assert (status, out, err) == (2, "", f"endwell top: {error}\n")

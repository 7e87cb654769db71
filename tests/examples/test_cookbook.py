"""The programs of the cookbook (docs/howto) work as described, in both styles."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from contextlib import ExitStack, contextmanager

import pytest
import trustme

import endwell
from tests.cli.process import PATIENCE, ROOT, finish, listening, python
from tests.pair import within
from tests.ports import free_port
from tests.raw import HOST, RawPeer
from tests.wire.peer import TEXT


@pytest.fixture(scope="module", params=["asyncio", "blocking"])
def face(request):
    """The suffix of the file names of this style."""
    return "" if request.param == "asyncio" else "_blocking"


def program(name, *argv):
    """An example as a process."""
    return python(str(ROOT / "examples" / f"{name}.py"), *map(str, argv))


@contextmanager
def serving(name, *argv):
    """An example that is a server, and its port."""
    with program(name, *argv) as process:
        yield process, listening(process)


async def line(process):
    """The next line of the program's output."""
    async with asyncio.timeout(PATIENCE):
        return (await asyncio.to_thread(process.stdout.readline)).rstrip("\n")


async def finished(process):
    """The exit status and the output of a program that ends by itself."""
    status, out, err = await asyncio.to_thread(finish, process)
    return status, out + err


async def reach(port, path):
    """A raw client of ``path``."""
    peer = await RawPeer.connect_tcp(port)
    await peer.write(peer.request(path))
    assert (await peer.read_head()).startswith("HTTP/1.1 101 ")
    return peer


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


# -- W01 ------------------------------------------------------------------------


async def test_the_client_program_talks_to_the_server_program(face):
    with (
        serving(f"echo{face}", 0) as (_, port),
        program(f"echo_client{face}", f"ws://{HOST}:{port}/echo") as client,
    ):
        status, out = await finished(client)
    assert status == 0
    assert out.startswith("received: Hello, WebSocket!\nthe application closed; we closed with 1000")


async def test_the_client_program_says_why_it_cannot_connect(face):
    with program(f"echo_client{face}", f"ws://{HOST}:1/") as client:
        status, out = await finished(client)
    assert status == 1
    assert out.startswith("failed to connect: ")


# -- W02 ------------------------------------------------------------------------


async def test_the_heartbeat_detects_a_silent_peer_of_a_non_reading_handler(face):
    # The longest permitted stall of the client below, in seconds.
    with serving(f"heartbeat{face}", 0, 2.5) as (process, port):
        with await reach(port, "/chat"):
            told = await line(process)
        assert told.startswith("no answer: the peer did not answer a ping; we closed with 1001")
        async with endwell.connect(f"ws://{HOST}:{port}/latency") as ws:
            await ws.send("how long?")
            assert re.fullmatch(r"\d+\.\d ms", await within(ws.recv()))


# -- W03 ------------------------------------------------------------------------

IN_A_BLOCK = """
import sys, time
from endwell import sync
with sync.connect(sys.argv[1]) as ws:
    ws.send("hi")
    time.sleep(float(sys.argv[2]))
"""

HELD = """
import sys
import endwell.sync.background
from endwell import sync
endwell.sync.background.EXIT_TIME = 60  # for a server that stalls
ws = sync.connect(sys.argv[1])
ws.send("hi")
"""

FORGOTTEN = """
import sys, time
from endwell import sync
sync.connect(sys.argv[1]).send("hi")
time.sleep(60)
"""


@pytest.fixture(scope="module")
def closing(face):
    """One process for all tests of W03."""
    with serving(f"closing{face}", 0) as both:
        yield both


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("Close 1000", "peer closed with 1000 NORMAL_CLOSURE 'bye'; clean"),
        ("Close 4001", "peer closed with 4001 'bye'; clean"),
        ("FIN", "the peer ended TCP without a Close; not clean"),
        ("RST", "the connection was reset (ConnectionResetError"),
    ],
)
async def test_the_handlers_cleanup_runs_for_a_close_and_for_a_drop(how, told, closing):
    process, port = closing
    with await reach(port, "/chat") as peer:
        await peer.frame(TEXT, b"hi")
        assert await line(process) == "message: hi"
        if how == "RST":
            peer.reset()
        elif how == "FIN":
            peer.fin()
        else:
            await peer.close(int(how.removeprefix("Close ")), "bye")
            await peer.read_to_the_end()
            peer.fin()
        assert (await line(process)).startswith(f"disconnected: {told}")


async def test_the_cleanup_runs_when_the_peers_process_is_killed(closing):
    process, port = closing
    with python("-c", IN_A_BLOCK, f"ws://{HOST}:{port}/chat", "60") as client:
        assert await line(process) == "message: hi"
        client.send_signal(signal.SIGKILL)
        assert (await line(process)).startswith("disconnected: the peer ended TCP without a Close; not clean")


async def test_a_client_that_leaves_its_block_closes_with_1000(closing):
    process, port = closing
    with python("-c", IN_A_BLOCK, f"ws://{HOST}:{port}/chat", "0"):
        assert await line(process) == "message: hi"
        assert (await line(process)).startswith("disconnected: peer closed with 1000 NORMAL_CLOSURE; clean")


async def test_a_program_that_ends_with_an_open_connection_closes_with_1001(closing):
    process, port = closing
    with python("-c", HELD, f"ws://{HOST}:{port}/chat") as client:
        assert await line(process) == "message: hi"
        assert (await line(process)).startswith("disconnected: peer closed with 1001 GOING_AWAY; clean")
        assert await finished(client) == (0, "")


async def test_an_unreferenced_client_closes_with_1000(closing):
    process, port = closing
    with python("-c", FORGOTTEN, f"ws://{HOST}:{port}/chat"):
        assert await line(process) == "message: hi"
        assert (await line(process)).startswith("disconnected: peer closed with 1000 NORMAL_CLOSURE; clean")


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1008, 1009, 1011, 4000])
async def test_the_server_closes_with_each_status(code, closing):
    async with endwell.connect(f"ws://{HOST}:{closing[1]}/close/{code}") as ws:
        ending = await within(ws.closed)
    assert ending.received == endwell.Close(code, "as you wish")
    assert ending.clean


@pytest.mark.parametrize("code", [1005, 1006, 1015, 99])
async def test_an_invalid_status_raises_and_leaves_the_connection_open(code, closing):
    async with endwell.connect(f"ws://{HOST}:{closing[1]}/close/{code}") as ws:
        assert str(code) in await within(ws.recv())
        assert (await within(ws.closed)).received == endwell.Close(1000)


async def test_the_chat_says_goodbye_and_quits(face):
    with serving(f"quit{face}", 0) as (_, port):
        async with endwell.connect(f"ws://{HOST}:{port}/chat") as ws:
            await ws.send("hello")
            assert await within(ws.recv()) == "echo: hello"
            await ws.send("/quit")
            assert [message async for message in ws] == ["goodbye"]
    assert ws.ending.received == endwell.Close(1000, "user quit")


async def test_a_client_reconnects_after_going_away_but_not_after_a_goodbye(stack, face):
    server = endwell.Server()
    visits = []

    @server.websocket("/chat")
    async def chat(ws):
        visits.append(ws)
        await ws.send("welcome")
        if len(visits) == 1:
            await ws.wait_closed()

    port = free_port()
    async with server.serving(port=port):
        process = stack.enter_context(program(f"comes_back{face}", f"ws://{HOST}:{port}/chat"))
        assert await line(process) == "welcome"
    assert (await line(process)).startswith("peer closed with 1001 GOING_AWAY 'server stopping; retry 0-1s'")
    async with server.serving(port=port):
        status, out = await finished(process)
    assert status == 0
    assert out.splitlines()[-2] == "welcome"
    assert out.splitlines()[-1].startswith("peer closed with 1000 NORMAL_CLOSURE; clean")


# -- W04 ------------------------------------------------------------------------


async def test_a_picture_arrives_unchanged(tmp_path, face):
    picture = tmp_path / "picture.png"
    picture.write_bytes(os.urandom(3 * 2**20))
    folder = tmp_path / "received"
    folder.mkdir()
    with (
        serving(f"picture{face}", picture, 0) as (_, port),
        program(f"picture_client{face}", f"ws://{HOST}:{port}/image", folder) as client,
    ):
        assert await finished(client) == (0, f"saved picture.png: {3 * 2**20} of {3 * 2**20} bytes\n")
        async with endwell.connect(f"ws://{HOST}:{port}/image", max_size=2**22) as ws:
            assert json.loads(await ws.recv()) == {"name": "picture.png", "size": 3 * 2**20}
            assert await ws.recv() == picture.read_bytes()
        async with endwell.connect(f"ws://{HOST}:{port}/upload") as ws:
            for message, answer in (("grüß", "text: 4 characters"), ("grüß".encode(), "binary: 6 bytes")):
                await ws.send(message)
                assert await within(ws.recv()) == answer
    assert (folder / "picture.png").read_bytes() == picture.read_bytes()


# -- W05 ------------------------------------------------------------------------


async def test_tls_checks_the_certificates_of_both_sides(tmp_path, face):
    authority, stranger = trustme.CA(), trustme.CA()
    files = {}
    for name, certificate in (
        ("server", authority.issue_cert("localhost", HOST)),
        ("client", authority.issue_cert("somebody")),
    ):
        files[name] = [tmp_path / f"{name}.pem", tmp_path / f"{name}.key"]
        certificate.cert_chain_pems[0].write_to_path(files[name][0])
        certificate.private_key_pem.write_to_path(files[name][1])
    for name, ca in (("ours", authority), ("another", stranger)):
        files[name] = tmp_path / f"{name}.ca"
        ca.cert_pem.write_to_path(files[name])
    with serving(f"tls_server{face}", *files["server"], files["ours"], 0) as (_, port):
        url = f"wss://{HOST}:{port}/"
        with (
            program(f"tls_client{face}", url, files["ours"], *files["client"]) as known,
            program(f"tls_client{face}", url, files["ours"]) as unknown,
            program(f"tls_client{face}", url, files["another"], *files["client"]) as wary,
        ):
            assert await finished(known) == (0, "received: hello\n")
            for client in (unknown, wary):
                status, out = await finished(client)
                assert status == 1
                assert out.startswith("failed: TLS failed (")


# -- W06 ------------------------------------------------------------------------


async def test_one_handler_sends_its_queue_and_answers_messages(face):
    with serving(f"relay{face}", 0) as (_, port):
        async with (
            endwell.connect(f"ws://{HOST}:{port}/out") as out,
            endwell.connect(f"ws://{HOST}:{port}/in") as into,
        ):
            await asyncio.sleep(0.25)  # some timeouts of its reads
            for number in range(5):
                await into.send(str(number))
            assert [await within(out.recv()) for _ in range(5)] == list("01234")
            await out.send("thanks")
            assert await within(out.recv()) == "you said 'thanks'"
        assert (await within(out.closed)).clean


# -- browser-close.md -------------------------------------------------------------


@pytest.mark.parametrize("code", [1000, 1001])
async def test_handlers_reach_the_last_line_after_a_close_or_a_reload(code):
    with serving("live", 0) as (process, port):
        with await RawPeer.connect_tcp(port) as browser:
            await browser.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await browser.read_head()).startswith("HTTP/1.1 200 ")
        with await reach(port, "/live") as peer:
            await peer.frame(TEXT, b"still here")
            assert await peer.read_frame() == (TEXT, b"still here")
            await peer.close(code)
            peer.drop()  # Chromium does not wait for the answer
            assert (await line(process)).startswith(f"left: peer closed with {code}")

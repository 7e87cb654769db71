"""``endwell demo``: the chat, its page, its feed, and what the terminal shows."""

import asyncio
import json
import re
import signal
import socket
from contextlib import AsyncExitStack

import pytest

import endwell
from endwell.cli import demo, main
from endwell.cli.chat import Chat
from tests.cli.process import PATIENCE, command, finish


async def fetch(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_the_page_needs_nothing_from_elsewhere():
    async with Chat().server.serving() as server:
        head, _, page = (await fetch(server.port, "/")).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 ")
    assert "text/html" in head
    assert page.startswith("<!doctype html>")
    assert set(re.findall(r"https?://[^'\"]+", page)) == {"http://www.w3.org/2000/svg"}
    assert "innerHTML" not in page


async def test_a_message_reaches_everybody_in_the_room_and_nobody_else():
    async with Chat().server.serving() as server:
        base = f"ws://127.0.0.1:{server.port}/chat"
        async with (
            endwell.connect(f"{base}/lobby?name=Ada") as ada,
            endwell.connect(f"{base}/other?name=Eve") as eve,
        ):
            assert await ada.recv() == "* Ada joined, 1 here"
            async with endwell.connect(f"{base}/lobby?name=Grace") as grace:
                assert await ada.recv() == await grace.recv() == "* Grace joined, 2 here"
                await ada.send("hello")
                assert await ada.recv() == await grace.recv() == "Ada: hello"
                await grace.send(b"\x01\xff")
                assert await ada.recv() == "Grace: 0x01ff"
            assert await ada.recv() == "* Grace left, 1 here"
            assert await eve.recv() == "* Eve joined, 1 here"
            await eve.close()
            assert await eve.read() is None


async def test_quit_says_goodbye_and_closes():
    async with Chat().server.serving() as server:
        async with endwell.connect(f"ws://127.0.0.1:{server.port}/chat/lobby") as ws:
            await ws.send("/quit")
            assert [message async for message in ws] == ["* somebody joined, 1 here", "goodbye"]
        assert ws.ending.received == endwell.Close(1000, "user quit")


async def test_the_feed_tells_every_ending_but_those_of_feeds():
    async with Chat().server.serving() as server:
        base = f"ws://127.0.0.1:{server.port}"
        async with endwell.connect(f"{base}/chat/lobby?name=early") as early:
            await early.close(4001, "bye")
        async with endwell.connect(f"{base}/endings"):
            pass
        async with endwell.connect(f"{base}/endings") as feed:
            told = json.loads(await feed.recv())
            assert (told["name"], told["room"], told["cause"]) == ("early", "lobby", "peer_closed")
            assert told["received"] == {"code": 4001, "reason": "bye", "unsaid": False}
            async with endwell.connect(f"{base}/chat/lobby?name=late%1b%5b2J"):
                pass
            told = json.loads(await feed.recv())
            assert (told["name"], told["ok"]) == (r"late\x1b[2J", True)
            await feed.close()
            assert await feed.read() is None


async def test_a_taken_port_is_told_and_the_next_one_taken(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        chat = Chat()
        async with AsyncExitStack() as stack:
            await demo._listen(stack, chat, "127.0.0.1", [taken, 0])
            assert chat.server.port != taken
    assert capsys.readouterr().out == f"port {taken} is taken, trying the next\n"


def test_a_taken_port_that_was_asked_for_is_an_error(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        assert main(["demo", "--port", str(taken)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"endwell demo: cannot listen on 127.0.0.1:{taken}: ")
    assert "choose another --port" in err


def address_in(process) -> str:
    return re.search(r"http://([\d.:]+)/", process.stdout.readline())[1]


async def talk(address: str) -> endwell.WebSocket:
    async with asyncio.timeout(PATIENCE):
        async with endwell.connect(f"ws://{address}/chat/lobby?name=Ada") as ws:
            await ws.send("/quit")
            await ws.closed
        async with endwell.connect(f"ws://{address}/chat/lobby?name=Eve") as ws:
            await ws.send("/crash")
            await ws.closed
        return await endwell.connect(f"ws://{address}/chat/lobby?name=Bob")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_terminal_shows_a_line_for_every_ending_and_a_signal_stops_cleanly(number):
    with command("demo", "--port", "0") as process:
        staying = await talk(address_in(process))
        process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            ending = await staying.closed
        status, out, err = finish(process)
    assert status == 0
    assert ending.received == endwell.Close(1001, "server stopping; retry 0-1s")
    lines = [line.partition(" ")[2] for line in out.splitlines() if " in lobby: " in line]
    assert lines[0].startswith(
        "Ada in lobby: the application closed; we closed with 1000 NORMAL_CLOSURE 'user quit'; clean, after "
    )
    assert lines[0].endswith(" s [app_closed, by local, received 1000, sent 1000, tcp fin]")
    assert lines[1].startswith("Eve in lobby: the handler raised an exception; we closed with 1011 ")
    assert lines[2].startswith("Bob in lobby: the server is stopping; we closed with 1001 ")
    assert len(lines) == 3
    # Without -v an exception is told, but its traceback does not bury the rest.
    told = r"handler \S*chat of '/chat/lobby' for 127\.0\.0\.1:\d+ failed\nRuntimeError: Eve asked for it\n"
    assert re.fullmatch(told, err)

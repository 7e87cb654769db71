"""``endwell demo``: the chat, its page, its feed, and what the terminal shows."""

import asyncio
import json
import re
import signal
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import endwell
from endwell.cli import demo, main
from endwell.cli.chat import Chat
from endwell.cli.elsewhere import ROWS
from tests.cli.process import PATIENCE, command, finish
from tests.pair import until
from tests.raw import BOUND


async def fetch(port: int, path: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_the_page_loads_nothing_from_other_origins():
    async with Chat().server.serving() as server:
        head, _, page = (await fetch(server.port, "/")).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 ")
    assert "text/html" in head
    assert page.startswith("<!doctype html>")
    assert set(re.findall(r"https?://[^'\"]+", page)) == {"http://www.w3.org/2000/svg"}
    assert "innerHTML" not in page


async def test_a_message_reaches_only_the_clients_in_its_room():
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


async def test_the_feed_reports_every_ending_except_those_of_feeds():
    async with Chat().server.serving() as server:
        base = f"ws://127.0.0.1:{server.port}"
        async with endwell.connect(f"{base}/chat/lobby?name=early") as early:
            await early.close(4001, "bye")
        async with endwell.connect(f"{base}/endings"):
            pass
        async with endwell.connect(f"{base}/endings") as feed:
            await feed.send("what has ended?")
            told = json.loads(await feed.recv())
            assert (told["name"], told["room"], told["cause"]) == ("early", "lobby", "peer_closed")
            assert told["received"] == {"code": 4001, "reason": "bye", "not_transmitted": False}
            async with endwell.connect(f"{base}/chat/lobby?name=late%1b%5b2J"):
                pass
            told = json.loads(await feed.recv())
            assert (told["name"], told["ok"]) == (r"late\x1b[2J", True)
            await feed.close()
            assert await feed.read() is None


async def test_a_port_in_use_is_reported_and_the_next_one_used(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        chat = Chat()
        async with AsyncExitStack() as stack:
            await demo._listen(stack, chat, "127.0.0.1", [taken, 0])
            assert chat.server.port != taken
    assert capsys.readouterr().out == f"port {taken} is in use, trying the next one\n"


@pytest.mark.parametrize(("path", "shown"), [("", ".venv/bin/endwell"), (".venv/bin", "endwell")])
def test_the_command_that_is_shown_can_be_typed(path, shown, monkeypatch, capsys, tmp_path):
    script = tmp_path / ".venv/bin/endwell"
    script.parent.mkdir(parents=True)
    script.touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path and str(tmp_path / path))
    monkeypatch.setattr(sys, "argv", [".venv/bin/endwell", "demo"])
    demo._welcome("127.0.0.1:8080")
    assert f"or run: {shown} connect ws://127.0.0.1:8080/chat/lobby\n" in capsys.readouterr().out


async def read_all(ws: endwell.WebSocket) -> None:
    async for _ in ws:
        pass


async def feed_entry(port: int, *messages: str, query: str = "name=Ada") -> dict:
    """The feed's entry about a connection that sends these messages."""
    base = f"ws://127.0.0.1:{port}"
    async with endwell.connect(f"{base}/endings") as feed:
        await feed.send("what has ended?")
        async with endwell.connect(f"{base}/chat/lobby?{query}") as ws:
            for message in messages:
                await ws.send(message)
            # A client with unread messages would delay its answer to a Close.
            reading = asyncio.create_task(read_all(ws))
            told = json.loads(await feed.recv())
            # An unplugged client may never learn of its end.
            ws.abort()
            await reading
        feed.abort()
        return told


@pytest.mark.parametrize(
    ("message", "cause", "code", "reason"),
    [
        ("/return", "handler_returned", 1000, ""),
        ("/kick", "app_closed", 1008, "kicked"),
        ("/restart", "app_closed", 1012, "back soon; retry 3-8s"),
    ],
)
async def test_a_message_ends_the_connection(message, cause, code, reason):
    async with Chat().server.serving() as server:
        told = await feed_entry(server.port, message)
    assert (told["cause"], told["code"], told["reason"]) == (cause, code, reason)


async def test_the_feed_names_the_connection_and_what_other_servers_report():
    async with Chat(max_size=1000).server.serving() as server:
        told = await feed_entry(server.port, "x" * 1001, query="name=Ada&id=tab.1")
    assert told["id"] == "tab.1"
    assert told["others"]["reported_to"] == "the application"
    assert told["others"]["reports"]["1009"] == ["uvicorn"]


async def test_the_feed_reports_the_end_while_the_handler_is_busy():
    # Without grace the handler is cancelled in the end.
    async with Chat().server.serving(grace=0) as server:
        base = f"ws://127.0.0.1:{server.port}"
        async with endwell.connect(f"{base}/endings") as feed:
            await feed.send("what has ended?")
            async with endwell.connect(f"{base}/chat/lobby") as ws:
                await ws.send("/slow")
                while await ws.recv() != "* the handler now reads nothing for 6 s":
                    pass
            told = json.loads(await feed.recv())
        assert (told["cause"], told["busy"]) == ("peer_closed", True)
        assert "Close 1000, handler busy" in told["others"]["title"]


async def test_a_newer_connection_with_the_same_key_replaces_the_older_one():
    async with Chat().server.serving() as server:
        url = f"ws://127.0.0.1:{server.port}/chat/lobby?key=k"
        async with endwell.connect(url) as older, endwell.connect(url) as newer:
            assert (await older.closed).received == endwell.Close(4991, "replaced")
            assert newer.is_open


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux drops the packets of one socket")
async def test_an_unplugged_client_sends_nothing():
    async with Chat(ping_interval=0.2, ping_timeout=2.5).server.serving() as server:
        told = await feed_entry(server.port, "/unplug")
    # The kernel may give up the unanswered ping first.
    assert told["cause"] in {"keepalive_timeout", "network_error"}
    assert told["received"] is None


async def test_the_feed_outlives_the_chat_when_the_server_stops():
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(Chat().server.serving(grace=2 * BOUND))
        base = f"ws://127.0.0.1:{server.port}"
        async with endwell.connect(f"{base}/endings") as feed, endwell.connect(f"{base}/chat/lobby") as ws:
            await feed.send("what has ended?")
            # The stop closes a feed that has not received that at once.
            await until(lambda: sum(each.messages_in for each in server.connections))
            await ws.recv()
            stopping = asyncio.create_task(stack.aclose())
            told = [json.loads(row) async for row in feed]
            await stopping
        assert [row["cause"] for row in told] == ["server_drained"]
        assert feed.ending.received.code == 1001
    # The feed ended by itself, and the drain did not have to abort it.
    assert server._drain_run.report.last_called == 0


#: The text of a demo phrase in the cells of docs/explanation/endings.md.
CELLS = {"code and reason": "ok|1005", "code, reason lost": "4001, reason lost"}


def test_reports_of_other_servers_match_the_measurements():
    page = Path(__file__).parents[2].joinpath("docs", "explanation", "endings.md").read_text(encoding="utf-8")
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if "|" in line
    ]
    columns = lines[0]
    rows = {line[0]: dict(zip(columns, line, strict=True)) for line in lines if len(line) == len(columns)}
    for row in ROWS.values():
        for phrase, servers in row.reports.items():
            for server in servers:
                column = "uvicorn+starlette (default)" if server == "uvicorn" else server
                cell = rows[row.title][column]
                assert re.search(CELLS.get(phrase, rf"\b{phrase}\b"), cell), (row.title, server, cell)


def luminance(colour: str) -> float:
    """WCAG 2.2's relative luminance of ``#rrggbb``."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_borders_and_texts_of_the_page_have_enough_contrast(scheme):
    blocks = re.findall(r":root \{(.*?)\}", Chat()._page, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme]))
    assert len(blocks) == 2

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(colours[one]), luminance(colours[other])))
        return (high + 0.05) / (low + 0.05)

    for under in ("page", "card", "sunken"):
        assert contrast("edge", under) >= 3
        for text in ("text", "soft", "accent", "good", "bad", "wait"):
            assert contrast(text, under) >= 4.5, (text, under)
    assert contrast("accent-text", "accent") >= 4.5
    assert contrast("text", "mine") >= 4.5


def test_the_script_listens_nowhere_so_an_address_is_an_error(capsys):
    assert main(["demo", "--script", "--port", "0"]) == 2
    assert capsys.readouterr().err == "endwell demo: --script and --port exclude each other\n"


def test_an_explicit_port_in_use_is_an_error(capsys):
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
        async with endwell.connect(f"ws://{address}/chat/lobby?name=Ada", open_timeout=PATIENCE) as ws:
            await ws.send("/quit")
            await read_all(ws)
        async with endwell.connect(f"ws://{address}/chat/lobby?name=Eve", open_timeout=PATIENCE) as ws:
            await ws.send("/crash")
            await read_all(ws)
        return await endwell.connect(f"ws://{address}/chat/lobby?name=Bob", open_timeout=PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_terminal_logs_every_ending_and_a_signal_stops_cleanly(number):
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
    # Without -v an exception is logged, but without its traceback.
    told = r"handler \S*chat of '/chat/lobby' for 127\.0\.0\.1:\d+ failed\nRuntimeError: Eve asked for it\n"
    assert re.fullmatch(told, err)


async def test_the_demo_with_workers_shows_which_one_serves_each_tab():
    with command("demo", "--port", "0", "--workers", "2") as process:
        base, tabs, others = f"ws://{address_in(process)}", {}, []
        async with (
            asyncio.timeout(PATIENCE),
            endwell.connect(f"{base}/endings", open_timeout=PATIENCE) as feed,
        ):
            await feed.send("what has ended?")
            while len(tabs) < 2:
                # Not all of them read, so their answers to the Close would wait.
                ws = await endwell.connect(
                    f"{base}/chat/lobby?name=Ada", answer_timeout=0, open_timeout=PATIENCE
                )
                told = re.fullmatch(r"\* worker ([12]) serves this connection", await ws.recv())
                assert " joined on worker " in await ws.recv()  # it is a member now
                if tabs.setdefault(told[1], ws) is not ws:
                    others.append(ws)  # it stays, so that the next one is served by the other worker
            for number, ws in tabs.items():
                await ws.send(f"from {number}")
            for ws in tabs.values():
                expected = {"Ada: from 1", "Ada: from 2"}
                while expected:
                    expected.discard(await ws.recv())
            for number, ws in tabs.items():
                await ws.close(4001, number)
            rows = [json.loads(await feed.recv()) for _ in tabs]
            assert {row["reason"]: str(row["worker"]) for row in rows} == {"1": "1", "2": "2"}
        process.send_signal(signal.SIGINT)
        status, out, err = await asyncio.to_thread(finish, process)  # the clients have to answer meanwhile
    # On a slow machine the last lines of the chat may take the second after which a drain names the handlers.
    told = [line for line in err.splitlines() if not line.startswith("the drain waits at most")]
    assert (status, told) == (0, [])
    assert len([line for line in out.splitlines() if "Ada in lobby: " in line]) == 2 + len(others)

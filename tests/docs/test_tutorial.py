"""Each step of docs/tutorial works as described, with the programs of examples/tutorial."""

from __future__ import annotations

import asyncio
import re
import signal
from contextlib import asynccontextmanager

import pytest

import endwell
from tests.cli.process import PATIENCE, ROOT, command, finish, listening, python
from tests.pair import within
from tests.raw import HOST

FOLDER = ROOT / "examples" / "tutorial"
#: Its programs and pages, and not the bytecode that an earlier run has left.
FILES = [file for end in ("py", "html", "js") for file in sorted(FOLDER.rglob(f"*.{end}"))]


def program(name, *argv):
    return python(str(FOLDER / f"{name}.py"), *map(str, argv))


@asynccontextmanager
async def serving(name, port=0):
    """A server program and its port; it receives SIGTERM at the end."""
    with program(name, port) as process:
        yield process, await asyncio.to_thread(listening, process)
        process.send_signal(signal.SIGTERM)
        status, _, _ = await asyncio.to_thread(finish, process)
    assert status == 0


async def line(process):
    async with asyncio.timeout(PATIENCE):
        return (await asyncio.to_thread(process.stdout.readline)).rstrip("\n")


async def reads(ws, message):
    while await within(ws.recv()) != message:
        pass


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_program_of_the_tutorial_has_at_most_50_lines(file):
    assert len(file.read_text().splitlines()) <= 50


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_pages_show_every_line_of_a_program_except_its_docstring(file):
    pages = "".join(page.read_text() for page in sorted((ROOT / "docs" / "tutorial").glob("*.md")))
    blocks = re.findall(r"^```(?:python|js|html)\n(.*?)^```", pages, re.MULTILINE | re.DOTALL)
    rest = re.sub(r'\A""".*"""\n', "", file.read_text())
    for block in sorted(blocks, key=len, reverse=True):
        rest = rest.replace(block, "")
    assert not rest.strip()


async def test_step_1_the_client_receives_its_message_and_the_ending():
    async with serving("echo") as (_, port):
        with program("client", f"ws://{HOST}:{port}/echo") as client:
            status, out, err = await asyncio.to_thread(finish, client)
    assert (status, err) == (0, "")
    told = out.splitlines()
    assert told[0] == "hello"
    assert told[1].startswith("the application closed; we closed with 1000 NORMAL_CLOSURE; clean")


async def test_step_1_the_command_line_serves_and_connects():
    with command("serve", f"{FOLDER / 'echo.py'}:server", "--port", "0") as server:
        port = await asyncio.to_thread(listening, server)
        with command("connect", f"ws://{HOST}:{port}/echo") as client:
            status, out, _ = await asyncio.to_thread(finish, client, "hello\n")
    assert status == 0
    assert "hello" in out


async def test_steps_2_and_3_a_room_receives_messages_and_endings_are_printed():
    async with serving("rooms") as (process, port):
        lobby, other = f"ws://{HOST}:{port}/chat/lobby", f"ws://{HOST}:{port}/chat/other"
        async with (
            endwell.connect(lobby) as ada,
            endwell.connect(lobby) as eve,
            endwell.connect(other) as bob,
        ):
            await eve.send("eve")
            await reads(eve, "eve")
            await ada.send("hello")
            await reads(ada, "hello")
            await reads(eve, "hello")
            await bob.send("nobody else")
            assert await within(bob.recv()) == "nobody else"
            await ada.close()
            assert (await line(process)).startswith("peer closed with 1000 NORMAL_CLOSURE; clean")
        killed = f"import endwell.sync, os\nendwell.sync.connect('{lobby}')\nos._exit(1)"
        assert {(await line(process)).partition(";")[0] for _ in range(2)} == {
            "peer closed with 1000 NORMAL_CLOSURE"
        }
        with python("-c", killed):
            assert (await line(process)).startswith("the peer ended TCP without a Close; not clean")


async def test_step_4_the_page_and_its_modules_are_served():
    async with serving("page") as (_, port):
        for path, content in (
            ("/", "text/html"),
            ("/chat.js", "text/javascript"),
            ("/endwell.js", "text/javascript"),
        ):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            head, _, body = (await within(reader.read())).decode().partition("\r\n\r\n")
            writer.close()
            await writer.wait_closed()
            assert head.startswith("HTTP/1.1 200 ")
            assert f"content-type: {content}" in head.lower()
            assert body


async def test_step_5_a_user_is_back_after_a_deploy():
    endings = []
    async with asyncio.timeout(PATIENCE):
        async with serving("page") as (_, port):
            client = endwell.reconnecting(
                f"ws://{HOST}:{port}/chat?name=Ada", on_ending=lambda last, verdict: endings.append(last)
            )
            visits = aiter(client)
            ada = await anext(visits)
            await ada.send("hello")
            await reads(ada, "Ada: hello")
        assert (await ada.closed).received.code == endwell.CloseCode.GOING_AWAY
        async with serving("page", port):
            ada = await anext(visits)
            await ada.send("still here")
            await reads(ada, "Ada: still here")
            await client.aclose()
    assert re.fullmatch(r"server stopping; retry \d+-\d+s", endings[0].received.reason)


async def test_step_6_a_goodbye_is_announced_and_a_reload_is_not():
    async with serving("page") as (_, port):
        base = f"ws://{HOST}:{port}/chat?name="
        async with endwell.connect(base + "Ada") as ada:
            eve = await endwell.connect(base + "Eve")
            await reads(ada, "* Eve joined")
            # The browser sends this when the page is reloaded.
            await eve.close(1001)
            async with endwell.connect(base + "Eve") as eve:
                await eve.send("back")
                assert await within(ada.recv()) == "Eve: back"
            # Leaving the block closes with 1000: the user is not expected back.
            assert await within(ada.recv()) == "* Eve left"


async def test_step_7_the_tests_of_the_chat_pass():
    argv = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", str(FOLDER / "test_chat.py"))
    with python(*argv, cwd=FOLDER) as process:
        status, out, err = await asyncio.to_thread(finish, process)
    assert status == 0, out + err
    assert "1 passed" in out

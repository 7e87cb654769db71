"""Each example runs as a program and under ``endwell serve``, and is short."""

import asyncio
import json
import signal

import pytest

import endwell
from tests.cli.process import PATIENCE, ROOT, command, finish, listening, python

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_has_at_most_40_lines(example):
    assert len(example.read_text().splitlines()) <= 40


async def echoes(base: str) -> None:
    for path in ("/", "/any/path?x=1"):
        async with endwell.connect(base + path) as ws:
            for message in ("text ü", b"\x00\xff", "", b""):
                await ws.send(message)
                assert await ws.recv() == message
        assert ws.ending.clean


async def chats(base: str) -> None:
    room, other = f"{base}/chat/lobby", f"{base}/chat/other"
    async with (
        endwell.connect(room) as ada,
        endwell.connect(room) as grace,
        endwell.connect(other) as eve,
    ):
        # One message each, so that all have joined before the message that is checked.
        for ws in (ada, grace, eve):
            await ws.send("here")
            while await ws.recv() != "here":
                pass
        await grace.send("hello")
        for ws in (ada, grace):
            while await ws.recv() != "hello":
                pass
        await ada.send("/quit")
        assert [message async for message in ada] == ["goodbye"]
        assert ada.ending.received == endwell.Close(1000, "user quit")
        await eve.close()
        assert await eve.read() is None


async def draws(base: str) -> None:
    async with endwell.connect(f"{base}/board") as ada:
        await ada.send("draw 0,0 1,1")
        assert await ada.recv() == "artist 1 draw 0,0 1,1"
        async with endwell.connect(f"{base}/board") as grace:
            await grace.send("draw 1,1 2,2")
            for ws in (ada, grace):
                assert await ws.recv() == "artist 2 draw 1,1 2,2"
            await ada.send("at 5,5")
            assert await grace.recv() == "artist 1 at 5,5"
        assert await ada.recv() == "artist 2 left"


async def meets(base: str) -> None:
    url = f"{base}/chat/lobby?user"
    async with endwell.connect(f"{url}=ada") as ada:
        position = json.loads(await ada.recv())["position"]
        assert json.loads(await ada.recv()) == {"joined": "ada"}
        async with endwell.connect(f"{url}=grace") as grace:
            await grace.recv()
            await grace.send("hello")
            assert {await ada.recv() for _ in range(2)} == {'{"joined": "grace"}', '{"text": "hello"}'}
    async with endwell.connect(f"{url}=eve&since={position}") as eve:
        missed = [await eve.recv() for _ in range(3)]
        assert missed[0] == '{"joined": "ada"}'
        assert {*missed[1:]} == {'{"joined": "grace"}', '{"text": "hello"}'}
    async with endwell.connect(f"{url}=bob&since=other:7") as bob:
        while json.loads(await bob.recv()) != {"missed": None}:
            pass


@pytest.mark.parametrize(
    ("name", "play"),
    [("echo", echoes), ("echo_blocking", echoes), ("chat", chats), ("broadcast", draws), ("rooms", meets)],
)
@pytest.mark.parametrize("served", [False, True])
async def test_an_example_works_and_stops_on_a_signal(name, play, served):
    file = str(ROOT / "examples" / f"{name}.py")
    with command("serve", f"{file}:server", "--port", "0") if served else python(file, "0") as process:
        async with asyncio.timeout(PATIENCE):
            await play(f"ws://127.0.0.1:{listening(process)}")
        process.send_signal(signal.SIGTERM)
        status, out, _ = finish(process)
    assert (status, out) == (0, "")


async def test_presence_is_reported_without_reloads():
    with python(str(ROOT / "examples" / "presence.py"), "0") as process:
        async with asyncio.timeout(PATIENCE):
            base = f"ws://127.0.0.1:{listening(process)}/here?name="
            ada = await endwell.connect(f"{base}Ada")
            assert await ada.recv() == "here: Ada"
            eve = await endwell.connect(f"{base}Eve")
            assert await eve.recv() == await ada.recv() == "here: Ada, Eve"
            await eve.close(1001)
            eve = await endwell.connect(f"{base}Eve")
            assert await eve.recv() == await ada.recv() == "here: Ada, Eve"
            async with endwell.connect(f"{base}Eve") as newer:
                assert (await eve.closed).received == endwell.Close(4991, "replaced")
                assert await newer.recv() == await ada.recv() == "here: Ada, Eve"
            assert await ada.recv() == "here: Ada"
            process.send_signal(signal.SIGTERM)
            status, out, _ = await asyncio.to_thread(finish, process)
    assert (status, out) == (0, "")


async def test_an_operator_with_the_token_sees_the_chat_in_the_dashboard(monkeypatch):
    monkeypatch.setenv("OPERATOR_TOKEN", "secret")
    with python(str(ROOT / "examples" / "operate.py"), "0") as process:
        async with asyncio.timeout(PATIENCE):
            base = f"ws://127.0.0.1:{listening(process)}"
            ada = await endwell.connect(f"{base}/chat/lobby?user=ada")
            await ada.send("hello")
            assert await ada.recv() == "hello"
            feed = {"subprotocols": ["endwell.feed.1"]}
            with pytest.raises(endwell.HandshakeRejected, match="403"):
                await endwell.connect(f"{base}/_endwell/feed", **feed)
            bearer = {"Authorization": "Bearer secret"}
            async with endwell.connect(f"{base}/_endwell/feed", additional_headers=bearer, **feed) as ws:
                await ws.send('{"ask": "list", "id": 1}')
                [row] = json.loads(await ws.recv())["rows"]
            assert (row["key"], row["rooms"]) == ("ada", ["lobby"])
            process.send_signal(signal.SIGTERM)
            status, out, _ = await asyncio.to_thread(finish, process)
    assert (status, out) == (0, "")


def told(line: str) -> bool:
    """Whether the line reports an ending instead of counting."""
    return not line.strip().isdigit()


@pytest.mark.parametrize("name", ["reconnecting", "reconnecting_blocking"])
async def test_the_reconnecting_client_continues_to_count_and_stops_on_a_signal(name):
    server, connections = endwell.Server(), []

    @server.websocket("/")
    async def echo(ws):
        connections.append(ws)
        async for message in ws:
            await ws.send(message)
            if len(connections) == 1 and message == "2":
                await ws.close(1012, endwell.RetryAdvice(0, 0).reason("server restarting"))

    async with server.serving():
        with python(str(ROOT / "examples" / f"{name}.py"), f"ws://127.0.0.1:{server.port}/") as process:
            async with asyncio.timeout(PATIENCE):
                lines = []
                # The blocking client reports it in another thread than the one that continues to count.
                while "3\n" not in lines or not any(map(told, lines)):
                    lines.append(await asyncio.to_thread(process.stdout.readline))
                    assert lines[-1]
                process.send_signal(signal.SIGTERM)
                status, out, err = await asyncio.to_thread(finish, process)
    [ending] = filter(told, lines)
    assert ending.startswith("peer closed with 1012 SERVICE_RESTART 'server restarting; retry 0-0s'; clean, ")
    assert ending.endswith(" s; back in 0.0 s\n")
    assert [line for line in lines if line != ending] == [f"{number}\n" for number in range(1, len(lines))]
    assert lines[2] == ending or name == "reconnecting_blocking"
    assert "the application closed; we closed with 1000 NORMAL_CLOSURE; clean" in out
    assert (status, err) == (0, "")
    assert len(connections) == 2

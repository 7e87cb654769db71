"""``endwell serve`` with an ASGI application, as a process."""

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import sys
from itertools import count

import pytest

import endwell
from endwell.cli import main
from tests.cli.process import PATIENCE, command, finish, listening

APP = """
import os

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup." + os.environ.get("STARTUP", "complete"), "message": "no database"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        await receive()
        return
    body = f"{os.getpid()} {scope['root_path']} {scope['path']} {scope['client'][0]} {scope['scheme']}".encode()
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})

def create():
    return app
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def fetch(port, path="/", **headers):
    """The status and the body of a response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(
            "GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def log_has(process, text):
    """Read the log until a line contains ``text``."""
    assert any(text in line for line in process.stderr)


async def test_an_application_is_served_as_the_arguments_say(folder):
    (folder / "settings.env").write_text("UNUSED=1\n")
    (folder / "log.json").write_text(
        json.dumps(
            {
                "version": 1,
                "formatters": {"own": {"format": "OWN %(message)s"}},
                "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "own"}},
                "root": {"handlers": ["out"], "level": "INFO"},
            }
        )
    )
    options = [
        "--factory",
        "--root-path",
        "/behind",
        "--env-file",
        "settings.env",
        "--log-config",
        "log.json",
    ]
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        keywords = {"pass_fds": [sock.fileno()]}
        with command("serve", "app:create", "--fd", str(sock.fileno()), *options, **keywords) as process:
            assert listening(process) == port
            answer = await asyncio.to_thread(
                fetch, port, "/x", X_Forwarded_For="10.1.2.3", X_Forwarded_Proto="https"
            )
            assert answer == (200, f"{process.pid} /behind /behind/x 10.1.2.3 https")
            async with (
                asyncio.timeout(PATIENCE),
                endwell.connect(f"ws://127.0.0.1:{port}/", open_timeout=PATIENCE) as ws,
            ):
                await ws.send("hello")
                assert await ws.recv() == "hello"
                process.send_signal(signal.SIGTERM)
                ending = await ws.closed
            status, _, err = await asyncio.to_thread(finish, process)
    assert ending.received.code == 1001
    assert status == 0
    assert "OWN stopping: 1 connection\n" in err
    assert re.search(r'OWN 10\.1\.2\.3:0 - "GET /x HTTP/1\.1" 200\n', err)
    assert re.search(r'OWN 127\.0\.0\.1:\d+ - "WebSocket /" \[accepted\]\n', err)


def test_an_application_that_cannot_start_is_one_line_and_status_3(monkeypatch):
    monkeypatch.setenv("STARTUP", "failed")
    with command("serve", "app:app", "--port", "0") as process:
        status, out, err = finish(process)
    assert (status, out) == (3, "")
    assert err.endswith(" ERROR   endwell.server: the application could not start: no database\n")
    assert err.count("\n") == 1


def test_the_status_is_3_with_workers_too(monkeypatch):
    monkeypatch.setenv("STARTUP", "failed")
    with command("serve", "app:app", "--port", "0", "--workers", "1") as process:
        status, _, err = finish(process)
    assert status == 3
    assert "the application could not start: no database\n" in err


async def test_a_worker_is_replaced_after_its_number_of_requests():
    with command("serve", "app:app", "--port", "0", "--limit-max-requests", "3") as process:
        port = listening(process)
        async with (
            asyncio.timeout(PATIENCE),
            endwell.connect(f"ws://127.0.0.1:{port}/", open_timeout=PATIENCE) as ws,
        ):
            _, first = await asyncio.to_thread(fetch, port)
            await asyncio.to_thread(fetch, port)
            ending = await ws.closed
            status, second = await asyncio.to_thread(fetch, port)
        process.send_signal(signal.SIGTERM)
        _, _, err = await asyncio.to_thread(finish, process)
    assert ending.received.code == 1012
    assert status == 200
    assert first.split()[0] != second.split()[0]
    assert process.returncode == 0
    assert "has answered its maximum of requests: a new worker starts\n" in err


def test_a_descriptor_that_is_no_socket_is_an_error(capsys):
    assert main(["serve", "app:app", "--fd", "999"]) == 1
    assert capsys.readouterr().err == "endwell serve: cannot listen on descriptor 999: Bad file descriptor\n"


async def test_a_worker_that_is_killed_while_its_successor_starts_has_no_second_successor(folder):
    hold = folder / "hold"
    waits = 'import os, time\nwhile os.path.exists("hold"):\n    time.sleep(0.01)\n'
    (folder / "app.py").write_text(waits + APP)
    with command("serve", "app:app", "--port", "0", "--limit-max-requests", "2", "-v") as process:
        port = listening(process)
        hold.touch()
        async with asyncio.timeout(PATIENCE):
            for _ in range(2):
                _, body = await asyncio.to_thread(fetch, port)
            first = int(body.split()[0])
            await asyncio.to_thread(log_has, process, "has answered its maximum of requests")
            os.kill(first, signal.SIGKILL)
            await asyncio.to_thread(log_has, process, "was killed by SIGKILL; its successor starts already")
            hold.unlink()
            status, body = await asyncio.to_thread(fetch, port)
        process.send_signal(signal.SIGTERM)
        _, _, err = await asyncio.to_thread(finish, process)
    assert status == 200
    assert int(body.split()[0]) != first
    assert "workers exited: 1; " in err
    assert not re.search(r"worker 1 \(process \d+\) starts", err)


sizes = count()


async def edit(file, text, effect, *args):
    """Write ``text`` into ``file`` until ``effect(*args)`` returns. The watch may begin after the first time."""
    reading = asyncio.create_task(asyncio.to_thread(effect, *args))
    while not reading.done():
        # Python takes a file of the same size and the same second for the compiled one.
        file.write_text(f"{text}\n#{'x' * next(sizes)}\n")
        await asyncio.wait([reading], timeout=3)
    return await reading


async def test_a_reload_brings_clients_to_the_new_code_and_survives_broken_code(folder):
    file = folder / "app.py"
    broken = "import nothing_like_this"
    file.write_text(broken)
    with command("serve", "app:app", "--port", "0", "--reload") as process:
        async with asyncio.timeout(3 * PATIENCE):
            await asyncio.to_thread(log_has, process, "waiting for a change of its files")
            port = await edit(file, APP.replace("{scope['root_path']}", "first"), listening, process)
            await edit(file, broken, log_has, process, "the restart failed, the old workers go on")
            _, first = await asyncio.to_thread(fetch, port)
            async with endwell.connect(f"ws://127.0.0.1:{port}/", open_timeout=PATIENCE) as ws:
                changed = APP.replace("{scope['root_path']}", "second")
                await edit(file, changed, log_has, process, "the new workers are ready, the old ones drain")
                ending = await ws.closed
            _, second = await asyncio.to_thread(fetch, port)
        process.send_signal(signal.SIGTERM)
        status, _, _ = await asyncio.to_thread(finish, process)
    assert ending.received.code == 1012
    assert (first.split()[1], second.split()[1]) == ("first", "second")
    assert status == 0

"""examples/rooms_redis.py as a program and under ``endwell serve``, at the same time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from urllib.error import HTTPError
from urllib.request import urlopen

import endwell
from tests.cli.process import PATIENCE, ROOT, command, finish, listening, python

FILE = str(ROOT / "examples" / "rooms_redis.py")


def health(port):
    try:
        with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=PATIENCE) as answer:
            return answer.status
    except HTTPError as error:
        with error:
            return error.code


async def heard(ws):
    return json.loads(await ws.recv())


async def test_the_example_connects_processes_and_tells_a_loss(redis, monkeypatch):
    monkeypatch.setitem(os.environ, "ENDWELL_BUS", redis.url)
    with python(FILE, "0") as program, command("serve", f"{FILE}:server", "--port", "0") as served:
        ports = [listening(program), listening(served)]
        urls = [f"ws://127.0.0.1:{port}/chat/lobby" for port in ports]
        async with asyncio.timeout(PATIENCE):
            async with (
                endwell.connect(urls[0], open_timeout=PATIENCE) as ada,
                endwell.connect(urls[1], open_timeout=PATIENCE) as eve,
            ):
                position = (await heard(ada))["position"]
                assert (await heard(eve))["position"] == position
                await ada.send("hello")
                assert await heard(ada) == await heard(eve) == {"text": "hello"}
                async with endwell.connect(f"{urls[1]}?since={position}", open_timeout=PATIENCE) as bob:
                    assert await heard(bob) == {"text": "hello"}
                redis.kill(data=False)
                while {await asyncio.to_thread(health, port) for port in ports} != {503}:
                    await asyncio.sleep(0.05)
                redis.start()
                assert await heard(ada) == await heard(eve) == {"lost": None}
                while {await asyncio.to_thread(health, port) for port in ports} != {200}:
                    await asyncio.sleep(0.05)
            for process in (program, served):
                process.send_signal(signal.SIGTERM)
                status, out, _ = await asyncio.to_thread(finish, process)
                assert (status, out) == (0, "")

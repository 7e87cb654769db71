"""What Sentry's SDK reports of a server, with its default settings and the functions of docs/howto/telemetry.md."""

from __future__ import annotations

import asyncio
import json
import re
import sys

from tests.cli.process import PATIENCE, ROOT

#: In a process of its own, because the SDK replaces functions of the standard library for good.
PROGRAM = """
import asyncio, gc, json, logging, sys
from collections import Counter

import sentry_sdk
from fastapi import FastAPI, WebSocket
from sentry_sdk.transport import Transport

import endwell

{recipe}

envelopes = []

class InMemory(Transport):
    def capture_envelope(self, envelope):
        envelopes.extend((item.type, item.payload.json) for item in envelope.items)

sentry_sdk.init(
    dsn="https://key@127.0.0.1/1", transport=InMemory, before_send=tag, traces_sample_rate=1.0, max_breadcrumbs=20
)
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
logger = logging.getLogger("app")
server = endwell.Server()
server.on_open(isolate)
scopes = []

@server.websocket("/asyncio/{{name}}")
async def chat(ws, name):
    sentry_sdk.set_tag("name", name)
    async for message in ws:
        logger.info("%s of %s", message, name)
        await ws.send(message)
        if message == "last":
            scopes.append(len(sentry_sdk.get_isolation_scope()._breadcrumbs))
            raise ValueError(name)

@server.websocket("/blocking/{{name}}")
def blocking(ws, name):
    sentry_sdk.set_tag("name", name)
    for message in ws:
        logger.info("%s of %s", message, name)
        ws.send(message)
        if message == "last":
            scopes.append(len(sentry_sdk.get_isolation_scope()._breadcrumbs))
            raise ValueError(name)

app = FastAPI()

@app.websocket("/{{name}}")
async def mounted(ws: WebSocket, name: str):
    await ws.accept()
    await ws.receive_text()
    raise ValueError(name)

server.mount("/app", app)

async def talk(path, count):
    async with endwell.connect(f"ws://127.0.0.1:{{server.port}}{{path}}", compression=None) as ws:
        for number in range(count):
            await ws.send(str(number))
            await ws.recv()
        await ws.send("last")
        async for _ in ws:
            pass

async def main():
    async with server.serving(port=0):
        # At the same time, so that each could see what belongs to others.
        await asyncio.gather(*(talk(f"/{{kind}}/{{n}}", 30) for kind in ("asyncio", "blocking") for n in range(3)))
        await talk("/app/9", 0)
        del scopes[6:]
        reported = list(envelopes)
        counts = []
        for rounds in (5, 5, 35):
            for n in range(rounds):
                for kind in ("asyncio", "blocking"):
                    await talk(f"/{{kind}}/{{n}}", 1)
            envelopes.clear()
            scopes[6:] = []
            gc.collect()
            count = Counter(type(each).__name__ for each in gc.get_objects())
            # asyncio drops timers later than they are cancelled.
            cancelled = sum(timer.cancelled() for timer in asyncio.get_running_loop()._scheduled)
            counts.append(count - Counter(TimerHandle=cancelled, Context=cancelled))
        grown = {{name: n - counts[1][name] for name, n in counts[2].items() if n - counts[1][name] >= 20}}
    print(json.dumps([reported, scopes, grown]))

asyncio.run(main())
"""


def recipe():
    page = (ROOT / "docs" / "howto" / "telemetry.md").read_text()
    (block,) = re.findall(r"```python\n(import sentry_sdk\n.*?)```", page, re.DOTALL)
    return block


async def test_an_exception_is_reported_once_with_cause_and_route_and_nothing_grows():
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM.format(recipe=recipe()),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    reported, breadcrumbs, grown = json.loads(out)
    *errors, mounted = [event for kind, event in reported if kind == "event"]
    # Each exception once, with the tags of its own connection.
    told = [(event["exception"]["values"][-1]["value"], event["tags"]) for event in errors]
    expected = [
        (str(n), {"name": str(n), "route": f"/{kind}/{{name}}", "cause": "handler_error"})
        for kind in ("asyncio", "blocking")
        for n in range(3)
    ]
    assert sorted(told, key=repr) == sorted(expected, key=repr)
    assert breadcrumbs == [20] * 6
    for event in errors:
        name = event["tags"]["name"]
        assert all(each["message"].endswith(f" of {name}") for each in event["breadcrumbs"]["values"])
    # One trace for each connection.
    assert len({event["contexts"]["trace"]["trace_id"] for event in errors}) == 6
    # Of a mounted application, the SDK's instrumentation of the framework reports the exception.
    assert [each["value"] for each in mounted["exception"]["values"]] == ["9"]
    # Only that instrumentation makes transactions.
    assert [event["transaction"] for kind, event in reported if kind == "transaction"] == ["/{name}"]
    assert grown == {}

"""The loops of docs/howto/reconnect.md and of the examples, against servers that refuse or close every connection: how often they come."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import runpy
import textwrap
import types
from pathlib import Path

import pytest

import endwell
from endwell import Close, Response
from endwell.client import reconnecting
from endwell.sync.background import background
from tests.served import refusal, serving

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "reconnect.md"
EXAMPLES = Path(__file__).parents[2] / "examples"
LOOPS = [
    block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "for ws in" in block
]
#: The period in seconds over which handshakes per client are limited.
WHILE, MOST = 30.0, 6


class Over(BaseException):
    """The simulated time is over."""


@contextlib.contextmanager
def skipping(monkeypatch):
    """Sleep advances a fake clock at once; random delays are always the shortest."""
    clock, sleep = types.SimpleNamespace(now=0.0), asyncio.sleep

    async def skip(seconds):
        if seconds > 0:
            clock.now += seconds
            # A sleep that ends after the period stops the test.
            if clock.now >= WHILE - 1e-6:
                raise Over
        await sleep(0)

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "sleep", skip)
        patch.setattr(reconnecting, "monotonic", lambda: clock.now)
        patch.setattr(random, "random", lambda: 0.0)
        patch.setattr(random, "uniform", lambda low, high: low)
        yield clock


async def run(loop, url):
    """Run ``loop`` as written in the page, with the names it uses."""

    async def token():
        return "Bearer expired"

    names = {
        "asyncio": asyncio,
        "client": None,
        "contextlib": contextlib,
        "endwell": endwell,
        "loop": types.SimpleNamespace(add_signal_handler=lambda *_: None),
        "random": random,
        "signal": types.SimpleNamespace(SIGTERM=15),
        "suppress": contextlib.suppress,
        "token": token,
        "url": url,
    }
    blocking = "sync." in loop
    loop = re.sub(r'"wss://[^"]*"', "url", loop)
    # A body that does nothing would close before the Close of the server arrives.
    loop = re.sub(r"(async for ws in .*:\s+)\.\.\.\n", r"\1await ws.wait_closed()\n", loop)
    program = f"{'' if blocking else 'async '}def main():\n{textwrap.indent(loop, '    ')}"
    exec(program, names)
    await (asyncio.to_thread(names["main"]) if blocking else names["main"]())


def test_the_page_has_loops():
    assert len(LOOPS) >= 5
    assert sum("401" in loop for loop in LOOPS) == 1


TURNS = {
    "401": [refusal(401)],
    "503": [refusal(503)],
    "1013": [Close(1013)],
    "1008": [Close(1008)],
    # After the first 1012, the client may come back at once.
    "1012, 401": [Close(1012), refusal(401)],
}


@pytest.mark.parametrize("turn", [Close(1012), Close(1001), "abort"], ids=str)
@pytest.mark.parametrize("name", ["comes_back", "comes_back_blocking"])
async def test_the_loop_of_an_example_makes_at_most_6_handshakes_in_30_s(name, turn, monkeypatch):
    background()
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if sum(slept) >= WHILE:
            raise Over

    async with serving(*[turn] * 99) as served:
        program = str(EXAMPLES / f"{name}.py")
        with contextlib.suppress(Over), skipping(monkeypatch):
            if name == "comes_back":
                await runpy.run_path(program)["main"](served.url)
            else:
                with monkeypatch.context() as patch:
                    patch.setattr("sys.argv", [program, served.url])
                    patch.setattr("time.sleep", sleep)
                    await asyncio.to_thread(runpy.run_path, program)
        assert 2 <= len(served.request_times) <= MOST


@pytest.mark.parametrize("turns", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("number", range(len(LOOPS)))
async def test_documented_loops_make_at_most_6_handshakes_in_30_s(number, turns, monkeypatch):
    background()  # it stays once it is started: no test leaves it behind
    async with serving(*turns * 99) as served:
        ends = (Over, endwell.HandshakeRejected, endwell.ConnectionClosed)
        with skipping(monkeypatch) as clock, contextlib.suppress(*ends):
            await run(LOOPS[number], served.url)
        # The page says it: after a first 1012, the shortest random delays allow one handshake more.
        assert 1 <= len(served.request_times) <= MOST + (len(turns) > 1)
        if "401" in LOOPS[number] and isinstance(turns[-1], Response):
            # The recipe for a refused token is still running.
            assert clock.now >= WHILE - 1e-6

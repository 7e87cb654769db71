"""Makes the pictures of docs/howto/dashboard.md: ``make pictures``.

A server with three workers has some hundred real connections, and some hundred others have ended in all kinds of
ways. Only times are made up: the endings are spread over the last hour, and the connections have various ages.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import endwell
from tests.browser.dashboard import Dashboard
from tests.browser.driver import Tab, running
from tests.browser.test_module import ROOT
from tests.server.program import Program
from tests.server.program import running as running_program

ASSETS = ROOT / "docs" / "assets"
#: Maximum size of a picture in bytes.
MOST = 200_000

APP = '''
import asyncio, logging, time
from datetime import UTC, datetime, timedelta
import endwell
from endwell.server.dashboard import endings, knowledge

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
server = endwell.Server(ping_interval=2, ping_timeout=120, max_size=1000)
server.dashboard()


class Clock:
    """The clock of the endings. A connection says in its URL how long ago it ended."""

    ago = 0.0

    @classmethod
    def time(cls):
        return time.time() - cls.ago


endings.time = Clock
ended = endings.EndingLog.ended


def ended_then(self, ws, ending):
    Clock.ago = float(ws.request.query.get("ago", 0))
    ended(self, ws, ending)


endings.EndingLog.ended = ended_then
opened_at = knowledge.opened_at
knowledge.opened_at = lambda ws: opened_at(ws) - float(ws.request.query.get("age", 0))


def key_of(ws):
    if key := ws.request.query.get("key"):
        server.sessions.join(key, ws)


@server.websocket("/chat/{room}")
@server.websocket("/documents/{room}")
async def chat(ws, room):
    key_of(ws)
    async with server.rooms[room].join(ws) as membership:
        async for message in ws:
            await server.rooms[room].publish(message)


@server.websocket("/prices")
async def prices(ws):
    key_of(ws)
    while True:
        await ws.send("x" * int(ws.request.query.get("size", 40)))
        await asyncio.sleep(float(ws.request.query.get("pause", 1)))


@server.websocket("/close/{code}")
async def close(ws, code):
    key_of(ws)
    await ws.close(int(code), "signed in elsewhere" if code == "4001" else "")


@server.websocket("/job")
async def job(ws):
    key_of(ws)


@server.websocket("/import")
async def fail(ws):
    key_of(ws)
    raise KeyError("column 7")


@server.websocket("/account")
async def account(ws):
    key_of(ws)
    ws.authorize(subject=ws.request.query["key"], until=datetime.now(UTC) + timedelta(seconds=0.05))
    await ws.closed


if __name__ == "__main__":
    server.run("127.0.0.1", 0, drain=endwell.Drain(window=20, deadline=25), workers=3)
'''

Way = Callable[[endwell.WebSocket], Awaitable[Any]]


async def stay(ws: endwell.WebSocket) -> None:
    await ws.closed


async def read(ws: endwell.WebSocket) -> None:
    async for _ in ws:
        pass


async def too_big(ws: endwell.WebSocket) -> None:
    await ws.send("x" * 2000)
    await ws.closed


def close(code: int, reason: str = "") -> Way:
    return lambda ws: ws.close(code, reason)


#: The client ends TCP without a Close, which endwell's own client does not do.
VANISHES = close(1006)
#: How connections end: the path, what the client does, and how often.
WAYS: list[tuple[str, Way, int]] = [
    ("/chat/lobby", close(1001), 40),
    ("/documents/7", close(1000), 16),
    ("/chat/team-7", close(4990, "page left"), 14),
    ("/job", stay, 8),
    ("/close/4001", stay, 6),
    ("/prices", VANISHES, 12),
    ("/account", stay, 5),
    ("/documents/4", too_big, 2),
    ("/import", stay, 2),
]


class Demo:
    """The clients of the server."""

    def __init__(self, served: Program, stack: AsyncExitStack) -> None:
        self._served = served
        self._stack = stack
        self._random = random.Random(6455)
        self._keys = self._random.sample(range(4800, 9999), 2000)

    async def _connect(self, path: str, **query: Any) -> endwell.WebSocket:
        text = "&".join(f"{name}={value}" for name, value in query.items())
        address = (
            f"127.{self._random.randint(0, 9)}.{self._random.randint(0, 255)}.{self._random.randint(1, 254)}"
        )
        return await endwell.connect(
            self._served.url(f"{path}?{text}"),
            local_addr=(address, 0),
            open_timeout=60,
            ping_interval=None,
            compression=None,
        )

    async def _vanish(self, path: str, **query: Any) -> None:
        text = "&".join(f"{name}={value}" for name, value in query.items())
        reader, writer = await asyncio.open_connection("127.0.0.1", self._served.port)
        fields = "Host: demo\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        writer.write(f"GET {path}?{text} HTTP/1.1\r\n{fields}{key}\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        # With data that was not read, the end of the socket is a reset.
        if self._random.random() < 0.3:
            await asyncio.sleep(0.3)
        writer.close()

    def _key(self) -> str:
        """A key that no other connection has."""
        return f"user-{self._keys.pop()}"

    async def end(self, minutes: int = 60) -> None:
        """End connections in each minute of the last hour."""
        weights = [weight for *_, weight in WAYS]
        for minute in range(minutes):
            number = self._random.randint(3, 8) + (14 if minute in (18, 19) else 0)
            for path, way, _ in self._random.choices(WAYS, weights, k=number):
                if way is VANISHES:
                    await self._vanish(path, key=self._key(), ago=minute * 60 + self._random.randint(0, 59))
                    continue
                ws = await self._connect(path, key=self._key(), ago=minute * 60 + self._random.randint(0, 59))
                with suppress(endwell.ConnectionClosed):
                    await way(ws)

    async def open(self, number: int) -> None:
        """Open connections that stay, some of whose clients do not read."""
        for _ in range(number):
            room = self._random.choice(["lobby", "lobby", "lobby", "team-7", "team-7", "ops", "news"])
            path = self._random.choices(
                [f"/chat/{room}", "/prices", f"/documents/{self._random.randint(1, 12)}"], [6, 3, 2]
            )[0]
            age = self._random.expovariate(1 / 4000)
            ws = await self._connect(path, key=self._key(), pause=self._random.uniform(0.5, 3), age=age)
            tasks = [asyncio.create_task(read(ws))]
            if path.startswith("/chat/"):
                tasks.append(asyncio.create_task(self._talk(ws)))
            for task in tasks:
                self._stack.callback(task.cancel)
            self._stack.callback(ws.abort)
        for each in range(4):
            # The client does not read, so that the server's queue fills.
            ws = await self._connect(
                "/prices", key=f"user-47{each}1", size=900_000, pause=0.02, age=60 * each
            )
            self._stack.callback(ws.abort)

    async def _talk(self, ws: endwell.WebSocket) -> None:
        """Say something now and then."""
        with suppress(endwell.ConnectionClosed):
            while True:
                await asyncio.sleep(self._random.expovariate(1 / 8))
                await ws.send("hello " * self._random.randint(1, 20))


async def picture(tab: Tab, name: str) -> None:
    """Write what the tab shows."""
    data = await tab.screenshot()
    assert len(data) < MOST, (name, len(data))
    (ASSETS / f"dashboard-{name}.png").write_bytes(data)
    sys.stdout.write(f"{name}: {len(data)} bytes\n")


async def pictures(served: Program) -> None:
    async with AsyncExitStack() as stack:
        browser = stack.enter_context(running("chromium"))
        demo = Demo(served, stack)
        await demo.end()
        await demo.open(300)
        tab = await stack.enter_async_context(browser.tab(f"http://127.0.0.1:{served.port}/_endwell/"))
        shown = Dashboard(endwell.Server(), tab, stack)
        await shown.says("#tiles .connections", "slow")
        # So that the curves have something to show, and each connection a round trip.
        await asyncio.sleep(20)
        await tab.resize(1280, 800)
        await tab.scheme(False)
        await shown.view("connections?sort=queued&descending=true")
        await shown.says(".rows .row", "user-47")
        await picture(tab, "connections")
        await tab.scheme(True)
        await shown.view("endings")
        await shown.says(".rows .row", "peer closed")
        await tab.evaluate(
            "document.querySelector('.canvas').dispatchEvent(new PointerEvent('pointermove', { clientX: 650 }))"
        )
        await picture(tab, "endings")
        await tab.evaluate(
            "document.querySelector('.canvas').dispatchEvent(new PointerEvent('pointerleave'))"
        )
        await tab.resize(390, 844)
        await shown.view("endings")
        await picture(tab, "phone-dark")
        await tab.scheme(False)
        await shown.view("connections")
        await shown.says(".rows .row", "user-")
        await picture(tab, "phone-light")
        await tab.resize(1280, 720)
        await shown.view("workers")
        await shown.says(".worker", "serving")
        await shown.click(".drain")
        await shown.click("#confirm .danger")
        # At once: with few connections, the drain takes two seconds.
        await shown.says(".worker", "draining", "ended")
        await tab.evaluate("void (document.querySelector('#said').textContent = '')")
        await picture(tab, "drain")


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder) / "app.py"
        app.write_text(APP)
        with running_program(app) as served:
            asyncio.run(pictures(served))
    return 0


if __name__ == "__main__":
    sys.exit(main())

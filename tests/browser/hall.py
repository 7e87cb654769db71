"""A server, the page that it serves, and a record of what each side learns of an ending."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import endwell
from tests.browser.driver import Tab
from tests.cli.process import PATIENCE

__all__ = ["LONG", "Hall", "hall", "until"]

# The page stores its events where the next page, or another tab, can read them.
PAGE = """<!doctype html><meta charset="utf-8"><title>a page</title>
<script type="module">
import { ReconnectingWebSocket } from "/endwell.js";
// Whatever window and network the machine of the tests has.
Object.defineProperty(document, "hidden", { value: false, configurable: true });
Object.defineProperty(navigator, "onLine", { value: true, configurable: true });
const options = %s;
window.told = [];
window.messages = [];
window.opened = 0;
const note = (row) => {
  told.push(row);
  localStorage.told = JSON.stringify([...JSON.parse(localStorage.told ?? "[]"), row]);
};
window.open_ = (path, more = {}) => {
  const ws = new ReconnectingWebSocket(path, { ...options, ...more });
  ws.onopen = () => opened++;
  ws.onmessage = ({ data }) => messages.push(data);
  ws.onending = ({ ending, wait, stop, error }) =>
    note({ path, ...ending, wait, stop, error: error && String(error) });
  return ws;
};
window.ws = open_("/ws");
addEventListener("pageshow", (event) => { window.kept = event.persisted; });
</script>"""


# Sends hello, and after each ending its code.
WORKER = """
import { ReconnectingWebSocket } from "/endwell.js";
const ws = new ReconnectingWebSocket("/ws", { base: 0.1, maxDelay: 1 });
ws.addEventListener("open", () => ws.send(ws.ending ? `after ${ws.ending.code}` : "hello"));
"""


#: For both sides, unless a test says otherwise: a slow browser or server breaks no limit of the other side.
PATIENT_SERVER = dict.fromkeys(("open_timeout", "close_timeout", "ping_timeout"), PATIENCE)
PATIENT_PAGE = dict.fromkeys(("openTimeout", "closeTimeout", "pingTimeout"), PATIENCE)
#: The options of a page that reconnects in no test by itself.
LONG = {"base": 1000, "maxDelay": 1000}


class Hall:
    """A server whose handler echoes, and closes if the path says so."""

    def __init__(self, page: dict[str, Any], **options: Any) -> None:
        page = {**PATIENT_PAGE, **page}
        self.server = endwell.Server(**{**PATIENT_SERVER, **options})
        #: The connections of ``/ws`` in order, and their times.
        self.came: asyncio.Queue[endwell.WebSocket] = asyncio.Queue()
        self.times: list[float] = []
        self.endings: asyncio.Queue[endwell.Ending] = asyncio.Queue()
        self.messages: list[str | bytes] = []
        #: The delay in seconds of each response with the page.
        self.delay = 0.0
        #: Set when a page has requested ``/nothing``, which does not replace it.
        self.nothing = asyncio.Event()
        #: If set, no page may connect.
        self.refuses = False
        #: The code with which ``/ws`` closes at once, or None.
        self.closes: int | None = None
        self.server.browser_module()

        @self.server.process_request
        def gate(request: endwell.Request) -> endwell.Response | None:
            refused = self.refuses and "Upgrade" in request.headers
            return endwell.Response.text("no", 403) if refused else None

        @self.server.websocket("/close/{code}")
        async def close(ws: endwell.WebSocket, code: str) -> None:
            await ws.close(int(code), f"because of {code}")

        @self.server.get("/")
        async def index(request: endwell.Request) -> endwell.Response:
            await asyncio.sleep(self.delay)
            return endwell.Response.html(PAGE % json.dumps(page))

        @self.server.get("/blank")
        def blank(request: endwell.Request) -> endwell.Response:
            return endwell.Response.html("<!doctype html><title>blank</title>")

        @self.server.get("/worker.js")
        def worker(request: endwell.Request) -> endwell.Response:
            headers = endwell.Headers([("Content-Type", "text/javascript")])
            return endwell.Response(200, headers, WORKER.encode())

        @self.server.get("/nothing")
        async def nothing(request: endwell.Request) -> endwell.Response:
            self.nothing.set()
            return endwell.Response(204, endwell.Headers([]), b"")

        @self.server.websocket("/ws")
        async def echo(ws: endwell.WebSocket) -> None:
            self.times.append(time.monotonic())
            self.came.put_nowait(ws)
            if self.closes is not None:
                await ws.close(self.closes)
            async for message in ws:
                self.messages.append(message)
                await ws.send(message)

        @self.server.on_close
        def ended(ws: endwell.WebSocket, ending: endwell.Ending) -> None:
            self.endings.put_nowait(ending)

    @property
    def url(self) -> str:
        host, port = self.server.addresses[0]
        return f"http://{host}:{port}"

    async def next(self, seconds: float = PATIENCE) -> endwell.WebSocket:
        """The next connection."""
        return await asyncio.wait_for(self.came.get(), seconds)

    async def open(self, tab: Tab) -> endwell.WebSocket:
        """The next connection, once its page knows of it too."""
        ws = await self.next()
        await until(lambda: tab.evaluate("globalThis.ws?.readyState === 1"))
        return ws

    async def ending(self, seconds: float = PATIENCE) -> endwell.Ending:
        """The next ending."""
        return await asyncio.wait_for(self.endings.get(), seconds)

    async def reports(self, tab: Tab, count: int = 1) -> list[dict[str, Any]]:
        """The events that pages of this server recorded, once there are ``count``."""

        async def enough() -> list[dict[str, Any]]:
            rows = json.loads(await tab.evaluate("localStorage.told ?? '[]'"))
            return rows if len(rows) >= count else []

        return await until(enough)


async def until(condition: Any, seconds: float = PATIENCE) -> Any:
    """The result of the async ``condition``, once it is true."""
    async with asyncio.timeout(seconds):
        while not (value := await condition()):
            await asyncio.sleep(0.02)
    return value


@asynccontextmanager
async def hall(
    page: dict[str, Any] | None = None, host: str = "127.0.0.1", **options: Any
) -> AsyncIterator[Hall]:
    """A hall whose page uses these options of the module."""
    made = Hall(page or {}, **options)
    # A drain aborts a page that does not answer its Close for a fifth of this time.
    async with made.server.serving(host, grace=PATIENCE):
        yield made

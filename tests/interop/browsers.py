"""One connection with a browser: a page plays the scenario, and reports what the browser reported to it."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.parse import urlencode

from catalog import KILLED, QUIT, STREAM, Peer
from exchange import OPTIONS, SETTLE, obey
from report import Row
from tap import Tap

import endwell
from endwell import Cause

PAGE = Path(__file__).parent / "peers" / "page.html"
CHUNK = "0123456789" * 1000


async def browse(peer: Peer, scenario: str) -> Row:
    """The browser is the client."""
    row = Row("server", scenario, Cause.SERVER_DRAINED if scenario == "server-stops" else Cause.APP_CLOSED)
    server, desk = endwell.Server(OPTIONS), endwell.Server()
    tap = Tap()
    stop, ended = asyncio.Event(), asyncio.Event()
    told: asyncio.Queue[str] = asyncio.Queue()

    @server.websocket("/")
    async def handler(ws: endwell.WebSocket) -> None:
        if scenario != STREAM:
            row.watch(ws, tap)
        ws.on_close(lambda _: ended.set())
        with suppress(endwell.ConnectionClosed):
            async for message in ws:
                while message == STREAM:
                    await ws.send(CHUNK)
                    await asyncio.sleep(0)  # the new page is served by this loop too
                if message == QUIT:
                    process.terminate()
                elif message == KILLED:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    await obey(ws, message, tap, stop)
        row.ending = await ws.closed

    @server.get("/page")
    def page(_request: endwell.Request) -> endwell.Response:
        return endwell.Response.html(PAGE.read_text())

    @desk.get("/told")
    def tell(request: endwell.Request) -> str:
        told.put_nowait(request.query["text"])
        return ""

    async with AsyncExitStack() as stack:
        for context in (tap, desk.serving()):
            await stack.enter_async_context(context)
        home = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        async with server.serving():
            tap.target = server.port
            # That scenario is about what the kernel does with a late write: no tap between.
            port = server.port if scenario == STREAM else tap.port
            query = urlencode({"scenario": scenario, "desk": desk.port})
            page_url = f"http://127.0.0.1:{port}/page?{query}"
            process = await stack.enter_async_context(peer.running(page_url, home=home))
            if scenario == "server-stops":
                await stop.wait()
            else:
                if scenario not in (QUIT, KILLED):
                    row.told = await told.get()
                await ended.wait()
        if scenario == "server-stops":
            row.told = await told.get()
        await asyncio.sleep(SETTLE)
    if scenario == STREAM and (row.ending is None or row.ending.received != endwell.Close(1001)):
        row.faults.append("the page's Close 1001 was not seen")
    return row.judge()

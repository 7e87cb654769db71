"""Presence, while a real page is reloaded again and again."""

from __future__ import annotations

import asyncio
import random

import pytest

import endwell
from tests.browser.driver import Browser
from tests.browser.hall import PAGE, until
from tests.cli.process import PATIENCE

RELOADS = 200


@pytest.mark.timeout(900)
async def test_a_user_who_reloads_200_times_stays_present_once(browser: Browser):
    server, told, dice = endwell.Server(), [], random.Random(RELOADS)
    sessions = server.sessions
    sessions.grace = 60.0  # longer than a reload takes on a busy machine
    sessions.joined(lambda key, ws: told.append(f"{key} joined"))
    sessions.left(lambda key, ending: told.append(f"{key} left"))
    came: asyncio.Queue[endwell.WebSocket] = asyncio.Queue()
    server.browser_module()
    server.get("/")(lambda request: endwell.Response.html(PAGE % "{}"))

    @server.websocket("/ws")
    async def live(ws: endwell.WebSocket) -> None:
        # Simulates a lookup of the user that is sometimes slow.
        await asyncio.sleep(dice.choice([0, 0, 0.05]))
        sessions.join("ada", ws)
        came.put_nowait(ws)
        await ws.closed

    async def joined() -> endwell.WebSocket:
        return await asyncio.wait_for(came.get(), PATIENCE)

    async with server.serving(), browser.tab(f"http://127.0.0.1:{server.port}/") as tab:
        await joined()
        for _ in range(RELOADS):
            # Firefox treats a page that leaves before its connection opened as a failure of the server, and
            # delays the next connection, by seconds in the end.
            await until(lambda: tab.evaluate("globalThis.ws?.readyState === 1"))
            await tab.do("location.reload()")
            ws = await joined()
            assert sessions.present == {"ada"}
            assert sessions.get("ada") in (ws, None)  # None: it is reloading again already
            assert told == ["ada joined"]

        async def settled() -> bool:
            return server.connections == {sessions.get("ada")}

        await until(settled)
        sessions.grace = 0.1
        await tab.close()

        async def gone() -> bool:
            return told == ["ada joined", "ada left"]

        await until(gone)
    assert sessions.present == set()

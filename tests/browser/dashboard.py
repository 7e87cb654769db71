"""A server with a dashboard, clients of it, and a tab that shows the page."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import endwell
from tests.browser.driver import Browser, Tab
from tests.browser.hall import until
from tests.cli.process import PATIENCE

__all__ = ["PHONE", "WIDE", "Dashboard", "dashboard", "served"]

WIDE = (1280, 900)
PHONE = (360, 740)


class Dashboard:
    """The server, and one tab that shows its dashboard."""

    def __init__(self, server: endwell.Server, tab: Tab, clients: AsyncExitStack) -> None:
        self.server = server
        self.tab = tab
        self._clients = clients

    @property
    def address(self) -> str:
        host, port = self.server.addresses[0]
        return f"{host}:{port}"

    async def client(self, key: str = "", path: str = "/chat/lobby", **options: Any) -> endwell.WebSocket:
        """A client that stays connected until the test ends."""
        uri = f"ws://{self.address}{path}" + (f"?key={key}" if key else "")
        return await self._clients.enter_async_context(endwell.connect(uri, **options))

    async def view(self, fragment: str) -> None:
        """Go to a view, such as ``endings?search=ada``."""
        await self.tab.evaluate(f"void (location.hash = {json.dumps(fragment)})")

    async def text(self, selector: str) -> str:
        """The text of all elements that are shown, one a line."""
        return await self.tab.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector)})].filter((it) => it.checkVisibility())"
            ".map((it) => it.innerText).join('\\n')"
        )

    async def says(self, selector: str, *words: str) -> str:
        """The text, once it contains all ``words``."""
        text = ""

        async def said() -> bool:
            nonlocal text
            text = await self.text(selector)
            return all(word in text for word in words)

        try:
            await until(said)
        except TimeoutError:
            raise AssertionError(f"{selector} does not say {words}, but {text!r}") from None
        return text

    async def click(self, selector: str, text: str = "") -> None:
        """Click the first element that is shown and contains ``text``, once there is one."""
        # One command: between two, the page may draw its rows anew.
        click = (
            f"(it => !!it && (it.click(), true))([...document.querySelectorAll({json.dumps(selector)})]"
            f".find((it) => it.checkVisibility() && it.textContent.includes({json.dumps(text)})))"
        )
        await until(lambda: self.tab.evaluate(click))

    async def write(self, selector: str, text: str) -> None:
        """Write into a field, as a user does."""
        await self.tab.evaluate(
            f"(({{ value: text, field }}) => {{ field.value = text; "
            "field.dispatchEvent(new Event('input', { bubbles: true })); "
            "field.dispatchEvent(new Event('change', { bubbles: true })); })"
            f"({{ value: {json.dumps(text)}, field: document.querySelector({json.dumps(selector)}) }})"
        )

    async def peers(self) -> list[str]:
        """The peers of the rows, from top to bottom."""
        rows = await self.tab.evaluate(
            "JSON.stringify([...document.querySelectorAll('.rows .row')].filter((it) => it.checkVisibility())"
            ".sort((one, other) => one.ariaRowIndex - other.ariaRowIndex)"
            ".map((it) => it.querySelector('.key').innerText))"
        )
        return json.loads(rows)

    async def lists(self, *peers: str) -> None:
        """Wait until the rows are those of these peers, in this order."""
        seen: list[str] = []

        async def same() -> bool:
            nonlocal seen
            seen = await self.peers()
            return seen == list(peers)

        try:
            await until(same)
        except TimeoutError:
            raise AssertionError(f"the list has {seen}, not {list(peers)}") from None


def served(**options: Any) -> endwell.Server:
    """A chat with keys, rooms and a dashboard."""
    # The browser may be slow to answer.
    server = endwell.Server(close_timeout=PATIENCE, ping_timeout=PATIENCE)

    @server.websocket("/chat/{room}")
    async def chat(ws: endwell.WebSocket, room: str) -> None:
        if key := ws.request.query.get("key"):
            server.sessions.join(key, ws)
        async with server.rooms[room].join(ws):
            async for message in ws:
                await ws.send(message)

    server.dashboard("/_endwell", **options)
    return server


@asynccontextmanager
async def dashboard(
    browser: Browser, fragment: str = "", size: tuple[int, int] = WIDE, **options: Any
) -> AsyncIterator[Dashboard]:
    """The page, in a tab that counts as visible."""
    server = served(**options)
    async with server.serving(port=0, grace=PATIENCE), AsyncExitStack() as clients:
        host, port = server.addresses[0]
        async with browser.tab("about:blank") as tab:
            await tab.resize(*size)
            await tab.navigate(f"http://{host}:{port}/_endwell/{fragment and '#' + fragment}")
            await until(lambda: tab.evaluate("!!document.querySelector('.rows')"))
            await show(tab)
            shown = Dashboard(server, tab, clients)
            await shown.says("#state", "Live")
            yield shown


async def show(tab: Tab, hidden: bool = False) -> None:
    """Visibility must not depend on the windows of the machine."""
    value = json.dumps(hidden)
    await tab.evaluate(
        f"void (Object.defineProperty(document, 'hidden', {{ value: {value}, configurable: true }}), "
        "document.dispatchEvent(new Event('visibilitychange')))"
    )

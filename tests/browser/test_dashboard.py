"""The page of ``server.dashboard()``, in real browsers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import endwell
from tests.browser.dashboard import PHONE, WIDE, Dashboard, dashboard, served, show
from tests.browser.driver import Browser, Tab, running
from tests.browser.hall import until
from tests.browser.test_module import ROOT
from tests.cli.process import PATIENCE
from tests.ports import free_port
from tests.server.program import release, write
from tests.server.program import running as running_program

AXE = ROOT / "tools" / "browser" / "node_modules" / "axe-core" / "axe.min.js"
PAGE = ROOT / "src" / "endwell" / "server" / "dashboard"
VIEWS = ("connections", "endings", "rooms", "workers")
#: The filled rows of the list that is shown.
ROW = ".rows .row"

#: As HTML, each of these would set `hacked`.
HOSTILE = [
    "<img src=x onerror=hacked=1>",
    "<script>hacked=1</script>",
    '"><svg onload=hacked=1>',
    "'-(hacked=1)-'",
    "javascript:hacked=1",
]


async def ended(shown: Dashboard, code: int, reason: str = "", key: str = "") -> None:
    """A client that has closed its connection."""
    async with endwell.connect(f"ws://{shown.address}/chat/lobby?key={key}") as ws:
        await ws.close(code, reason)


# -- connections ----------------------------------------------------------------------------------------------


async def test_connections_come_and_go_while_the_page_is_open(browser: Browser):
    async with dashboard(browser) as shown:
        await shown.says(".empty", "No connection is open.")
        ws = await shown.client("ada", "/chat/lobby", additional_headers={"User-Agent": "a robot"})
        await shown.says(ROW, "ada", "127.0.0.1", "/chat/lobby", "open")
        # The feed of this page is no connection of the application.
        await shown.says("#connections-view .count", "1 connection")
        await shown.says("#tiles .connections", "1")
        await ws.send("hello")
        await ws.recv()
        await shown.click(ROW, "ada")
        await shown.says("#detail", "ada", "a robot", "lobby", "1 message")
        await ws.close(1000)
        # The window goes on with how it ended, and the list is empty again.
        await shown.says("#detail", "peer closed with 1000", "the peer")
        await shown.says(".empty", "No connection is open.")


async def test_the_server_searches_and_sorts_the_connections(browser: Browser):
    async with dashboard(browser) as shown:
        for key, path in (("bob", "/chat/b"), ("ada", "/chat/a"), ("eve", "/chat/a")):
            await shown.client(key, path)
        await shown.says("#connections-view .count", "3 connections")
        await shown.click("#connections-view .head button", "Peer")
        await shown.lists("ada", "bob", "eve")
        await shown.click("#connections-view .head button", "Peer")
        await shown.lists("eve", "bob", "ada")
        header = "document.querySelector('#connections-view .head .key').ariaSort"
        assert await shown.tab.evaluate(header) == "descending"
        await shown.write("#connections-view [name=search]", "EVE")
        await shown.lists("eve")
        await shown.says("#connections-view .count", "1 connection found")
        # It is in the address, so that it can be sent to a colleague.
        assert "search=EVE" in await shown.tab.evaluate("location.hash")
        await shown.write("#connections-view [name=search]", "nobody")
        await shown.says(".empty", "No connection matches.")
        # For a screen reader once, and not each second.
        status = "document.querySelector('#connections-view .count [role=status]').textContent"
        assert await shown.tab.evaluate(status) == "No connection matches."
        await shown.write("#connections-view [name=search]", "")
        await shown.lists("eve", "bob", "ada")
        await shown.click("#connections-view [name=slow]")
        await shown.says(".empty", "No connection matches.")


async def test_the_order_on_a_phone_is_chosen_from_a_list(browser: Browser):
    async with dashboard(browser, size=PHONE) as shown:
        for key in ("bob", "ada"):
            await shown.client(key)
        orders = "[...document.querySelector('[name=sort]').options]"
        by_key = await shown.tab.evaluate(f"{orders}.find((it) => it.text === 'Key').value")
        await shown.write("[name=sort]", by_key)
        await shown.lists("ada", "bob")


async def test_of_thousands_of_rows_only_those_in_sight_exist(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
):
    count = 10_000
    asked: list[dict[str, Any]] = []
    make_feed_of(monkeypatch, count, asked)
    async with dashboard(browser, "connections?sort=key") as shown:
        await shown.says(ROW, "user-00000")
        await shown.says("#connections-view .count", "10,000 connections")
        rows = "document.querySelectorAll('.rows .row').length"
        assert await shown.tab.evaluate(rows) < 100
        assert await shown.tab.evaluate("document.querySelector('[role=table]').ariaRowCount") == str(
            count + 1
        )
        await shown.tab.evaluate("document.querySelector('.rows .open').focus()")
        await shown.tab.press("End")
        await shown.says(ROW, "user-09999")
        assert await shown.tab.evaluate("document.activeElement.textContent") == "user-09999"
        assert await shown.tab.evaluate(rows) < 100
        await shown.tab.press("PageUp")
        focus = await shown.tab.evaluate("document.activeElement.textContent")
        assert "user-09900" < focus < "user-09999"
        await shown.tab.press("Home")
        assert await shown.tab.evaluate("document.activeElement.textContent") == "user-00000"
        # Each page of the list begins after the last row of the page before it.
        assert {ask.get("after") for ask in asked} >= {None, "200", str(count - 200)}
        assert max(ask["limit"] for ask in asked) <= 200


def make_feed_of(monkeypatch: pytest.MonkeyPatch, count: int, asked: list[dict[str, Any]]) -> None:
    """The feed has ``count`` connections, which are not there."""
    from endwell.server.dashboard.dashboard import Dashboard as Feed

    true_answer = Feed.answer

    def row(number: int) -> dict[str, Any]:
        counts = dict.fromkeys(
            ("age", "idle", "queued", "messages_in", "messages_out", "bytes_in", "bytes_out"), 1
        )
        texts = {
            "worker": "w",
            "address": "10.0.0.1",
            "route": "/",
            "path": "/",
            "state": "open",
            "user_agent": "",
        }
        key = f"user-{number:05}"
        return {
            "connection": f"w:{number}",
            "key": key,
            "latency": 0.01,
            "rooms": [],
            "subject": None,
            **counts,
            **texts,
        }

    async def answer(self: Any, ask: dict[str, Any], who: str) -> dict[str, Any]:
        if ask["ask"] == "connection":
            return {"connection": row(int(ask["connection"].partition(":")[2]))}
        if ask["ask"] != "list":
            return await true_answer(self, ask, who)
        asked.append(ask)
        first = int(ask["after"] or 0)
        last = min(first + ask["limit"], count)
        return {
            "total": count,
            "rows": [row(number) for number in range(first, last)],
            "after": str(last) if last < count else None,
        }

    monkeypatch.setattr(Feed, "answer", answer)


async def test_all_of_some_hundred_connections_are_listed(browser: Browser):
    async with dashboard(browser, "connections?sort=key") as shown:
        # More than one answer of the feed has.
        for number in range(203):
            await shown.client(f"user-{number:03}", compression=None)
        await shown.says("#connections-view .count", "203 connections")
        await shown.says(ROW, "user-000")
        await shown.tab.evaluate("document.querySelector('#connections-view .scroller').scrollTop = 1e6")
        await shown.says(ROW, "user-202")


async def test_rows_stay_where_they_are_while_the_focus_is_on_one(browser: Browser):
    async with dashboard(browser) as shown:
        first = await shown.client("first")
        await shown.client("second")
        await shown.lists("second", "first")
        await shown.tab.evaluate("document.querySelector('.rows .open').focus()")
        await first.close()
        await shown.client("third")
        await shown.says(".row.gone", "first", "ended")
        assert await shown.peers() == ["second", "first"]
        await shown.tab.evaluate("document.activeElement.blur()")
        await shown.lists("third", "second")


async def test_a_window_whose_question_was_lost_asks_again(browser: Browser):
    async with dashboard(browser) as shown:
        await shown.client("ada")
        await shown.lists("ada")
        # The feed ends while the first question is on its way.
        await shown.tab.evaluate(
            "void (window.lost = 0, WebSocket.prototype.send = new Proxy(WebSocket.prototype.send, "
            '{ apply: (send, ws, [data]) => data.includes(\'"ask":"connection"\') && !lost++ '
            "? ws.close(4000) : send.call(ws, data) }))"
        )
        await shown.click(ROW, "ada")
        await shown.says("#detail", "ada", "Age")
        assert await shown.tab.evaluate("lost") >= 1


# -- endings --------------------------------------------------------------------------------------------------


async def test_endings_are_counted_and_listed_with_their_sentence(browser: Browser):
    async with dashboard(browser, "endings") as shown:
        await shown.says(".empty", "No connection has ended yet.")
        await ended(shown, 4001, "seen enough", key="ada")
        await ended(shown, 1000, key="bob")
        await shown.says(
            "#endings-view .list", "ada", "4001", "peer closed with 4001 'seen enough'; clean", "bob"
        )
        await shown.says(".legend", "peer closed", "2")
        part = "document.querySelectorAll('.part').length"
        await until(lambda: shown.tab.evaluate(f"{part} > 0"))
        # As numbers in a table, too.
        await shown.click("#endings-view details summary")
        await shown.says("#endings-view caption", "Endings for each minute, by cause")
        await shown.says("#endings-view thead", "peer closed")
        total = "[...document.querySelectorAll('#endings-view td')].reduce((sum, it) => sum + Number(it.textContent), 0)"
        await until(lambda: shown.tab.evaluate(f"{total} === 2"))
        await shown.click("[name=kind][value=code]")
        await shown.says(".legend", "4001", "1000 normal closure")
        await shown.click("[name=period][value=hours]")
        await shown.says("#endings-view caption", "Endings for each hour, by code")
        assert await shown.tab.evaluate("document.querySelectorAll('#endings-view tbody tr').length") == 24


async def test_the_last_endings_are_found_by_cause_code_and_text(browser: Browser):
    async with dashboard(browser, "endings") as shown:
        await ended(shown, 4001, "seen enough", key="ada")
        await ended(shown, 1000, key="bob")
        await shown.lists("bob", "ada")
        await shown.write("#endings-view [name=search]", "ada")
        await shown.lists("ada")
        await shown.write("#endings-view [name=search]", "")
        await shown.lists("bob", "ada")
        await shown.write("#endings-view [name=code]", "1000")
        await shown.lists("bob")
        await shown.write("#endings-view [name=code]", "")
        await shown.write("#endings-view [name=cause]", "slow_peer")
        await shown.says(".empty", "No ending matches.")
        await shown.view("endings")
        await shown.lists("bob", "ada")
        # The legend is a filter, too.
        await shown.click(".legend button", "peer closed")
        await until(lambda: shown.tab.evaluate("location.hash === '#endings?cause=peer_closed'"))
        await shown.click(ROW, "ada")
        await shown.says(
            "#detail", "peer closed with 4001 'seen enough'", "Received Close", "4001 “seen enough”"
        )
        await shown.click("#detail summary")
        record = json.loads(await shown.text("#detail pre"))
        assert (record["cause"], record["code"], record["clean"]) == ("peer_closed", 4001, True)
        await shown.click("#detail a", "All its endings")
        await shown.lists("ada")


@pytest.mark.parametrize("fragment", ["constructor", "toString?search=ada", "__proto__", "nothing"])
async def test_an_address_that_names_no_view_shows_the_connections(browser: Browser, fragment: str):
    async with dashboard(browser, fragment) as shown:
        await shown.says("#connections-view", "0 connections" if "?" not in fragment else "found")
        assert (await shown.tab.evaluate("document.title")).startswith("Connections ")
        await shown.view("endings?code=constructor")
        await shown.says("#endings-view .count", "0 endings found")
        assert "native code" not in await shown.tab.evaluate(
            "document.querySelector('[name=code]').innerHTML"
        )


# -- rooms, workers, and the connection of the page -----------------------------------------------------------


@pytest.mark.parametrize("text", ["x" * 9000, "\\\\" * 9000, "\u4e2d" * 5000])
async def test_an_address_with_a_text_that_is_too_long_ends_no_feed(browser: Browser, text: str):
    """A link to this page may contain anything."""
    async with dashboard(browser) as shown:
        ws = await shown.client("ada")
        for view in ("connections", "endings"):
            await shown.view(f"{view}?search={quote(text)}&cause={quote(text)}&code={quote(text)}")
            await shown.says(f"#{view}-view .list", "matches")
        await shown.view("connections")
        await shown.lists("ada")
        await ws.close()
        await shown.view("endings")
        await shown.says("#endings-view .list", "ada")
        endings = await shown.text("#endings-view .list")
        assert "_endwell" not in endings
        assert await shown.tab.evaluate("document.querySelector('#state').innerText") == "Live"


async def test_rooms_routes_and_the_worker_are_shown(browser: Browser):
    async with dashboard(browser, "rooms") as shown:
        for path in ("/chat/one", "/chat/one", "/chat/two"):
            await shown.client(path=path)
        await shown.says("#rooms-view", "2 rooms", "one", "two", "/chat/{room}", "No bus")
        await shown.view("workers")
        await shown.says(".worker", "serving", "Connections", "3", "Memory")


async def test_without_a_supervisor_workers_cannot_be_drained(browser: Browser):
    async with dashboard(browser, "workers") as shown:
        await shown.says(".worker", "serving")
        assert await shown.text(".drain, .restart") == ""


async def test_a_worker_is_drained_and_all_are_restarted(browser: Browser, tmp_path: Path):
    marker = 'if __name__ == "__main__":'
    app = write(tmp_path, **{marker: "server.dashboard()\n" + marker})
    with running_program(app) as served:
        async with browser.tab(f"http://127.0.0.1:{served.port}/_endwell/#workers") as tab:
            await until(lambda: tab.evaluate("!!document.querySelector('.rows')"))
            await show(tab)
            async with AsyncExitStack() as clients:
                held = await clients.enter_async_context(
                    endwell.connect(served.url("/held"), open_timeout=PATIENCE)
                )
                shown = Dashboard(endwell.Server(), tab, clients)

                async def names(count: int, but: list[str]) -> list[str]:
                    """The names of the workers that serve, once there are ``count`` and others than ``but``."""
                    found: list[str] = []

                    async def others() -> bool:
                        cards = await shown.text(".worker")
                        found[:] = re.findall(r"Worker (\w+)", cards)
                        serving = cards.count("serving")
                        return (len(found), serving) == (count, count) and not {*found} & {*but}

                    await until(others)
                    return found

                before = await names(2, [])
                await shown.says(".worker", "Connections\n1")
                (drained,) = [
                    name for name in before if "Connections\n1" in await shown.text(f"[data-key='{name}']")
                ]
                await shown.click(f"[data-key='{drained}'] .drain")
                await shown.says("#confirm", f"Drain worker {drained}?", "its 1 connection")
                await shown.click("#confirm .danger")
                card = await shown.says(f"[data-key='{drained}']", "draining", "ended, 0 open", "s left")
                # The timetable, with the phase of now.
                assert "each connection is sent a Close as soon as its handler is idle" in card
                assert await tab.evaluate("document.querySelectorAll('.steps [aria-current]').length") == 1
                release(app)
                await held.closed
                after = await names(2, [drained])
                assert {*before} - {drained} <= {*after}
                await shown.click(".restart")
                await shown.says("#confirm", "2 workers will be replaced without downtime")
                await shown.click("#confirm .danger")
                await names(2, [*before, *after])
                await shown.says("#state", "Live")
        status, log = served.finish()
    assert status == 0
    assert "Traceback" not in log


async def test_the_page_says_that_the_server_restarts_and_returns(browser: Browser):
    async with AsyncExitStack() as first:
        server, port = served(), free_port()
        endings = []
        server.on_close(lambda ws, ending: endings.append(str(ending)))
        await first.enter_async_context(server.serving(port=port, grace=PATIENCE))
        async with browser.tab(f"http://127.0.0.1:{port}/_endwell/") as tab:
            await until(lambda: tab.evaluate("!!document.querySelector('.rows')"))
            await show(tab)
            shown = Dashboard(server, tab, first)
            await shown.says("#state", "Live")
            await tab.evaluate(
                "void (window.said = [], new MutationObserver(() => said.push(document.querySelector('#state').textContent))"
                ".observe(document.querySelector('#state'), { subtree: true, childList: true, characterData: true }))"
            )
            await first.aclose()
            await until(lambda: tab.evaluate("said.some((it) => it.includes('Not reachable'))"))
            said = await tab.evaluate("said.join('; ')")
            assert said.startswith("The server restarts"), (said, endings)
            await shown.says("#state", "Not reachable", "next attempt")
            await tab.evaluate(f"void (() => {{ {AXE.read_text()} }})()")
            assert await violations(tab) == ""
            async with served().serving(port=port, grace=PATIENCE):
                await shown.says("#state", "Live")


async def test_a_hidden_or_paused_page_asks_for_nothing(browser: Browser, monkeypatch: pytest.MonkeyPatch):
    async with dashboard(browser) as shown:
        await shown.client("ada")
        await shown.lists("ada")
        await shown.tab.evaluate(
            "void (window.asks = [], WebSocket.prototype.send = new Proxy(WebSocket.prototype.send, "
            "{ apply: (send, ws, [data]) => (asks.push(data), send.call(ws, data)) }))"
        )
        ways = (
            (partial(show, shown.tab, True), partial(show, shown.tab)),
            (partial(shown.click, "#pause"), partial(shown.click, "#pause")),
        )
        for off, on in ways:
            await off()
            await until(lambda: shown.tab.evaluate("asks.some((it) => it.includes('\"every\":0'))"))
            await shown.tab.evaluate("void (asks.length = 0)")
            # More than the interval of each question.
            await shown.tab.evaluate("new Promise((resolve) => setTimeout(resolve, 2500))")
            # What is left is the heartbeat of endwell.js.
            assert await shown.tab.evaluate("asks.filter((it) => it.startsWith('{')).length") == 0
            await on()
            await until(lambda: shown.tab.evaluate("asks.some((it) => it.includes('\"every\":1'))"))
            await until(lambda: shown.tab.evaluate("asks.some((it) => it.includes('\"list\"'))"))
        await shown.says("#state", "Live")


# -- actions --------------------------------------------------------------------------------------------------


async def test_close_ends_the_connection_of_the_client_with_the_code_and_the_reason(browser: Browser):
    async with dashboard(browser) as shown:
        ws = await shown.client("ada")
        other = await shown.client("bob")
        await shown.click(ROW, "ada")
        await shown.click("#detail button", "Close this connection")
        await shown.says(
            "#confirm", "Close the connection of ada?", "/chat/lobby from 127.0.0.1", "normal closure"
        )
        # The error of the server is shown, and can be corrected.
        await shown.write("#confirm [name=code]", "1006")
        await shown.click("#confirm .danger")
        await shown.says("#confirm [role=alert]", "1006")
        assert ws.is_open
        await shown.write("#confirm [name=code]", "4001")
        await shown.write("#confirm [name=reason]", "tidied up")
        await shown.click("#confirm .danger")
        async with asyncio.timeout(PATIENCE):
            ending = await ws.closed
        assert ending.received == endwell.Close(4001, "tidied up")
        await shown.says("#detail", "the application closed; we closed with 4001 'tidied up'")
        assert other.is_open


async def test_cancel_and_escape_close_nothing(browser: Browser):
    async with dashboard(browser) as shown:
        ws = await shown.client("ada")
        await shown.click(ROW, "ada")
        await shown.click("#detail button", "Close this connection")
        await shown.click("#confirm button", "Cancel")
        await shown.click("#detail button", "Close this connection")
        await shown.tab.press("Escape")
        await until(lambda: shown.tab.evaluate("!document.querySelector('#confirm').open"))
        await ws.send("still here")
        assert await ws.recv() == "still here"


async def test_a_page_without_actions_offers_none(browser: Browser):
    async with dashboard(browser, actions=False) as shown:
        await shown.client("ada")
        await shown.click(ROW, "ada")
        await shown.says("#detail", "ada")
        assert "Close this connection" not in await shown.text("#detail")
        await shown.tab.press("Escape")
        await shown.view("workers")
        await shown.says(".worker", "serving")
        assert await shown.text(".drain, .restart") == ""


# -- texts of peers, and people -------------------------------------------------------------------------------


async def test_hostile_texts_of_peers_are_shown_as_text(browser: Browser):
    async with dashboard(browser) as shown:
        peers = {}
        for text in HOSTILE:
            path = f"/chat/{quote(text, safe='')}"
            agent = {"User-Agent": text}
            peers[text] = await shown.client(quote(text, safe=""), path, additional_headers=agent)
        await shown.says(ROW, *HOSTILE)
        for text in HOSTILE:
            await shown.click(ROW, text)
            # Title, key, path, room and user agent.
            detail = await shown.says("#detail", "Age")
            assert detail.count(text) >= 5
            await shown.click("#detail button", "Close this connection")
            await shown.says("#confirm", text)
            await shown.tab.press("Escape")
            await shown.tab.press("Escape")
        await shown.view("rooms")
        await shown.says("#rooms-view .bars", *HOSTILE)
        for text, ws in peers.items():
            await ws.close(4001, text)
        await shown.view("endings")
        await shown.says(ROW, *HOSTILE)
        for text in HOSTILE:
            await shown.click(ROW, text)
            # Title, reason, sentence and key.
            assert (await shown.says("#detail", "Reason")).count(text) >= 4
            await shown.tab.press("Escape")
            # Also as what is searched for, which a link to this page may contain.
            query = "&".join(f"{name}={quote(text)}" for name in ("search", "cause", "code", "sort", "slow"))
            for view in ("connections", "endings"):
                await shown.view(f"{view}?{query}")
                found = f"document.querySelector('#{view}-view [name=search]').value === {json.dumps(text)}"
                await until(partial(shown.tab.evaluate, found))
            await shown.view("endings")
        assert await shown.tab.evaluate("typeof hacked") == "undefined"
        assert (
            await shown.tab.evaluate("document.querySelectorAll('img, script:not([src]), iframe').length")
            == 0
        )


async def test_a_window_that_is_closed_shows_another_connection_at_once(browser: Browser):
    async with dashboard(browser) as shown:
        for key in ("ada", "bob"):
            await shown.client(key)
        await shown.says(ROW, "ada", "bob")
        await shown.click(ROW, "ada")
        await shown.says("#detail", "Age", "ada")
        # Before the event of the closed window.
        await shown.tab.evaluate(
            "void (document.querySelector('#detail').close(), [...document.querySelectorAll("
            f"{json.dumps(ROW)})].find((it) => it.textContent.includes('bob')).click())"
        )
        await shown.says("#detail", "Age", "bob")


async def test_everything_can_be_done_with_the_keyboard(browser: Browser):
    async with dashboard(browser) as shown:
        ws = await shown.client("ada")
        await shown.client("bob")
        await shown.lists("bob", "ada")
        focus = "(document.activeElement.innerText || document.activeElement.name || '').trim()"

        async def walk(to: str, limit: int = 30) -> None:
            for _ in range(limit):
                await shown.tab.press("Tab")
                if await shown.tab.evaluate(focus) == to:
                    # What has the focus can be seen.
                    assert await shown.tab.evaluate(
                        "getComputedStyle(document.activeElement.closest('.rows .row') ?? document.activeElement)"
                        ".outlineStyle !== 'none'"
                    )
                    return
            raise AssertionError(f"the Tab key does not lead to {to!r}")

        await walk("Skip to the content")
        await walk("Connections")
        await walk("search")
        await walk("Age")
        await shown.tab.press("Enter")
        await shown.lists("ada", "bob")
        await walk("ada")
        await shown.tab.press("ArrowDown")
        assert await shown.tab.evaluate(focus) == "bob"
        await shown.tab.press("ArrowUp")
        await shown.tab.press("Enter")
        await shown.says("#detail", "127.0.0.1")
        await walk("Close this connection …")
        await shown.tab.press("Enter")
        await shown.says("#confirm", "Close the connection of ada?")
        assert await shown.tab.evaluate("document.activeElement.name") == "code"
        await walk("reason")
        for letter in "bye":
            await shown.tab.press(letter)
        await shown.tab.press("Enter")
        async with asyncio.timeout(PATIENCE):
            assert (await ws.closed).received == endwell.Close(1000, "bye")
        await shown.says("#detail", "the application closed")
        # The list below the window has been renewed, too.
        await shown.says(".row.gone", "ada")
        await shown.tab.press("Escape")
        # Back where it was opened.
        assert await shown.tab.evaluate(focus) == "ada"
        await shown.view("endings")
        await shown.says(ROW, "ada")
        await shown.says(".legend", "app closed", "1")
        # A paused page does not move its bars when a minute begins.
        await shown.tab.evaluate("document.querySelector('#pause').focus()")
        await shown.tab.press("Enter")
        await shown.says("#state", "Paused")
        await shown.tab.evaluate("document.querySelector('nav a[href=\"#endings\"]').focus()")
        for _ in range(20):
            await shown.tab.press("Tab")
            if await shown.tab.evaluate("document.activeElement.role === 'slider'"):
                break
        value = "document.activeElement.ariaValueText"
        # Minutes may have begun since the ending.
        for _ in range(60):
            if "0 endings" not in await shown.tab.evaluate(value):
                break
            await shown.tab.press("ArrowLeft")
        assert "1 ending: 1 app closed" in await shown.tab.evaluate(value)
        assert re.fullmatch(
            r"\d\d:\d\d.\d\d:\d\d1 ending\s+app closed\s1", (await shown.text(".tip")).strip()
        )
        await shown.tab.press("ArrowLeft")
        assert "0 endings" in await shown.tab.evaluate(value)
        await shown.tab.press("Home")
        assert await shown.tab.evaluate("document.activeElement.ariaValueNow") == "0"


@pytest.fixture
def dark(browser: Browser) -> Iterator[Browser]:
    """A browser that can show dark pages: Firefox must be told when it starts."""
    if browser.name == "chromium":
        yield browser
        return
    with running("firefox", preferences={"layout.css.prefers-color-scheme.content-override": 0}) as made:
        yield made


async def violations(tab: Tab) -> str:
    """What axe-core objects to."""
    # A text that is still fading in has less contrast.
    await until(lambda: tab.evaluate("document.getAnimations().every((it) => it.playState === 'finished')"))
    found = await tab.evaluate(
        "axe.run(document).then(({ violations, passes }) => JSON.stringify([passes.length, violations.map("
        "({ id, nodes }) => [id, nodes.map((it) => [it.html, it.failureSummary])])]))"
    )
    checked, wrong = json.loads(found)
    assert checked > 20
    return "\n".join(f"{rule}: {nodes}" for rule, nodes in wrong)


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_no_violation_in_any_view(
    request: pytest.FixtureRequest, browser: Browser, scheme: str, size: tuple[int, int]
):
    if scheme == "dark":
        browser = request.getfixturevalue("dark")
    async with dashboard(browser, size=size) as shown:
        if browser.name == "chromium":
            await shown.tab.scheme(scheme == "dark")
        assert await shown.tab.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is (
            scheme == "dark"
        )
        await shown.client("ada")
        await ended(shown, 4001, "seen enough", key="bob")
        await shown.tab.evaluate(f"void (() => {{ {AXE.read_text()} }})()")
        for view in VIEWS:
            await shown.view(view)
            await shown.says(
                f"#{view}-view",
                {"connections": "ada", "endings": "bob", "rooms": "lobby"}.get(view, "serving"),
            )
            assert await violations(shown.tab) == ""
            # Nothing makes the page wider than the window.
            assert await shown.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        await shown.view("endings")
        await shown.click("#endings-view details summary")
        await shown.says("#endings-view caption", "Endings for each minute")
        assert await violations(shown.tab) == ""
        await shown.click(ROW, "bob")
        await shown.says("#detail", "seen enough")
        assert await violations(shown.tab) == ""
        await shown.tab.press("Escape")
        await shown.view("connections")
        await shown.click(ROW, "ada")
        await shown.click("#detail button", "Close this connection")
        await shown.says("#confirm", "ada")
        assert await violations(shown.tab) == ""


async def test_nothing_moves_while_numbers_change(browser: Browser):
    if browser.name != "chromium":
        pytest.skip("only Chromium measures the shift of a layout")
    for size in (WIDE, PHONE):
        async with dashboard(browser, size=size) as shown:
            # From the first frame of the page on: it is drawn before the first numbers are there. The words of the
            # state have different lengths: "Connecting …", "Live".
            await shown.tab.evaluate(
                "void (window.shifts = [], new PerformanceObserver((list) => shifts.push(...list.getEntries()"
                ".flatMap((it) => it.sources).filter(({ node }) => !document.getElementById('state').contains(node))"
                ".map(({ node }) => node?.outerHTML ?? node?.textContent)))"
                ".observe({ type: 'layout-shift', buffered: true }))"
            )
            await shown.client("ada")
            await shown.says(ROW, "ada")
            for number in range(12):
                await shown.client(f"user-{number}")
            await shown.says(ROW, "user-11")
            await shown.says("#tiles .connections", "13")
            await ended(shown, 4001)
            await shown.says("#tiles .endings", "Endings, 1 h\n1\n")
            assert await shown.tab.evaluate("shifts.join()") == ""


# -- the files ------------------------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = (int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5))
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_texts_borders_and_the_parts_of_the_plot_have_enough_contrast(scheme: int):
    style = (PAGE / "page.css").read_text()
    pairs = re.findall(r"--([\w-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", style)
    colours = {name: pair[scheme] for name, *pair in pairs}

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(one), luminance(other)))
        return (high + 0.05) / (low + 0.05)

    for under in ("page", "card", "sunken"):
        assert contrast(colours["edge"], colours[under]) >= 3
        for text in ("text", "soft", "accent", "good", "bad", "wait"):
            assert contrast(colours[text], colours[under]) >= 4.5, (text, under)
    for text in ("text", "soft", "accent"):
        assert contrast(colours[text], colours["tint"]) >= 4.5, text
    assert contrast(colours["card"], colours["bad"]) >= 4.5
    for name, *pair in pairs:
        if name == "c":
            assert contrast(pair[scheme], colours["card"]) >= 3, pair


def test_the_page_has_no_inline_code_and_makes_no_html_of_text():
    page = (PAGE / "page.html").read_text()
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]* src=)|https?://(?!www\.w3\.org/)", page)
    for file in PAGE.glob("*.js"):
        found = re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|setHTML|DOMParser",
            file.read_text(),
        )
        assert found is None, (file.name, found)


def test_each_cause_has_a_colour_and_a_place_in_the_stack():
    style, plot = ((PAGE / name).read_text() for name in ("page.css", "plot.js"))
    for cause in endwell.Cause:
        if cause is not endwell.Cause.HANDSHAKE_FAILED:  # has the colour of the rest
            assert f'[data-series="{cause.value}"]' in style
        assert f'"{cause.value}"' in plot

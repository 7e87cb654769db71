"""Real browsers: the server's Ending and the page's, for each way to end a connection."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack

import pytest

from endwell import Close, Retry
from endwell.codes import describe
from tests.browser.driver import Browser, running
from tests.browser.hall import LONG, hall, until
from tests.browser.truth import CODES, NOTHING, TRUTH, code_says, page_says, server_says
from tests.cli.process import PATIENCE
from tests.network.namespaces import Network
from tests.raw import PROMPT, RawServer

pytestmark = pytest.mark.timeout(600)

#: A page that reconnects quickly.
SOON = {"base": 0.1, "maxDelay": 1}
LEAVING = {"reload": "location.reload()", "go to another page": "location.href = '/blank'"}


@pytest.mark.parametrize("way", LEAVING)
async def test_a_page_is_left(browser: Browser, way: str):
    async with hall(SOON) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        await tab.do(LEAVING[way])
        server = server_says(await place.ending())
        if way == "reload":
            await place.next()
        page = page_says((await place.reports(tab))[0])
        assert (server, page) == TRUTH[way][browser.name]


#: Makes the longer delays of a page ten times as long, so that none ends while a slow machine works.
PATIENT = """void (globalThis.setTimeout = ((set) => (callback, wait) =>
set(callback, wait >= 1000 ? wait * 10 : wait))(setTimeout))"""
DELAYS = (0.1, 0.4, 0.8, 1.5)


async def test_leaving_a_page_is_reported_with_a_slow_next_page(
    browser: Browser,
):
    async with hall(SOON) as place, browser.tab(place.url) as tab:
        ways = ["reload", "go to another page"] * (len(DELAYS) // 2)
        for delay, way in zip(DELAYS, ways, strict=True):
            await place.open(tab)
            await tab.evaluate(PATIENT)
            place.delay = delay
            await tab.do("location.reload()" if way == "reload" else f"location.href = '/?{delay}'")
            assert server_says(await place.ending()) == TRUTH[way][browser.name][0]
        await place.open(tab)
        told = [page_says(row) for row in await place.reports(tab, len(ways))]
        assert told == [TRUTH[way][browser.name][1] for way in ways]
        assert len(place.times) == 1 + len(ways)


async def test_leaving_a_connecting_page_reports_no_failed_handshake(browser: Browser):
    async with hall(SOON) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        await tab.evaluate(PATIENT)
        place.delay = 0.8
        with RawServer() as raw:
            await tab.evaluate(f"void open_({json.dumps(raw.uri)})")
            with await raw.accept_tcp():
                await tab.do("location.reload()")
                await place.open(tab)
        told = {row["path"]: page_says(row) for row in await place.reports(tab, 2)}
        assert told == {"/ws": TRUTH["reload"][browser.name][1], raw.uri: "app_closed 1006 ''"}


async def test_a_navigation_to_no_content_keeps_the_page(browser: Browser):
    server_truth, page_truth = TRUTH["download a file"][browser.name]
    async with hall(SOON) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        await tab.do("location.href = '/nothing'")
        if page_truth == NOTHING:
            await asyncio.wait_for(place.nothing.wait(), PATIENCE)
        else:
            assert server_says(await place.ending()) == server_truth
            assert page_says((await place.reports(tab))[0]) == page_truth
            await place.open(tab)
        await tab.evaluate("void ws.send('hello')")
        await until(lambda: tab.evaluate("messages.includes('hello')"))
        assert len(place.times) == (1 if page_truth == NOTHING else 2)


async def test_a_tab_is_closed(browser: Browser):
    server_truth, page_truth = TRUTH["close the tab"][browser.name]
    async with hall(SOON) as place:
        async with browser.tab(place.url) as tab:
            await place.open(tab)
            await tab.close()
            # Firefox shows one or the other.
            assert server_says(await place.ending()) in server_truth.split("; or ")
        # Another page of the site can read what that page recorded, if the browser still let it write.
        if page_truth != NOTHING:
            async with browser.tab(f"{place.url}/blank") as tab:
                assert page_says((await place.reports(tab))[0]) == page_truth


async def test_a_user_goes_back_and_forward(browser: Browser):
    async def back_at(way: str) -> None:
        """The page at this end of the history is shown again, and its connection works."""
        await place.next()
        kept = await until(lambda: tab.evaluate("'kept' in window && String(kept)"))
        page = "the page that was kept" if kept == "true" else "a new page"
        assert TRUTH[way][browser.name][0] == f"a new connection, of {page}"
        await tab.evaluate("void ws.send('hello')")
        await until(lambda: tab.evaluate("messages.includes('hello')"))

    async def at_the_other() -> None:
        await until(lambda: tab.evaluate("document.title === 'blank'"))

    async with hall(SOON) as place, browser.tab(f"{place.url}/blank") as tab:
        await at_the_other()
        await tab.do("location.href = '/'")
        await place.open(tab)
        await tab.do("location.href = '/blank'")
        await place.ending()
        await at_the_other()
        await tab.do("history.back()")
        await back_at("come back with Back")
        # Now the other way round: to the page before it, and forward.
        await tab.evaluate("localStorage.removeItem('told')")
        await tab.do("history.back()")
        server = server_says(await place.ending())
        await at_the_other()
        page = page_says((await place.reports(tab))[0])
        assert (server, page) == TRUTH["leave it with Back"][browser.name]
        await tab.do("history.forward()")
        await back_at("come back with Forward")


@pytest.mark.parametrize("browser", TRUTH["a hidden page is frozen"], indirect=True)
async def test_a_page_is_frozen_and_resumed(browser: Browser):
    async with hall(SOON) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        await tab.evaluate("void (window.kept = true)")
        await tab.freeze()
        server = server_says(await place.ending())
        page = page_says((await place.reports(tab))[0])
        assert (server, page) == TRUTH["a hidden page is frozen"][browser.name]
        await tab.freeze(False)
        await place.open(tab)
        assert await tab.evaluate("kept")
        assert len(place.times) == 2


async def test_a_browser_is_killed(name: str):
    async with hall(SOON) as place:
        with running(name) as browser:
            async with browser.tab(place.url) as tab:
                await place.open(tab)
                browser.kill()
                assert server_says(await place.ending()) == TRUTH["browser killed"][name][0]


async def test_a_network_is_lost_and_comes_back(name: str):
    # A stall of the browser of less than 5 s does not end the connection before the network is lost.
    page = {**SOON, "pingInterval": 1, "pingTimeout": 5, "openTimeout": 5}
    with Network() as network, running(name, network.client_prefix) as browser:
        async with AsyncExitStack() as stack:
            # A socket belongs to the namespace where it was created, and so do those that a listening
            # socket accepts.
            with network.inside(network.server):
                place = await stack.enter_async_context(
                    hall(page, network.address, ping_interval=1, ping_timeout=5)
                )
            with network.inside(network.client):
                tab = await stack.enter_async_context(browser.tab(place.url))
            await place.open(tab)
            network.cut()
            started = time.monotonic()
            server = server_says(await place.ending())
            told = (await place.reports(tab))[0]
            # Without pings, TCP takes a quarter of an hour.
            assert time.monotonic() - started < 1 + 5 + 6 * PROMPT
            assert (server, page_says(told)) == TRUTH["network lost"][name]
            network.heal()
            await place.next()


async def test_a_server_stops(browser: Browser):
    async with AsyncExitStack() as stack:
        async with hall(SOON) as place:
            tab = await stack.enter_async_context(browser.tab(place.url))
            await place.open(tab)
        server = server_says(await place.ending())
        page = page_says((await place.reports(tab))[0])
        assert (server, page) == TRUTH["server stops"][browser.name]


async def test_tcp_ends_without_a_close(browser: Browser):
    async with hall(SOON) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        with RawServer() as raw:
            await tab.evaluate(f"void open_({json.dumps(raw.uri)})")
            with await raw.accept() as peer:
                await until(lambda: tab.evaluate("opened === 2"))
                peer.fin()
                page = page_says((await place.reports(tab))[0])
        assert page == TRUTH["TCP ends without a Close"][browser.name][1]


async def test_a_handshake_is_refused(browser: Browser):
    async with hall(SOON) as place:
        place.refuses = True
        async with browser.tab(place.url) as tab:
            page = page_says((await place.reports(tab))[0])
            assert page == TRUTH["handshake refused (403)"][browser.name][1]
            place.refuses = False
            await place.next()


async def test_a_server_closes_with_any_code(browser: Browser):
    async with hall(LONG) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        # No page may reconnect before the last of them is closed: Chromium opens many slowly.
        await tab.evaluate("void (Math.random = () => 0.5)")
        await tab.evaluate(f"void {json.dumps(CODES)}.map((code) => open_(`/close/${{code}}`))")
        told = {row["path"]: row for row in await place.reports(tab, len(CODES))}
        for _ in CODES:
            ending = await place.ending()
            code, close = ending.code, Close(ending.code, f"because of {ending.code}")
            assert (ending.received, ending.sent, ending.clean) == (close, close, True)
            row = told.pop(f"/close/{code}")
            assert row["received"] == row["sent"] == {"code": close.code, "reason": close.reason}
            assert (row["clean"], row["ok"]) == (True, ending.ok)
            server, page = server_says(ending), page_says(row)
            says = f" {code} {close.reason!r}"
            assert (server.replace(says, ""), page.replace(says, "")) == _without_when(code)
            if row["wait"] is not None:
                floor = 0 if describe(code).retry is Retry.NOW else LONG["base"]
                assert row["wait"] == pytest.approx(floor + LONG["base"] / 2, abs=0.5)
        assert not told


def _without_when(code: int) -> tuple[str, str]:
    server, page = code_says(code)
    return server, page.partition(" (")[0]

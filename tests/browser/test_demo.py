"""The page of ``endwell demo``, in real browsers."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from urllib.parse import quote

import pytest

import endwell
from endwell.cli.chat import Chat
from tests.browser.driver import Browser, Tab
from tests.browser.hall import until
from tests.cli.process import PATIENCE

#: The storage key of the cards of this tab, newest first.
CARDS = "[...document.querySelectorAll('.card')]"


class Demo:
    """The chat, and one tab that shows its page."""

    def __init__(self, chat: Chat, tab: Tab, serving: AsyncExitStack) -> None:
        self.chat = chat
        self.tab = tab
        self._serving = serving

    @property
    def server(self) -> endwell.Server:
        return self.chat.server

    async def text(self, selector: str) -> str:
        """The text of the first element, or ``""``."""
        return await self.tab.evaluate(f"document.querySelector('{selector}')?.textContent ?? ''")

    async def says(self, selector: str, *words: str) -> str:
        """The text of the element, once it contains all ``words``."""

        async def said() -> str:
            text = await self.text(selector)
            return text if all(word in text for word in words) else ""

        return await until(said)

    async def press(self, way: str) -> None:
        await self.tab.evaluate(f"document.querySelector('[data-way={way}]').click()")

    async def open(self) -> None:
        """Wait until the page shows that the connection is open."""
        await self.says("#state", "open as ")

    async def end(self, way: str, *words: str) -> str:
        """End an open connection in this way; the text of its card, once it contains ``words``."""
        await self.open()
        cards = await self.tab.evaluate(f"{CARDS}.length")
        await self.press(way)
        await until(lambda: self.tab.evaluate(f"{CARDS}.length > {cards}"))
        card = await self.says(".card", *words)
        if await self.tab.evaluate("document.querySelector('[data-way=again]').ariaDisabled === 'false'"):
            await self.press("again")
        return card

    async def stop(self) -> None:
        """Stop the server."""
        await self._serving.aclose()


@asynccontextmanager
async def demo(browser: Browser, fragment: str = "", **options: Any) -> AsyncIterator[Demo]:
    """The demo, served and shown in a tab."""
    async with AsyncExitStack() as serving:
        chat = Chat(max_size=2**14, **options)
        server = await serving.enter_async_context(chat.server.serving(grace=PATIENCE))
        async with browser.tab(f"http://127.0.0.1:{server.port}/{fragment}") as tab:
            # Visibility must not depend on the windows of the machine: a hidden page waits longer.
            await until(lambda: tab.evaluate("!!document.querySelector('#state')"))
            await tab.evaluate("void Object.defineProperty(document, 'hidden', { value: false })")
            yield Demo(chat, tab, serving)


async def test_a_card_has_the_reports_of_the_server_and_the_page(browser: Browser):
    async with demo(browser) as shown:
        card = await shown.end("crash", "The handler raised an exception", "The server closed with 1011")
        assert "this tab" in card
        # As text, not only as a colour; with a column for what other servers report.
        assert card.count("fault") == 2
        assert "Other servers report to the page: 1006 aiohttp, uvicorn; 1011 websockets, hypercorn." in card
        assert await shown.text("#counter") == "1 ending: 0 ordinary, 1 fault"
        assert await shown.says(".legend", "ordinary", "fault")
        card = await shown.end("close", "Peer closed with 1000", "The page closed with 1000")
        assert card.count("ordinary") == 2
        assert await shown.text("#counter") == "2 endings: 1 ordinary, 1 fault"


WAYS = {
    "bye": ("peer_closed, by peer, received 4001, sent 4001", "app_closed"),
    "quit": ("app_closed, by local", "peer_closed"),
    "return": ("handler_returned, by local", "peer_closed"),
    "kick": ("app_closed, by local, received 1008, sent 1008", "1008 “kicked”"),
    "restart": ("received 1012, sent 1012", "back soon; retry 3-8s"),
    "big": ("message_too_big", "1009"),
    "slow": ("handler busy", "peer_closed", "not told websockets"),
}


async def test_each_way_to_end_a_connection_is_reported_by_both_sides(browser: Browser):
    async with demo(browser) as shown:
        for way, words in WAYS.items():
            await shown.end(way, *words, "Reported to the server", "Reported to the page")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux drops the packets of one socket")
@pytest.mark.timeout(600)
async def test_both_sides_detect_an_unplugged_network(browser: Browser):
    # Neither the ping_timeout of the server nor the 3 s of the page may expire before the network is
    # unplugged. If a side stalls for longer and ends the connection earlier, there is another attempt.
    async with demo(browser, ping_interval=0.5, ping_timeout=5) as shown:
        for _ in range(3):
            with suppress(TimeoutError):
                await shown.end("unplug", "did not answer a ping", "The server did not answer a heartbeat")
                return
    raise AssertionError("both sides never noticed it by themselves")


async def test_a_second_tab_with_the_same_key_replaces_the_first(browser: Browser):
    async with demo(browser) as shown:
        await shown.open()
        (key,) = shown.server.sessions
        url = f"ws://127.0.0.1:{shown.server.port}/chat/lobby?name=other&key={key}"
        async with endwell.connect(url) as other:
            await shown.says(".card", "A newer connection took over", "4991", "does not reconnect")
            assert other.is_open


async def test_the_ending_of_a_stopping_server_and_its_absence_are_shown(browser: Browser):
    async with demo(browser) as shown:
        await shown.open()
        await shown.stop()
        await shown.says(
            "#cards", "The server is stopping; we closed with 1001", "The server closed with 1001"
        )
        # The next attempt of the page fails.
        card = await shown.says(".card", "The page could not connect")
        assert "fault" in card
        assert "ordinary" not in card
        await shown.says("#feed", "The server cannot be reached; trying again.")
        assert not await shown.tab.evaluate("!!document.querySelector('.dot.open')")


@pytest.mark.parametrize("fragment", ["#%", "#..", "#" + quote("a" * 23 + "\N{GRINNING FACE}")])
async def test_the_page_works_with_any_fragment(browser: Browser, fragment: str):
    async with demo(browser, fragment) as shown:
        await shown.open()


async def test_a_connection_with_the_same_name_belongs_to_another_tab(browser: Browser):
    async with demo(browser) as shown:
        await shown.open()
        name = await shown.tab.evaluate("sessionStorage.name")
        url = f"ws://127.0.0.1:{shown.server.port}/chat/lobby?name={name}"
        async with endwell.connect(url):
            pass
        await shown.says("#cards", "This client is not a page")
        card = await shown.tab.evaluate(
            f"{CARDS}.map((it) => it.textContent).find((it) => it.includes('This client is not a page'))"
        )
        assert name in card
        assert "this tab" not in card


async def test_a_reload_keeps_the_reports_of_this_tab(browser: Browser):
    async with demo(browser) as shown:
        await shown.open()
        await shown.tab.do("document.querySelector('[data-way=reload]').click()")
        card = await shown.says(".card", "this tab", "Peer closed with ", "The page closed with ")
        assert card.count("ordinary") == 2


async def test_the_countdown_runs_and_the_reconnect_button_works(browser: Browser):
    async with demo(browser) as shown:
        await shown.tab.evaluate(
            "void (window.said = new Set(), new MutationObserver(() => said.add(document.querySelector('#state').textContent))"
            ".observe(document.querySelector('#state'), { subtree: true, childList: true, characterData: true }))"
        )
        moved = "[...said].filter((it) => it.includes('reconnects in ')).length > 1"
        again = (
            "(it => it.ariaDisabled === 'false' && (it.click(), document.querySelector('#state').textContent))"
            "(document.querySelector('[data-way=again]'))"
        )
        # Meanwhile the page may reconnect by itself, so one of several attempts has to be in time.
        for _ in range(10):
            await shown.open()
            await shown.tab.evaluate("said.clear()")
            await shown.press("restart")
            await until(lambda: shown.tab.evaluate(moved))
            if state := await shown.tab.evaluate(again):
                assert "reconnects" not in state
                await shown.open()
                return
    raise AssertionError("the button never could be pressed")


async def test_the_focus_is_never_lost(browser: Browser):
    focus = "document.activeElement.dataset.way"
    async with demo(browser) as shown:
        await shown.open()
        await shown.tab.evaluate("document.querySelector('[data-way=crash]').focus()")
        await shown.end("crash", "1011")
        assert await shown.tab.evaluate(focus) == "crash"
        await shown.open()
        await shown.tab.evaluate("document.querySelector('[data-way=close]').focus()")
        await shown.press("close")
        await shown.says("#state", "does not reconnect")
        assert await shown.tab.evaluate(focus) == "again"


async def test_the_room_does_not_jump_while_its_reader_has_scrolled_up(browser: Browser):
    list_ = "document.querySelector('#messages')"
    async with demo(browser) as shown:
        await shown.open()
        url = f"ws://127.0.0.1:{shown.server.port}/chat/lobby?name=talker"
        async with endwell.connect(url) as talker:
            for number in range(30):
                await talker.send(f"line {number}")
            await shown.says("#messages", "line 29")
            end = f"{list_}.scrollHeight - {list_}.scrollTop - {list_}.clientHeight"
            assert await shown.tab.evaluate(end) < 8
            await shown.tab.evaluate(f"void ({list_}.scrollTop = 20)")
            await talker.send("one more")
            await shown.says("#messages", "one more")
            assert await shown.tab.evaluate(f"{list_}.scrollTop") == 20


async def test_the_feed_can_be_filtered_and_cleared(browser: Browser):
    shows = f"{CARDS}.filter((card) => !card.hidden).length"
    async with demo(browser) as shown:
        url = f"ws://127.0.0.1:{shown.server.port}/chat/lobby?name=cli"
        async with endwell.connect(url):
            pass
        await shown.says(".card", "cli")
        await shown.end("crash", "The handler raised an exception", "The server closed with 1011")
        for choice, count in {"ordinary": 1, "fault": 1, "own": 1, "all": 2}.items():
            await shown.tab.evaluate(
                f"document.querySelector('#filter').value = '{choice}', document.querySelector('#filter').onchange()"
            )
            assert await shown.tab.evaluate(shows) == count
        await shown.tab.evaluate("document.querySelector('#clear').click()")
        assert await shown.text("#counter") == "0 endings: 0 ordinary, 0 faults"
        await shown.open()
        await shown.tab.do("location.reload()")
        await shown.says("#counter", "1 ending: ")
        assert "crash" not in await shown.text("#cards")
        assert "cli" not in await shown.text("#cards")


async def test_the_page_fits_on_every_screen(browser: Browser):
    async with demo(browser) as shown:
        await shown.tab.navigate(f"http://127.0.0.1:{shown.server.port}/endwell.js")
        await until(lambda: shown.tab.evaluate("location.pathname === '/endwell.js' && !!document.body"))
        for width, height in [(320, 568), (390, 844), (768, 1024), (1440, 900)]:
            # A frame evaluates media queries by its own size.
            await shown.tab.evaluate(
                "void document.body.replaceChildren(Object.assign(document.createElement('iframe'), "
                f"{{ width: {width}, height: {height}, src: '/', style: 'border: 0' }}))"
            )
            frame = "document.querySelector('iframe').contentDocument"
            await until(
                lambda frame=frame: shown.tab.evaluate(
                    f"{frame}.querySelector('#state')?.textContent.includes('open as ')"
                )
            )
            await shown.tab.evaluate(f"{frame}.querySelector('[data-way=kick]').click()")
            told = f"{frame}.querySelector('.card')"
            await until(
                lambda told=told: shown.tab.evaluate(
                    f"{told}?.textContent.includes('Reported to the page') && {told}.textContent.includes('kicked')"
                )
            )
            verdicts = (
                f"[...{told}.querySelectorAll('.tag')].map((tag) => tag.getBoundingClientRect().bottom)"
            )
            assert await shown.tab.evaluate(f"Math.max(...{verdicts})") < height
            assert await shown.tab.evaluate(f"{frame}.documentElement.scrollWidth") <= width
            sticking = "(button) => button.scrollWidth > button.clientWidth"
            assert (
                await shown.tab.evaluate(f"[...{frame}.querySelectorAll('button')].filter({sticking}).length")
                == 0
            )

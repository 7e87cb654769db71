"""The option ``staleAfter``, a list of URLs, and ``state``, in a page."""

from __future__ import annotations

import json

import pytest

from endwell import Cause
from tests.browser.driver import Browser
from tests.browser.hall import hall, until

pytestmark = pytest.mark.timeout(600)

SOON = {"base": 0.1, "maxDelay": 1}
#: Opens a WebSocket ``s`` that records its states.
OPEN = (
    "void (globalThis.states = [], globalThis.s = open_({}), s.onstate = ({{ state }}) => states.push(state))"
)


async def test_a_connection_without_messages_is_replaced(browser: Browser):
    async with hall({**SOON, "pingInterval": 0.1}) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        await tab.evaluate("ws.close(), localStorage.clear()")
        await place.ending()
        await tab.evaluate(OPEN.format("'/ws', { staleAfter: 0.5 }"))
        first = await place.next()
        second = await place.next()
        assert second is not first
        ending = await first.closed
        assert (ending.cause, ending.received.code, ending.received.reason) == (
            Cause.PEER_CLOSED,
            3008,
            "no message",
        )
        told = (await place.reports(tab))[-1]
        assert (told["cause"], told["initiator"], told["code"]) == ("idle_timeout", "local", 3008)
        assert told["duration"] > 0.45
        await tab.evaluate("s.close()")


async def test_the_next_url_of_a_list_follows_a_failure(browser: Browser):
    async with hall(SOON) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        # 404; closed with 1013; open.
        await tab.evaluate(OPEN.format("['/nowhere', () => '/close/1013', '/ws']"))
        await place.next()
        await until(lambda: tab.evaluate("s.readyState === 1"))
        assert await tab.evaluate("new URL(s.url).pathname") == "/ws"
        states = json.loads(await tab.evaluate("JSON.stringify(states)"))
        assert [state["phase"] for state in states] == [
            "waiting",
            "connecting",
            "open",
            "waiting",
            "connecting",
            "open",
        ]
        causes = [state["last"] and state["last"]["cause"] for state in states]
        assert causes == ["handshake_failed"] * 3 + ["peer_closed"] * 3
        assert await tab.evaluate("states[0].until - Date.now() / 1000 < 5") is True


async def test_a_page_out_of_sight_waits_without_a_time(browser: Browser):
    async with hall(SOON) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        await tab.evaluate("ws.close()")
        await place.ending()
        await tab.evaluate(OPEN.format("'/ws'"))
        await place.next()
        await until(lambda: tab.evaluate("s.state.phase === 'open'"))
        await tab.evaluate("void dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
        state = json.loads(await tab.evaluate("JSON.stringify(s.state)"))
        assert (state["phase"], state["until"], state["last"]["code"]) == ("waiting", None, 4990)
        await tab.evaluate("void dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
        await place.next()
        await until(lambda: tab.evaluate("s.state.phase === 'open'"))
        await tab.evaluate("s.close()")
        await until(lambda: tab.evaluate("s.state.phase === 'stopped'"))
        assert await tab.evaluate("s.state.reason") == "done"

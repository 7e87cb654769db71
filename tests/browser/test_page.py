"""The module in a page: when it reconnects, what waits meanwhile, and how it detects a dead server."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from endwell import Cause, Close, RetryAdvice
from endwell.aio.websocket import begin_close
from tests.browser.conftest import BROWSERS
from tests.browser.driver import Browser, running
from tests.browser.hall import LONG, hall, until

pytestmark = pytest.mark.timeout(600)

#: Makes the jitter of a page large.
HIGH = "void (Math.random = () => 0.9)"
#: Makes a page record the seconds of each pending timer, so that a test need not wait for it.
TIMERS = """void (globalThis.pending = new Map(),
globalThis.setTimeout = ((set) => (callback, wait) => {
  const timer = set(() => { pending.delete(timer); callback(); }, wait);
  pending.set(timer, wait / 1000);
  return timer;
})(setTimeout),
globalThis.clearTimeout = ((clear) => (timer) => { pending.delete(timer); clear(timer); })(clearTimeout))"""
PENDING = "JSON.stringify([...pending.values()])"
#: Makes a page count the answers to its heartbeats, starting with the next one.
ANSWERS = """void (globalThis.answers = 0, WebSocket.prototype.send = ((send) => function (data) {
  this.counts ??= !this.addEventListener("message", ({ data }) => { answers += data === "\\u0006"; });
  return send.call(this, data);
})(WebSocket.prototype.send))"""
SOON = {"base": 0.1, "maxDelay": 1}


async def test_a_server_that_closes_gets_at_most_6_connections_in_30_s():
    async with AsyncExitStack() as stack:
        places = []
        for name in BROWSERS:
            place = await stack.enter_async_context(hall())
            browser = stack.enter_context(running(name))
            tab = await stack.enter_async_context(browser.tab(f"{place.url}/blank"))
            places.append((place, tab))
        for place, tab in places:
            place.closes = 1013
            await tab.navigate(place.url)
        for place, _ in places:
            for _ in range(2):
                await place.next()
        await asyncio.sleep(max(place.times[0] for place, _ in places) + 31 - time.monotonic())
        for place, _ in places:
            assert len([moment for moment in place.times if moment < place.times[0] + 30]) <= 6
            assert min(b - a for a, b in itertools.pairwise(place.times)) > 4.95  # browsers round the time


async def test_advice_is_followed(browser: Browser):
    async with hall(LONG) as place, browser.tab(place.url) as tab:
        ws = await place.open(tab)
        await tab.evaluate(HIGH)
        await ws.close(1012, RetryAdvice(0, 1).reason("restart"))
        (told,) = await place.reports(tab)
        assert told["wait"] == pytest.approx(0.9, abs=0.1)
        await place.next()


@pytest.mark.parametrize("advice", [None, RetryAdvice(1, 3)])
async def test_pages_closed_at_once_reconnect_spread_out(browser: Browser, advice: RetryAdvice | None):
    size, page = 40, {"base": 2.0, "pingInterval": 0}
    async with hall(page) as place, browser.tab(f"{place.url}/blank") as tab:
        await tab.navigate(place.url)
        await place.open(tab)
        await tab.evaluate(f"void Array.from({{length: {size - 1}}}, () => open_('/ws'))")
        crowd = [await place.next() for _ in range(size - 1)] + list(place.server.connections)
        cut = time.monotonic()
        for ws in set(crowd):
            begin_close(ws, Cause.APP_CLOSED, 1012, advice.reason() if advice else "")
        for _ in range(size):
            await place.next()
        waits = [row["wait"] for row in await place.reports(tab, size)]
    begins = advice.earliest if advice else 0
    # The delays that the pages chose do not depend on the machine; no page reconnects before its delay.
    assert max(waits) < begins + 2
    assert min(place.times[size:]) - cut > begins - 0.05  # 0.05 s: browsers round the time
    # 4 are expected in each of the 10 parts of the window. Probability of a false alarm: below 10 x P(B(40,
    # 0.1) > 22) = 2e-12.
    assert max(Counter(int((wait - begins) / 0.2) for wait in waits).values()) <= 22


async def test_messages_sent_while_disconnected_are_queued_up_to_a_limit(browser: Browser):
    async with hall({**SOON, "maxQueue": 3}) as place, browser.tab(place.url) as tab:
        ws = await place.open(tab)
        place.refuses = True
        await ws.close(1012)
        await place.reports(tab)
        taken = [await tab.evaluate(f"ws.send('{number}')") for number in range(5)]
        assert taken == [True, True, True, False, False]
        place.refuses = False
        await place.next()
        await until(lambda: tab.evaluate("messages.length === 3"))
        assert place.messages == ["0", "1", "2"]


async def test_the_queue_may_drop_the_oldest_and_open_sends_first(browser: Browser):
    async with hall({**SOON, "maxQueue": 2, "whenFull": "drop"}) as place, browser.tab(place.url) as tab:
        ws = await place.open(tab)
        await tab.evaluate("void (ws.onopen = () => ws.send('hello'))")
        place.refuses = True
        await ws.close(1012)
        await place.reports(tab)
        assert [await tab.evaluate(f"ws.send('{number}')") for number in range(4)] == [True] * 4
        place.refuses = False
        await place.next()
        await until(lambda: tab.evaluate("messages.length === 3"))
        assert place.messages == ["hello", "2", "3"]


async def test_a_closed_socket_can_be_opened_again(browser: Browser):
    async with hall(SOON) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        with pytest.raises(AssertionError, match="InvalidAccessError"):
            await tab.evaluate("ws.close(1001)")
        assert await tab.evaluate("ws.readyState") == 1
        assert await tab.evaluate("ws.close(4001, 'bye'), ws.send('x') === false && ws.readyState") == 2
        (told,) = await place.reports(tab)
        assert (told["cause"], told["initiator"], told["clean"]) == ("app_closed", "local", True)
        assert (told["code"], told["reason"], told["wait"], told["stop"]) == (4001, "bye", None, "done")
        assert told["sent"] == told["received"] == {"code": 4001, "reason": "bye"}
        assert await tab.evaluate("ws.readyState") == 3
        assert await tab.evaluate("ws.send('x')") is False
        await tab.evaluate("ws.reconnect()")
        await place.open(tab)


async def test_close_works_without_a_code(browser: Browser):
    async with hall(SOON) as place, browser.tab(place.url) as tab:
        ws = await place.open(tab)
        await tab.evaluate("ws.close(null)")
        (told,) = await place.reports(tab)
        assert (told["cause"], told["code"], told["ok"], told["stop"]) == ("app_closed", 1005, True, "done")
        assert told["sent"] == told["received"] == {"code": None, "reason": ""}
        ending = await ws.closed
        assert (ending.cause, ending.received, ending.ok) == (Cause.PEER_CLOSED, Close(None), True)


async def test_close_cancels_a_pending_reconnect(browser: Browser):
    async with hall(LONG) as place, browser.tab(place.url) as tab:
        ws = await place.open(tab)
        await tab.evaluate(TIMERS)
        await ws.close(1013)
        await place.reports(tab)
        assert await tab.evaluate("ws.readyState") == 0
        assert len(json.loads(await tab.evaluate(PENDING))) == 1
        assert await tab.evaluate("ws.close(), ws.readyState") == 3
        assert json.loads(await tab.evaluate(PENDING)) == []


@pytest.mark.parametrize("event", ["online", "visibilitychange"])
async def test_becoming_online_or_visible_shortens_the_wait(browser: Browser, event: str):
    async with hall(LONG) as place, browser.tab(place.url) as tab:
        ws = await place.open(tab)
        await tab.evaluate(HIGH)
        await ws.close(1012)
        (told,) = await place.reports(tab)
        assert told["wait"] == pytest.approx(900, abs=0.1)
        target = "window" if event == "online" else "document"
        await tab.evaluate(f"{target}.dispatchEvent(new Event('{event}'))")
        await place.next()


async def test_no_event_reconnects_before_the_minimum_delay(browser: Browser):
    async with hall({"base": 1.5}) as place, browser.tab(place.url) as tab:
        ws = await place.open(tab)
        closed = time.monotonic()
        await ws.close(1013)
        await place.reports(tab)
        for _ in range(20):
            await tab.evaluate("window.dispatchEvent(new Event('online'))")
        await place.next()
        assert place.times[-1] - closed > 1.45  # browsers round the time
        assert place.came.empty()


@pytest.mark.parametrize(
    "why", ["document, 'hidden', { get: () => gone }", "navigator, 'onLine', { get: () => !gone }"]
)
async def test_a_hidden_or_offline_page_waits_longer(browser: Browser, why: str):
    async with hall({"base": 0.5, "maxDelay": 1000}) as place, browser.tab(place.url) as tab:
        ws = await place.open(tab)
        await tab.evaluate(
            f"void (window.gone = true, Object.defineProperty({why}), Math.random = () => 0.9)"
        )
        await ws.close(1012)
        (told,) = await place.reports(tab)
        assert told["wait"] == pytest.approx(0.5 + 900, abs=0.2)
        await tab.evaluate("void (gone = false, document.dispatchEvent(new Event('visibilitychange')))")
        await place.next()


@pytest.mark.parametrize("event", ["visibilitychange", "offline"])
async def test_becoming_hidden_or_offline_lengthens_the_wait(browser: Browser, event: str):
    async with hall({"base": 200, "maxDelay": 600}) as place, browser.tab(place.url) as tab:
        ws = await place.open(tab)
        await tab.evaluate(HIGH)
        await tab.evaluate(TIMERS)
        closed = time.monotonic()
        await ws.close(1012)
        (told,) = await place.reports(tab)
        assert told["wait"] == pytest.approx(180, abs=0.2)
        hidden = event == "visibilitychange"
        state = (
            "document, 'hidden', { get: () => true }"
            if hidden
            else "navigator, 'onLine', { get: () => false }"
        )
        await tab.evaluate(f"void Object.defineProperty({state})")
        await tab.evaluate(f"{'document' if hidden else 'window'}.dispatchEvent(new Event('{event}'))")
        # The rest of 200 + 0.9 x 600 s, and no other timer.
        (wait,) = json.loads(await tab.evaluate(PENDING))
        assert 740 - (time.monotonic() - closed) - 0.2 < wait < 740 + 0.2
        assert place.came.empty()


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_page_restored_from_the_bfcache_reconnects(browser: Browser, waiting: bool):
    async with hall(SOON) as place, browser.tab(place.url) as tab:
        ws = await place.open(tab)
        await tab.evaluate(TIMERS)
        hide = "dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))"
        if waiting:
            # Before the timer of the next attempt, however slow the machine is.
            await tab.evaluate(f"void (ws.onending = () => queueMicrotask(() => {hide}))")
            await ws.close(1013)
            await until(lambda: tab.evaluate("ws.ending?.code === 1013"))
        else:
            await tab.evaluate(f"void {hide}")
            (told,) = await place.reports(tab)
            assert (await place.ending()).received == Close(4990, "page hidden")
            assert (told["code"], told["wait"], told["stop"]) == (4990, None, None)
        # Without a timer, nothing makes the page connect.
        assert json.loads(await tab.evaluate(PENDING)) == []
        assert await tab.evaluate("ws.state.phase") == "waiting"
        assert place.came.empty()
        assert await tab.evaluate("ws.readyState === 0 && ws.send('kept')")
        await tab.evaluate("void dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
        await place.open(tab)
        await until(lambda: tab.evaluate("messages.includes('kept')"))


async def test_the_url_function_is_awaited_for_each_connection(browser: Browser):
    async with hall(SOON) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        await tab.evaluate(
            "void (window.count = 0, ws.close(), ws = open_(async () => `/ws?token=${++count}`))"
        )
        for number in "12":
            ws = await place.next()
            assert ws.request.query == {"token": number, "endwell": "heartbeat"}
            await ws.close(1012)


async def test_a_failing_url_function_is_a_failed_handshake_and_retried(browser: Browser):
    ways = "() => { throw new Error('no token') }, async () => { throw new Error('none') }, () => 'http://['"
    async with hall({"base": 0.1, "maxDelay": 0.2}) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        await tab.evaluate(
            f"void (window.ways = [{ways}, () => '/ws?token=1'], ws = open_(() => ways.shift()()))"
        )
        rows = await place.reports(tab, 3)
        assert (await place.next()).request.query["token"] == "1"
    for row in rows:
        assert (row["cause"], row["code"], row["stop"]) == ("handshake_failed", 1006, None)
        assert row["wait"] >= 0.1
    assert [row["error"] for row in rows[:2]] == ["Error: no token", "Error: none"]
    assert "TypeError" in rows[2]["error"]


@pytest.mark.parametrize("value", ["undefined", "null", "5", "{}", "() => '/ws'"])
async def test_an_invalid_url_is_a_failed_handshake(browser: Browser, value: str):
    async with hall(LONG) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        await tab.evaluate(f"void (ws.close(), ws = open_(() => ({value})))")
        rows = await place.reports(tab, 2)
        # The event of the earlier connection may come first or last.
        assert ("handshake_failed", "TypeError: no address") in [(row["cause"], row["error"]) for row in rows]
        assert await tab.evaluate("ws.url") == ""


@pytest.mark.parametrize(
    "address", ["location", "new URL('/ws', location)", "async () => new URL('/ws', location)"]
)
async def test_a_location_or_url_object_is_accepted(browser: Browser, address: str):
    async with hall(LONG) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        await tab.evaluate(f"void (ws.close(), ws = open_({address}))")
        await until(lambda: tab.evaluate("ws.url.startsWith('ws:')"))


async def test_a_pending_url_function_fails_after_open_timeout(browser: Browser):
    async with hall(SOON) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        await tab.evaluate("void open_(() => new Promise(() => {}), { openTimeout: 0.1 })")
        (row, *_) = await place.reports(tab)
        assert (row["cause"], row["error"]) == ("handshake_failed", None)
        assert row["wait"] is not None


@pytest.mark.parametrize(
    "end", ["ws.close(4001, 'bye')", "dispatchEvent(new PageTransitionEvent('pagehide'))"]
)
async def test_a_url_that_resolves_after_close_opens_nothing(browser: Browser, end: str):
    async with hall(SOON) as place, browser.tab(place.url) as tab:
        await place.open(tab)
        await tab.evaluate(
            "void (ws.close(), ws = open_(() => new Promise((resolve) => { window.give = resolve; })))"
        )
        await place.reports(tab)
        assert await tab.evaluate("ws.readyState") == 0
        await tab.evaluate(f"void {end}")
        row = (await place.reports(tab, 2))[1]
        assert (row["cause"], row["code"], row["wait"]) == ("app_closed", 1006, None)
        await tab.evaluate("give('/ws?token=late')")
        # An address that would have come before this one.
        await tab.evaluate("void open_('/ws?token=other')")
        assert (await place.next()).request.query["token"] == "other"


async def test_the_class_has_the_members_of_websocket(browser: Browser):
    names = ["CONNECTING", "OPEN", "CLOSING", "CLOSED"]
    async with hall(LONG) as place, browser.tab(place.url) as tab:
        ws = await place.open(tab)
        there = f"{json.dumps(names)}.map((name) => [ws.constructor[name], ws[name]]).join()"
        assert await tab.evaluate(there) == "0,0,1,1,2,2,3,3"
        url = place.url.replace("http", "ws") + "/ws?endwell=heartbeat"
        assert await tab.evaluate("ws.url") == url
        # Firefox leaves the parameters out.
        extensions = await tab.evaluate("ws.extensions")
        assert extensions.startswith("permessage-deflate")
        assert ws.response.headers["Sec-WebSocket-Extensions"].startswith(extensions)
        assert await tab.evaluate("ws.bufferedAmount") == 0
        await ws.close(1013)
        await place.reports(tab)
        assert (
            await tab.evaluate("ws.send('h\u00e9') && ws.send(new Uint16Array(2)) && ws.bufferedAmount") == 7
        )
        assert await tab.evaluate("ws.close(), ws.bufferedAmount") == 0
        assert await tab.evaluate("ws.url") == url


@pytest.mark.parametrize(
    "start",
    [
        "new Worker('/worker.js', { type: 'module' })",
        "new SharedWorker('/worker.js', { type: 'module' })",
        "navigator.serviceWorker.register('/worker.js', { type: 'module' })",
        (
            "fetch('/worker.js').then((it) => it.text()).then((text) => new Worker(URL.createObjectURL("
            "new Blob([text.replace('/endwell.js', location.origin + '/endwell.js')], "
            "{ type: 'text/javascript' })), { type: 'module' })).then((it) => (window.worker = it))"
        ),
    ],
)
async def test_the_module_works_in_a_worker(browser: Browser, start: str):
    async with hall() as place, browser.tab(f"{place.url}/blank") as tab:
        await until(lambda: tab.evaluate("document.title === 'blank'"))
        await tab.evaluate(f"void (window.worker = {start})")
        ws = await place.next()

        async def heard(*messages: str) -> bool:
            return place.messages == list(messages)

        await until(lambda: heard("hello"))
        await ws.close(1012)
        ws = await place.next()
        await until(lambda: heard("hello", "after 1012"))
        await ws.close(1000)


async def test_the_heartbeat_works_with_a_subprotocol_and_is_invisible(browser: Browser):
    page = {"protocols": ["other", "chat"], "pingInterval": 0.1}
    async with hall(page, subprotocols=["chat"]) as place, browser.tab(place.url) as tab:
        ws = await place.open(tab)
        assert ws.subprotocol == "chat" == await tab.evaluate("ws.protocol")
        await tab.evaluate(ANSWERS)
        await until(lambda: tab.evaluate("answers >= 3"))
        await ws.close(4000)
        (told,) = await place.reports(tab)
        assert 0 <= told["latency"] < 20  # Firefox's clock counts whole milliseconds
        assert (told["messages_in"], told["messages_out"]) == (0, 0)
        ending = await place.ending()
        assert (ending.messages_in, ending.messages_out) == (0, 0)
        assert ending.bytes_in > 3 * 9
        assert place.messages == []


async def test_a_server_without_heartbeat_receives_none(browser: Browser, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("endwell.protocol.heartbeat.asked_for", lambda request: False)
    async with hall({"pingInterval": 0.1, "pingTimeout": 0.1}) as place, browser.tab(place.url) as tab:
        ws = await place.open(tab)
        await asyncio.sleep(1)
        assert ws.is_open
        assert place.messages == []
